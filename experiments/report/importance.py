"""What a finished search says of its parameters, by Optuna's measures."""

import warnings

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

optuna.logging.set_verbosity(optuna.logging.WARNING)

MIN_TRIALS = 8  # trials from which anything is said
RESAMPLES = 12  # bootstrap draws of the trials, for the intervals of the importances
MAX_TRIALS_RESAMPLED = 200  # trials from which the forests are grown on no more draws: they take long, and agree
MAX_FANOVA_TRIALS = 400  # trials that a forest is grown on: of 1,000, it takes a minute


def weight_ratios(parameters: pd.DataFrame) -> pd.DataFrame:
    """The parameters with loss weights as ratios to the adversarial one.

    Adam divides a gradient by its size, so a factor common to all weights changes next to nothing:
    what counts is their ratios. Where a ratio does not exist, the weights stay as they are.
    """
    weights = [name for name in parameters if name.endswith("_weight")]
    whole = "adversarial_weight"
    if len(weights) < 2 or whole not in weights or (parameters[whole] <= 0).any():
        return parameters
    ratios = {f"{name} / {whole}": parameters[name] / parameters[whole] for name in weights if name != whole}
    return pd.DataFrame(ratios).join(parameters.drop(columns=weights))


def optuna_study(parameters: pd.DataFrame, values: pd.DataFrame) -> optuna.Study:
    """Optuna's study of finished trials: a row each of `parameters` and of `values` to maximise."""
    found = optuna.create_study(directions=["maximize"] * values.shape[1])
    ranges = {name: distribution(column) for name, column in parameters.items()}
    for own, results in zip(parameters.to_dict("records"), values.to_numpy().tolist()):
        found.add_trial(optuna.create_trial(params=own, distributions=ranges, values=results))
    return found


def distribution(column: pd.Series) -> BaseDistribution:
    """The range of a parameter's values, logarithmic where they span more than a factor of ten."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return CategoricalDistribution(list(dict.fromkeys(column)))
    low, high = float(column.min()), float(column.max())
    return FloatDistribution(low, high, log=low > 0 and high / low > 10)


def importance(parameters: pd.DataFrame, scores: pd.Series) -> pd.DataFrame:
    """How much of the score's variance each parameter explains: fANOVA (Hutter et al. 2014), of all
    trials or of `MOST` drawn from them, with the 90 % interval over resampled trials. Columns
    importance, low, high; the most important first. Empty where the trials are too few or all alike.
    """
    parameters = parameters.loc[:, parameters.nunique() > 1]
    if len(scores) < MIN_TRIALS or scores.nunique() < 2 or parameters.empty:
        return pd.DataFrame(columns=["importance", "low", "high"])
    draw = np.random.default_rng(0)
    drawn = [draw.permutation(len(scores))[:MAX_FANOVA_TRIALS] if len(scores) > MAX_FANOVA_TRIALS else np.arange(len(scores))]
    if len(scores) < MAX_TRIALS_RESAMPLED:
        drawn += [draw.integers(len(scores), size=len(scores)) for _ in range(RESAMPLES)]
    shares = pd.DataFrame([_shares(parameters.iloc[rows], scores.iloc[rows]) for rows in drawn])
    resampled = shares.iloc[1:] if len(shares) > 1 else shares
    return pd.DataFrame({
        "importance": shares.iloc[0], "low": resampled.quantile(0.05), "high": resampled.quantile(0.95),
    }).sort_values("importance", ascending=False)  # fmt: skip


def _shares(parameters: pd.DataFrame, scores: pd.Series) -> dict[str, float]:
    varied = parameters.loc[:, parameters.nunique() > 1]
    if scores.nunique() < 2:  # a resample of equal trials
        return dict.fromkeys(parameters, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its evaluator experimental
        found = get_param_importances(
            optuna_study(varied, scores.to_frame()), evaluator=FanovaImportanceEvaluator(n_trees=32, seed=0))
    return {name: float(found.get(name, 0.0)) for name in parameters}


def pareto_front(aims: pd.DataFrame) -> list:
    """Index of the rows that no other beats in every column (Pareto), all to be maximised."""
    found = optuna_study(pd.DataFrame(index=aims.index), aims)
    return [aims.index[trial.number] for trial in found.best_trials]
