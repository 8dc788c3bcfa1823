"""Trains settings with fresh seeds, and measures what they paint with the independent judge."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import geometric_mean

import pandas as pd
import torch
from torchvision.transforms.v2.functional import to_pil_image

from experiments import trial_command
from experiments.answer.options import Confirmation
from experiments.nni_adapter.database import ROOT
from experiments.study.independent_judge import IndependentJudge
from judge import images
from judge.common.children import bound
from judge.common.errors import UserError
from judge.common.files import atomic_write
from trials import cyclegan
from trials.inspection.translation import load_trained
from trials.parts.batches import load_held_out
from trials.parts.sheets import sheet
from trials.session.records import read_record
from trials.session.steady import MIN_SHOWN

SEEDS = (1001, 1002, 1003, 1004)  # that no search has used
TRIAL = {"size": "sketch"}  # what all trainings share
SHEET, SHEET_PHOTOS = "yardstick.png", 8  # photographs of the half `yardstick`, and their paintings


def run(options: Confirmation, settings: dict[str, dict], file: Path) -> None:
    """Train and measure each of the settings, by name, with all seeds, and add what is missing to the table.

    Rows: pair, setting, seed, folder, diverged, `default` by the independent judge and its parts. The table
    is written after each training, so the same command continues it. Equal settings are trained once.
    """
    rows, measure = pd.read_csv(file).to_dict("records") if file.exists() else [], Yardstick(options)
    present = {(row["pair"], row["setting"], row["seed"]) for row in rows}
    names = {}  # of each different setting, the first name
    for name, parameters in settings.items():
        names.setdefault(tuple(parameters.values()), file_name(name))
    for seed, (name, parameters) in product(SEEDS, settings.items()):
        if (options.pair, name, seed) in present:
            continue
        folder = options.out / options.pair / f"{names[tuple(parameters.values())]}-{seed}"
        train(parameters | {"seed": seed}, options, folder)
        rows.append({"pair": options.pair, "setting": name, "seed": seed, "folder": str(folder),
                     **measure(folder)})  # fmt: skip
        atomic_write(file, lambda part: pd.DataFrame(rows).to_csv(part, index=False, float_format="%.6g"))
        print(f"{options.pair}, {name}, seed {seed}: {rows[-1]['default']:.4f}", flush=True)


def train(parameters: dict, options: Confirmation, folder: Path, **changed: object) -> dict:
    """Train a setting to its end, unless `folder` holds it already, and return its record.

    Raises UserError if it ends otherwise than finished or diverged.
    """
    record = read_record(folder)
    if record.get("status") in ("finished", "diverged"):
        return record
    common = {"data": str(options.halves / "search"), "judge": str(options.judge)} | TRIAL | changed
    command = trial_command.render(cyclegan, common | parameters, python=sys.executable, out=folder.resolve(),
                                   threads=options.threads)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log", "a") as log:
        with subprocess.Popen(bound(shlex.split(command)), stdout=log, stderr=log, cwd=ROOT) as trial:
            try:
                trial.wait()
            except BaseException:  # it saves its checkpoint; `subprocess.run` would kill it
                trial.terminate()
                raise
    record = read_record(folder)
    if record.get("status") not in ("finished", "diverged"):
        raise UserError(f"{folder} did not finish: see {folder / 'log'}")
    return record


class Yardstick:
    """Measures trained generators with the independent judge on the test images of the half `yardstick`."""

    def __init__(self, options: Confirmation):
        folder, pixels = options.halves / "yardstick", images.SIZES[TRIAL["size"]]
        data = images.find_dataset(str(folder))
        self.test = load_held_out(data, pixels, len(data.test[images.PHOTOS]), torch.device("cpu"))
        self.scorer = IndependentJudge(str(options.yardstick), str(folder), self.test).scorer

    def __call__(self, folder: Path) -> dict[str, float]:
        """Return the measures of a training, and save a sheet for the eye beside it.

        They are `diverged`, `default` and its parts; a diverged training has the score 0 and no parts.
        """
        if read_record(folder)["status"] == "diverged":
            return {"diverged": True, "default": 0.0}
        painted = load_trained(folder, torch.device("cpu")).paint(self.test.photos)
        chosen = torch.linspace(0, len(painted) - 1, SHEET_PHOTOS).long()
        to_pil_image(sheet(self.test.photos[chosen], painted[chosen], SHEET_PHOTOS)).save(folder / SHEET)
        return {"diverged": False, **self.scorer(painted).as_dict()}


def compare_sizes(options: Confirmation, settings: dict[str, dict], draft_judge: Path, budget: float,
                  file: Path) -> None:  # fmt: skip
    """Train each setting at sketch size with two seeds and at draft size with the first of them, for a share
    `budget` of a draft's schedule, and write a table of the scores that the trials reported.

    Columns: setting; sketch, the geometric mean over the seeds; draft.
    """
    rows, drafts = [], replace(options, judge=draft_judge)
    for name, parameters in settings.items():
        folder = sizes_folder(options.out, options.pair, name)
        sketches = [train(parameters | {"seed": seed}, options, folder / f"sketch-{seed}")
                    for seed in SEEDS[:2]]  # fmt: skip
        draft = train(parameters | {"seed": SEEDS[0]}, drafts, folder / "draft", size="draft", budget=budget)
        scores = [max(record["score"]["default"], MIN_SHOWN) for record in [*sketches, draft]]
        rows.append({"setting": name, "sketch": geometric_mean(scores[:2]), "draft": scores[2]})
        atomic_write(file, lambda part: pd.DataFrame(rows).to_csv(part, index=False, float_format="%.6g"))
        print(f"{name}: sketch {rows[-1]['sketch']:.4f}, draft {rows[-1]['draft']:.4f}", flush=True)


def sizes_folder(out: Path, pair: str, setting: str) -> Path:
    """Return the folder of a setting's trainings by `compare_sizes`."""
    return out / f"{pair}-sizes" / file_name(setting)


def file_name(setting: str) -> str:
    """Return the name of a setting as part of a path."""
    return re.sub(r"\W+", "-", setting)
