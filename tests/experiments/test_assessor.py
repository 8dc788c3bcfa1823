"""Successive halving, driven as NNI's dispatcher drives an assessor."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from nni.assessor import AssessResult
from nni.common.serializer import dump
from nni.runtime.msg_dispatcher import MsgDispatcher
from nni.runtime.tuner_command_channel import CommandType
from nni.utils import MetricType

from experiments.assessor import SuccessiveHalving
from experiments.check import check
from judge.common.errors import UserError
from tests.experiments.helpers import ROOT


def outcome(assessor: SuccessiveHalving, trial: str, values: list[float]) -> int:
    """Report `values` one after another until the trial is stopped; return how many were reported."""
    for count in range(1, len(values) + 1):
        history = [{"default": value, "style": 0.5} for value in values[:count]]
        if assessor.assess_trial(trial, history) is AssessResult.Bad:
            assessor.trial_end(trial, False)
            return count
    assessor.trial_end(trial, True)
    return len(values)


def test_each_rung_keeps_the_best_that_came_to_it():
    """Falling scores, the best first: of n trials the best n // eta would have been kept."""
    assessor = SuccessiveHalving(start_step=2, eta=2)
    assert [outcome(assessor, str(n), [score] * 9) for n, score in enumerate([5, 4, 3, 2])] == [9, 2, 2, 2]
    assert outcome(assessor, "second", [4.5] * 9) == 4  # 2 of 5 pass the first rung, 1 of 2 the second
    assert outcome(assessor, "third", [4.4] * 9) == 4  # 3 of 6 pass the first, 1 of 3 the second
    assert outcome(assessor, "best", [6] * 9) == 9


def test_rungs_are_start_step_times_powers_of_eta():
    assessor = SuccessiveHalving(start_step=2, eta=3)
    outcome(assessor, "good", [1.0] * 20)
    for rung in (2, 6, 18):
        fails = [2.0] * (rung - 1) + [0.0] * 20
        assert outcome(assessor, f"worse from report {rung} on", fails) == rung


def test_a_mode_that_minimizes_keeps_the_smallest():
    assessor = SuccessiveHalving(start_step=1, eta=2, optimize_mode="minimize")
    assert [outcome(assessor, str(n), [score] * 3) for n, score in enumerate([1, 2, 0.5])] == [3, 1, 3]


def test_trials_that_run_at_once_are_told_apart_and_nnis_dispatcher_kills_what_it_stops():
    """NNI's own way from a reported metric to the assessor and to the command that ends a trial."""
    dispatcher, sent = MsgDispatcher.__new__(MsgDispatcher), []
    dispatcher.tuner = SimpleNamespace(trial_end=lambda *_: None)
    dispatcher.assessor = SuccessiveHalving(start_step=2, eta=2)
    dispatcher.send = lambda command, data: sent.append((command, data))
    dispatcher.enqueue_command = lambda *_: None
    dispatcher.is_created_in_previous_exp = lambda _: False

    def report(trial: str, sequence: int, value) -> None:
        dispatcher.handle_report_metric_data({
            "parameter_id": 0, "trial_job_id": trial, "type": MetricType.PERIODICAL,
            "sequence": sequence, "value": dump(value),
        })  # fmt: skip

    report("good", 0, {"default": 0.9, "kid": 1.0})
    report("bad", 0, 0.1)  # a number counts as a dict
    report("good", 1, {"default": 0.9, "kid": 1.0})
    dispatcher.handle_trial_end({"trial_job_id": "good", "event": "SUCCEEDED",
                                 "hyper_params": '{"parameter_id": 0}'})
    assert not sent
    report("bad", 1, 0.1)
    assert sent == [(CommandType.KillTrialJob, dump("bad"))]


@pytest.mark.parametrize("arguments, said", [
    ({"start_step": 2, "eta": 3, "optimize_mode": "maximize"}, None),
    ({"start_step": 2, "eta": 1}, "SuccessiveHalving: .*reduction_factor"),
    ({"start_step": 2, "rungs": 3}, "rungs"),
])
def test_a_file_that_names_it_is_checked(experiment, arguments, said):
    file = experiment(options="--budget 0.2", assessor={
        "name": None, "className": "experiments.assessor.SuccessiveHalving", "codeDirectory": str(ROOT),
        "classArgs": arguments})
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check(file)
