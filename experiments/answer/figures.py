"""The figures of judge/RESULTS.md, the contact sheet of a search, and the README's before and after."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2.functional import resize

from experiments.answer import analysis
from experiments.api import Search
from experiments.confirmation import PUBLISHED
from experiments.study.reliability import log_curves
from judge.images import SIZES, to_float
from judge.score import DEFAULT_FORMULA, find_formula
from trials.inspection.figures import image_rows, stack
from trials.inspection.translation import load_trained
from trials.parts.sheets import captioned_grid
from trials.session.steady import STEADY_REPORTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARE = 0.5  # of the schedule, at which an early score is compared with the end
COLUMNS = 8  # photographs of a contact sheet
BEFORE_AND_AFTER = (256, 384)  # height and width of its photographs: they keep their proportions


def new_figure(width: float, height: float, title: str) -> "Figure":
    """Return an empty Matplotlib figure of a size in inches."""
    from matplotlib.figure import Figure  # imported here: it takes half a second

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    return figure


def early_and_end(table: pd.DataFrame) -> "Figure":
    """Plot a trial's score at half of the schedule against the end of the other seeds of its setting.

    `table` is of a study with several seeds (experiments/study/seeds.csv).
    """
    curves = log_curves(table, find_formula(DEFAULT_FORMULA)) / np.log(10)
    figure = new_figure(8, 4, "A point a trial: its score at half of the schedule, and how its setting ends")
    for axis, reports, label in zip(figure.subplots(1, 2, sharey=True), (1, STEADY_REPORTS),
                                    ("last report", f"mean of {STEADY_REPORTS} reports")):
        early = curves.loc[:, :SHARE].iloc[:, -reports:].mean(axis=1)
        end = curves.iloc[:, -STEADY_REPORTS:].mean(axis=1)
        others = [end.drop(key).xs(key[0], level="setting").mean() for key in end.index]
        for number, (_, values) in enumerate(early.groupby("setting")):
            places = early.index.get_indexer(values.index)
            axis.plot(10**values, [10 ** others[place] for place in places], "o", color=f"C{number}")
        axis.set(xscale="log", yscale="log", xlabel=f"score at {SHARE:.0%}, {label}")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("score at the end, other seeds")
    return figure


def left_out(table: pd.DataFrame) -> "Figure":
    """Plot what judges say of damage that they were never shown, a bar per family.

    `table` has the columns family, photos and paintings, mean P(painting) of damaged ones.
    """
    table = table.sort_values("photos")
    figure = new_figure(7, 4, "P(painting) of damage that the judge was never shown")
    axis, places = figure.subplots(), np.arange(len(table))
    axis.barh(places + 0.2, table["photos"], 0.4, label="damaged photographs")
    axis.barh(places - 0.2, table["paintings"], 0.4, label="damaged paintings", color="C7", alpha=0.6)
    axis.axvline(0.2, color="black", linewidth=1, linestyle=":", label="the aim for photographs")
    axis.set_yticks(places, table["family"])
    axis.legend(fontsize="small")
    return figure


def intervals(confirmed: pd.DataFrame) -> "Figure":
    """Plot by how much each winner scores better than the published setting, with 95 % intervals."""
    comparison = analysis.against(confirmed, PUBLISHED)
    pairs = list(comparison["pair"].unique())
    figure = new_figure(8, 3.5, "Winners against the published setting, log10 of the independent score")
    for axis, pair in zip(figure.subplots(1, len(pairs), sharex=True, squeeze=False)[0], pairs):
        rows = comparison[comparison["pair"] == pair].reset_index()
        errors = [rows["gain"] - rows["low"], rows["high"] - rows["gain"]]
        axis.errorbar(rows["gain"], rows.index, xerr=errors, fmt="o")
        axis.set_yticks(rows.index, [f"{row.winner}{' *' * (row.p < analysis.ALPHA)}"
                                     for row in rows.itertuples()])  # fmt: skip
        axis.axvline(0, color="black", linewidth=1)
        axis.set_title(pair, fontsize="medium")
        axis.grid(alpha=0.3, axis="x")
    return figure


def contact_sheet(search: Search) -> Image.Image:
    """Return the paintings of each trial with a checkpoint, the best first, of crops of the photographs that
    scikit-learn ships, which are in the first row."""
    trials = [search.trial(number) for number, folder in search.trials["folder"].items()
              if (folder / "checkpoint.pt").exists()]
    photos = crops(SIZES[trials[0].settings["size"]])
    rows = [image_rows(photos, "photographs", COLUMNS)]
    for trial in trials:
        title = f"trial {trial.number}{', published' * trial.row.published}: {trial.row.score_text}"
        rows.append(image_rows(trial.generator()(photos), title, COLUMNS))
    return stack(rows)


def photographs() -> list[torch.Tensor]:
    """Return the two photographs that scikit-learn ships, uint8 [3, 427, 640]."""
    return [torch.from_numpy(photo.copy()).permute(2, 0, 1) for photo in load_sample_images().images]


def crops(pixels: int) -> torch.Tensor:
    """Return square crops of the two photographs, left to right, float [COLUMNS, 3, pixels, pixels] in
    [-1, 1]."""
    squares = []
    for image in photographs():
        edge = image.shape[1] * 2 // 3
        for left in np.linspace(0, image.shape[2] - edge, COLUMNS // 2).astype(int):
            squares.append(resize(image[:, -edge:, left : left + edge], [pixels, pixels], antialias=True))
    return to_float(torch.stack(squares))


def before_and_after(trained: dict[str, Path]) -> Image.Image:
    """Return the two photographs that scikit-learn ships, one above the other, and beside them what the
    CycleGANs in the folders `trained` paint of them, each below its name."""
    photos = to_float(resize(torch.stack(photographs()), BEFORE_AND_AFTER, antialias=True))
    columns = [photos, *(load_trained(folder, torch.device("cpu")).paint(photos)
                         for folder in trained.values())]
    return captioned_grid(torch.stack(columns, dim=1).flatten(0, 1), len(columns), ["photograph", *trained])
