"""The tests of PROTOCOL.md, from its tables."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, gmean, mannwhitneyu, spearmanr, ttest_1samp, ttest_ind

from experiments.answer.collection import (
    PUBLISHED_RESIZE,
    SEARCH,
    SHARED,
    confirmed_settings,
    trials,
    without_published,
)
from experiments.confirmation import PUBLISHED
from trials.session.steady import MIN_SHOWN

PARTS = ("style", "kid", "scene", "diversity", "clean")
ALPHA = 0.05
WON = 4  # of a pair's six winners that must be significantly better, for a yes


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return the p values corrected for their number: Holm 1979, "A simple sequentially rejective multiple
    test procedure"."""
    p_values = np.asarray(p_values, float)
    order, count = p_values.argsort(), len(p_values)
    corrected = np.maximum.accumulate(p_values[order] * (count - np.arange(count))).clip(max=1)
    return corrected[order.argsort()]


def log_scores(scores: pd.Series) -> pd.Series:
    """Return the base-10 logarithms of scores, those below `MIN_SHOWN` as that one."""
    return np.log10(scores.clip(lower=MIN_SHOWN))


def settings(searches: pd.DataFrame, confirmed: pd.DataFrame) -> pd.DataFrame:
    """Return the settings of the confirmation, the best first for each pair of domains.

    Columns: the parameters; score, by the independent judge, the geometric mean over seeds, with the lowest
    and the highest. The tables are of `collect` and `retraining.run`.
    """
    scores = confirmed["default"].clip(lower=MIN_SHOWN).groupby([confirmed["pair"], confirmed["setting"]])
    scores = scores.agg(score=gmean, lowest="min", highest="max").reset_index()
    rows = [{"pair": pair, "setting": name, **parameters} for pair in scores["pair"].unique()
            for name, parameters in confirmed_settings(searches, pair).items()]
    table = scores.merge(pd.DataFrame(rows), on=["pair", "setting"])
    return table.sort_values(["pair", "score"], ascending=[True, False], ignore_index=True)


def against(table: pd.DataFrame, baseline: str, measure: str = "default") -> pd.DataFrame:
    """Return how each search's winner compares with a baseline, a row per winner.

    Columns: pair; winner; gain, the difference of the means over seeds, for `default` of the logarithm; low
    and high, its 95 % interval (Welch); p, corrected over all rows by Holm's method.

    Args:
        table: of `retraining.run`.
        baseline: the setting to compare with.
        measure: `default` or one of its parts; a diverged training has no parts, and is left out there.
    """
    values = log_scores(table["default"]) if measure == "default" else table[measure]
    groups = {key: group.dropna() for key, group in values.groupby([table["pair"], table["setting"]])}
    rows = []
    for (pair, setting), ours in groups.items():
        if setting not in (PUBLISHED, PUBLISHED_RESIZE):
            theirs = groups[pair, baseline]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # values all equal, such as clean 1: p is nan
                test = ttest_ind(ours, theirs, equal_var=False)
            low, high = test.confidence_interval(1 - ALPHA)
            rows.append({"pair": pair, "winner": setting, "gain": ours.mean() - theirs.mean(),
                         "low": low, "high": high, "p": test.pvalue})  # fmt: skip
    result = pd.DataFrame(rows)
    return result.assign(p=holm(result["p"].fillna(1)))


def answer(comparison: pd.DataFrame) -> dict[str, str]:
    """Return for each pair of domains whether its winners win, from the table of `against`."""
    better = ((comparison["gain"] > 0) & (comparison["p"] < ALPHA)).groupby(comparison["pair"]).sum()
    return {pair: f"{'yes' if count >= WON else 'no' if count == 0 else 'in part'} ({count} of 6)"
            for pair, count in better.items()}


def tpe_against_random(table: pd.DataFrame) -> tuple[float, float, float, float]:
    """Return by how much TPE's winners have a higher mean log score than random search's of the same seed:
    the mean over the seeds, its 95 % interval, and p (paired t-test). `table` is of `retraining.run`."""
    winners = table[table["setting"].str.match("tpe |random ")]
    kinds = winners["setting"].str.split(" ", expand=True)
    means = log_scores(winners["default"]).groupby([winners["pair"], kinds[1], kinds[0]]).mean().unstack()
    test = ttest_1samp(means["tpe"] - means["random"], 0)
    low, high = test.confidence_interval(1 - ALPHA)
    return (means["tpe"] - means["random"]).mean(), low, high, test.pvalue


def proposals(searches: pd.DataFrame) -> pd.DataFrame:
    """Return how TPE's proposals scored in the searches, against the later random ones, a row per pair.

    Columns: the medians of both; share, how often one of TPE scores higher than one at random, ties counted
    half; p of Mann and Whitney's test, corrected over the pairs. `searches` is the table of `collect`.
    """
    all_trials, rows = trials(searches), []
    later = all_trials[all_trials["trial"] >= SHARED]
    for pair, group in later.groupby("pair"):
        tpe, random = (group.loc[group["kind"] == kind, "final"] for kind in ("tpe", "random"))
        test = mannwhitneyu(tpe, random)
        rows.append({"pair": pair, "tpe": tpe.median(), "random": random.median(),
                     "share": test.statistic / len(tpe) / len(random), "p": test.pvalue})
    result = pd.DataFrame(rows)
    return result.assign(p=holm(result["p"]))


def by_eye(votes: pd.DataFrame) -> pd.DataFrame:
    """Return the share of votes for the first of two settings, a row per pair of domains and question.

    Further columns: votes; low and high, Wilson's 95 % interval; yes, whether it is above one half.
    """
    rows = []
    for (pair, question), group in votes.groupby(["pair", "question"]):
        first, count = int((group["choice"] == group["first"]).sum()), len(group)
        low, high = binomtest(first, count).proportion_ci(1 - ALPHA, method="wilson")
        rows.append({"pair": pair, "question": question, "votes": count, "share": first / count,
                     "low": low, "high": high, "yes": low > 0.5})  # fmt: skip
    return pd.DataFrame(rows)


def text(searches: pd.DataFrame, confirmed: pd.DataFrame | None, votes: pd.DataFrame | None,
         sizes: pd.DataFrame | None) -> str:
    """Return all tables that there are figures for, with the answers in words."""
    best = best_scores(searches).to_string(float_format="{:.3g}".format)
    blocks = [f"best score of each search\n{best}",
              f"TPE's proposals against later random ones\n{_lines(proposals(searches))}"]
    if confirmed is not None:
        table = settings(searches, confirmed).to_string(index=False, float_format="{:.3g}".format)
        blocks.append(f"trained again with new seeds: score by the independent judge\n{table}")
        for baseline in (PUBLISHED, PUBLISHED_RESIZE):
            comparison = against(confirmed, baseline)
            blocks.append(f"winners against {baseline}, log10 of the independent judge's score: "
                          f"{answer(comparison)}\n{_lines(comparison)}")
            gains = {part: against(confirmed, baseline, part) for part in PARTS}
            cells = {part: [f"{row.gain:+.3f}{'*' * (row.p < ALPHA)}" for row in table.itertuples()]
                     for part, table in gains.items()}  # fmt: skip
            cells = comparison[["pair", "winner"]].assign(**cells)
            blocks.append(f"the same by part (* p < {ALPHA})\n{cells.to_string(index=False)}")
        gain, low, high, p = tpe_against_random(confirmed)
        word = "yes" if low > 0 else "no" if high < 0 else "not shown"
        blocks.append(f"is TPE better than random search? {word}: log10 of the winners' scores {gain:+.3f} "
                      f"[{low:+.3f}, {high:+.3f}], p {p:.3f}, six seeds")
    if votes is not None:
        blocks.append(f"by eye\n{_lines(by_eye(votes))}")
    if sizes is not None:
        rank = spearmanr(sizes["sketch"], sizes["draft"], alternative="greater")
        blocks.append(f"do sizes agree? {'yes' if rank.pvalue < ALPHA else 'not shown'}: Spearman "
                      f"{rank.statistic:.2f}, p {rank.pvalue:.3f} (one-sided)\n{_lines(sizes)}")
    return "\n\n".join(blocks)


def best_scores(searches: pd.DataFrame) -> pd.DataFrame:
    """Return the published setting's and the best other score in each search, and the trials that ended."""
    ended = trials(searches)
    others = without_published(ended)
    return pd.DataFrame({
        "published": ended[ended["trial"] == 0].set_index(SEARCH)["final"],
        "best": others.groupby(SEARCH)["final"].max(), "trials": ended.groupby(SEARCH).size()})


def _lines(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format="{:.3f}".format)
