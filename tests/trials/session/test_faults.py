"""Faults injected into trials: kill -9 at random moments, and random events in random order."""

import math
import os
import random
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from judge.common.errors import UserError
from judge.score import WORST_SCORE, Score
from tests.trials.session.test_session import SHADES, SHEET, Counter, checkpoint, record, session
from trials import gan
from trials.session import run
from trials.session.records import read_lines

KILLS = 50


@pytest.fixture
def trial(monkeypatch):
    """Starts the same small trial in a process of its own. It spends much of its time on reports, which write
    all files. A process without pytest's threads imports everything once and is forked."""
    context, started = get_context("forkserver"), []
    context.set_forkserver_preload(["torch.utils.tensorboard", "trials.gan"])

    def start(folder: Path):
        options = f"gan --data pattern --steps 4000 --reports 400 --out {folder}"
        monkeypatch.setattr(sys, "argv", options.split())
        started.append(context.Process(target=run, args=(gan.train, gan.Settings), daemon=True))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()


def exit_code(process) -> int | None:
    process.join(timeout=300)
    return process.exitcode


def count_reports(folder: Path) -> int:
    return len(read_lines(folder / "stats.jsonl"))


def results(folder: Path) -> tuple[dict, dict, list[dict]]:
    """Checkpoint, score and reports, without the seconds."""
    lines = read_lines(folder / "stats.jsonl")
    reports = [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]
    return checkpoint(folder), record(folder)["score"], reports


@pytest.mark.slow
def test_killed_at_random_moments_a_trial_ends_as_if_never_killed(trial, tmp_path):
    draw, straight, killed = random.Random(0), tmp_path / "straight", tmp_path / "killed"
    assert exit_code(trial(straight)) == 0
    steps = []
    for _ in range(KILLS):
        process, end = trial(killed), time.monotonic() + 30
        reports = count_reports(killed) + draw.randrange(5)
        while count_reports(killed) < reports and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))  # a report takes about as long
        process.kill()
        assert exit_code(process) == -signal.SIGKILL, "the trial is too short for so many kills"
        if (killed / "checkpoint.pt").exists():
            steps.append(checkpoint(killed)["step"])
        if (killed / "run.json").exists():
            assert record(killed)["status"] == "running"
    assert steps == sorted(steps) and len(set(steps)) > KILLS / 5
    assert exit_code(trial(killed)) == 0
    torch.testing.assert_close(results(killed), results(straight), rtol=0, atol=0)


LAST = 6
VALUES = {
    "report": st.one_of(st.floats(), st.integers(-3, 3), st.sampled_from([None, "0.5", []])),
    "loss": st.floats(),
    "raise": st.sampled_from([UserError("no"), ValueError("a\nb"), OSError(28, "full"), MemoryError()]),
    "signal": st.sampled_from([signal.SIGTERM, signal.SIGINT]),
}
EVENTS = st.one_of(*[st.tuples(st.just(kind), values) for kind, values in VALUES.items()])


def eventful(events: list[tuple]):
    """A training in which at each step one of `events` happens; it reports at the end in any case."""
    left = iter(events)

    def train(settings, session) -> None:
        model = Counter()
        session.restore(model)
        for _ in session.steps(model, LAST, 1):
            kind, value = next(left, ("none", None))
            if kind == "raise":
                raise value
            if kind == "signal":
                os.kill(os.getpid(), value)
            session.add_losses({"loss": torch.tensor(value if kind == "loss" else 1.0)})
            model.step += 1
            if kind == "report" or model.step == LAST:
                score = Score(value if kind == "report" else 0.5, {"part": 0.1})
                session.report(model, score, SHADES, SHEET)

    return train


def finite(values: dict) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values.values())


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=LAST))
def test_a_trial_has_one_finite_final_result_or_fails_and_can_be_continued(tmp_path_factory, events):
    folder, code = tmp_path_factory.mktemp("trial"), None  # of a failed trial
    first = session(folder)
    with suppress(Exception, KeyboardInterrupt):
        code = first.run(eventful(events))
    first.record.close()  # as the end of its process would
    facts = record(folder)
    assert all(map(finite, first.engine.intermediates + first.engine.finals))
    ended = code in (0, 1)
    assert len(first.engine.finals) == ended
    if ended:
        assert first.engine.finals[0] == facts["score"] and facts["status"] == ("finished", "diverged")[code]
        assert facts["status"] == "finished" or facts["score"] == {"default": WORST_SCORE}
    again = session(folder)
    # 1: a loss since the last report, in the checkpoint of a stopped run, is too large.
    assert again.run(eventful([])) in (0, 1) and len(again.engine.finals) == 1
