"""Does stopping trials early pay? Searches replayed on recorded curves, in minutes, without training.

A study (`study`) has trained settings to the end, with a score at each report on the way. A replayed
search proposes them in random order, and the very assessors that NNI runs stop its trials. All
searches have the same time. What counts is how good the setting is at the end of the schedule, by the
yardstick, that the search would promote: the best of the trials that were not stopped.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments.study.independent_judge import STYLE_WEIGHT, final_quality
from experiments.study.study import REPORTS, Study, finals, scores
from judge.common.cli import Fraction, NonNegativeFloat, PositiveInt
from judge.common.errors import UserError
from judge.score import DEFAULT_FORMULA, FORMULAS

BUDGETS = (0.2, 0.5, 1.0)  # of the schedule: what a trial that is not stopped trains
MEDIANSTOP = 0.4  # of a trial's reports, before which Medianstop stops none: experiments/cyclegan.yml
ETAS = (2, 3, 4)
ORDERS = 5  # for each draw of settings


@dataclass(frozen=True)
class Simulation:
    """The searches that are replayed."""

    table: Path = Study.table
    """A study's table."""
    trials: PositiveInt = 24
    """All searches take the time of so many whole trials of the smallest budget."""
    searches: PositiveInt = 200
    """So many, the same for each assessor; five at a time share a draw of settings, in five orders."""
    at_once: PositiveInt = 2
    """Trials at once."""
    overhead: NonNegativeFloat = 0.02
    """Time that a trial takes beside its training, in schedules: two searches by NNI took 24 s a trial
    beside steps of 0.22 s, of which a schedule has 5,000."""
    score: Literal[tuple(FORMULAS)] = DEFAULT_FORMULA
    """The formula that trials are stopped and the best is chosen by."""
    style: Fraction = STYLE_WEIGHT
    """Weight of style against content in final quality."""


def assessors(reports: int) -> dict[str, Callable[[], Any]]:
    """What makes the assessors that are compared, by name, for trials of so many reports."""
    from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor  # not above: takes a second

    from experiments.assessor import SuccessiveHalving

    return {
        "none": lambda: None,
        "Medianstop": partial(MedianstopAssessor, start_step=math.ceil(MEDIANSTOP * reports)),
        **{f"halving, eta {eta}": partial(SuccessiveHalving, start_step=1, eta=eta) for eta in ETAS},
    }


# ---------------------------------------------------------------------------------------------
# One search


@dataclass(frozen=True)
class Replay:
    """What came of a replayed search."""

    ended: int
    """Trials that ran through or were stopped; the others were running when the time was over."""
    reports: int
    """Of all trials together."""
    finals: dict[int, float]
    """Last score of the trials that ran through, by their number in the order of proposal."""


def replay(
    curves: Sequence[np.ndarray], assessor: Any, time: float, overhead: float = 0.0, at_once: int = 1,
) -> Replay:
    """A search whose trials, in the order of proposal, score `curves` at their reports.

    Args:
        assessor: an `nni.assessor.Assessor`, or None.
        time: when the search is cut off, in reports; so is `overhead`, what each trial takes beside.
    """
    trials, finals = [], {}
    running = []  # a heap of when the next report comes, and the trial's number

    def start(now: float) -> None:
        if len(trials) < len(curves):
            heapq.heappush(running, (now + overhead + 1, len(trials)))
            trials.append([])

    for _ in range(at_once):
        start(0.0)
    while running and running[0][0] <= time + 1e-9:  # sums of floats
        now, number = heapq.heappop(running)
        history, curve = trials[number], curves[number]
        history.append({"default": float(curve[len(history)])})  # as NNI hands it on
        goes_on = assessor is None or assessor.assess_trial(str(number), history).value
        if len(history) == len(curve):  # too late to be stopped
            finals[number] = history[-1]["default"]
        elif goes_on:
            heapq.heappush(running, (now + 1, number))
            continue
        if assessor:
            assessor.trial_end(str(number), number in finals)
        start(now)
    return Replay(len(trials) - len(running), sum(map(len, trials)), finals)


# ---------------------------------------------------------------------------------------------
# Many searches


def run(simulation: Simulation) -> pd.DataFrame:
    """A row a search, budget and assessor: trials that ended, those of them that ran through,
    schedules trained, and the regret: how far the setting that is promoted ends below the best that
    could have been, in shares of the range of all.

    Raises:
        UserError: the time is too short for one trial, or a curve of the table has gaps.
    """
    table = pd.read_csv(simulation.table)
    curves = table.assign(score=scores(table)[simulation.score]).pivot(
        index=["setting", "seed"], columns="share", values="score")
    if curves.shape[1] != REPORTS or curves.isna().any(axis=None):
        raise UserError(f"{simulation.table} lacks some of a trial's {REPORTS} reports: repeat the study")
    final = final_quality(finals(table), simulation.style).groupby("setting").mean()
    overhead, at_once = simulation.overhead * REPORTS, simulation.at_once
    time = simulation.trials * (BUDGETS[0] * REPORTS + overhead) / at_once
    if time < BUDGETS[-1] * REPORTS + overhead:
        raise UserError(f"--trials {simulation.trials} is less time than one over the whole schedule takes")
    rows = []
    for search in range(simulation.searches):
        settings, runs = proposals(curves, search, math.ceil(time * at_once / (1 + overhead)) + at_once)
        best = final[settings].max()
        for budget in BUDGETS:
            reports = round(budget * REPORTS)
            for name, assessor in assessors(reports).items():
                made = replay([run[:reports] for run in runs], assessor(), time, overhead, at_once)
                promoted = settings[max(made.finals, key=made.finals.get)]
                rows.append({
                    "budget": budget, "assessor": name, "search": search, "trials": made.ended,
                    "through": len(made.finals), "schedules": made.reports / REPORTS,
                    "regret": (best - final[promoted]) / np.ptp(final),
                })  # fmt: skip
    return pd.DataFrame(rows)


def proposals(curves: pd.DataFrame, search: int, count: int) -> tuple[list[int], list[np.ndarray]]:
    """What a search proposes, `count` settings and a curve of each: as many settings as there are,
    drawn with replacement; all once in random order, each with one of its seeds; then all again."""
    known = curves.index.unique("setting")
    pool = np.random.default_rng(search // ORDERS).choice(known, len(known))
    draw = np.random.default_rng([search, ORDERS])  # another stream than the pool's
    order = np.concatenate([draw.permutation(pool) for _ in range(math.ceil(count / len(pool)))])[:count]
    return list(order), [draw.choice(curves.loc[setting].to_numpy()) for setting in order]


def text(found: pd.DataFrame) -> str:
    """Means over searches, a row a budget and assessor. `gain` is how much less the regret is than
    without an assessor at the smallest budget, with its 95 % interval over draws of the settings."""
    found = found.assign(best=found["regret"] == 0, draw=found["search"] // ORDERS)
    rows = found.groupby(["budget", "assessor"], sort=False)
    drawn = found.groupby(["budget", "assessor", "draw"], sort=False)["regret"].mean().unstack("draw")
    gain = drawn.loc[BUDGETS[0], "none"] - drawn
    low, high = (gain.quantile(q, axis=1).map("{:+.2f}".format) for q in (0.025, 0.975))
    shown = rows[["trials", "through", "schedules"]].mean().map("{:.1f}".format)
    mean, spread = rows["regret"].mean(), rows["regret"].std()
    shown["regret"] = mean.map("{:.2f}".format) + spread.map(" ± {:.2f}".format)
    shown["best"] = rows["best"].mean().map("{:.0%}".format)
    shown["gain"] = gain.mean(axis=1).map("{:+.2f}".format) + " [" + low + ", " + high + "]"
    return f"{found['search'].nunique()} searches of equal time each\n\n{shown.to_string()}"
