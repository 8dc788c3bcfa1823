"""Successive halving, driven as NNI's dispatcher drives an assessor."""

from contextlib import nullcontext

import pytest
import yaml
from nni.assessor import AssessResult
from nni.common.serializer import dump
from nni.runtime.msg_dispatcher import MsgDispatcher
from nni.runtime.tuner_command_channel import CommandType
from nni.utils import MetricType

from experiments.assessor import SuccessiveHalving
from experiments.check import check
from judge.common.errors import UserError


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


def test_a_better_trial_is_never_stopped():
    assessor = SuccessiveHalving(start_step=1, eta=4)
    assert [outcome(assessor, str(n), [n / 10] * 20) for n in range(12)] == [20] * 12


def test_a_mode_that_minimizes_keeps_the_smallest():
    assessor = SuccessiveHalving(start_step=1, eta=2, optimize_mode="minimize")
    assert [outcome(assessor, str(n), [score] * 3) for n, score in enumerate([1, 2, 0.5])] == [3, 1, 3]


def test_trials_that_run_at_once_are_told_apart_and_numbers_count_as_dicts():
    assessor, verdicts = SuccessiveHalving(start_step=2, eta=2), []
    for count in (1, 2):
        verdicts += [assessor.assess_trial("good", [0.9] * count),
                     assessor.assess_trial("bad", [{"default": 0.1}] * count)]
    assert verdicts == [AssessResult.Good] * 3 + [AssessResult.Bad]


def test_nnis_dispatcher_kills_what_it_stops_and_nothing_else():
    """NNI's own way from a reported metric to the assessor and to the command that ends a trial."""

    class Silent:
        def trial_end(self, *_):
            """No tuner is asked."""

    dispatcher = MsgDispatcher.__new__(MsgDispatcher)
    dispatcher.tuner, dispatcher.assessor = Silent(), SuccessiveHalving(start_step=2, eta=2)
    sent = []
    dispatcher.send = lambda command, data: sent.append((command, data))
    dispatcher.enqueue_command = lambda *_: None
    dispatcher.is_created_in_previous_exp = lambda _: False

    def report(trial: str, sequence: int, value: float) -> None:
        dispatcher.handle_report_metric_data({
            "parameter_id": 0, "trial_job_id": trial, "type": MetricType.PERIODICAL,
            "sequence": sequence, "value": dump({"default": value, "kid": 1.0}),
        })  # fmt: skip

    for sequence in range(4):
        report("halving-good", sequence, 0.9)
    dispatcher.handle_trial_end({"trial_job_id": "halving-good", "event": "SUCCEEDED",
                                 "hyper_params": '{"parameter_id": 0}'})
    report("halving-bad", 0, 0.1)
    assert not sent
    report("halving-bad", 1, 0.1)
    assert sent == [(CommandType.KillTrialJob, dump("halving-bad"))]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"start_step": 2, "eta": 3, "optimize_mode": "maximize"}, None),
        ({"start_step": 2, "eta": 1}, "SuccessiveHalving: .*reduction_factor"),
        ({"start_step": 10}, "never acts"),
        ({}, "before their first report"),
        ({"start_step": 2, "optimize_mode": "minimize"}, "maximized"),
        ({"start_step": 2, "rungs": 3}, "rungs"),
    ],
)
def test_a_file_that_names_it_is_checked(experiment, arguments, said):
    file = experiment(options="--budget 0.2")
    config = yaml.safe_load(file.read_text())
    config["assessor"] = {"className": "experiments.assessor.SuccessiveHalving",
                          "codeDirectory": config["tuner"]["codeDirectory"], "classArgs": arguments}
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check(file)
