"""Fixtures of all tests: a cache, signal handlers, a small data set, an untrained judge, a small disk.

Tests see no GPU, nor do the modules that they import and the commands that they start, except those that are
marked `cuda`. These are skipped where there is no GPU.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil
import pytest

# Read by torch, NumPy and SciPy when they are imported, here and in the commands that tests start. On arrays
# as small as these, threads on busy cores wait for each other much longer than they compute.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # of onnxruntime, as `trials.translate` does

import torch

from judge import model, sample
from judge.common.cli import STOP_SIGNALS
from tests.processes import runs

SAMPLE = {"train": 12, "test": 8, "pixels": 72}
TEARDOWN_SECONDS = 240
KILLED_SECONDS = 60  # until processes have ended, on a busy machine
NO_GPU = "no GPU here"
# Asked before the variable below is emptied: CUDA reads it once in a process, when it is first asked.
HAS_GPU = torch.cuda.is_available()
gpu_hidden = pytest.MonkeyPatch()


def hide_gpu() -> None:
    """Hide the GPU from this process and from the commands that it starts, until `gpu_hidden.undo()`."""
    gpu_hidden.setattr(torch.cuda, "is_available", lambda: False)
    gpu_hidden.setattr(torch.cuda, "device_count", lambda: 0)
    gpu_hidden.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    """Hide the GPU before test modules are imported, but not from the processes that pytest -n starts."""
    if not session.config.pluginmanager.hasplugin("dsession"):  # which starts them, and runs no test
        hide_gpu()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Show the GPU to a test of CUDA, and restore the signal handlers, each for the test and its fixtures."""
    with signals(), shown_gpu() if item.get_closest_marker("cuda") else nullcontext():
        return (yield)


@contextmanager
def shown_gpu() -> Iterator[None]:
    """Undo `hide_gpu` for a while."""
    gpu_hidden.undo()
    try:
        yield
    finally:
        hide_gpu()


@contextmanager
def signals() -> Iterator[None]:
    """Let commands be stopped as in a terminal, and restore the handlers that they install.

    In a script's background SIGINT is ignored, below nohup SIGHUP, and commands would inherit that. A handler
    they do not inherit, and this one leaves the tests running as they were started.
    """
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "cuda" in report.keywords]
    if skipped:
        terminalreporter.write_line(f"tests of CUDA: {len(skipped)} skipped, {NO_GPU}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Print tracebacks and exit if a clean-up hangs: pytest's timeouts are off after a failed test."""
    faulthandler.dump_traceback_later(TEARDOWN_SECONDS, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory):
    """Give the tests, and the commands that they start, a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def killed_with() -> Callable[[Callable, int], None]:
    """Return a function that forks a process which calls `work`, waits until that has so many children, kills
    it by SIGKILL, and asserts that they end."""

    def kill(work: Callable[[], object], children: int) -> None:
        def left() -> list[psutil.Process]:
            return [*filter(runs, started)]

        def wait_for(condition: Callable[[], object]) -> None:
            deadline = time.monotonic() + KILLED_SECONDS
            while not condition():
                assert time.monotonic() < deadline
                time.sleep(0.05)

        if not (parent := os.fork()):
            with suppress(BaseException):
                work()
            os._exit(1)
        started = []
        try:
            wait_for(lambda: len(psutil.Process(parent).children()) == children)
            started = psutil.Process(parent).children()
        finally:
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
        try:
            wait_for(lambda: not left())
        finally:
            for process in left():
                process.kill()

    return kill


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory) -> Path:
    """Return a small built-in sample: 12 images in trainA and trainB, 8 in testA and testB, of 72 px."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    sample.make(folder, **SAMPLE)
    return folder


@pytest.fixture(scope="session")
def judge_file(tmp_path_factory) -> Path:
    """Return the file of an untrained resnet18 judge for 64 px, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = model.Judge("resnet18", 64)

    def counts(images: int) -> dict:
        return {name: {"images": images, "skipped": [], "enlarged": 0} for name in ("photos", "paintings")}

    training = {
        "data": "sample", "stand_in": True, "counts": counts(SAMPLE["train"]), "arch": "resnet18",
        "weights": "none", "epochs": 0, "patience": 6, "batch_size": 32, "lr": 1e-3,
        "weight_decay": 0.05, "seed": 0, "seconds": 0.0, "device": "cpu",
        "versions": {"torch": str(torch.__version__)},
    }
    metrics = {
        "auc": 0.5, "accuracy": 0.5, "brier": 0.25, "calibration_error": 0.0,
        "confusion": [[SAMPLE["test"], 0], [SAMPLE["test"], 0]], "counts": counts(SAMPLE["test"]),
    }
    file = tmp_path_factory.mktemp("models") / "judge.pt"
    model.save_judge(judge, model.ModelCard("resnet18", 64, model.CLASSES, training, metrics), file)
    return file


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a file system of so many kilobytes, in memory; only root can."""
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
