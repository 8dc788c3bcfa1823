"""The disk space of a search."""

import shutil
from collections import namedtuple

import pytest
import torch

from experiments import disk
from experiments.nni_adapter import database
from judge import images
from judge.common.errors import UserError
from trials import cyclegan, gan
from trials.parts import batches
from trials.session import DiskUse


def test_kept_checkpoints_sheets_of_all_and_trials_under_way_are_counted():
    one = DiskUse(checkpoint=100, sheets=1)
    assert disk.disk_needed(one, trials=20, at_once=2, kept=5) == 20 + (5 + 1 + 4) * 100
    assert disk.disk_needed(one, trials=3, at_once=1, kept=10) == 3 + (3 + 2) * 100


def test_a_disk_without_room_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(10**9))
    line = disk.check({tmp_path / "not" / "yet": 5 * 10**8})
    assert line == f"disk: about 0.5 GB of 1 GB free in {tmp_path}"
    with pytest.raises(UserError, match="needs about 2 GB, but .* has 1 GB free"):
        disk.check({tmp_path: 2 * 10**9})


def test_experiment_and_cache_are_added_on_one_disk_and_not_on_two(tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(10**9))
    needed = {tmp_path / "runs": 6 * 10**8, tmp_path / "cache": 6 * 10**8}
    with pytest.raises(UserError, match=f"needs about 1.2 GB, but {tmp_path} has 1 GB"):
        disk.check(needed)
    other = small_disk(1000)
    line = disk.check({tmp_path / "runs": 6 * 10**8, other / "cache": 7 * 10**8})
    assert line == f"disk: about 0.6 GB of 1 GB free in {tmp_path}, about 0.7 GB of 1 GB free in {other}"


def test_kept_paintings_and_images_that_will_be_cached_are_counted(sample_data, monkeypatch):
    settings = cyclegan.Settings(data=str(sample_data), size="sketch", photos=6, reports=10)
    cpu = torch.device("cpu")
    settings, digits = settings.complete(cpu), gan.Settings().complete(cpu)
    paintings = disk.paintings(settings)
    assert paintings == (10 + 1) * 6 * 3 * 64**2 and disk.paintings(digits) == 0
    one = DiskUse(checkpoint=100, sheets=1)
    assert disk.disk_needed(one, 3, 1, 10, paintings) - disk.disk_needed(one, 3, 1, 10) == 3 * paintings
    counted = []
    monkeypatch.setattr(images, "bytes_to_cache", lambda paths, size: counted.append((len(paths), size)) or 5,
                        raising=False)
    monkeypatch.setattr(batches, "held_out_photos", lambda data, count: data.test["B"][:count], raising=False)
    monkeypatch.setattr(batches, "load_size", lambda size: size + 8, raising=False)
    assert disk.cache_needed(settings) == 4 * 5 and counted == [(12, 72), (12, 72), (8, 64), (6, 64)]
    assert disk.cache_needed(digits) == 0


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
