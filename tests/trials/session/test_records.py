"""What run.json says about the machine, and how the settings in it are read."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from tests.trials.session.test_session import record, session, training
from trials.session import RunOptions, Session, records
from trials.session.engine import NoEngine
from trials.session.records import from_root, read_record, recorded_settings, settings_hash


@pytest.fixture
def gpu(monkeypatch) -> None:
    """A GPU, as far as a trial that computes nothing on it can tell."""
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000, uuid="12-ab")
    for name, value in {
        "is_available": lambda: True, "get_device_properties": lambda device: properties,
        "get_device_name": lambda device: properties.name, "synchronize": lambda: None,
        "max_memory_reserved": lambda device: 123,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.mark.parametrize("answer, watts", [("echo 700.00", 700.0), ("echo '[N/A]'", None), (None, None)])
def test_run_json_says_which_gpu_and_how_it_computes(tmp_path, gpu, monkeypatch, answer, watts):
    """The program nvidia-smi may be missing, or not know the power limit."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if answer:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\ncase "$1" in --id=GPU-12-ab) {answer};; esac\n')
        program.chmod(0o755)
    options = RunOptions(out=tmp_path / "run", device="cuda")
    trial = Session("counter", Plain(), options, NoEngine(), {})
    assert trial.run(training()) == 0
    facts = read_record(tmp_path / "run")
    assert facts["gpu"] == {
        "name": "NVIDIA H200", "memory": 150_000_000_000, "visible": "1", "power_limit": watts}
    assert facts["tf32"] == {"convolutions": True, "products": False}  # PyTorch's defaults
    assert facts["peak_memory"] == 123 and torch.backends.cudnn.benchmark


def test_run_json_of_a_trial_on_a_cpu_names_no_gpu(tmp_path):
    session(tmp_path).run(training())
    facts = record(tmp_path)
    assert facts["gpu"] is facts["tf32"] is facts["peak_memory"] is None


@dataclass(frozen=True)
class Plain:
    budget: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class Placed(Plain):
    data: str = "mine"
    judge: str = "models/judge.pt"
    style: str | None = None


@dataclass(frozen=True)
class Grown(Plain):
    """Settings of a later version."""

    OLDER: ClassVar[dict] = {"upsampling": "transposed"}
    upsampling: str = "resize"
    graphs: str = "auto"


def test_older_records_have_the_values_of_their_time_and_their_trials_go_on(tmp_path):
    def trial(settings) -> Session:
        return Session("counter", settings, RunOptions(out=tmp_path, device="cpu"), NoEngine(), {})

    trial(Plain()).run(training(last=5))
    settings = recorded_settings(Grown, record(tmp_path))
    assert settings == {"budget": 1.0, "weight": 1.0, "upsampling": "transposed"}
    with pytest.raises(Exception, match="another upsampling: choose another --out"):
        trial(Grown())
    assert trial(Grown(upsampling="transposed")).run(training()) == 0
    assert recorded_settings(Plain, record(tmp_path))["upsampling"] == "transposed"  # what is there wins


def test_files_of_a_record_are_found_from_any_folder_and_its_trial_goes_on_there(tmp_path, monkeypatch):
    """A search's paths are relative to the root of the repository; here that is another folder."""
    root, here = tmp_path / "salon", tmp_path / "here"
    for place in (root / "data/mine", root / "models", here):
        place.mkdir(parents=True)
    (root / "models/judge.pt").touch()
    monkeypatch.setattr(records, "ROOT", root)
    judge = {"file": "models/judge.pt", "sha256": "a"}

    def trial(settings: Placed, folder) -> Session:
        made = Session("counter", settings, RunOptions(out=folder, device="cpu"), NoEngine(), {})
        made.record.add_inputs(judge=judge | {"file": settings.judge})
        return made

    monkeypatch.chdir(root)
    trial(Placed(), tmp_path / "t").run(training(last=5))
    recorded = record(tmp_path / "t")["settings"]
    assert from_root(recorded) == recorded == {
        "budget": 1.0, "weight": 1.0, "data": "mine", "judge": "models/judge.pt", "style": None}
    monkeypatch.chdir(here)
    settings = from_root(recorded)
    assert settings == recorded | {"data": f"{root}/data/mine", "judge": f"{root}/models/judge.pt"}
    steps = []
    assert trial(Placed(**settings), tmp_path / "t").run(training(at=steps.append)) == 0
    assert steps == [5, 6, 7, 8, 9] and not list(here.iterdir())
    with pytest.raises(Exception, match="another data: choose another --out"):
        trial(Placed(**settings | {"data": "other"}), tmp_path / "t")


def test_a_trial_goes_on_in_another_folder_than_the_root_whose_data_folder_has_the_same_name(
    tmp_path, monkeypatch
):
    """The quickstart makes data/sample, the default of style transfer, at the root."""
    (tmp_path / "salon/data/mine").mkdir(parents=True)
    monkeypatch.setattr(records, "ROOT", tmp_path / "salon")
    monkeypatch.chdir(tmp_path)
    options, steps = RunOptions(out=tmp_path / "t", device="cpu"), []
    Session("counter", Placed(), options, NoEngine(), {}).run(training(last=5))
    assert Session("counter", Placed(), options, NoEngine(), {}).run(training(at=steps.append)) == 0
    assert steps == [5, 6, 7, 8, 9]


def test_what_does_not_change_a_step_does_not_change_the_hash():
    base, names = asdict(Plain()), {"budget": 0.1, "graphs": "off", "compile": "on"}
    assert len({settings_hash(base | {name: value}) for name, value in names.items()}) == 1
    assert settings_hash(base) != settings_hash(base | {"weight": 2.0})
