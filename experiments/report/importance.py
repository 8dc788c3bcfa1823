"""Which parameters of a search matter: importances and the Pareto front, by Optuna."""

import warnings

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

optuna.logging.set_verbosity(optuna.logging.WARNING)

MIN_TRIALS = 8  # with fewer finished trials there are no importances
RESAMPLES = 12  # bootstrap samples of the trials, for the intervals
MAX_RESAMPLED_TRIALS = 200  # from here on there are no intervals: each takes long, and they are narrow
MAX_FANOVA_TRIALS = 400  # in one forest: one on 1,000 trials takes a minute


def weight_ratios(parameters: pd.DataFrame) -> pd.DataFrame:
    """Return the parameters with loss weights as ratios to `adversarial_weight`.

    Adam divides a gradient by its size, so a factor common to all weights changes next to nothing: only their
    ratios matter. Without an adversarial weight above 0 the weights stay as they are.
    """
    weights = [name for name in parameters if name.endswith("_weight")]
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

    The most important is first. Columns importance, which adds up to 1, on up to `MAX_FANOVA_TRIALS` trials
    drawn at random; low and high, a 90 % interval over resampled trials. Empty if there are too few trials or
    all have the same score.
    """
    parameters = parameters.loc[:, parameters.nunique() > 1]
    if len(scores) < MIN_TRIALS or scores.nunique() < 2 or parameters.empty:
        return pd.DataFrame(columns=["importance", "low", "high"])
    rng, count = np.random.default_rng(0), len(scores)
    samples = [rng.permutation(count)[:MAX_FANOVA_TRIALS] if count > MAX_FANOVA_TRIALS else np.arange(count)]
    if count < MAX_RESAMPLED_TRIALS:
        samples += [rng.integers(count, size=count) for _ in range(RESAMPLES)]
    shares = pd.DataFrame([_shares(parameters.iloc[rows], scores.iloc[rows]) for rows in samples])
    resampled = shares[1:] if len(shares) > 1 else shares
    table = resampled.quantile([0.05, 0.95]).T.set_axis(["low", "high"], axis=1)
    table.insert(0, "importance", shares.iloc[0])
    return table.sort_values("importance", ascending=False)


def _shares(parameters: pd.DataFrame, scores: pd.Series) -> dict[str, float]:
    shares = {}
    if scores.nunique() > 1:  # a resample may draw equal trials only
        study = optuna_study(parameters.loc[:, parameters.nunique() > 1], scores.to_frame())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its evaluator experimental
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=32, seed=0))
    return {name: float(shares.get(name, 0.0)) for name in parameters}


def pareto_front(values: pd.DataFrame) -> list:
    """Return the index of the rows on the Pareto front, those that no other row dominates."""
    study = optuna_study(pd.DataFrame(index=values.index), values)
    return [values.index[trial.number] for trial in study.best_trials]
