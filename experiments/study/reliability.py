"""How much of a score is the setting, and how much is chance? From trainings that differ in seed alone."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from experiments.study.study import scores_by
from judge.common.errors import UserError
from judge.common.progress import progress
from judge.score import Formula
from trials.session.steady import MIN_SCORE

SHARES = (0.1, 0.2, 0.3, 0.5, 1.0)  # of the schedule
MEANS = (1, 2, 4, 8)  # reports whose logarithms are averaged
RESAMPLES = 1000  # bootstrap samples of the settings, for the intervals


def log_curves(table: pd.DataFrame, formula: Formula) -> pd.DataFrame:
    """Return the score's logarithm, a row per (setting, seed) and a column per share of the schedule.

    Only settings with the largest number of seeds are kept. Raises UserError if fewer than three settings
    have several seeds, or parts of the score are missing.

    Args:
        table: of a study (`study.run`).
    """
    if missing := formula.weighed - set(table):
        raise UserError(f"the table has no {', '.join(sorted(missing))}, which {formula.name} weighs")
    logarithms = np.log(scores_by(formula, table).clip(lower=MIN_SCORE))
    curves = table.assign(value=logarithms).pivot(index=["setting", "seed"], columns="share", values="value")
    seeds = curves.groupby("setting").size()
    most = seeds[seeds == seeds.max()]
    if most.max() < 2 or len(most) < 3:
        raise UserError("a table needs three settings with two seeds or more: python -m experiments study "
                        "--seeds 3 makes one")
    return curves.loc[most.index]


def reliability(curves: pd.DataFrame) -> pd.DataFrame:
    """Return how far a score depends on the setting, a row per number of averaged reports and share.

    Columns: `icc`, the intraclass correlation of the score's logarithm over the seeds, with its 95 % interval
    `low` and `high` (percentile bootstrap over settings); `rank`, Spearman's correlation with the last report
    of the *other* seeds (the mean of its logarithm), averaged over the seeds.

    Args:
        curves: as `log_curves` returns.
    """
    ends, rows = by_seed(curves.iloc[:, -1]), []
    for reports, share in progress(list(product(MEANS, SHARES)), "means and shares"):
        values = by_seed(curves.loc[:, :share].iloc[:, -reports:].mean(axis=1))
        low, high = interval(values)
        rows.append({"reports": reports, "share": share, "icc": intraclass_correlation(values),
                     "low": low, "high": high, "rank": rank_of_other_seeds(values, ends)})  # fmt: skip
    return pd.DataFrame(rows)


def by_seed(values: pd.Series) -> np.ndarray:
    """Return values with the index (setting, seed) as [settings, seeds]."""
    return values.to_numpy().reshape(values.index.unique("setting").size, -1)


def intraclass_correlation(values: np.ndarray) -> np.ndarray:
    """Return ICC(1,1) of [..., settings, seeds]: the share of variance that is between settings, at most 1.

    Shrout and Fleiss 1979, "Intraclass correlations: uses in assessing rater reliability", case 1. It can be
    negative by chance.
    """
    seeds = values.shape[-1]
    between = seeds * values.mean(-1).var(-1, ddof=1)
    within = values.var(-1, ddof=1).mean(-1)
    return (between - within) / (between + (seeds - 1) * within)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the intraclass correlation of [settings, seeds]."""
    samples = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    with np.errstate(invalid="ignore"):  # samples of one setting alone whose seeds agree
        low, high = np.nanpercentile(intraclass_correlation(values[samples]), [2.5, 97.5])
    return float(low), float(high)


def rank_of_other_seeds(values: np.ndarray, ends: np.ndarray) -> float:
    """Return the mean over seeds of the rank correlation of [settings, seeds] with the other seeds' ends."""
    return float(np.mean([spearmanr(values[:, seed], np.delete(ends, seed, 1).mean(1)).statistic
                          for seed in range(values.shape[1])]))  # fmt: skip


def text(tables: Mapping[Path, pd.DataFrame], formula: Formula) -> str:
    """Return the reliability of each table, by its file, as text: a row per mean and a column per share."""
    lines = [f"score: {formula.name}. Each cell: share of variance between settings (ICC) [95 % interval], "
             "rank correlation with the end of other seeds; columns: share of the schedule"]  # fmt: skip
    for file, frame in tables.items():
        curves = log_curves(frame, formula)
        settings, seeds = by_seed(curves.iloc[:, -1]).shape
        result = reliability(curves)
        result["cell"] = [f"{row.icc:.2f} [{row.low:.2f}, {row.high:.2f}] {row.rank:.2f}"
                          for row in result.itertuples()]  # fmt: skip
        cells = result.pivot(index="reports", columns="share", values="cell")
        cells.index = ["last report" if count == 1 else f"mean of {count}" for count in cells.index]
        lines += ["", f"{file}: {settings} settings, {seeds} seeds each", cells.to_string()]
    return "\n".join(lines)
