"""Claims about failures that pass, with the smallest system there can be and a GPU that is made up."""

import errno
import os
import signal
from dataclasses import dataclass

import pytest
import torch

from judge.common.errors import UserError
from tests.trials.session.test_session import record, session, training
from trials.session import failures
from trials.session import session as session_module
from trials.session.failures import backoff_seconds, describe_error, is_transient

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@dataclass(frozen=True)
class Costly:
    batch_size: int = 1
    size: str = "paper"


@pytest.fixture
def gpu(monkeypatch):
    """Make a GPU of 80 GB of which others use so much and we 10."""
    def use(others: float):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((80 - 10 - others) * 1e9, 80e9))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10e9)
    return use


@pytest.fixture
def at_once(monkeypatch):
    """Waits as usual, but without the time; the list of waits."""
    waits = []
    monkeypatch.setattr(session_module.Session, "_wait", lambda self, seconds: waits.append(seconds))
    return waits


def failing(error: Exception, times: int, at: int = 7):
    """Raises `error` at step `at`, the first so many times."""
    left = [times]

    def fail(step: int) -> None:
        if step == at and left[0]:
            left[0] -= 1
            raise error
    return fail


def busy() -> OSError:
    return OSError(errno.EADDRINUSE, "Address already in use")


def test_memory_that_others_took_comes_back_and_what_is_too_little_alone_never_does(gpu):
    error = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    gpu(others=40)
    assert is_transient(error, GPU)
    assert describe_error(error, Costly(), GPU).startswith(
        "out of memory on cuda, of which others use 50%: lower --batch-size or --size (")
    gpu(others=0.5)
    assert not is_transient(error, GPU)
    assert describe_error(error, Costly(), GPU).startswith("out of memory on cuda: lower --batch-size or --size (")


def test_a_cpu_that_has_not_enough_memory_says_so_and_is_not_asked_again():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert not is_transient(caught.value, CPU)
    assert describe_error(caught.value, Costly(), CPU).startswith("out of memory on cpu: lower --batch-size")


def test_a_busy_port_passes_and_a_programming_error_does_not():
    assert is_transient(busy(), CPU) and not is_transient(OSError(errno.ENOSPC, "No space left"), CPU)
    assert not is_transient(RuntimeError("shape mismatch"), CPU) and not is_transient(UserError("no data"), CPU)


def test_a_trial_goes_on_from_its_checkpoint_after_what_passes_and_counts_it(tmp_path, at_once):
    trial = session(tmp_path)
    assert trial.run(training(at=failing(busy(), 2))) == 0
    assert at_once == [backoff_seconds(0), backoff_seconds(1)] == [10, 30]
    told = record(tmp_path)
    assert len(told["retries"]) == 2 and "Address already in use" in told["retries"][0]
    assert told["status"] == "finished" and told["resumed_at"] == 5
    assert [values["default"] for values in trial.host.intermediates] == [0.5] * 2  # 5 and 10, once each
    assert len(trial.host.finals) == 1


def test_its_seconds_count_the_tries_once(tmp_path, at_once, monkeypatch):
    clock = iter(range(0, 100_000, 10))  # a look at the clock takes ten seconds
    monkeypatch.setattr(session_module.time, "perf_counter", lambda: next(clock))
    trial = session(tmp_path)
    trial.run(training(at=failing(busy(), 1)))
    once = session(tmp_path / "whole")
    once.run(training())
    seconds = record(tmp_path)["seconds"]
    assert record(tmp_path / "whole")["seconds"] <= seconds <= record(tmp_path / "whole")["seconds"] + 20


def test_after_the_last_try_the_trial_fails_with_its_reason(tmp_path, at_once):
    trial = session(tmp_path)
    with pytest.raises(OSError):
        trial.run(training(at=failing(busy(), 99)))
    assert len(at_once) == 3 and record(tmp_path)["status"] == "failed" and not trial.host.finals


@pytest.mark.parametrize("error", [UserError("no such folder"), RuntimeError("shape mismatch")])
def test_a_mistake_is_not_tried_again(tmp_path, at_once, error):
    with pytest.raises(type(error)):
        session(tmp_path).run(training(at=failing(error, 1)))
    assert not at_once and "retries" not in record(tmp_path)


def test_want_of_memory_is_one_line(tmp_path):
    with pytest.raises(UserError, match="out of memory on cpu"):
        session(tmp_path).run(training(at=failing(MemoryError("of 12 GiB"), 1)))
    assert record(tmp_path)["reason"].startswith("out of memory on cpu")


def test_a_trial_that_waits_can_be_asked_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(failures, "FIRST_BACKOFF", 1000)
    monkeypatch.setattr(session_module.time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    trial = session(tmp_path)
    assert trial.run(training(at=failing(busy(), 1))) == 128 + signal.SIGTERM
    assert record(tmp_path)["status"] == "stopped"
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5
    assert not trial.host.finals
