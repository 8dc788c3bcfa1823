"""What the tests of several rooms share: a cache of their own, a small data set, an untrained judge."""

import faulthandler
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from judge import model, sample

SAMPLE = {"train": 12, "test": 8, "pixels": 72}
CLEARED = 240  # seconds within which what a test leaves is cleared away


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """A failure takes pytest-timeout's and pytest's alarms off: a fixture that waited for ever would hold up
    the whole run, which tells nothing then. This alarm prints where all threads are and ends the process."""
    faulthandler.dump_traceback_later(CLEARED, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory):
    """The user's cache is neither read nor written; commands run in a process of their own obey too.

    All on one thread: for networks and images this small, threads on busy cores wait for each other
    up to thirty times longer than they compute.
    """
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory) -> Path:
    """The built-in sample, small: `trainA testA trainB testB` of 12 and 8 images of 72 px."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    sample.make(folder, **SAMPLE)
    return folder


@pytest.fixture(scope="session")
def judge_file(tmp_path_factory) -> Path:
    """The file of an untrained resnet18 judge for 64 px: always the same, right about nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = model.Judge("resnet18", 64)

    def counts(images: int) -> dict:
        return {"images": images, "skipped": [], "enlarged": 0}

    def domains(split: str) -> dict:
        return {"photos": counts(SAMPLE[split]), "paintings": counts(SAMPLE[split])}

    training = {
        "data": "sample", "stand_in": True, "counts": domains("train"), "arch": "resnet18",
        "weights": "none", "epochs": 0, "patience": 6, "batch_size": 32, "lr": 1e-3,
        "weight_decay": 0.05, "seed": 0, "seconds": 0.0, "device": "cpu",
        "versions": {"torch": str(torch.__version__)},
    }
    metrics = {
        "auc": 0.5, "accuracy": 0.5, "brier": 0.25, "calibration_error": 0.0,
        "confusion": [[SAMPLE["test"], 0], [SAMPLE["test"], 0]], "counts": domains("test"),
    }
    file = tmp_path_factory.mktemp("models") / "judge.pt"
    model.save_judge(judge, model.ModelCard("resnet18", 64, model.CLASSES, training, metrics), file)
    return file


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Makes a real file system of so many kilobytes, in memory; only root can."""
    places = []

    def make(kilobytes: int) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("no right to mount a small disk here")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)
