"""Replayed searches: all have equal time, and stopping early pays where early scores predict the end."""

from dataclasses import replace
from unittest.mock import Mock, call

import numpy as np
import pandas as pd
import pytest
from nni.assessor import Assessor, AssessResult

from experiments.assessor import SuccessiveHalving
from experiments.study import simulation
from experiments.study.simulation import BUDGETS, Simulation, replay
from experiments.study.study import REPORTS
from judge.common.errors import UserError
from judge.score import PARTS

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
def predictive(tmp_path) -> Simulation:
    """A study in which the score at each report predicts the end."""
    rows = []
    for number, quality in enumerate(np.linspace(0.1, 0.9, 12)):
        for report in range(1, REPORTS + 1):
            parts = dict.fromkeys(PARTS, 1.0) | {"style": quality * report / REPORTS, "kid": 0.0}
            rows.append({"setting": number, "seed": 0, "share": report / REPORTS, **parts})
        rows[-1] |= {"final_style": quality, "final_content": quality, "final_kid": -quality}
    pd.DataFrame(rows).to_csv(tmp_path / "study.csv", index=False)
    return Simulation(table=tmp_path / "study.csv", trials=12, searches=4)


def test_all_searches_have_equal_time_and_those_that_stop_early_see_more_trials(predictive):
    table = simulation.run(predictive)
    time = predictive.trials * (BUDGETS[0] + predictive.overhead)
    spent = table["schedules"] + predictive.overhead * table["trials"]
    assert (spent <= time + 1e-9).all()
    assert (spent > time - predictive.at_once * (1 + predictive.overhead)).all()
    trials = table.groupby(["budget", "assessor"])["trials"].mean()
    assert trials[BUDGETS[0], "none"] == predictive.trials
    assert all(trials[budget, "halving, eta 3"] > 1.5 * trials[budget, "none"] for budget in BUDGETS)
    fewer = simulation.run(replace(predictive, searches=2))  # the same searches, without the last ones
    pd.testing.assert_frame_equal(fewer, table[table["search"] < 2].reset_index(drop=True))
    assert table.groupby("search")["regret"].mean().nunique() > 1


def test_the_gain_is_against_no_assessor_at_the_smallest_budget():
    regret = pd.DataFrame({"assessor": ["none", "halving"], "regret": [0.5, 0.2], "budget": BUDGETS[0]})
    table = regret.merge(pd.DataFrame({"search": range(20)}), how="cross")
    table = table.assign(trials=1, through=1, schedules=1.0)
    text = simulation.text(table)
    assert "+0.30 [+0.30, +0.30]" in text and "+0.00 [+0.00, +0.00]" in text


def test_a_file_of_weights_is_a_score_like_a_formula(predictive, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"format": "salon score 1", "weights": {"style": 1}}')
    mine, plain = (simulation.run(replace(predictive, score=score)) for score in (str(file), "plain"))
    pd.testing.assert_frame_equal(mine, plain)
    pd.read_csv(predictive.table).drop(columns="style").to_csv(predictive.table, index=False)
    with pytest.raises(UserError, match="is older than parts of --score .*mine.json"):
        simulation.run(replace(predictive, score=str(file)))


def test_too_little_time_and_missing_reports_are_refused_in_one_line(predictive):
    with pytest.raises(UserError, match="--trials 2 is less time than one"):
        simulation.run(replace(predictive, trials=2))
    table = pd.read_csv(predictive.table)
    table[table["share"].isin([0.05, 0.5, 1.0])].to_csv(predictive.table, index=False)
    with pytest.raises(UserError, match="lacks some of a trial's 20 reports"):
        simulation.run(predictive)
