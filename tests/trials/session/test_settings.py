"""The settings that a trial's command line gives."""

import json
from pathlib import Path

import pytest
import torch

from experiments import trial_command
from judge.common.errors import UserError
from trials import cyclegan, gan
from trials.session import parse_trial, without_presets

CPU = torch.device("cpu")


@pytest.fixture
def trial(tmp_path) -> Path:
    """The folder of a CycleGAN trial of a tenth of its schedule."""
    settings = cyclegan.Settings(data="sample", size="sketch", budget=0.1, cycle_weight=1 / 3, ngf=15)
    record = {"system": "cyclegan", "settings": vars(settings.complete(CPU))}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def like(trial: Path, options: str = "", Settings: type = cyclegan.Settings):
    return parse_trial(Settings, "program", ["--like", str(trial), *options.split()])


def test_like_takes_all_settings_of_a_trial_and_options_beside_it_replace_them(trial):
    recorded = json.loads((trial / "run.json").read_text())["settings"]
    settings, options = like(trial)
    assert vars(settings.complete(CPU)) == recorded and options.earlier is None
    settings, _ = like(trial, "--cycle-weight 4 --data mine")
    assert vars(settings.complete(CPU)) == recorded | {"cycle_weight": 4.0, "data": "mine"}


def test_like_leaves_to_the_preset_of_another_size_what_a_preset_had_filled_in(trial):
    settings = like(trial, "--size draft")[0].complete(CPU)
    draft = cyclegan.PRESETS["draft"]
    assert (settings.blocks, settings.steps, settings.ngf) == (draft["blocks"], draft["steps"], 15)
    assert like(trial, "--epochs 3")[0].complete(CPU).steps is None


@pytest.mark.parametrize(("options", "earlier"), [
    ("--budget 1", True), ("--budget 0.1", False), ("--budget 0.05", False), ("--budget 1 --earlier x", "x")])
def test_like_continues_that_trial_only_with_a_larger_budget(trial, options, earlier):
    found = like(trial, options)[1].earlier
    assert found == (trial if earlier is True else Path(earlier) if earlier else None)


@pytest.mark.parametrize(("change", "Settings", "words"), [
    ({}, gan.Settings, "that is a trial of trials.cyclegan, not of trials.gan"),
    ({"settings": None}, cyclegan.Settings, "there is no trial"),
    ({"settings": {"colour": 1}}, cyclegan.Settings, "another version trained it: colour is no setting"),
    ({"settings": {"ngf": "many"}}, cyclegan.Settings, "another version trained it: ngf is 'many'"),
])
def test_like_a_folder_that_has_no_such_trial_is_one_line(trial, change, Settings, words):
    record = json.loads((trial / "run.json").read_text()) | change
    (trial / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"^--like {trial}: {words}") as caught:
        like(trial, Settings=Settings)
    assert "\n" not in str(caught.value)


def test_settings_that_an_older_version_did_not_record_are_those_of_then(trial, monkeypatch):
    record = json.loads((trial / "run.json").read_text())
    del record["settings"]["pool_size"]
    (trial / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(cyclegan.Settings, "OLDER", {"pool_size": 7})
    assert like(trial)[0].pool_size == 7


@pytest.mark.parametrize("command", [
    "trials.cyclegan --data sample --judge models/sample.pt --size sketch --reports 4 --steps 60 --photos 16",
    "trials.cyclegan --data sample --size draft --ngf 20 --epochs 3",
    "trials.dcgan --data digits --reports 3 --steps 60 --discriminator-threshold 0.5",
    "trials.style_transfer --data sample --content a.png --style b.png --features judge --edge 64",
])
def test_a_command_leaves_out_what_the_program_fills_in(command):
    module, settings, _ = trial_command.parse(f"python -m {command}")
    short = without_presets(module.Settings, vars(settings.complete(CPU)))
    assert sorted(trial_command.render(module, short).split()) == sorted(f"python -m {command}".split())
    strange = {"size": "huge", "colour": 1, "steps": 5}  # of another version
    assert without_presets(module.Settings, strange) == strange
