"""Does stopping trials early pay? Searches are replayed on recorded learning curves, without training.

A study (`study`) has trained settings to the end, with a score at each report. A replayed search proposes
them in random order, and the assessors that NNI runs stop its trials. All searches have the same time. What
counts is the final quality, by an independent judge, of the setting of a search's best completed trial.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.study.independent_judge import STYLE_WEIGHT, final_quality
from experiments.study.study import REPORTS, Study, final_rows, read_table, scores_by
from judge.common.cli import Fraction, NonNegativeFloat, PositiveInt
from judge.common.errors import UserError
from judge.common.progress import progress
from judge.score import combined, find_formula

# These two describe the experiments/cyclegan.yml with which study.csv was made, of the earlier sketch.
BUDGETS = (0.2, 0.5, 1.0)  # of a trial that is not stopped, as a share of the schedule
MEDIANSTOP_START = 0.4  # share of a trial's reports before Medianstop may stop it
ETAS = (2, 3, 4)
ORDERS = 5  # of proposals, per draw of settings


@dataclass(frozen=True)
class Simulation:
    """The searches to replay."""

    table: Path = Study.table
    """Table of a study."""
    trials: PositiveInt = 24
    """The time of all searches: that of so many trials of the smallest budget, none of them stopped."""
    searches: PositiveInt = 200
    """Number of searches, the same for each assessor; every five share a draw of settings, in five orders."""
    at_once: PositiveInt = 2
    """Trials at once."""
    overhead: NonNegativeFloat = 0.02
    """Time that a trial takes beside its training, in schedules: with the earlier sketch, of study.csv, two
    searches by NNI took 24 s a trial beside steps of 0.22 s, of which a schedule had 5,000."""
    score: str = combined.name
    """Score by which trials are stopped and the best is chosen: a formula, or a file of `taste`. Not the
    default score, because study.csv is older than its part `scene`."""
    style: Fraction = STYLE_WEIGHT
    """Weight of style against content in final quality."""


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


def run(simulation: Simulation) -> pd.DataFrame:
    """Replay all searches, and return a table with a row per search, budget and assessor.

    Further columns: trials that ended; `through`, those of them that completed; schedules trained; regret,
    how much worse than the best setting at hand the chosen one ends, as a share of the range of all. Raises
    UserError if the time is too short for one trial, or reports are missing in the study's table.
    """
    table, formula = read_table(simulation.table), find_formula(simulation.score)
    if not formula.weighed <= set(table):
        raise UserError(f"{simulation.table} is older than parts of --score {simulation.score}")
    curves = table.assign(score=scores_by(formula, table)).pivot(
        index=["setting", "seed"], columns="share", values="score")
    if curves.shape[1] != REPORTS or curves.isna().any(axis=None):
        raise UserError(f"{simulation.table} lacks some of a trial's {REPORTS} reports: repeat the study")
    final = final_quality(final_rows(table), simulation.style).groupby("setting").mean()
    overhead, at_once = simulation.overhead * REPORTS, simulation.at_once
    time = simulation.trials * (BUDGETS[0] * REPORTS + overhead) / at_once
    if time < BUDGETS[-1] * REPORTS + overhead:
        raise UserError(f"--trials {simulation.trials} is less time than one over the whole schedule takes")
    max_trials = math.ceil(time * at_once / (1 + overhead)) + at_once  # each stopped at its first report
    rows = []
    for search in progress(range(simulation.searches), "searches"):
        settings, runs = proposals(curves, search, max_trials)
        for budget in BUDGETS:
            reports = round(budget * REPORTS)
            shortened = [run[:reports] for run in runs]
            for name, assessor in assessors(reports).items():
                ended, reported, finals = replay(shortened, assessor, time, overhead, at_once)
                chosen = settings[max(finals, key=finals.get)]
                rows.append({
                    "budget": budget, "assessor": name, "search": search, "trials": ended,
                    "through": len(finals), "schedules": reported / REPORTS,
                    "regret": (final[settings].max() - final[chosen]) / np.ptp(final),
                })  # fmt: skip
    return pd.DataFrame(rows)


def assessors(reports: int) -> dict[str, Any]:
    """Return the assessors to compare by name, new ones, for trials of `reports` reports."""
    from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor  # not above: takes a second

    from experiments.assessor import SuccessiveHalving

    return {"none": None, "Medianstop": MedianstopAssessor(start_step=math.ceil(MEDIANSTOP_START * reports)),
            **{f"halving, eta {eta}": SuccessiveHalving(start_step=1, eta=eta) for eta in ETAS}}


def proposals(curves: pd.DataFrame, search: int, count: int) -> tuple[list[int], list[np.ndarray]]:
    """Return `count` settings that a search proposes, and a learning curve of each, of a random seed.

    They are drawn with replacement, as many as the study has; proposed in random order, then all again.
    """
    numbers = curves.index.unique("setting")
    pool = np.random.default_rng(search // ORDERS).choice(numbers, len(numbers))
    rng = np.random.default_rng([search, ORDERS])  # another random stream than the pool's
    order = np.concatenate([rng.permutation(pool) for _ in range(math.ceil(count / len(pool)))])[:count]
    return list(order), [rng.choice(curves.loc[setting].to_numpy()) for setting in order]


def text(table: pd.DataFrame) -> str:
    """Return means over the searches as text, a row per budget and assessor.

    `gain` is how much less the regret is than without an assessor at the smallest budget, with its 95 %
    interval over draws of the settings; `best` is how often the best setting was chosen.
    """
    table = table.assign(best=table["regret"] == 0, draw=table["search"] // ORDERS)
    rows = table.groupby(["budget", "assessor"], sort=False)
    cells = rows[["trials", "through", "schedules"]].mean().map("{:.1f}".format)
    regret, by_draw = rows["regret"], table.pivot_table("regret", ["budget", "assessor"], "draw", sort=False)
    gain = by_draw.loc[BUDGETS[0], "none"] - by_draw
    low, high = (gain.quantile(q, axis=1).map("{:+.2f}".format) for q in (0.025, 0.975))
    cells["regret"] = regret.mean().map("{:.2f}".format) + regret.std().map(" ± {:.2f}".format)
    cells["best"] = rows["best"].mean().map("{:.0%}".format)
    cells["gain"] = gain.mean(axis=1).map("{:+.2f}".format) + " [" + low + ", " + high + "]"
    return f"{table['search'].nunique()} searches of equal time each\n\n{cells.to_string()}"
