"""The disk space of a search."""

import shutil
from collections import namedtuple

import pytest
import torch

from experiments import disk
from experiments.nni_adapter import database
from judge.common.errors import UserError
from trials import cyclegan, gan
from trials.cyclegan import CycleGAN, Settings
from trials.session.records import DiskUse

CPU = torch.device("cpu")


def test_the_footprint_is_what_a_trained_checkpoint_takes(tmp_path):
    settings = Settings(size="sketch", ngf=4, blocks=1, ndf=4, pool_size=3, steps=9).complete(CPU)
    net, draw = CycleGAN(settings, 9, CPU), torch.Generator().manual_seed(0)
    for _ in range(4):
        net.update(*(torch.rand(1, 3, 64, 64, generator=draw) * 2 - 1 for _ in "ab"))
    torch.save(net.state_dict(), tmp_path / "checkpoint.pt")
    size = (tmp_path / "checkpoint.pt").stat().st_size
    assert size == pytest.approx(net.footprint(1, 1).checkpoint, rel=0.1)


def test_every_kind_of_system_has_a_footprint(sample_data, judge_file):
    settings = Settings(data=str(sample_data), judge=str(judge_file), size="sketch", photos=4).complete(CPU)
    assert min(cyclegan.check(settings)) > 1e4
    assert min(gan.check(gan.Settings(data="digits").complete(CPU))) > 1e4


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
        (f"t{n}", {"cycle_weight": n / 2 if n else Settings().cycle_weight}, end, [n / 10], None)
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
