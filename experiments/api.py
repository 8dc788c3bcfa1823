"""Read searches from Python: tables, curves, pictures and generators of their trials.

    from experiments import load

    search = load("latest")                         # or its id, name or folder
    search.trials[["state", "score", "error"]]      # a DataFrame, the best trial first
    search.curves.query("trial == 3").plot("step", "score")
    search.best.pictures().paintings[0]             # a PIL image
    paint = search.best.generator()                 # photographs [N, 3, H, W] in [-1, 1] to paintings

`experiments/search.ipynb` shows all of it on a search of your own.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch import nn

from experiments import notes
from experiments.nni_adapter.database import Experiment, find_experiment
from experiments.report import importance, pictures, results
from judge.common.errors import UserError
from judge.score import find_formula
from trials.inspection import adapters
from trials.parts import sheets


def load(name: str, score: str | None = None) -> "Search":
    """Return a search, as `experiments.load` describes."""
    experiment = find_experiment(name)
    return Search(experiment, results.rows(experiment, find_formula(score) if score else None))


class Pictures(NamedTuple):
    """What a trial showed at a step: images in RGB, at the trial's own pixels."""

    step: int
    sources: list[Image.Image]
    """What it was given: photographs, or real images."""
    paintings: list[Image.Image]
    """What it made of each of them, or of noise."""


@dataclass(frozen=True, repr=False)
class Trial:
    """One trial of a search."""

    row: results.Row

    def __repr__(self) -> str:
        score = f", score {self.row.score_text}" if self.scores else ""
        return f"<Trial {self.number} {self.id!r}: {self.state}{score}>"

    @property
    def number(self) -> int:
        """Its number in the search, from 0."""
        return self.row.trial.number

    @property
    def id(self) -> str:
        """NNI's id, which is also the name of its folder."""
        return self.row.trial.id

    @property
    def folder(self) -> Path:
        """The folder of its files: run.json, stats.jsonl, samples/, checkpoint.pt."""
        return self.row.trial.folder

    @property
    def state(self) -> str:
        """NNI's state: succeeded, early stopped, running, failed, ..., or diverged."""
        return self.row.state

    @property
    def score(self) -> float | None:
        """Its score, so far or at its end; None before the first report."""
        return self.row.score

    @property
    def scores(self) -> dict[str, float]:
        """The score, as `default`, its standard error, as `error`, and its parts; empty without a report."""
        return dict(self.row.trial.latest or {})

    @property
    def parameters(self) -> dict[str, Any]:
        """What the tuner proposed."""
        return dict(self.row.trial.parameters)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings as recorded, those that a preset filled in too; empty if it never started."""
        return dict(self.row.record.get("settings") or {})

    @property
    def steps(self) -> list[int]:
        """The steps of which there are pictures, first to last."""
        return list(sheets.list_sheets(self.folder))

    def pictures(self, step: int | None = None) -> Pictures:
        """Return the pictures of a step, one of `steps`; None is the last one.

        Images that are not square (of `trials.style_transfer`) come as one strip with a border. Raises
        UserError if there are none.
        """
        files = sheets.list_sheets(self.folder)
        step = max(files, default=None) if step is None else step
        sheet = pictures.read(files[step]) if step in files else None
        found = None if sheet is None else pictures.layout(sheet)
        if found is None:
            there = f"there are {', '.join(map(str, files))}" if files else "it has none yet"
            raise UserError(f"trial {self.number} has no readable pictures of step {step}: {there}")
        sources, paintings = (sheets.cut_images(files[step], lower, found.pixels)
                              or [sheets.crop_half(files[step], lower)] for lower in (False, True))
        return Pictures(step, sources, paintings)

    def generator(self, device: str | torch.device = "cpu", *, reverse: bool = False,
                  domain: str | None = None) -> nn.Module:  # fmt: skip
        """Return the trained generator on a device, in eval mode and without gradients.

        Of a CycleGAN it paints photographs, float [N, 3, H, W] in [-1, 1], and returns the same; `stride`
        divides H and W. With `reverse` it makes photographs of paintings. Of a StarGAN it translates images
        to `domain`. Of a GAN, DCGAN or conditional GAN it makes images of noise; `load_networks` of
        `trials.inspection.adapters` returns the model with its `noise`.

        Raises UserError if the trial has no checkpoint (`run` keeps those of the best ten trials), or no such
        domain or reverse.
        """
        return adapters.load_generator(self.folder, torch.device(device), domain=domain, reverse=reverse)


class Search:
    """A search or a confirmation, as it was when it was loaded."""

    def __init__(self, experiment: Experiment, rows: list[results.Row]):
        self.id, self.folder = experiment.id, experiment.folder
        self.name: str = experiment.name or experiment.id
        self._experiment, self._rows = experiment, rows

    def __repr__(self) -> str:
        best = f", best: trial {self.best.number}, score {self.best.row.score_text}" if self.best else ""
        return f"<Search {self.id} {self.name!r}: {len(self._rows)} trials{best}>"

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters that are searched."""
        return list(dict.fromkeys(name for row in self._rows for name in row.trial.parameters))

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial, the best first, indexed by number.

        Columns: id; state; reports, their number; score and its standard error; the parts of the score; the
        parameters; seconds; folder; published, whether it is the published setting; note; pinned.
        """
        written = notes.read(self.folder).trials
        marks = [written.get(row.trial.id, notes.Mark()) for row in self._rows]
        table = results.frame(self._rows).drop(columns=["trial", "data"], errors="ignore")
        return table.set_axis([row.trial.number for row in self._rows]).rename_axis("trial").assign(
            error=[(row.trial.latest or {}).get("error") for row in self._rows],
            seconds=[row.trial.ended and row.trial.started and row.trial.ended - row.trial.started
                     for row in self._rows],
            folder=[row.trial.folder for row in self._rows], published=[row.published for row in self._rows],
            note=[mark.note for mark in marks], pinned=[mark.pinned for mark in marks],
        )  # fmt: skip

    @property
    def best(self) -> Trial | None:
        """The best trial that trained to its end; None if none has."""
        row = results.best(self._rows)
        return row and Trial(row)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row per report of each trial, in the order of `trials`: trial, step, score and its parts.

        Each is of this report alone; the score of a trial is a mean over its last ones.
        """
        lines = [{"trial": row.trial.number, "step": step, **score} for row in self._rows
                 for step, score in results.recorded_scores(row.trial, row.formula).items()]
        return pd.DataFrame(lines, columns=None if lines else ["trial", "step", "default"]).rename(
            columns={"default": "score"})

    @cached_property
    def importance(self) -> pd.DataFrame:
        """The importance of each parameter, the largest first: its share of the score's variation (fANOVA).

        Columns: importance, which adds up to 1, and low and high, a 90 % interval. Loss weights are ratios.
        Empty with fewer than eight finished trials. It takes seconds.
        """
        return importance.of_rows(self._rows)

    def trial(self, key: int | str) -> Trial:
        """Return the trial of this number or id. Raises UserError if there is none."""
        for row in self._rows:
            if key in (row.trial.number, row.trial.id):
                return Trial(row)
        raise UserError(f"experiment {self.id} has no trial {key}")

    def note(self, text: str, trial: int | str | None = None) -> None:
        """Write a note on the search, or on the trial of this number or id; an empty text removes it.

        Raises UserError if there is no such trial, or as `notes.write`.
        """
        notes.write(self.folder, None if trial is None else self.trial(trial).id, note=text)
