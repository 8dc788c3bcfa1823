"""What a search says of its parameters."""

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from experiments.report import importance


def drawn(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: 10 ** rng.uniform(-1, 1, count) for name in (
        "identity_weight", "cycle_weight", "adversarial_weight", "generator_lr")})


def test_loss_weights_become_ratios_to_the_adversarial_one():
    parameters = drawn(5)
    found = importance.weight_ratios(parameters)
    assert list(found) == [
        "identity_weight / adversarial_weight", "cycle_weight / adversarial_weight", "generator_lr"]
    expected = parameters["cycle_weight"] / parameters["adversarial_weight"]
    assert np.allclose(found["cycle_weight / adversarial_weight"], expected)


def test_without_a_ratio_the_weights_stay():
    parameters = drawn(5)
    for kept in (parameters.drop(columns="adversarial_weight"), parameters[["adversarial_weight"]],
                 parameters.assign(adversarial_weight=0.0)):
        assert importance.weight_ratios(kept).equals(kept)


def test_what_decides_the_score_is_the_most_important_and_its_interval_says_how_sure():
    parameters = drawn(60)
    scores = np.log10(parameters["cycle_weight"] / parameters["adversarial_weight"])
    scores += 0.1 * np.random.default_rng(1).normal(size=60)
    found = importance.importance(importance.weight_ratios(parameters), scores)
    assert found.index[0] == "cycle_weight / adversarial_weight"
    assert found["importance"].iloc[0] > 0.7 and found["importance"].sum() == pytest.approx(1)
    assert (found["low"] <= found["high"]).all() and found["low"].iloc[0] > found["high"].iloc[1]


def test_few_trials_give_wider_intervals_than_many():
    def width(count: int) -> float:
        parameters = drawn(count)
        found = importance.importance(parameters, np.log10(parameters["cycle_weight"]))
        return (found["high"] - found["low"]).max()

    assert width(8) > 2 * width(80)


@pytest.mark.parametrize("scores", [[0.5] * 20, [0.5, 0.6]])
def test_too_few_or_equal_scores_say_nothing(scores):
    assert importance.importance(drawn(len(scores)), pd.Series(scores)).empty


def test_ranges_are_logarithmic_where_values_span_more_than_a_factor_of_ten():
    assert importance.distribution(pd.Series([0.1, 5.0])) == FloatDistribution(0.1, 5.0, log=True)
    assert importance.distribution(pd.Series([1.0, 5.0])) == FloatDistribution(1.0, 5.0)
    assert importance.distribution(pd.Series([0, 5])) == FloatDistribution(0.0, 5.0)
    assert importance.distribution(pd.Series(["a", "b", "a"])) == CategoricalDistribution(("a", "b"))
    assert isinstance(importance.distribution(pd.Series([True, False])), CategoricalDistribution)


def test_the_front_is_what_nothing_else_beats_in_both_aims():
    aims = pd.DataFrame({"style": [0.9, 0.1, 0.5, 0.4], "content": [0.1, 0.9, 0.5, 0.4]}, index=[7, 8, 9, 10])
    assert sorted(importance.pareto_front(aims)) == [7, 8, 9]


def test_of_many_trials_a_forest_is_grown_on_a_draw_of_them(monkeypatch):
    """On all of a thousand it takes a minute."""
    asked = []
    monkeypatch.setattr(importance, "_shares", lambda p, s: asked.append(len(s)) or dict.fromkeys(p, 0.5))
    many = pd.DataFrame({"a": range(3 * importance.MAX_FANOVA_TRIALS), "b": range(3 * importance.MAX_FANOVA_TRIALS)})
    assert len(importance.importance(many, many["a"])) == 2
    assert asked == [importance.MAX_FANOVA_TRIALS]
