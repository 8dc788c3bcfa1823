"""A trial is measured without training it."""

import json
import time

import pytest
import torch

from judge.common.errors import UserError
from judge.score import Score
from tests.trials.session.test_session import SHADES, SHEET, Counter, Settings
from trials.session import RunOptions, measurement


def measured(train, capsys) -> dict:
    assert measurement.measure(train, "counter", Settings(), RunOptions(device="cpu")) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_start_step_and_report_are_told_apart(monkeypatch, capsys):
    """Python takes 7 s to start, the first step and the first report 10 s each for what is done once, each
    step 2 s and each report 5 s. The schedule is shorter than what is measured."""
    clock = [7.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measurement, "process_age", lambda: clock[0])
    steps = []

    def train(settings, session) -> None:
        model = Counter()
        session.restore(model)
        for step in session.steps(model, 3, 2):
            steps.append(step)
            clock[0] += 2 if len(steps) > 1 else 2 + 10
            session.add_losses({"loss": torch.tensor(1.0)})
            model.step += 1
            if session.report_due(model):
                clock[0] += 5 if len(steps) > 1 else 5 + 10
                session.report(model, Score(0.5, {}), SHADES, SHEET)

    result = measured(train, capsys)
    device = result.pop("device")
    assert result == {"start": 27.0, "step": 2.0, "report": 5.0, "steps": 3, "reports": 2, "memory": None}
    assert device.startswith("cpu (") and steps == [0, 1, 2, 0]


@pytest.mark.parametrize("error, words", [
    (torch.OutOfMemoryError("CUDA out of memory"), "out of memory on cpu: reduce the size of the trial"),
    (UserError("no such folder"), "no such folder"),
    (None, "the trial diverges in its first steps: loss loss is nan"),
])
def test_what_would_end_a_trial_is_one_line(error, words):
    def train(settings, session) -> None:
        model = Counter()
        for _ in session.steps(model, 100, 10):
            if error:
                raise error
            session.add_losses({"loss": torch.tensor(float("nan"))})
            model.step += 1
            if session.report_due(model):
                session.report(model, Score(0.5, {}), SHADES, SHEET)

    with pytest.raises(UserError, match=words):
        measurement.measure(train, "counter", Settings(), RunOptions(device="cpu"))


def test_the_command_asks_no_engine_and_ends_a_mistake_with_code_2(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNI_PLATFORM", "local")  # without the rest of its environment NNI would fail
    done = command("trials.gan", "--data", "pattern", "--device", "cpu", "--threads", 1, "--measure")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["steps"], result["reports"]) == (3000, 20) and 0 < result["step"] < result["start"]
    wrong = command("trials.gan", "--data", "nowhere", "--device", "cpu", "--measure")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
