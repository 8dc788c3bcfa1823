"""Fits the weights of the score's parts to votes, and measures how well formulas foretell votes.

The model is Bradley and Terry's (1952) with the logarithm of the score as strength: a viewer prefers a to b
with probability sigmoid(w . x), x the `log_parts` of a minus those of b. A level vote counts as half a vote
for each.

The order of scores depends on the ratios of w only; its size says how sharply the viewer decides. So w is
sharpness x unit x u, where a part's unit is its shipped weight, or 1 if it has none. Priors (standard
deviations below): u is normal around the shipped weight in these units, 1 or 0, and not negative; the
logarithm of the sharpness is normal around 0.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from judge.score import DEFAULT_FORMULA, FORMULAS, PARTS, Formula


def weights_of(formula: Formula) -> np.ndarray:
    """Return the weights of a formula in the order of `PARTS`, [parts]."""
    return np.array([formula.weights.get(part, 0) for part in PARTS], dtype=float)


SHIPPED_WEIGHTS = weights_of(FORMULAS[DEFAULT_FORMULA])
UNITS = np.where(SHIPPED_WEIGHTS > 0, SHIPPED_WEIGHTS, 1.0)
PRIOR_MEAN = SHIPPED_WEIGHTS / UNITS
# In `UNITS`: for viewers unlike the shipped weights, ten votes move 6 to 9 % of the weights' sum, a hundred
# 20 to 45 %, four hundred 50 to 70 % (simulated viewers, tests/experiments/preferences).
WEIGHT_SPREAD = 0.35
SHARPNESS_SPREAD = 1.0  # of the logarithm of the sharpness
MAX_LOG_SHARPNESS = 5.0  # a bound for the optimiser, never reached by votes of a person
RESAMPLES = 200  # of the votes, for intervals
INTERVAL = (5, 95)  # percentiles
FOLDS = 10
PRECISION = 1 / np.array([SHARPNESS_SPREAD, *np.full(len(PARTS), WEIGHT_SPREAD)]) ** 2  # of the prior


@dataclass(frozen=True)
class Fit:
    """The most probable weights, given votes."""

    log_sharpness: float
    relative: np.ndarray  # weights in `UNITS`, u, [parts]

    @property
    def log_odds_weights(self) -> np.ndarray:
        """The weights of the differences in the log-odds of a vote, w, [parts]."""
        return np.exp(self.log_sharpness) * UNITS * self.relative

    @property
    def weights(self) -> np.ndarray:
        """The weights of the score: in the same ratios, with the sum of the shipped ones, [parts]."""
        weights = UNITS * self.relative
        return weights * SHIPPED_WEIGHTS.sum() / weights.sum()


def fit(x: np.ndarray, y: np.ndarray, prior_mean: np.ndarray = PRIOR_MEAN) -> Fit:
    """Return the most probable weights.

    Args:
        x, y: as `votes.differences` returns.
        prior_mean: of the weights in `UNITS`, [parts].
    """
    mean = np.concatenate([[0.0], prior_mean])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative logarithm of the posterior and its gradient."""
        weights = Fit(values[0], values[1:]).log_odds_weights
        odds = x @ weights
        slope = x.T @ (expit(odds) - y)
        gradient = np.concatenate([[slope @ weights], slope * np.exp(values[0]) * UNITS])
        from_prior = values - mean
        value = np.sum(np.logaddexp(0, odds) - y * odds) + from_prior @ (PRECISION * from_prior) / 2
        return value, gradient + PRECISION * from_prior

    bounds = [(-MAX_LOG_SHARPNESS, MAX_LOG_SHARPNESS)] + [(0, None)] * len(PARTS)
    best = minimize(loss, np.maximum(mean, 0), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Fit(best[0], best[1:])


def information(fitted: Fit, x: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return how much a vote on each candidate pair would teach, [candidates].

    It is p (1 - p) times the variance of the log-odds under Laplace's approximation of the posterior, which
    orders pairs as the expected gain of information does to first order (MacKay 1992, "Information-based
    objective functions for active data selection"). It is large where the weights are least sure, and where
    they hold the sheets for close.

    Args:
        x: differences of the votes so far, [N, parts].
        candidates: differences of the pairs, [candidates, parts].
    """
    weights = fitted.log_odds_weights
    # The derivative of the weights by the logarithm of the sharpness and the relative weights.
    jacobian = np.column_stack([weights, np.diag(np.exp(fitted.log_sharpness) * UNITS)])
    seen, asked = x @ jacobian, candidates @ jacobian
    posterior_precision = (seen.T * uncertainty(x @ weights)) @ seen + np.diag(PRECISION)
    variance = np.sum(asked * np.linalg.solve(posterior_precision, asked.T).T, axis=1)
    return uncertainty(candidates @ weights) * variance


def uncertainty(log_odds: np.ndarray) -> np.ndarray:
    """Return the variance of votes, p (1 - p)."""
    return expit(log_odds) * expit(-log_odds)


def intervals(x: np.ndarray, y: np.ndarray, pairs: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the 90 % intervals of `Fit.weights`, [2, parts]: bootstrap over pairs, with all their votes.

    Each resample draws its prior mean from the prior, so that few votes have wide intervals, not narrow ones
    around the shipped weights.

    Args:
        pairs: the number of each vote's pair, [N], equal for votes on the same pair.
    """
    rng, count = np.random.default_rng(seed), pairs.max(initial=-1) + 1
    weights = []
    for _ in range(RESAMPLES):
        repeats = np.bincount(rng.integers(count, size=count), minlength=count)[pairs] if count else []
        rows = np.repeat(np.arange(len(x)), repeats)
        mean = np.maximum(rng.normal(PRIOR_MEAN, WEIGHT_SPREAD), 0)
        weights.append(fit(x[rows], y[rows], mean).weights)
    return np.percentile(weights, INTERVAL, axis=0)


def held_out_log_odds(x: np.ndarray, y: np.ndarray, pairs: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the log-odds of each vote by weights that were fitted without it, [N]: cross-validation.

    Votes on the same pair are left out together.
    """
    fold = np.random.default_rng(seed).permutation(pairs.max(initial=-1) + 1)[pairs] % FOLDS
    log_odds = np.zeros(len(x))
    for held_out in (fold == number for number in np.unique(fold)):
        log_odds[held_out] = x[held_out] @ fit(x[~held_out], y[~held_out]).log_odds_weights
    return log_odds


def agrees(log_odds: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return for each vote that chose a side whether log-odds foretell it: 1, 0, or 0.5 if they are 0."""
    chose = y != 0.5
    return (1 + np.sign(log_odds[chose]) * np.sign(y[chose] - 0.5)) / 2
