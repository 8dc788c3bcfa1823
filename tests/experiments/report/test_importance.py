"""Which parameters of a search matter."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from experiments.nni_adapter.database import Trial
from experiments.report import importance
from experiments.report.results import Row

NAMES = ("identity_weight", "cycle_weight", "adversarial_weight", "generator_lr")
RATIOS = ["identity_weight / adversarial_weight", "cycle_weight / adversarial_weight"]


def random_parameters(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({name: 10 ** rng.uniform(-1, 1, count) for name in NAMES})


def test_loss_weights_become_ratios_to_the_adversarial_one_where_it_is_above_zero():
    parameters = random_parameters(5)
    table = importance.weight_ratios(parameters)
    assert list(table) == [*RATIOS, "generator_lr"]
    assert np.allclose(table[RATIOS[1]], parameters["cycle_weight"] / parameters["adversarial_weight"])
    for unchanged in (parameters.drop(columns="adversarial_weight"), parameters[["adversarial_weight"]],
                      parameters.assign(adversarial_weight=0.0)):
        assert importance.weight_ratios(unchanged).equals(unchanged)


def test_the_parameter_that_decides_the_score_is_first_with_an_interval_that_is_narrower_with_more_trials():
    widths = {}
    for count in (8, 60):
        parameters = random_parameters(count)
        scores = np.log10(parameters["cycle_weight"] / parameters["adversarial_weight"])
        scores += 0.1 * np.random.default_rng(1).normal(size=count)
        table = importance.importance(importance.weight_ratios(parameters), scores)
        widths[count] = (table["high"] - table["low"]).max()
    assert table.index[0] == RATIOS[1]
    assert table["importance"].iloc[0] > 0.7 and table["importance"].sum() == pytest.approx(1)
    assert (table["low"] <= table["high"]).all() and table["low"].iloc[0] > table["high"].iloc[1]
    assert widths[8] > 2 * widths[60]


@pytest.mark.parametrize("seed", [0, 4])  # the share of all trials was outside
def test_a_share_lies_in_its_interval_and_the_shares_add_up_to_one_also_where_all_is_chance(seed):
    parameters = random_parameters(8)
    table = importance.importance(parameters, pd.Series(np.random.default_rng(seed).exponential(size=8)))
    assert table["importance"].between(table["low"], table["high"]).all()
    assert table["importance"].sum() == pytest.approx(1)


def rows(count: int, diverged: tuple[int, ...] = (), **parameters) -> list[Row]:
    """Trials whose score grows with beta1; those that diverged have none."""
    return [Row(Trial(f"t{at}", at, Path("/none"), "SUCCEEDED", parameters={"beta1": at / 20, **parameters},
                      final={"default": 0.0 if at in diverged else at / 10}),
                {"status": "diverged"} if at in diverged else {}, False) for at in range(count)]


def test_trials_that_diverged_count_as_the_worst_and_stopped_ones_do_not_count():
    trials = rows(9, diverged=(8,))
    assert list(importance.of_rows(trials).index) == ["beta1"]
    note = importance.note(trials)
    assert "from 9 finished trials, of which 1 diverged and count with the worst score, 0. " in note
    assert "add up to 1" in note and "a hint, not a finding" in note and "ratios" not in note
    stopped = [replace(row, trial=replace(row.trial, state="EARLY_STOPPED", final=None)) for row in trials]
    some = stopped[:2] + trials[2:]
    assert importance.note(some) == "Importances need 8 finished trials, there are 7."
    assert importance.of_rows(some).empty and importance.of_rows([]).empty


def test_a_trial_without_the_parameters_of_the_others_does_not_count():
    trials = rows(9)
    trials[3].trial.parameters.clear()
    trials[4].trial.parameters.update(decay=0.5)
    trials[5].trial.final["default"] = math.inf
    assert importance.note(trials) == "Importances need 8 finished trials, there are 7."


def test_the_note_says_why_there_are_no_importances_and_that_weights_are_ratios():
    assert importance.note(rows(1)) == "Importances need 8 finished trials, there is 1."
    same = [replace(row, trial=replace(row.trial, parameters={"beta1": 0.5})) for row in rows(8)]
    assert importance.note(same).startswith("No importances: all finished trials have the same score, or")
    assert "shown as ratios" in importance.note(rows(8, cycle_weight=2.0, adversarial_weight=1.0))


@pytest.mark.parametrize("scores", [[0.5] * 20, [0.5, 0.6]])
def test_too_few_trials_or_equal_scores_give_no_importances(scores):
    assert importance.importance(random_parameters(len(scores)), pd.Series(scores)).empty


@pytest.mark.parametrize(("values", "expected"), [
    ([0.1, 5.0], FloatDistribution(0.1, 5.0, log=True)), ([0, 5], FloatDistribution(0.0, 5.0)),
    (["a", "b", "a"], CategoricalDistribution(("a", "b"))),
    ([True, False], CategoricalDistribution((True, False))),
])
def test_a_range_is_logarithmic_if_its_values_span_more_than_a_factor_of_ten(values, expected):
    assert importance.distribution(pd.Series(values)) == expected


def test_a_forest_is_grown_on_some_of_many_trials(monkeypatch):
    counts = []
    monkeypatch.setattr(importance, "_shares", lambda p, s: counts.append(len(s)) or dict.fromkeys(p, 0.5))
    many = pd.DataFrame(dict.fromkeys("ab", range(3 * importance.MAX_TRIALS)))
    assert len(importance.importance(many, many["a"])) == 2
    assert counts == [importance.MAX_TRIALS] * importance.RESAMPLES
