"""The disk space of a search."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from experiments import disk
from experiments.nni_adapter import database
from judge.common.errors import UserError
from trials import cyclegan, gan
from trials.cyclegan import CycleGAN, Settings
from trials.session import DiskUse

CPU = torch.device("cpu")
PUBLISHED = {"cycle_weight": Settings().cycle_weight}


def test_the_footprint_is_what_a_trained_checkpoint_takes(tmp_path):
    settings = Settings(size="sketch", ngf=4, blocks=1, ndf=4, pool_size=3, steps=9).complete(CPU)
    net, draw = CycleGAN(settings, 9, CPU), torch.Generator().manual_seed(0)
    for _ in range(4):
        net.update(*(torch.rand(1, 3, 64, 64, generator=draw) * 2 - 1 for _ in "ab"))
    torch.save(net.state_dict(), tmp_path / "checkpoint.pt")
    taken = (tmp_path / "checkpoint.pt").stat().st_size
    assert taken == pytest.approx(net.footprint(1, 1).checkpoint, rel=0.1)


def test_every_system_says_what_it_leaves(sample_data, judge_file):
    settings = Settings(data=str(sample_data), judge=str(judge_file), size="sketch", photos=4).complete(CPU)
    digits = gan.Settings(data="digits").complete(CPU)
    for system, of in ((cyclegan, settings), (gan, digits)):
        assert min(system.check(of)) > 1e4


def test_kept_checkpoints_sheets_of_all_and_trials_under_way_are_counted():
    one = DiskUse(checkpoint=100, sheets=1)
    assert disk.disk_needed(one, trials=20, at_once=2, kept=5) == 20 + (5 + 1 + 4) * 100
    assert disk.disk_needed(one, trials=3, at_once=1, kept=10) == 3 + (3 + 2) * 100


def test_a_disk_without_room_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(10**9))
    assert disk.check(tmp_path / "not" / "yet", 5 * 10**8) == "disk: about 0.5 GB of 1 GB free"
    with pytest.raises(UserError, match="needs about 2 GB, but .* has 1 GB free"):
        disk.check(tmp_path, 2 * 10**9)


@pytest.fixture
def search(recorded) -> Path:
    """Six trials with checkpoints: the published setting, two more that ended and one that was stopped, one
    that failed, and one that trains."""
    ends = ["SUCCEEDED", "SUCCEEDED", "EARLY_STOPPED", "SUCCEEDED", "FAILED", None]
    folder = recorded("abcdefgh", {"trialCommand": "python -m trials.cyclegan"}, [
        (f"t{n}", PUBLISHED if n == 0 else {"cycle_weight": n / 2}, end, [n / 10], None)
        for n, end in enumerate(ends)])
    for n in range(len(ends)):
        trial = folder / "trials" / f"t{n}"
        trial.mkdir(parents=True)
        for name in ("checkpoint.pt", "run.json"):
            (trial / name).write_text("{}")
    return folder


def test_checkpoints_beyond_the_best_are_removed_and_nothing_else(search):
    disk.prune(database.find_experiment(str(search)).trials(), cyclegan, kept=1)
    left = {file.parent.name for file in search.glob("trials/*/checkpoint.pt")}
    assert left == {"t0", "t3", "t4", "t5"}  # published, best, failed, still training
    assert len(list(search.glob("trials/*/run.json"))) == 6


def test_enough_to_keep_removes_none(search):
    disk.prune(database.find_experiment(str(search)).trials(), cyclegan, kept=3)
    assert len(list(search.glob("trials/*/checkpoint.pt"))) == 6
