"""Does stopping trials early pay? Searches are replayed on recorded learning curves, without training.

The curves are those of searches whose trials were not stopped early. A replayed search proposes their
settings in random order, none twice, and the assessors that NNI runs stop its trials. All searches have the
same time. What counts is the score, at the end of the recorded curve, of the setting of a search's best
completed trial.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.api import load
from experiments.study.options import Simulation
from judge.common.errors import UserError
from judge.common.progress import progress
from judge.score import find_formula
from trials.session.steady import MIN_SCORE, STEADY_REPORTS

LENGTHS = (0.5, 1.0)  # of a trial that is not stopped, as a share of the recorded curves
MEDIANSTOP_START = 0.4  # share of a trial's reports before Medianstop may stop it: experiments/cyclegan.yml
ETAS = (2, 3, 4)
ORDERS = 5  # of proposals, per draw of settings
MIN_CURVES = 30  # fewer are exhausted by one search


def curves_of(names: Sequence[str], score: str | None = None) -> pd.DataFrame:
    """Return the learning curves of experiments as a table: experiment, trial, step, score and its parts."""
    return pd.concat([load(name, score).curves.assign(experiment=name) for name in names], ignore_index=True)


def steady_curves(table: pd.DataFrame, score: str | None = None) -> np.ndarray:
    """Return the score that each trial gave NNI at each report (`trials.session.steady`), [trials, reports].

    Left out are trials with fewer reports than others, which were stopped. Raises UserError if there are
    fewer than `MIN_CURVES`, or parts of the score are missing.
    """
    if score:
        formula = find_formula(score)
        if not formula.weighed <= set(table):
            raise UserError(f"the curves are older than parts of --score {score}")
        table = table.assign(score=[formula(row) for row in table.to_dict("records")])
    keys = [name for name in ("experiment", "search", "trial") if name in table]
    logarithms = np.log(table.sort_values("step").set_index(keys)["score"].clip(lower=MIN_SCORE))
    trials = [values for _, values in logarithms.groupby(keys)]
    longest = max(map(len, trials), default=0)
    full = np.unique([values for values in trials if len(values) == longest], axis=0)  # a copy counts once
    curves = np.exp(pd.DataFrame(full).T.rolling(STEADY_REPORTS, min_periods=1).mean().T.to_numpy())
    if len(curves) < MIN_CURVES:
        raise UserError(f"{len(curves)} trials that were not stopped early: {MIN_CURVES} are needed, or a "
                        "search would see all of them")
    return curves


def replay(
    curves: Sequence[np.ndarray], assessor: Any, time: float, overhead: float = 0.0, at_once: int = 1,
) -> tuple[int, int, dict[int, float]]:
    """Replay a search whose trials, in the order of proposal, score `curves` at their reports.

    Args:
        assessor: an `nni.assessor.Assessor`, or None.
        time: when the search is cut off; a trial's report takes a time of 1.
        overhead: time that each trial takes beside its reports.

    Returns:
        Trials that completed or were stopped; reports of all trials; and the last score of each completed
        trial, by its number in the order of proposal.
    """
    started = min(at_once, len(curves))
    running = [(overhead + 1, number) for number in range(started)]  # a heap: time of the next report, trial
    histories: list[list[dict]] = [[] for _ in curves]
    finals = {}
    while running and running[0][0] <= time + 1e-9:  # the times are sums of floats
        now, number = heapq.heappop(running)
        history, curve = histories[number], curves[number]
        history.append({"default": float(curve[len(history)])})  # in the form that NNI gives to an assessor
        goes_on = assessor is None or assessor.assess_trial(str(number), history).value
        if len(history) == len(curve):  # completed, whatever the assessor says
            finals[number] = history[-1]["default"]
        elif goes_on:
            heapq.heappush(running, (now + 1, number))
            continue
        if assessor:
            assessor.trial_end(str(number), number in finals)
        if started < len(curves):
            heapq.heappush(running, (now + overhead + 1, started))
            started += 1
    return started - len(running), sum(map(len, histories)), finals


def run(simulation: Simulation, curves: np.ndarray) -> pd.DataFrame:
    """Replay all searches on `curves`, [trials, reports], and return a row per search, length and assessor.

    Further columns: settings that could be proposed; trials that ended; `through`, those of them that
    completed; `cost`, all training, in trials of full length; loss, the base-10 logarithm of how many times
    better the best setting of the draw ends than the chosen one.
    """
    reports, at_once = curves.shape[1], simulation.at_once
    overhead = simulation.overhead * reports
    time = simulation.trials * (reports + overhead) / at_once
    rows = []
    for search in progress(range(simulation.searches), "searches"):
        drawn = draw(curves, search)
        for length in LENGTHS:
            count = math.ceil(length * reports)
            for name, assessor in assessors(count).items():
                ended, reported, finals = replay(drawn[:, :count], assessor, time, overhead, at_once)
                chosen = max(finals, key=finals.get)
                rows.append({
                    "length": length, "assessor": name, "search": search,
                    "settings": len(drawn), "trials": ended,
                    "through": len(finals), "cost": reported / reports,
                    "loss": math.log10(drawn[:, -1].max() / drawn[chosen, -1]),
                })  # fmt: skip
    return pd.DataFrame(rows)


def assessors(reports: int) -> dict[str, Any]:
    """Return the assessors to compare by name, new ones, for trials of `reports` reports."""
    from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor  # not above: takes a second

    from experiments.assessor import SuccessiveHalving

    return {"none": None, "Medianstop": MedianstopAssessor(start_step=math.ceil(MEDIANSTOP_START * reports)),
            **{f"halving, eta {eta}": SuccessiveHalving(start_step=1, eta=eta) for eta in ETAS}}


def draw(curves: np.ndarray, search: int) -> np.ndarray:
    """Return the curves that a search proposes, in its order: a bootstrap sample without its repeats."""
    rng = np.random.default_rng(search // ORDERS)
    drawn = np.unique(rng.integers(len(curves), size=len(curves)))
    return curves[np.random.default_rng([search, ORDERS]).permutation(drawn)]


def text(table: pd.DataFrame) -> str:
    """Return means over the searches as text, a row per length and assessor.

    `share` is the chosen setting's score as a share of the best one's (geometric mean); `best` is how often
    the best setting was chosen; `gain` is how many times better the chosen setting is than with trials of
    full length and without an assessor, with its 95 % interval over draws of the settings.
    """
    table = table.assign(best=table["loss"] == 0, draw=table["search"] // ORDERS)
    rows = table.groupby(["length", "assessor"], sort=False)
    cells = rows[["trials", "through", "cost"]].mean().map("{:.1f}".format)
    by_draw = table.pivot_table("loss", ["length", "assessor"], "draw", sort=False)
    gain = by_draw.loc[LENGTHS[-1], "none"] - by_draw
    low, high = ((10 ** gain.quantile(q, axis=1)).map("{:.2f}".format) for q in (0.025, 0.975))
    cells["share"] = (10 ** -rows["loss"].mean()).map("{:.2f}".format)
    cells["best"] = rows["best"].mean().map("{:.0%}".format)
    cells["gain"] = (10 ** gain.mean(axis=1)).map("{:.2f}".format) + " [" + low + ", " + high + "]"
    count, settings = table["search"].nunique(), table["settings"].mean()
    return (f"{count} searches of equal time; each can propose about {settings:.0f} settings, and one "
            f"that has seen them all has time left\n\n{cells.to_string()}")
