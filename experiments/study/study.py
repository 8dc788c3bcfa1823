"""Does the early score rank settings as they will end?

Trains settings drawn from a search space over the full schedule and keeps what they paint on the
way. Early values are the score's, on the way through the schedule; final quality is measured by a
yardstick: a second judge that no trial is scored with, of another architecture, trained on other
images. Figures go into a small table, a trial at a time, so that a study can be stopped at any time
and its table be ranked anew, and searches be replayed on it (`simulation`), without training.
"""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau, rankdata, spearmanr

from experiments.study.independent_judge import STYLE_WEIGHT, IndependentJudge, final_quality
from judge import images, model
from judge.common.cli import NonNegativeInt, PositiveInt
from judge.common.device import available_cores
from judge.common.errors import UserError
from judge.common.files import atomic_write
from judge.common.tensors import read_tensors
from judge.score import FORMULAS, Scorer
from trials import cyclegan
from trials.parts.batches import load_held_out
from trials.session.records import read_json

REPORTS = 20  # over the schedule, evenly: what the table holds of a trial
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the schedule, at which early values are ranked
PARTS = ("style", "content", "diversity", "clean", "kid")
RESAMPLES = 2000  # of settings, for the intervals


@dataclass(frozen=True)
class Study:
    """What a study trains, and what it measures with."""

    data: str
    """Data set to train on; the yardstick's must be other images (python -m judge halves)."""
    judge: str
    """The judge whose score is studied."""
    yardstick: str
    """The judge that measures final quality; its architecture, seed and images differ."""
    yardstick_data: str
    """Data set whose test paintings the yardstick measures distances to."""
    out: Path = Path("runs/study")
    """Folder of the trials."""
    table: Path = Path("experiments/study/study.csv")
    """Figures of finished trials, which are not trained again."""
    space: Path = Path("search_spaces/cyclegan.json")
    """Where settings are drawn from; the published one comes first."""
    size: Literal[("auto", *images.SIZES)] = "auto"
    """sketch, draft or paper."""
    steps: PositiveInt | None = None
    """The full schedule, where it is not to be the size's."""
    settings: PositiveInt = 17
    """Settings to train, the published one among them."""
    again: NonNegativeInt = 4
    """So many of the best and of the worst are trained with a second seed."""
    photos: PositiveInt = 128
    """Held-out photographs that are painted."""
    at_once: PositiveInt = 2
    """Trials at once, which share the cores."""


def run(study: Study) -> pd.DataFrame:
    """Train and measure what the study's table lacks, and return the table.

    Raises:
        UserError: a judge, a data set or a space that is not there; a trial failed.
    """
    figures = Figures(study)
    table = figures.complete([(number, 0) for number in range(study.settings)])
    order = final_quality(finals(table[table["seed"] == 0])).sort_values(kind="stable").index
    ends = [*order[: study.again], *order[max(0, len(order) - study.again) :]] if study.again else []
    return figures.complete([(number, 1) for number, _ in dict.fromkeys(ends)])


# ---------------------------------------------------------------------------------------------
# Training and measuring


class Figures:
    """The study's table, filled a trial at a time."""

    def __init__(self, study: Study):
        self.study, self.settings = study, drawn(study.space, study.settings)
        cpu = torch.device("cpu")
        pixels = cyclegan.Settings(size=study.size).complete(cpu).pixels
        self.test = load_held_out(images.find_dataset(study.data), pixels, study.photos, cpu)
        self.score = Scorer(model.load_judge(study.judge)[0], self.test.photos, self.test.paintings)
        self.yardstick = IndependentJudge(study.yardstick, study.yardstick_data, self.test)
        self.judges = {"judge": model.sha256_of(study.judge)[:12],
                       "yardstick": model.sha256_of(study.yardstick)[:12]}
        self.lock = threading.Lock()

    def complete(self, runs: list[tuple[int, int]]) -> pd.DataFrame:
        """The table, with those of `runs`, (setting, seed), in it."""
        have = self._table()
        known = set(zip(have["setting"], have["seed"])) if len(have) else set()
        with ThreadPoolExecutor(self.study.at_once) as pool:
            list(pool.map(self._add, [run for run in runs if run not in known]))
        return self._table()

    def _table(self) -> pd.DataFrame:
        """What is there, by these judges: figures of others are measured anew."""
        if not self.study.table.exists():
            return pd.DataFrame()
        # Some hashes would be read as numbers.
        table = pd.read_csv(self.study.table, dtype=dict.fromkeys(self.judges, str))
        same = (table["judge"] == self.judges["judge"]) & (table["yardstick"] == self.judges["yardstick"])
        return table[same]

    def _add(self, run: tuple[int, int]) -> None:
        trial = self._train(*run)
        with self.lock:
            rows = pd.DataFrame(self._measure(trial, *run))
            self.study.table.parent.mkdir(parents=True, exist_ok=True)
            table = pd.concat([self._table(), rows]).sort_values(["setting", "seed", "share"])
            atomic_write(self.study.table, lambda part: table.to_csv(part, index=False, float_format="%.6g"))
        print(f"setting {run[0]}, seed {run[1]}: in {self.study.table}", flush=True)

    def _train(self, number: int, seed: int) -> Path:
        """A setting's trial, trained to the end now or before; its folder."""
        study, trial = self.study, self.study.out / f"{number:02d}-{seed}"
        if read_json(trial / "run.json").get("status") == "finished":
            return trial
        values = {
            **self.settings[number], "data": study.data, "judge": study.judge, "size": study.size,
            "seed": seed, "photos": study.photos, "reports": REPORTS, "keep": "true", "out": trial,
            "threads": max(1, available_cores() // study.at_once),
        }  # fmt: skip
        if study.steps:
            values["steps"] = study.steps
        options = [word for name, value in values.items()
                   for word in (f"--{name.replace('_', '-')}", str(value))]
        trial.mkdir(parents=True, exist_ok=True)
        with open(trial / "log", "a") as log:
            command = [sys.executable, "-m", "trials.cyclegan", *options]
            ended = subprocess.run(command, stdout=log, stderr=log)
        if ended.returncode or read_json(trial / "run.json").get("status") != "finished":
            raise UserError(f"the trial of setting {number} did not finish: {trial / 'log'} says why")
        return trial

    def _measure(self, trial: Path, number: int, seed: int) -> list[dict]:
        """A row a report: setting and parts of the score; the last with the yardstick's style,
        distance and edge correlation."""
        steps = read_json(trial / "run.json")["schedule"]["steps"]
        rows = []
        for share in (report / REPORTS for report in range(1, REPORTS + 1)):
            painted = kept(trial, round(steps * share))
            rows.append({**self.judges, "setting": number, "seed": seed, **self.settings[number],
                         "share": share, **self.score(painted).parts})
        rows[-1] |= self.yardstick(painted)
        return rows


def drawn(space: Path, count: int) -> list[dict]:
    """`count` settings: the published one, then others drawn from `space` by NNI's random tuner."""
    from nni.algorithms.hpo.random_tuner import RandomTuner  # not above: takes a second

    try:
        tuner, searched = RandomTuner(seed=0), json.loads(space.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"no search space can be read from {space}: {error}") from None
    tuner.update_search_space(searched)
    published = {name: getattr(cyclegan.Settings(), name) for name in searched}
    return [published, *(tuner.generate_parameters(number) for number in range(count - 1))]


def kept(trial: Path, step: int) -> torch.Tensor:
    """What a trial painted at `step`, float [N, 3, size, size] in [-1, 1]."""
    file = trial / "paintings" / f"step_{step:06d}.pt"
    try:
        return images.to_float(read_tensors(file))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: move {trial} away to train it again") from None
    except (ValueError, AttributeError) as error:  # the latter of what is no tensor
        raise UserError(f"{file} cannot be read ({error}): move {trial} away to train it again") from None


# ---------------------------------------------------------------------------------------------
# Ranking


def finals(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the end of the schedule, by setting and seed."""
    return table[table["share"] == 1].set_index(["setting", "seed"])


def targets(ends: pd.DataFrame, style: float = STYLE_WEIGHT) -> dict[str, pd.Series]:
    """What early values are to foretell: each aim by itself, and all together."""
    return {"quality": final_quality(ends, style), "style": ends["final_style"], "-kid": -ends["final_kid"],
            "content": ends["final_content"]}


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """All that a search could maximise: formulas, and parts with the distance turned round."""
    rows = table[list(PARTS)].to_dict("records")
    formulas = pd.DataFrame(
        {name: list(map(formula, rows)) for name, formula in FORMULAS.items()}, index=table.index)
    parts = table[list(PARTS)].assign(kid=-table["kid"]).rename(columns={"kid": "-kid"})
    return formulas.join(parts)


def ranking(table: pd.DataFrame, style: float = STYLE_WEIGHT, seed: int = 0) -> pd.DataFrame:
    """How each early score ranks the settings of one seed against each target: a row a target, score
    and share, with Spearman's and Kendall's coefficients, the 95 % interval of the first, and the
    regret: how far the setting that the early score picks ends below the best, in shares of the
    range."""
    table = table[(table["seed"] == seed) & table["share"].isin(SHARES)]
    rows = []
    for target, final in targets(finals(table), style).items():
        for share, part in table.groupby("share"):
            early = scores(part.set_index(["setting", "seed"])).loc[final.index]
            for name, values in early.items():
                if np.ptp(values) == 0:  # says nothing of the settings: there is no rank
                    continue
                low, high = interval(values.to_numpy(), final.to_numpy())
                rows.append({
                    "target": target, "score": name, "share": share,
                    "spearman": spearmanr(values, final).statistic, "low": low, "high": high,
                    "kendall": kendalltau(values, final).statistic,
                    "regret": (final.max() - final[values.idxmax()]) / np.ptp(final),
                })  # fmt: skip
    return pd.DataFrame(rows)


def interval(early: np.ndarray, final: np.ndarray) -> tuple[float, float]:
    """95 % interval of Spearman's coefficient: percentile bootstrap over settings."""
    drawn = np.random.default_rng(0).integers(len(early), size=(RESAMPLES, len(early)))
    ranks = (rankdata(values[drawn], axis=1) for values in (early, final))
    x, y = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    varied = spread > 0  # a resample of one setting alone has no rank
    low, high = np.percentile((x * y).sum(1)[varied] / spread[varied], [2.5, 97.5])
    return float(low), float(high)


def text(table: pd.DataFrame, style: float = STYLE_WEIGHT) -> str:
    """The ranking as tables for reading: a block a target, a row a score, a column a share."""
    found = ranking(table, style)
    lines = [f"{table['setting'].nunique()} settings; Spearman [95 %], regret; early score against the end"]
    cell = (found["spearman"].map("{:5.2f}".format) + " [" + found["low"].map("{:.2f}".format) + ","
            + found["high"].map("{:.2f}".format) + "] " + found["regret"].map("{:.2f}".format))
    for target, part in found.assign(cell=cell).groupby("target", sort=False):
        block = part.pivot(index="score", columns="share", values="cell").loc[part["score"].unique()]
        lines += ["", f"against the final {target}:", block.to_string()]
    return "\n".join(lines)
