"""Which parameters of a search matter: importances and the Pareto front, by Optuna."""

import warnings

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from experiments.report.results import Row
from judge.score import WORST_SCORE

optuna.logging.set_verbosity(optuna.logging.WARNING)

MIN_TRIALS = 8  # with fewer finished trials there are no importances
FEW_TRIALS = 50  # with fewer, a note says that the importances are a hint only
LARGEST = np.finfo(np.float32).max  # number that a forest takes
MAX_TRIALS = 100  # in one resample: a forest on 400 takes seconds
# Up to 20 values have their mean between their 5th and 95th percentile: of n values the latter, interpolated,
# gives the largest the weight 1.05 - 0.05 n, which is at least 1/n.
RESAMPLES = 20

NOTE = """How much of the difference between scores each parameter explains, as shares that add up to 1
(fANOVA, Hutter et al. 2014), from {count} finished trials{diverged}. A bar is the mean over {resamples}
resamples of the trials, its line is where 90 % of them lie."""
RATIO_NOTE = " Loss weights are shown as ratios: with Adam, a factor common to all has next to no effect."
FEW_NOTE = (" With so few trials this is a hint, not a finding: where the lines overlap, the order means "
            "nothing.")


def of_rows(rows: list[Row]) -> pd.DataFrame:
    """Return the importances of the parameters of a search, from its trials that ended: as `importance`, with
    loss weights as ratios. Trials that diverged count, with the worst score."""
    return importance(*_counted(rows))


def note(rows: list[Row]) -> str:
    """Return what the importances of these trials are, or why there are none, for a reader."""
    parameters, scores = _counted(rows)
    count, diverged = len(scores), sum(row.state == "diverged" for row in rows)
    if count < MIN_TRIALS:
        there_are = "there is" if count == 1 else "there are"
        return f"Importances need {MIN_TRIALS} finished trials, {there_are} {count}."
    if not _vary(parameters, scores):
        return "No importances: all finished trials have the same score, or the same parameters."
    worst = f", of which {diverged} diverged and count with the worst score, {WORST_SCORE:g}" * bool(diverged)
    text = NOTE.format(count=count, diverged=worst, resamples=RESAMPLES)
    text += RATIO_NOTE * any(" / " in name for name in parameters) + FEW_NOTE * (count < FEW_TRIALS)
    return " ".join(text.split())


def _counted(rows: list[Row]) -> tuple[pd.DataFrame, pd.Series]:
    """Return parameters and scores of the trials that trained to their end or diverged."""
    ended = [row for row in rows if row.state == "diverged" or row.trial.final and row.state == "succeeded"]
    parameters = pd.DataFrame([row.trial.parameters for row in ended])
    scores = pd.Series([WORST_SCORE if row.state == "diverged" else row.score for row in ended], dtype=float)
    # A trial that was added by hand may have other parameters; a damaged database, numbers beyond all bounds.
    numbers = parameters.select_dtypes("number")
    parameters = parameters.assign(**numbers.where(numbers.abs() <= LARGEST))
    parameters = parameters.dropna(axis=1, thresh=len(ended) // 2 + 1)
    complete = parameters.notna().all(axis=1) & (scores.abs() <= LARGEST)
    return weight_ratios(parameters[complete]), scores[complete]


def _vary(parameters: pd.DataFrame, scores: pd.Series) -> bool:
    return scores.nunique() > 1 and bool((parameters.nunique() > 1).any())


def weight_ratios(parameters: pd.DataFrame) -> pd.DataFrame:
    """Return the parameters with loss weights as ratios to `adversarial_weight`.

    Adam divides a gradient by its size, so a factor common to all weights changes next to nothing: only their
    ratios matter. Without an adversarial weight above 0 the weights stay as they are.
    """
    weights = [name for name in parameters.select_dtypes("number") if name.endswith("_weight")]
    base = "adversarial_weight"
    if len(weights) < 2 or base not in weights or (parameters[base] <= 0).any():
        return parameters
    ratios = {f"{name} / {base}": parameters[name] / parameters[base] for name in weights if name != base}
    return pd.DataFrame(ratios).join(parameters.drop(columns=weights))


def optuna_study(parameters: pd.DataFrame, values: pd.DataFrame) -> optuna.Study:
    """Return Optuna's study of finished trials, a row each in both tables; values are to be maximised."""
    study = optuna.create_study(directions=["maximize"] * values.shape[1])
    distributions = {name: distribution(column) for name, column in parameters.items()}
    for params, results in zip(parameters.to_dict("records"), values.to_numpy().tolist()):
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, values=results))
    return study


def distribution(column: pd.Series) -> BaseDistribution:
    """Return the range of a parameter's values, logarithmic if they span more than a factor of ten."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return CategoricalDistribution(list(dict.fromkeys(column)))
    low, high = float(column.min()), float(column.max())
    return FloatDistribution(low, high, log=low > 0 and high / low > 10)


def importance(parameters: pd.DataFrame, scores: pd.Series) -> pd.DataFrame:
    """Return each parameter's share of the explained variance of the score: fANOVA (Hutter et al. 2014).

    The most important is first. Columns: importance, which adds up to 1, the mean over `RESAMPLES` resamples
    with replacement, each of up to `MAX_TRIALS` trials; low and high, the 5th and 95th percentile of these.
    Empty if there are too few trials or all have the same score.
    """
    parameters = parameters.loc[:, parameters.nunique() > 1]
    if len(scores) < MIN_TRIALS or not _vary(parameters, scores):
        return pd.DataFrame(columns=["importance", "low", "high"])
    rng, shares = np.random.default_rng(0), []
    while len(shares) < RESAMPLES:
        rows = rng.integers(len(scores), size=min(len(scores), MAX_TRIALS))
        if _vary(parameters.iloc[rows], scores.iloc[rows]):
            shares.append(_shares(parameters.iloc[rows], scores.iloc[rows]))
    shares = pd.DataFrame(shares)
    low, high = shares.quantile(0.05), shares.quantile(0.95)
    table = pd.DataFrame({"importance": shares.mean(), "low": low, "high": high})
    return table.sort_values("importance", ascending=False)


def _shares(parameters: pd.DataFrame, scores: pd.Series) -> dict[str, float]:
    varied = parameters.loc[:, parameters.nunique() > 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its evaluator experimental
        shares = get_param_importances(optuna_study(varied, scores.to_frame()),
                                       evaluator=FanovaImportanceEvaluator(n_trees=32, seed=0))
    return {name: float(shares.get(name, 0.0)) for name in parameters}
