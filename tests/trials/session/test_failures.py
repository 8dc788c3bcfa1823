"""Retries after temporary failures, with the smallest system there can be and a simulated GPU."""

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass

import pytest
import torch

from judge.common.errors import UserError
from tests.trials.session.test_session import Counter, checkpoint, failing, record, session, training
from trials.session import failures
from trials.session import session as session_module
from trials.session.failures import describe_error, is_transient

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BUSY = OSError(errno.EADDRINUSE, "Address already in use")


@dataclass(frozen=True)
class Costly:
    batch_size: int = 1
    size: str = "paper"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that trials would wait; they do not."""
    seconds = []
    monkeypatch.setattr(session_module, "wait", lambda session, wait: seconds.append(wait))
    return seconds


@pytest.mark.parametrize(("total", "others", "transient", "used"), [
    (80, 40, True, ", other programs use 49% of it"), (80, 0.5, False, ""),
    (5, 0, False, ""),  # a small card, of which CUDA itself takes more than a tenth
])  # fmt: skip
def test_a_gpus_lack_of_memory_passes_only_if_other_programs_use_it(
        monkeypatch, total, others, transient, used):  # fmt: skip
    """This process uses 2 GB for tensors and 0.6 GB for CUDA and its libraries."""
    error = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    free = total - others - 2.6
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 1e9, total * 1e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2e9)
    assert is_transient(error, GPU) == transient
    words = f"out of memory on cuda{used}: reduce --batch-size or --size (CUDA out of memory."
    assert describe_error(error, Costly(), GPU).startswith(words)


def test_a_gpu_without_room_even_for_cuda_itself_is_full_of_other_programs(monkeypatch):
    error = RuntimeError("CUDA error: out of memory")

    def refuse(device):
        raise error

    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    assert is_transient(error, GPU)
    assert "other programs use 100% of it" in describe_error(error, Costly(), GPU)


@pytest.mark.parametrize("times", [1, 99])
def test_a_full_gpu_when_the_checkpoint_is_loaded_is_retried_and_told_as_such(
        tmp_path, waits, monkeypatch, times):  # fmt: skip
    """It is no reason to move the folder away."""
    session(tmp_path).run(training(last=5))
    monkeypatch.setattr(failures, "memory_used_by_others", lambda device: 0.5)
    errors = [torch.OutOfMemoryError("CUDA out of memory")] * times

    class Full(Counter):
        def load_state_dict(self, state: dict) -> None:
            super().load_state_dict(state)
            if errors:
                raise errors.pop()

    trial = session(tmp_path)
    if times == 1:
        assert trial.run(training(Model=Full)) == 0
    else:
        with pytest.raises(UserError, match="^out of memory on cpu, other programs use 50% of it: reduce"):
            trial.run(training(Model=Full))
    assert len(waits) == min(times, 3) and "out of memory" in record(tmp_path)["retries"][0]


def test_a_cpus_lack_of_memory_does_not_pass():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert describe_error(caught.value, Costly(), CPU).startswith("out of memory on cpu: reduce --batch-size")
    assert not is_transient(caught.value, CPU)


def test_a_trial_continues_from_its_checkpoint_after_each_temporary_failure(tmp_path, waits, monkeypatch):
    clock = iter(range(0, 100_000, 10))  # each reading is ten seconds later
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    trial = session(tmp_path / "failed")
    assert trial.run(training(at=failing(BUSY, times=2))) == 0
    assert waits == [10, 30]
    facts = record(tmp_path / "failed")
    assert len(facts["retries"]) == 2 and "Address already in use" in facts["retries"][0]
    assert facts["status"] == "finished" and facts["resumed_at"] == 5
    assert len(trial.engine.intermediates) == 2  # at steps 5 and 10, once each
    assert len(trial.engine.finals) == 1
    session(tmp_path / "straight").run(training())
    straight = record(tmp_path / "straight")["seconds"]
    assert straight <= facts["seconds"] <= straight + 20  # a repeated step counts once


@pytest.mark.parametrize(("error", "raised", "tries"), [
    (BUSY, OSError, 3), (UserError("no such folder"), UserError, 0), (RuntimeError("a bug"), RuntimeError, 0),
    (OSError(errno.ENOSPC, "No space left"), OSError, 0),
    (MemoryError("of 12 GiB"), UserError, 0),  # one line instead of a traceback
])  # fmt: skip
def test_a_failure_that_stays_ends_the_trial_with_its_reason(tmp_path, waits, error, raised, tries):
    trial = session(tmp_path)
    with pytest.raises(raised):
        trial.run(training(at=failing(error, times=99)))
    facts = record(tmp_path)
    assert len(waits) == tries == len(facts.get("retries", []))
    assert facts["status"] == "failed" and str(error) in facts["reason"] and not trial.engine.finals


def test_a_trial_that_waits_for_a_retry_can_be_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "FIRST_BACKOFF", 1000)
    sleep = time.sleep

    def stop(seconds: float):
        if sys._getframe(1).f_code is session_module.wait.__code__:
            os.kill(os.getpid(), signal.SIGTERM)
        sleep(seconds)  # of `subprocess`, or of a thread that another test has started

    monkeypatch.setattr(time, "sleep", stop)
    trial = session(tmp_path)
    assert trial.run(training(at=failing(BUSY))) == 128 + signal.SIGTERM
    assert record(tmp_path)["status"] == "stopped" and not trial.engine.finals
    assert checkpoint(tmp_path)["step"] == 5
