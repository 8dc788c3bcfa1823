"""Every system trains, continues exactly, and says beforehand what is wrong and what it leaves."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torchvision.utils import save_image

from judge.common.errors import UserError
from trials.session import RunOptions, Session, cadence, measurement, with_parameters
from trials.session.engine import NoEngine
from trials.session.records import read_json, read_lines

CPU = torch.device("cpu")
SYSTEMS = ("cyclegan", "gan", "dcgan", "conditional_gan", "stargan", "style_transfer")
LRS = {"generator_lr": 1e-3, "discriminator_lr": 2e-3}
DCGAN = {"ngf": 4, "ndf": 4, "batch_size": 8, "samples": 20}
STARGAN = {"size": "sketch", "edge": 32, "ngf": 4, "blocks": 1, "ndf": 4, "layers": 3, "batch_size": 4,
           "n_critic": 2}  # fmt: skip
STYLE = {"features": "judge", "photos": 4}
TRIALS = [  # what is set by hand, and what a tuner proposes
    ("cyclegan", {"size": "sketch", "ngf": 4, "blocks": 1, "ndf": 4, "photos": 4, "pool_size": 3}, LRS),
    ("gan", {"data": "digits", "hidden": 5}, LRS),
    ("gan", {"data": "pattern", "optimizer": "sgd"}, LRS),
    ("dcgan", {"data": "digits", **DCGAN}, LRS),
    ("dcgan", {"growing": 1.0, **DCGAN}, LRS),
    ("conditional_gan", {"data": "digits", **DCGAN}, LRS),
    ("stargan", STARGAN, LRS),
    ("style_transfer", {"optimizer": "lbfgs", **STYLE}, {"style_weight": 3.0}),
    ("style_transfer", {"optimizer": "adam", **STYLE}, {"lr": 0.01}),
]


@pytest.fixture
def settings_of(sample_data, judge_file) -> Callable:
    """Settings of a system, by default for the small sample and the untrained judge."""
    inputs = {"data": str(sample_data), "judge": str(judge_file)}

    def make(module: ModuleType, **changes):
        known = {field.name for field in fields(module.Settings)}
        return module.Settings(**{name: value for name, value in inputs.items() if name in known} | changes)

    return make


class Interrupted(Session):
    """A session that a signal stops at the step `until`."""

    until = -1

    def report_due(self, model) -> bool:
        if model.step == self.until:
            self.stop_signal = signal.SIGTERM
        return super().report_due(model)


def trained(module: ModuleType, folder: Path, settings, until: int = -1) -> dict:
    """Run a trial in `folder`, to its end or to the step `until`, and return its record."""
    options = RunOptions(out=folder, device="cpu")
    session = Interrupted(system_of(module), settings.complete(CPU), options, NoEngine(), {})
    session.until = until
    assert session.run(module.train) == (0 if until < 0 else 128 + signal.SIGTERM)
    return read_json(folder / "run.json")


def system_of(module: ModuleType) -> str:
    return module.__name__.removeprefix("trials.training.")


@pytest.mark.parametrize("name, changes, proposed", TRIALS)
def test_a_continued_trial_ends_bit_for_bit_as_an_uninterrupted_one(
        tmp_path, settings_of, monkeypatch, name, changes, proposed):
    """With a larger budget, and after an early look and a stop between two reports. And it leaves no more on
    the disk than was announced."""
    module, whole, cut = import_module(f"trials.training.{name}"), tmp_path / "whole", tmp_path / "cut"
    settings = with_parameters(settings_of(module, steps=12, reports=2, **changes), proposed)
    expected = trained(module, whole, settings)
    monkeypatch.setattr(cadence, "EARLY_LOOK_SECONDS", 0)
    trained(module, cut, replace(settings, budget=0.5))
    assert trained(module, cut, settings, until=8)["resumed_at"] == 6
    record = trained(module, cut, settings)
    assert record["resumed_at"] == 8 and record["score"] == expected["score"]
    assert all(map(math.isfinite, record["score"].values()))
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (whole, cut)]
    assert states[0]["step"] == 12
    torch.testing.assert_close(*states, rtol=0, atol=0)
    reports = [{line["step"]: {key: value for key, value in line.items() if "seconds" not in key}
                for line in read_lines(run / "stats.jsonl")} for run in (whole, cut)]
    assert [list(lines) for lines in reports] == [[6, 12], [1, 3, 6, 12]]  # a smaller budget has as many
    assert reports[0][12] == reports[1][12] and reports[0][6]["score"] == reports[1][6]["score"]

    announced, names = module.check(settings.complete(CPU)), 30_000  # bytes: names weigh in tiny networks
    checkpoint = (cut / "checkpoint.pt").stat().st_size
    pictures = [*whole.glob("samples/*"), *whole.glob("tensorboard/*")]
    assert announced.checkpoint / 10 < checkpoint < 1.1 * announced.checkpoint + names
    assert 0 < sum(file.stat().st_size for file in pictures) < announced.sheets + names


@pytest.mark.parametrize("name, changes", {name: changes for name, changes, _ in TRIALS}.items())
def test_any_trial_can_be_measured_and_leaves_nothing(
        tmp_path, settings_of, monkeypatch, capsys, name, changes):  # fmt: skip
    module = import_module(f"trials.training.{name}")
    settings = settings_of(module, steps=8, budget=0.5, reports=2, **changes).complete(CPU)
    monkeypatch.setattr(measurement, "MEASURED_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    assert measurement.measure(module.train, name, settings, RunOptions(device="cpu")) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: measured.pop(name) for name in ("steps", "reports", "memory")} == {
        "steps": 4, "reports": 2, "memory": None}
    assert measured.pop("device").startswith("cpu (") and set(measured) == {"start", "step", "report"}
    assert all(seconds > 0 for seconds in measured.values()) and not list(tmp_path.iterdir())


WRONG = [
    ("gan", {"data": "trials"}, "trials.dcgan takes folders"),
    *[(name, {"data": "/nowhere"}, "no data folder /nowhere") for name in SYSTEMS if name != "gan"],
    *[(name, {"judge": "nowhere.pt"}, "no judge at nowhere.pt")
      for name in ("cyclegan", "dcgan", "style_transfer")],
    *[(name, {"photos": 3}, "--photos 3.*at least 4") for name in ("cyclegan", "style_transfer")],
    *[(name, {"data": "digits", "samples": 3}, "--samples 3: .*at least 4") for name in SYSTEMS[1:5]],
    ("dcgan", {"data": "digits", "edge": 16}, "images of digits have 8 px"),
    *[("dcgan", {"edge": edge}, "a power of two from 8") for edge in (4, 48)],
    ("dcgan", {"edge": 32}, "trained at sketch .64 px., and this is 32 px"),
    ("dcgan", {"data": "digits", "growing": 0.5}, "images of 8 px cannot grow"),
    ("conditional_gan", {"edge": 16}, "has one class"),
    *[("stargan", {"edge": edge}, "a power of two from 32") for edge in (16, 48)],
    ("stargan", {"edge": 32, "layers": 6}, "32 px cannot be halved so often"),
    ("stargan", {"data": {"red": 40}}, "has one domain"),  # a folder of so many images
    ("stargan", {"data": {"red": 40, "blue": 20}}, "2 test images of blue, .*at least 4"),
    ("stargan", {"data": {"red": 40, "blue": 1}}, "blue: one image"),
]


@pytest.mark.parametrize("name, wrong, reason", WRONG)
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path, settings_of, name, wrong, reason):
    module = import_module(f"trials.training.{name}")
    if isinstance(wrong.get("data"), dict):
        for colour, count in wrong["data"].items():
            (tmp_path / colour).mkdir()
            for number in range(count):
                save_image(torch.rand(3, 32, 32), tmp_path / colour / f"{number:02}.png")
        wrong = {"data": str(tmp_path)}
    with pytest.raises(UserError, match=reason) as error:
        module.check(settings_of(module, **wrong).complete(CPU))
    assert "\n" not in str(error.value)


CONVOLUTIONS = {"data": "digits", "steps": 200, "ngf": 32, "batch_size": 64, "generator_lr": 1e-3,
                "discriminator_lr": 1e-3}  # fmt: skip
PATTERN = {"data": "pattern", "steps": 800, "generator_lr": 2e-3, "discriminator_lr": 2e-3}


def scores_after_one_step_and_all(module: ModuleType, folder: Path, settings) -> tuple[dict, dict]:
    one_step = replace(settings, budget=1 / settings.steps, reports=1)
    return tuple(trained(module, folder, each)["score"] for each in (one_step, replace(one_step, budget=1.0)))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name, settings, gains", [
    ("gan", PATTERN, {"default": 0.5}), ("gan", {"data": "digits", "steps": 1000}, {"default": 0.3}),
    ("dcgan", CONVOLUTIONS, {"default": 0.2}),
    ("conditional_gan", CONVOLUTIONS, {"right": 0.4, "default": 0.2}),  # right: in the class asked for
])
def test_gans_learn_a_pattern_and_digits(tmp_path, name, settings, gains, seed):
    module = import_module(f"trials.training.{name}")
    settings = module.Settings(**settings, seed=seed)
    first, last = scores_after_one_step_and_all(module, tmp_path, settings)
    assert all(last[part] >= first[part] + gain for part, gain in gains.items()), (first, last)


@pytest.mark.parametrize("name, data", [
    ("gan", "pattern"), ("gan", "digits"), ("gan", "mnist"), ("dcgan", "digits"), ("dcgan", "mnist"),
    ("dcgan", "a folder"), ("conditional_gan", "digits"), ("stargan", "sample"),
])
def test_complete_settings_lack_nothing_and_what_is_given_wins(name, data):
    settings = import_module(f"trials.training.{name}").Settings(data=data, steps=70)
    complete = settings.complete(CPU)
    assert None not in vars(complete).values() and complete.steps == 70
    assert complete.describe_inputs()["data"].startswith(data)
