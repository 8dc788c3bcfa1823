"""Faults injected into trials: kill -9 at each moment, and random events in random order."""

import math
import os
import signal
import sys
from contextlib import suppress
from itertools import count
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

MOMENTS = 50  # of a start and two reports, at least


def train_until(moment: float, folder: Path) -> None:
    """Train the same small trial; kill -9 it right before it touches its folder the `moment`th time."""
    moments = count(1)

    def at_each(event: str, arguments: tuple) -> None:
        if str(folder) in str(arguments) and next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(at_each)  # Python tells it each open, rename, remove and mkdir beforehand
    sys.argv = f"gan --data pattern --steps 400 --reports 40 --out {folder}".split()
    run(gan.Settings)


def exit_code(moment: float, folder: Path) -> int:
    """Return the exit code of `train_until`, run in a process of its own."""
    context = get_context("forkserver")  # without pytest's threads; it imports everything once
    context.set_forkserver_preload(
        ["torch._dynamo", "torch.utils.tensorboard", "torchvision.utils", __name__])
    process = context.Process(target=train_until, args=(moment, folder), daemon=True)
    process.start()
    process.join(timeout=300)
    process.kill()
    return process.exitcode


def results(folder: Path) -> tuple[dict, dict, list[dict]]:
    """Checkpoint, score and reports, without the seconds."""
    lines = read_lines(folder / "stats.jsonl")
    reports = [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]
    return checkpoint(folder), record(folder)["score"], reports


@pytest.mark.slow
def test_killed_at_each_access_to_its_folder_a_trial_ends_as_if_never_killed(tmp_path):
    """Its first process at its first access, the next one at its second, until one comes to the end."""
    straight, killed, steps = tmp_path / "straight", tmp_path / "killed", []
    assert exit_code(math.inf, straight) == 0
    for moment in count(1):
        if (code := exit_code(moment, killed)) == 0:
            break
        assert code == -signal.SIGKILL
        steps.append(checkpoint(killed)["step"] if (killed / "checkpoint.pt").exists() else 0)
        assert not (killed / "run.json").exists() or record(killed)["status"] == "running"
    assert moment > MOMENTS and steps == sorted(steps)
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
