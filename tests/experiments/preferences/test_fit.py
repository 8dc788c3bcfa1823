"""What is learnt from viewers whose weights are known."""

import numpy as np
import pytest

from experiments.preferences import fit
from experiments.preferences.votes import differences
from tests.experiments.preferences.viewers import simulate

STYLE = [3.0, 0.5, 0.0, 0.5, 1.0, 0.0]  # weights of a viewer who looks for style
SCENE = [0.5, 6.0, 2.0, 0.1, 2.0, 0.0]  # and of one who looks for the scene


def share_moved(weights: np.ndarray, to: list[float]) -> float:
    """Return the share of the weights' sum that differs from another set's, from 0 to 1."""
    return float(np.abs(weights / weights.sum() - np.array(to) / np.sum(to)).sum() / 2)


def agreement(weights: np.ndarray, truth: list[float]) -> float:
    """Return how often weights foretell new votes of a viewer."""
    x, y = differences(simulate(truth, 3000, seed=1000, repeats=0))
    return fit.agrees(x @ np.asarray(weights), y).mean()


@pytest.mark.parametrize("truth", [STYLE, SCENE])
def test_many_votes_recover_the_viewers_weights_and_foretell_as_many_votes_as_these(truth):
    x, y = differences(simulate(truth, 400, seed=0))
    fitted = fit.fit(x, y)
    assert share_moved(fitted.weights, truth) < 0.22 < share_moved(fit.SHIPPED_WEIGHTS, truth)
    assert fitted.weights.min() >= 0 and fitted.weights.sum() == pytest.approx(fit.SHIPPED_WEIGHTS.sum())
    best = agreement(truth, truth)
    assert agreement(fitted.weights, truth) > best - 0.03
    assert agreement(fit.SHIPPED_WEIGHTS, truth) < best - 0.06
    held_out = fit.agrees(fit.held_out_log_odds(x, y, np.arange(len(x))), y).mean()
    assert held_out == pytest.approx(best, abs=0.08)


def test_ten_votes_move_the_weights_little_and_two_hundred_much():
    moved = [np.median([
        share_moved(fit.fit(*differences(simulate(STYLE, count, seed))).weights, fit.SHIPPED_WEIGHTS)
        for seed in range(9)]) for count in (0, 10, 200)]  # fmt: skip
    assert moved[0] == pytest.approx(0) and moved[1] < 0.12 and moved[2] > 0.25


def test_how_sharply_a_viewer_decides_does_not_change_the_weights():
    weights = [fit.fit(*differences(simulate([factor * w for w in fit.SHIPPED_WEIGHTS], 400, seed=1))).weights
               for factor in (0.5, 1.0, 2.0)]
    for other in weights:
        assert share_moved(other, fit.SHIPPED_WEIGHTS) < 0.2


def test_level_votes_draw_the_log_odds_towards_nothing():
    x, y = differences(simulate(STYLE, 100, seed=0))
    assert fit.fit(x, np.full(len(y), 0.5)).log_sharpness < fit.fit(x, y).log_sharpness - 0.5


def test_the_loss_that_is_minimised_has_its_minimum_there():
    """The gradient is written by hand: a wrong one ends elsewhere."""
    x, y = differences(simulate(STYLE, 50, seed=3))
    found = fit.fit(x, y)

    def posterior(log_sharpness: float, relative: np.ndarray) -> float:
        odds = x @ fit.Fit(log_sharpness, relative).log_odds_weights
        away = (relative - fit.PRIOR_MEAN) / fit.WEIGHT_SPREAD
        prior = log_sharpness**2 + np.sum(away**2)
        return -np.sum(np.logaddexp(0, odds) - y * odds) - prior / 2

    best = posterior(found.log_sharpness, found.relative)
    for step in (0.02, -0.02):
        assert posterior(found.log_sharpness + step, found.relative) < best
        for part in range(len(found.relative)):
            relative = np.maximum(found.relative + step * (np.arange(len(found.relative)) == part), 0)
            assert np.array_equal(relative, found.relative) or posterior(found.log_sharpness, relative) < best


def test_intervals_hold_the_truth_about_as_often_as_they_say_and_shrink_with_votes(monkeypatch):
    monkeypatch.setattr(fit, "RESAMPLES", 60)
    held, widths = 0, []
    for count in (15, 200):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            relative = rng.normal(fit.PRIOR_MEAN, fit.WEIGHT_SPREAD)
            truth = fit.UNITS * np.maximum(relative, 0)
            x, y = differences(simulate(list(truth), count, seed))
            low, high = fit.intervals(x, y, np.arange(count))
            scaled = truth * fit.SHIPPED_WEIGHTS.sum() / truth.sum()
            held += np.sum((low <= scaled) & (scaled <= high))
            widths.append((high - low).sum())
    assert held >= 0.7 * 60  # of weights: 0.86 in simulations of a hundred viewers
    assert np.mean(widths[5:]) < 0.85 * np.mean(widths[:5])


def test_votes_on_one_pair_are_left_out_together(monkeypatch):
    """A pair that was repeated would be foretold by its first vote."""
    x, y = differences(simulate(STYLE, 30, seed=0))
    pairs, real, used = np.arange(30) // 2, fit.fit, []
    monkeypatch.setattr(fit, "fit", lambda x, y: used.append(len(y)) or real(x, y))
    fit.held_out_log_odds(np.repeat(x[::2], 2, axis=0), y, pairs)
    assert used and all(count % 2 == 0 for count in used)


def test_a_pair_teaches_most_where_the_weights_are_unsure_and_hold_it_for_close():
    x, y = differences(simulate(STYLE, 60, seed=0))
    fitted = fit.fit(x, y)
    nothing, far = np.zeros(len(x[0])), 30 * np.eye(len(x[0]))[0]
    unsure = np.eye(len(x[0]))[4]  # differs in one part, which weighs little
    values = fit.information(fitted, x, np.array([nothing, far, unsure]))
    assert values[0] == pytest.approx(0) and values[2] > 10 * values[1]
    assert np.all(fit.information(fitted, np.repeat(x, 3, axis=0), x) < fit.information(fitted, x, x))
