"""A slow trial shows early what it does, prints lines and saves checkpoints, whatever its reports."""

import os
import re
import signal
from contextlib import nullcontext

import pytest

from tests.trials.session.test_session import checkpoint, failing, record, reported_steps, session, training
from trials.session import cadence
from trials.session import session as session_module
from trials.session.records import read_lines


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr(cadence, "monotonic", lambda: now[0])
    return now


def slow_training(clock: list[float], seconds: float, at=lambda step: None, **options):
    """A training whose steps take so many seconds, with a loss that changes."""

    def step(number: int) -> None:
        clock[0] += seconds
        at(number)
    return training(at=step, loss=lambda number: 0.1 * number, **options)


def terminate_at(step: int):
    return lambda at: os.kill(os.getpid(), signal.SIGTERM) if at == step else None


def lines_without_seconds(folder) -> dict[int, dict]:
    return {line["step"]: {name: value for name, value in line.items() if "seconds" not in name}
            for line in read_lines(folder / "stats.jsonl")}


def test_a_slow_trial_has_one_early_look_that_the_engine_does_not_count(tmp_path, clock):
    """Its reports are those of a fast trial. A restart makes no second early look."""
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    stop = slow_training(clock, 10, terminate_at(12), last=40, every=20)
    first, quick = session(slow), session(fast)
    assert first.run(stop) == 128 + signal.SIGTERM and first.engine.intermediates == []
    then = session(slow)
    assert then.run(slow_training(clock, 10, last=40, every=20)) == 0
    assert quick.run(slow_training(clock, 0.1, last=40, every=20)) == 0
    early, *reports = lines_without_seconds(slow).values()
    assert early["step"] == 9 and early["early"] is True
    assert reports == list(lines_without_seconds(fast).values()) and reported_steps(fast) == [20, 40]
    assert then.engine.intermediates == quick.engine.intermediates and len(then.engine.intermediates) == 2
    assert sorted(sheet.name for sheet in (slow / "samples").iterdir()) == [
        f"step_0000{step}.png" for step in ("09", "20", "40")]


def test_a_trial_that_has_reported_needs_no_early_look(tmp_path, clock):
    session(tmp_path).run(slow_training(clock, 10, last=40, every=8))
    assert reported_steps(tmp_path) == [8, 16, 24, 32, 40]


@pytest.mark.parametrize("memory", [None, 3 * 2**30])
def test_a_line_every_half_minute_says_how_fast_and_how_long(tmp_path, clock, capsys, monkeypatch, memory):
    monkeypatch.setattr(session_module, "peak_memory", lambda device: memory)
    session(tmp_path).run(slow_training(clock, 8, last=10, every=10))
    lines = [line for line in capsys.readouterr().out.splitlines() if "steps/s" in line]
    gpu = "3.0 GiB  " if memory else ""
    assert len(lines) == 2
    assert re.fullmatch(rf"step 4 of 10  0\.125 steps/s  ends [\w ]*\d\d:\d\d  {gpu}loss 0\.15", lines[0])
    assert lines[1].startswith("step 8 of 10  0.125 steps/s") and lines[1].endswith("loss 0.35")


@pytest.mark.parametrize("error", [RuntimeError("a crash"), None])
def test_a_checkpoint_every_ten_minutes_from_which_the_reports_are_the_same(tmp_path, clock, error):
    """Also after a signal between two reports."""
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    session(straight).run(slow_training(clock, 0, last=30, every=30))
    stop = failing(error, step=17) if error else terminate_at(17)
    with pytest.raises(RuntimeError) if error else nullcontext():
        session(cut).run(slow_training(clock, 100, stop, last=30, every=30))
    saved = 13 if error else 18  # at step 1, an early look, and twice after six steps
    assert checkpoint(cut)["step"] == saved
    assert session(cut).run(slow_training(clock, 0, last=30, every=30)) == 0
    assert record(cut)["resumed_at"] == saved
    assert lines_without_seconds(cut)[30] == lines_without_seconds(straight)[30]
    assert checkpoint(cut) == checkpoint(straight) == {"step": 30}
