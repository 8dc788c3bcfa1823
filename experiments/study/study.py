"""Does the early score predict how good a setting is at the end of the schedule?

A study trains settings sampled from a search space over the full schedule and keeps the paintings of every
report. They are scored by the judge; the last ones are also measured by an independent judge, which gives the
final quality. The results go into a small table, one trial at a time, so a study can be stopped at any time.
From its table, scores are ranked (`ranking`) and searches are replayed (`simulation`) without training.
"""

import json
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau, rankdata, spearmanr

from experiments import trial_command
from experiments.study.independent_judge import IndependentJudge, final_quality
from experiments.study.options import STYLE_WEIGHT, Study
from judge import images, model
from judge.common.children import bound
from judge.common.cli import on_stop
from judge.common.device import available_cores
from judge.common.errors import UserError
from judge.common.files import atomic_write
from judge.common.tensors import read_tensors
from judge.score import FORMULAS, PARTS, Formula, Scorer
from trials import cyclegan
from trials.parts.batches import load_held_out
from trials.session import RunOptions, with_parameters
from trials.session.records import read_record, recorded_settings, settings_hash
from trials.session.steady import MIN_SCORE, STEADY_REPORTS

REPORTS = 20  # of a trial, evenly over the schedule: each is a row of the table
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the schedule: when early scores are ranked
STEADY = f"{{}}, mean of {STEADY_REPORTS} reports"  # of a formula
RESAMPLES = 2000  # bootstrap samples of the settings, for the intervals

SHIPPED_JUDGE = "251194793c56"  # of the table that ships
OLD_SKETCH = ("this table is of the earlier sketch (64 px, two halvings, ngf 16, 3 blocks, 5,000 steps); "
              "today's sketch is another")  # fmt: skip


def run(study: Study) -> pd.DataFrame:
    """Train and measure what is missing in the study's table, and return the table.

    Raises UserError if nothing could be compared in the end, a judge, a data set or a search space cannot be
    read, or a trial failed.
    """
    if not study.yardstick and study.seeds == 1:
        raise UserError("nothing to compare: give --yardstick, or --seeds 2 or more")
    results = StudyTable(study)
    table = results.complete([(number, seed) for seed, number in
                              product(range(study.seeds), range(study.settings))])
    if not study.yardstick:
        return table
    order = final_quality(final_rows(table[table["seed"] == 0])).sort_values(kind="stable").index
    extremes = [*order[: study.again], *order[max(0, len(order) - study.again) :]] if study.again else []
    return results.complete([(number, study.seeds) for number, _ in dict.fromkeys(extremes)])


class StudyTable:
    """The table of a study, filled one trial at a time."""

    def __init__(self, study: Study):
        self.study, self.settings = study, sample_settings(study.space, study.settings)
        self.device = RunOptions(device=study.device).torch_device()
        # Completed here, once, so that trials and measures are of the same size.
        self.common = cyclegan.Settings(
            data=study.data, judge=study.judge, size=study.size, photos=study.photos, reports=REPORTS,
            steps=study.steps).complete(self.device)  # fmt: skip
        pixels, data = self.common.pixels, images.find_dataset(study.data)
        test = load_held_out(data, pixels, study.photos, self.device)
        judge, _ = model.load_judge(study.judge, self.device, pixels)
        self.scorer = Scorer(judge, test.photos, test.paintings)
        self.independent_judge = study.yardstick and IndependentJudge(
            study.yardstick, study.yardstick_data, test)
        self.lock = threading.Lock()
        self.running: list[subprocess.Popen] = []  # the trials, one a thread; some may have ended
        self.stopped = False

        judges = {name: model.sha256_of(file)[:12] for name in ("judge", "yardstick")
                  if (file := getattr(study, name))}
        same = {name: value for name, value in asdict(self.common).items() if name not in ("data", "judge")}
        space = {"space": json.loads(study.space.read_text())}
        self.conditions = judges | {"trials": settings_hash(same | space)}

    def complete(self, runs: list[tuple[int, int]]) -> pd.DataFrame:
        """Add those of `runs`, (setting, seed), that are missing, and return the table."""
        stored = self._stored()
        table = self._of_this_study(stored)
        present = set(zip(table["setting"], table["seed"])) if len(table) else set()
        missing = [run for run in runs if run not in present]
        if missing and len(table) < len(stored):  # `_add` would drop the others
            raise UserError(f"{self.study.table} has results of other trials or judges: choose another "
                            "--table")
        with ThreadPoolExecutor(self.study.at_once) as pool:
            try:
                list(pool.map(self._add, missing))
            except BaseException:  # no other trial starts; those that run save their checkpoints
                self.stopped = True
                on_stop(lambda *_: self._signal(signal.SIGKILL))  # a second one does not wait for that
                self._signal(signal.SIGTERM)
                raise
        return self._read()

    def _signal(self, number: int) -> None:
        """Send a signal to each of the trials."""
        for trial in self.running:
            trial.send_signal(number)

    def _stored(self) -> pd.DataFrame:
        """Return the table as it is stored, also with rows of other trials and judges."""
        if not self.study.table.exists():
            return pd.DataFrame()
        # As text: pandas would read some hashes as numbers.
        return pd.read_csv(self.study.table, dtype=dict.fromkeys(self.conditions, str))

    def _of_this_study(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of such trials measured by these two judges."""
        conditions = table.reindex(columns=list(self.conditions))  # older tables lack some
        return table[(conditions == list(self.conditions.values())).all(axis=1)]

    def _read(self) -> pd.DataFrame:
        return self._of_this_study(self._stored())

    def _add(self, run: tuple[int, int]) -> None:
        """Train and measure one of the runs, and write its rows to the table."""
        (number, seed), file = run, self.study.table
        folder = self._train(number, seed)
        with self.lock:
            rows = pd.DataFrame(self._measure(folder, number, seed))
            table = pd.concat([self._read(), rows]).sort_values(["setting", "seed", "share"])
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, lambda part: table.to_csv(part, index=False, float_format="%.6g"))
        print(f"setting {number}, seed {seed}: in {file}", flush=True)

    def _train(self, number: int, seed: int) -> Path:
        """Train a setting to the end unless it has been, and return the trial's folder."""
        study, folder = self.study, self.study.out / f"{number:02d}-{seed}"
        settings = asdict(with_parameters(self.common, self.settings[number] | {"seed": seed}))
        record = read_record(folder)
        if record.get("status") == "finished":
            if settings_hash(recorded_settings(cyclegan.Settings, record)) != settings_hash(settings):
                raise UserError(f"{folder} holds a trial with other settings: choose another --out")
            return folder
        command = trial_command.render(
            cyclegan, settings, python=sys.executable, keep=True, out=folder, device=study.device,
            threads=max(1, available_cores() // study.at_once))  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log", "a") as log:
            trial = subprocess.Popen(bound(shlex.split(command)), stdout=log, stderr=log)
        self.running.append(trial)
        if self.stopped:
            trial.terminate()
        if trial.wait() or read_record(folder).get("status") != "finished":
            raise UserError(f"the trial of setting {number} did not finish: see {folder / 'log'}")
        return folder

    def _measure(self, folder: Path, number: int, seed: int) -> list[dict]:
        """Return a row per report, the last one with the measures of the independent judge, if any."""
        steps = read_record(folder)["schedule"]["steps"]
        rows = []
        for share in (report / REPORTS for report in range(1, REPORTS + 1)):
            painted = kept(folder, round(steps * share)).to(self.device)
            rows.append({**self.conditions, "setting": number, "seed": seed, **self.settings[number],
                         "share": share, **self.scorer(painted).parts})  # fmt: skip
        if self.independent_judge:
            rows[-1] |= self.independent_judge(painted)
        return rows


def sample_settings(space: Path, count: int) -> list[dict]:
    """Return `count` settings: the published one, then others sampled from `space` by NNI's random tuner."""
    from nni.algorithms.hpo.random_tuner import RandomTuner  # not above: the import takes a second

    try:
        tuner, searched = RandomTuner(seed=0), json.loads(space.read_text())
        published = {name: getattr(cyclegan.Settings(), name) for name in searched}
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: it has no such setting
        raise UserError(f"the search space {space} cannot be read: {error}") from None
    tuner.update_search_space(searched)
    return [published, *(tuner.generate_parameters(number) for number in range(count - 1))]


def read_table(file: Path) -> pd.DataFrame:
    """Return a study's table, and say on stderr if it is the one that ships, of an earlier sketch."""
    table = pd.read_csv(file)
    if set(table.get("judge", [])) == {SHIPPED_JUDGE}:
        print(f"{file}: {OLD_SKETCH}", file=sys.stderr)
    return table


def kept(folder: Path, step: int) -> torch.Tensor:
    """Return what the trial in `folder` painted at `step`, float [N, 3, size, size] in [-1, 1]."""
    file = folder / "paintings" / f"step_{step:06d}.pt"
    try:
        return images.to_float(read_tensors(file))
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: it holds no tensor
        raise UserError(f"{file} cannot be read ({error}): move {folder} away to train it again") from None


def final_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at the end of the schedule, indexed by setting and seed."""
    return table[table["share"] == 1].set_index(["setting", "seed"])


def candidate_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return a column per score that a search could maximise: formulas, then parts, the distance negated.

    Those of parts that an older table does not have are left out.
    """
    parts = table[[name for name in PARTS if name in table]]
    formulas = {name: scores_by(formula, parts) for name, formula in FORMULAS.items()
                if formula.weighed <= set(parts)}
    parts = parts.assign(kid=-parts["kid"]).rename(columns={"kid": "-kid"})
    steady = table[[STEADY.format(name) for name in formulas if STEADY.format(name) in table]]
    return pd.DataFrame(formulas, table.index).join(steady).join(parts)


def scores_by(formula: Formula, table: pd.DataFrame) -> pd.Series:
    """Return the score of each row by a formula."""
    return pd.Series(list(map(formula, table.to_dict("records"))), table.index)


def with_steady_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Add the scores that a trial would report, means of its last reports, as columns named by `STEADY`."""
    table = table.sort_values(["setting", "seed", "share"])
    scores = candidate_scores(table)
    logarithms = np.log(scores[[name for name in FORMULAS if name in scores]].clip(lower=MIN_SCORE))
    trials = logarithms.groupby([table["setting"], table["seed"]], sort=False)
    means = np.exp(trials.rolling(STEADY_REPORTS, min_periods=1).mean())
    return table.assign(**{STEADY.format(name): means[name].to_numpy() for name in means})


def ranking(table: pd.DataFrame, style: float = STYLE_WEIGHT, seed: int = 0) -> pd.DataFrame:
    """Return how well each early score ranks the settings of one seed, a row per target, share and score.

    Further columns: spearman and kendall, the rank correlations of early score and target; low and high, the
    95 % interval of Spearman's; regret, how much worse than the best setting the one with the highest early
    score ends, as a share of the target's range.
    """
    table = with_steady_scores(table[table["seed"] == seed])
    table = table[table["share"].isin(SHARES)]
    ends, rows = final_rows(table), []
    targets = {"quality": final_quality(ends, style), "style": ends["final_style"],
               "-kid": -ends["final_kid"], "content": ends["final_content"]}  # higher is better
    for (target, final), (share, part) in product(targets.items(), table.groupby("share")):
        early = candidate_scores(part.set_index(["setting", "seed"])).loc[final.index]
        for name, values in early.items():
            if np.ptp(values) == 0:  # all settings alike: no rank
                continue
            low, high = spearman_interval(values.to_numpy(), final.to_numpy())
            rows.append({
                "target": target, "score": name, "share": share,
                "spearman": spearmanr(values, final).statistic, "low": low, "high": high,
                "kendall": kendalltau(values, final).statistic,
                "regret": (final.max() - final[values.idxmax()]) / np.ptp(final),
            })  # fmt: skip
    return pd.DataFrame(rows)


def spearman_interval(early: np.ndarray, final: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of Spearman's coefficient: percentile bootstrap over settings."""
    samples = np.random.default_rng(0).integers(len(early), size=(RESAMPLES, len(early)))
    ranks = (rankdata(values[samples], axis=1) for values in (early, final))
    x, y = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    varied = spread > 0  # a sample of one setting alone has no rank
    low, high = np.percentile((x * y).sum(1)[varied] / spread[varied], [2.5, 97.5])
    return float(low), float(high)


def text(table: pd.DataFrame, style: float = STYLE_WEIGHT) -> str:
    """Return the ranking as text: a block per target with a row per score and a column per share."""
    title = "early score against the end: Spearman's coefficient [95 % interval], regret"
    lines = [f"{table['setting'].nunique()} settings; {title}"]
    ranks = ranking(table, style)
    ranks["cell"] = [f"{row.spearman:5.2f} [{row.low:.2f},{row.high:.2f}] {row.regret:.2f}"
                     for row in ranks.itertuples()]  # fmt: skip
    for target, part in ranks.groupby("target", sort=False):
        block = part.pivot(index="score", columns="share", values="cell").loc[part["score"].unique()]
        lines += ["", f"against the final {target}:", block.to_string()]
    return "\n".join(lines)
