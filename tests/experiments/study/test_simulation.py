"""Replayed searches: all have equal time, and stopping early pays where early scores predict the end."""

import subprocess
import sys
from dataclasses import replace
from unittest.mock import Mock, call

import numpy as np
import pandas as pd
import pytest
from nni.assessor import Assessor, AssessResult

from experiments.assessor import SuccessiveHalving
from experiments.study import simulation
from experiments.study.options import Simulation
from experiments.study.simulation import LENGTHS, ORDERS, replay
from judge.common.errors import UserError
from trials.session.steady import steady

CURVES = [np.full(4, score) for score in (0.3, 0.9, 0.1, 0.5, 0.2)] * 10


@pytest.mark.parametrize(("options", "expected"), [
    ({"time": 12}, (3, 12)),
    ({"time": 11}, (2, 11)),  # the third is still running
    ({"time": 15, "overhead": 1}, (3, 12)),
    ({"time": 14.5, "overhead": 1}, (2, 11)),
    ({"time": 12, "at_once": 2}, (6, 24)),
    ({"time": 1000}, (50, 200)),  # there are no more
])
def test_without_an_assessor_the_time_is_spent_on_whole_trials(options, expected):
    ended, reports, finals = replay(CURVES, None, **options)
    assert (ended, reports) == expected
    assert list(finals.values()) == [curve[-1] for curve in CURVES[:ended]]


def test_a_stopped_trial_makes_room_for_the_next():
    assessor = Mock(Assessor)
    assessor.assess_trial = lambda id_, history: AssessResult.Good if id_ == "0" else AssessResult.Bad
    ended, reports, finals = replay(CURVES, assessor, time=10)
    assert (ended, reports, list(finals)) == (7, 10, [0])
    assert assessor.trial_end.mock_calls == [call("0", True), *(call(str(at), False) for at in range(1, 7))]


def test_halving_finds_a_trial_that_comes_too_late_without_it():
    scores = (0.4, 0.3, 0.2, 0.3, 0.1, 0.2, 0.3, 0.9, 0.2, 0.1)
    curves = [score * np.linspace(0.1, 1, 10) for score in scores]
    plain, halving = (replay(curves, assessor, time=40) for assessor in (None, SuccessiveHalving(1, eta=3)))
    assert max(plain[2].values()) == pytest.approx(0.4) and max(halving[2].values()) == pytest.approx(0.9)
    assert halving[0] > plain[0] and halving[1] <= plain[1]


@pytest.fixture
def predictive() -> pd.DataFrame:
    """Curves whose score at each report predicts the end."""
    return pd.DataFrame({"experiment": "a", "trial": trial, "step": 100 * report, "score": trial * report,
                         "style": trial * report / 10} for trial in range(1, 201) for report in range(1, 11))


def test_all_searches_have_equal_time_and_those_that_stop_early_see_more_trials(predictive):
    simulated, curves = Simulation(trials=12, searches=10), simulation.steady_curves(predictive)
    table = simulation.run(simulated, curves)
    time, spent = 12 * (1 + simulated.overhead), table["cost"] + simulated.overhead * table["trials"]
    assert (spent <= time + 1e-9).all() and (spent > time - 2 * (1 + simulated.overhead)).all()
    means = table.groupby(["length", "assessor"])[["trials", "loss"]].mean()
    assert means["trials"][1.0, "none"] == 12
    for length in LENGTHS:
        assert means["trials"][length, "halving, eta 3"] > 1.5 * means["trials"][length, "none"]
        assert means["loss"][length, "halving, eta 3"] < means["loss"][length, "none"]
    fewer = simulation.run(replace(simulated, searches=5), curves)  # the same searches, without the last ones
    pd.testing.assert_frame_equal(fewer, table[table["search"] < 5].reset_index(drop=True))


def test_no_setting_is_proposed_twice_and_orders_differ():
    curves = np.arange(1.0, 61)[:, None]
    first, second = simulation.draw(curves, 0)[:, 0], simulation.draw(curves, 1)[:, 0]
    assert len(set(first)) == len(first) and set(first) == set(second) and list(first) != list(second)
    assert set(simulation.draw(curves, ORDERS)[:, 0]) != set(first)  # another draw of the settings


def test_curves_are_what_a_trial_tells_the_tuner(predictive):
    reports = predictive[predictive["trial"] == 7][["score"]].set_axis(["default"], axis=1)
    reports = reports.to_dict("records")
    told = [steady(reports[:count])["default"] for count in range(1, 11)]
    curves = simulation.steady_curves(predictive)
    assert min(np.abs(np.log(curves / told)).max(axis=1)) < 1e-9


def test_stopped_trials_and_copies_are_left_out(predictive):
    stopped = predictive[(predictive["trial"] > 3) | (predictive["step"] < 500)]
    copied = pd.concat([stopped, stopped.assign(experiment="b")])
    assert simulation.steady_curves(copied).shape == (197, 10)
    with pytest.raises(UserError, match="^20 trials that were not stopped early: 30 are needed"):
        simulation.steady_curves(predictive[predictive["trial"] <= 20])


def test_another_score_ranks_the_curves(predictive):
    curves, plain = (simulation.steady_curves(predictive, score) for score in (None, "plain"))
    assert plain == pytest.approx(curves / 10)
    with pytest.raises(UserError, match="the curves are older than parts of --score combined"):
        simulation.steady_curves(predictive, "combined")


def test_the_gain_is_how_many_times_better_than_whole_trials_without_an_assessor():
    loss = pd.DataFrame({"assessor": ["none", "halving"], "loss": [0.5, 0.2], "length": LENGTHS[-1]})
    table = loss.merge(pd.DataFrame({"search": range(20)}), how="cross")
    text = simulation.text(table.assign(settings=9, trials=1, through=1, cost=1.0))
    assert "2.00 [2.00, 2.00]" in text and "1.00 [1.00, 1.00]" in text


@pytest.mark.parametrize(("words", "message"), [
    ([], "give the experiments whose curves are replayed, or --table"),
    (["latest", "--table", "x.csv"], "give the experiments whose curves are replayed, or --table"),
    (["--table", "nowhere.csv"], "nowhere.csv is no table of curves"),
])
def test_what_cannot_be_replayed_is_refused_in_one_line(words, message):
    command = [sys.executable, "-m", "experiments", "simulate", *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
