"""Faults injected into trials: kill -9 at random moments, whatever else may happen in whatever order."""

import json
import math
import os
import random
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from judge.common.errors import UserError
from judge.score import WORST_SCORE, Score
from tests.trials.session.test_session import Counter, session
from trials import gan
from trials.session.records import read_json, read_lines
from trials.session.session import run

KILLS = 50

# ---------------------------------------------------------------------------------------------
# kill -9


@pytest.fixture
def trial(monkeypatch):
    """Starts the same small trial in a process of its own. It reports, and so writes its checkpoint and all
    else, much of the time. What it imports is imported once, by a process that does nothing else: one that
    a thread of pytest's could be at work in must not be forked."""
    context, started = get_context("forkserver"), []
    context.set_forkserver_preload(["torch.utils.tensorboard", "trials.gan"])

    def start(folder: Path) -> BaseProcess:
        monkeypatch.setattr(sys, "argv", ["gan", "--data", "pattern", "--steps", "4000", "--reports", "400",
                                          "--out", str(folder)])
        started.append(context.Process(target=run, args=(gan.train, gan.Settings), daemon=True))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()


def exit_code(process: BaseProcess) -> int | None:
    process.join(timeout=300)
    return process.exitcode


def wait_for_reports(folder: Path, more: int) -> None:
    """Until so many more reports are made than there are now; of a trial that starts, perhaps none."""
    def size() -> int:
        return len(read_lines(folder / "stats.jsonl"))

    before, end = size(), time.monotonic() + 30
    while size() < before + more and time.monotonic() < end:
        time.sleep(0.002)


def ended(folder: Path) -> tuple[dict, list[dict]]:
    """Checkpoint and reports, without the seconds."""
    lines = read_lines(folder / "stats.jsonl")
    kept = [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]
    return torch.load(folder / "checkpoint.pt", weights_only=True), kept


def equal(a, b) -> bool:
    """Whether two states are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b if not isinstance(a, list | tuple) else all(map(equal, a, b))


@pytest.mark.slow
def test_killed_at_fifty_random_moments_a_trial_ends_as_if_never_killed(trial, tmp_path, capsys):
    draw, whole, cut = random.Random(0), tmp_path / "whole", tmp_path / "cut"
    assert exit_code(trial(whole)) == 0
    steps = []
    for _ in range(KILLS):
        process = trial(cut)
        wait_for_reports(cut, draw.randrange(5))
        time.sleep(draw.uniform(0, 0.05))  # a report takes about as long
        process.kill()
        assert exit_code(process) == -signal.SIGKILL, "the trial is too short for so many kills"
        if (cut / "checkpoint.pt").exists():
            steps.append(torch.load(cut / "checkpoint.pt", weights_only=True)["step"])
        if (cut / "run.json").exists():
            assert json.loads((cut / "run.json").read_text())["status"] == "running"
    assert steps == sorted(steps) and len(set(steps)) > KILLS / 5
    with capsys.disabled():
        print(f"\n{KILLS} kills, survived at {len(set(steps))} different checkpoints, the last {steps[-1]}")
    assert exit_code(trial(cut)) == 0
    assert read_json(cut / "run.json")["score"] == read_json(whole / "run.json")["score"]
    assert equal(ended(cut), ended(whole))


# ---------------------------------------------------------------------------------------------
# Whatever may happen

LAST = 6
NUMBERS = st.one_of(st.floats(), st.integers(-3, 3), st.sampled_from([None, "0.5", []]))
EVENTS = st.one_of(
    st.tuples(st.just("report"), NUMBERS),
    st.tuples(st.just("loss"), st.floats()),
    st.tuples(st.just("raise"), st.sampled_from([
        UserError("no"), ValueError("a\nb"), OSError(28, "full"), MemoryError(), KeyError("x"),
    ])),
    st.tuples(st.just("signal"), st.sampled_from([signal.SIGTERM, signal.SIGINT])),
)  # fmt: skip


def eventful(events: list[tuple]):
    """A training in which at each step one of `events` happens; it reports at the end in any case."""
    left = iter(events)

    def train(settings, session) -> None:
        model = Counter()
        session.restore(model)
        for _ in session.steps(model, LAST):
            kind, what = next(left, ("none", None))
            if kind == "raise":
                raise what
            if kind == "signal":
                os.kill(os.getpid(), what)
            session.add_losses({"loss": torch.tensor(what if kind == "loss" else 1.0)})
            model.step += 1
            if kind == "report":
                session.report(model, Score(what, {"part": 0.1}), torch.zeros(3, 4, 4))
            elif model.step == LAST:
                session.report(model, Score(0.5, {}), torch.zeros(3, 4, 4))

    return train


def finite(values: dict) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values.values())


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=LAST))
def test_whatever_happens_a_trial_has_one_finite_final_or_fails_and_none(tmp_path_factory, events):
    folder, code = tmp_path_factory.mktemp("trial"), 1
    one = session(folder)
    with suppress(Exception, KeyboardInterrupt):
        code = one.run(eventful(events))
    one._lock.close()  # as the end of its process would
    record = json.loads((folder / "run.json").read_text())
    assert all(map(finite, one.host.intermediates + one.host.finals))
    assert len(one.host.finals) == (code == 0)
    if code == 0:
        assert one.host.finals[0] == record["score"] and record["status"] in ("finished", "diverged")
        assert record["status"] == "finished" or one.host.finals[0] == {"default": WORST_SCORE}
    again = session(folder)  # whatever it left can be gone on from
    assert again.run(eventful([])) == 0 and len(again.host.finals) == 1
