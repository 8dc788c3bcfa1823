"""Replayed searches: equal time for all, and stopping early pays where early scores tell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from nni.assessor import Assessor, AssessResult

from experiments.assessor import SuccessiveHalving
from experiments.study import simulation
from experiments.study.simulation import BUDGETS, Simulation, replay
from experiments.study.study import PARTS, REPORTS


class First(Assessor):
    """Stops every trial at its first report but the very first trial."""

    def __init__(self):
        self.ends = []

    def assess_trial(self, trial_job_id, trial_history):
        return AssessResult.Good if trial_job_id == "0" else AssessResult.Bad

    def trial_end(self, trial_job_id, success):
        self.ends.append((trial_job_id, success))


CURVES = [np.full(4, score) for score in (0.3, 0.9, 0.1, 0.5, 0.2)] * 10


def test_without_an_assessor_a_search_sees_time_by_whole_trials():
    made = replay(CURVES, None, time=12)
    assert made.ended == 3 and made.reports == 12 and made.finals == {0: 0.3, 1: 0.9, 2: 0.1}


def test_a_trial_that_runs_when_the_time_is_over_does_not_count_as_ended():
    made = replay(CURVES, None, time=11)
    assert made.ended == 2 and made.reports == 11


def test_what_a_trial_takes_beside_its_training_is_time_too():
    assert replay(CURVES, None, time=15, overhead=1).ended == 3
    assert replay(CURVES, None, time=14.5, overhead=1).ended == 2


def test_two_at_once_see_twice_as_many():
    assert replay(CURVES, None, time=12, at_once=2).ended == 6


def test_a_stopped_trial_makes_room_for_the_next():
    judge = First()
    made = replay(CURVES, judge, time=10)
    assert made.ended == 7 and made.reports == 10 and list(made.finals) == [0]
    assert judge.ends == [("0", True), *((str(n), False) for n in range(1, 7))]


def test_halving_keeps_the_best_and_sees_more_of_them():
    made = replay(CURVES, SuccessiveHalving(start_step=1, eta=2), time=20)
    assert made.finals[1] == max(made.finals.values()) == 0.9
    assert made.ended > replay(CURVES, None, time=20).ended


def test_a_search_over_fewer_curves_than_it_has_time_for_ends_when_they_are_seen():
    assert replay(CURVES[:2], None, time=100).ended == 2


@pytest.fixture
def table(tmp_path) -> Simulation:
    """A study in which the score at any report foretells the end."""
    rows = []
    for number, good in enumerate(np.linspace(0.1, 0.9, 12)):
        for report in range(1, REPORTS + 1):
            parts = dict.fromkeys(PARTS, 1.0) | {"style": good * report / REPORTS, "kid": 0.0}
            rows.append({"setting": number, "seed": 0, "share": report / REPORTS, **parts})
        rows[-1] |= {"final_style": good, "final_content": good, "final_kid": -good}
    pd.DataFrame(rows).to_csv(tmp_path / "study.csv", index=False)
    return Simulation(table=tmp_path / "study.csv", trials=12, searches=5)


def test_all_searches_have_equal_time_and_stopping_early_sees_more_trials(table):
    found = simulation.run(table)
    time = table.trials * (BUDGETS[0] + table.overhead)
    spent = found["schedules"] + table.overhead * found["trials"]
    assert (spent <= time + 1e-9).all() and (spent > time - table.at_once * (1 + table.overhead)).all()
    seen = found.groupby(["budget", "assessor"])["trials"].mean()
    assert seen[BUDGETS[0], "none"] == table.trials
    for budget in BUDGETS:
        assert seen[budget, "halving, eta 3"] > 1.5 * seen[budget, "none"]


def test_where_early_scores_foretell_the_end_halving_finds_what_comes_too_late_for_whole_trials():
    curves = [score * np.linspace(0.1, 1, 10) for score in (0.4, 0.3, 0.2, 0.3, 0.1, 0.2, 0.3, 0.9, 0.2, 0.1)]
    whole, halved = (replay(curves, assessor, time=40) for assessor in (None, SuccessiveHalving(1, eta=3)))
    assert max(whole.finals.values()) == pytest.approx(0.4)
    assert max(halved.finals.values()) == pytest.approx(0.9) and halved.reports <= whole.reports


def test_equal_searches_are_equal_and_more_of_them_only_add(table):
    few, many = simulation.run(replace(table, searches=2)), simulation.run(replace(table, searches=4))
    pd.testing.assert_frame_equal(few, many[many["search"] < 2].reset_index(drop=True))
    assert many.groupby("search")["regret"].mean().nunique() > 1


def test_the_gain_is_against_no_assessor_at_the_smallest_budget():
    found = pd.DataFrame([
        {"budget": BUDGETS[0], "assessor": name, "search": search, "trials": 1, "through": 1,
         "schedules": 1.0, "regret": regret}
        for name, regret in (("none", 0.5), ("halving", 0.2)) for search in range(20)
    ])  # fmt: skip
    text = simulation.text(found)
    assert "+0.30 [+0.30, +0.30]" in text and "+0.00 [+0.00, +0.00]" in text


def test_too_little_time_for_a_trial_is_one_line(table):
    with pytest.raises(simulation.UserError, match="--trials 2 is less time than one"):
        simulation.run(replace(table, trials=2))


def test_a_table_without_whole_curves_is_one_line(table):
    whole = pd.read_csv(table.table)
    whole[whole["share"].isin([0.05, 0.5, 1.0])].to_csv(table.table, index=False)
    with pytest.raises(simulation.UserError, match="lacks some of a trial's 20 reports"):
        simulation.run(table)
