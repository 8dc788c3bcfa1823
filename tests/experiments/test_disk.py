"""The disk space of a search."""

import shutil
from collections import namedtuple

import pytest

from experiments import disk
from experiments.nni_adapter import database
from judge.common.errors import UserError
from trials import cyclegan
from trials.session import DiskUse


def test_kept_checkpoints_sheets_of_all_and_trials_under_way_are_counted():
    one = DiskUse(checkpoint=100, sheets=1)
    assert disk.disk_needed(one, trials=20, at_once=2, kept=5) == 20 + (5 + 1 + 4) * 100
    assert disk.disk_needed(one, trials=3, at_once=1, kept=10) == 3 + (3 + 2) * 100


def test_a_disk_without_room_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(10**9))
    assert disk.check(tmp_path / "not" / "yet", 5 * 10**8) == "disk: about 0.5 GB of 1 GB free"
    with pytest.raises(UserError, match="needs about 2 GB, but .* has 1 GB free"):
        disk.check(tmp_path, 2 * 10**9)


def test_checkpoints_beyond_the_best_are_removed_and_nothing_else(recorded):
    """Of t0, the published setting, and further trials that ended, were stopped, failed, or still train."""
    ends = ["SUCCEEDED", "SUCCEEDED", "EARLY_STOPPED", "SUCCEEDED", "FAILED", None]
    folder = recorded("abcdefgh", {"trialCommand": "python -m trials.cyclegan"}, [
        (f"t{n}", {"cycle_weight": n / 2 if n else cyclegan.Settings().cycle_weight}, end, [n / 10], None)
        for n, end in enumerate(ends)])
    for n in range(len(ends)):
        (folder / f"trials/t{n}").mkdir(parents=True)
        (folder / f"trials/t{n}/checkpoint.pt").touch()
        (folder / f"trials/t{n}/run.json").touch()
    trials = database.find_experiment(str(folder)).trials()
    disk.prune(trials, cyclegan, kept=3)
    assert len(list(folder.glob("trials/*/checkpoint.pt"))) == 6
    disk.prune(trials, cyclegan, kept=1)
    assert {file.parent.name for file in folder.glob("trials/*/checkpoint.pt")} == {"t0", "t3", "t4", "t5"}
    assert len(list(folder.glob("trials/*/run.json"))) == 6
