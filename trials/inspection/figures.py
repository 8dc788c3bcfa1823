"""Pictures of a trial's numbers and outputs: plots by Matplotlib, strips and sheets of images by Pillow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from judge.common.errors import UserError
from trials.parts import sheets

LOG_SCALE_SPAN = 30  # largest by smallest value above which an axis is logarithmic


def subplots(panels: int) -> tuple[Any, Any]:
    """Return a Matplotlib figure and its axes, one above the other."""
    from matplotlib.figure import Figure  # imported here: it takes half a second. pyplot has global state

    figure = Figure(figsize=(8, 1 + 2.4 * panels), layout="constrained")
    return figure, figure.subplots(panels, squeeze=False)[:, 0]


def plot_curves(reports: list[dict], title: str):
    """Plot the losses of generators and discriminators, the score, its parts, and each distance with its
    error against the step, each on an axis of its own. `reports` are the lines of stats.jsonl."""
    losses, score = list(reports[0]["losses"]), list(reports[0]["score"])
    with_error = [name for name in score if f"{name}_error" in score]
    parts = [name for name in score if name != "default" and name.removesuffix("_error") not in with_error]
    panels = {
        "generator loss": [name for name in losses if not name.startswith("discriminator")],
        "discriminator loss": [name for name in losses if name.startswith("discriminator")],
        "score": ["default"], "parts of the score": parts,
        **{name: [name] for name in with_error},
    }  # fmt: skip
    panels = {panel: names for panel, names in panels.items() if names}
    figure, axes = subplots(len(panels))
    steps = [report["step"] for report in reports]
    for axis, (panel, names) in zip(axes, panels.items()):
        for name in names:
            values = [(report["losses"] | report["score"])[name] for report in reports]
            axis.plot(steps, values, marker=".", linewidth=1.2, label=name)
            if name == "default":
                set_log_scale(axis, values)
            if name in with_error:
                errors = [report["score"][f"{name}_error"] for report in reports]
                low, high = ([v + sign * e for v, e in zip(values, errors)] for sign in (-1, 1))
                axis.fill_between(steps, low, high, alpha=0.2, label="+- one standard error")
        axis.set_ylabel(panel, fontsize="small")
        axis.grid(alpha=0.3)
        if len(names) > 1 or panel in with_error:
            axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    return figure


def set_log_scale(axis: Any, values: list[float]) -> None:
    """Make the y axis logarithmic if `values` span more than a factor of `LOG_SCALE_SPAN`; linear near 0."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > LOG_SCALE_SPAN * min(positive):
        axis.set_yscale("symlog", linthresh=min(positive))
        axis.set_ylim(bottom=0)


def plot_histogram(diversity: dict, title: str):
    """Plot the `shares` and the `confidence` of `metrics.measure_diversity`."""
    figure, (by_class, by_confidence) = subplots(2)
    for side, (name, shares) in zip((-0.5, 0.5), diversity["shares"].items()):
        by_class.bar([label + side * 0.4 for label in range(len(shares))], shares.values(), 0.4, label=name)
    by_class.set_xticks(range(len(shares)), shares)
    by_class.set(title=title, ylabel="share of images", xlabel="class")
    by_class.legend()
    confidence = diversity["confidence"]
    weights = [[1 / len(values)] * len(values) for values in confidence.values()]
    by_confidence.hist(list(confidence.values()), 20, range=(0, 1), weights=weights, label=list(confidence))
    by_confidence.set(ylabel="share of images", xlabel="probability of the class it is put in")
    return figure


def read_outputs(folder: Path) -> dict[int, Image.Image]:
    """Return the outputs of the trial in `folder` by step: the lower halves of the sample sheets that can be
    read. Raises UserError if there is none."""
    halves = {step: sheets.crop_half(file, lower=True) for step, file in sheets.list_sheets(folder).items()}
    if not any(halves.values()):
        raise UserError(f"{folder / 'samples'} has no sample sheet yet: it is written at the first report")
    return {step: picture for step, picture in halves.items() if picture}


def add_title(picture: Image.Image, title: str) -> Image.Image:
    """Return `picture` with a line of text above it, and wider if the text is."""
    font = ImageFont.load_default(sheets.CAPTION_PIXELS - 4)
    width = max(picture.width, 4 + int(font.getlength(title)))
    result = Image.new("RGB", (width, picture.height + sheets.CAPTION_PIXELS), "white")
    result.paste(picture, (0, sheets.CAPTION_PIXELS))
    ImageDraw.Draw(result).text((2, 1), title, "black", font)
    return result


def stack(pictures: list[Image.Image]) -> Image.Image:
    """Return `pictures` one below the other."""
    result = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        result.paste(picture, (0, top))
        top += picture.height
    return result


def image_rows(images: torch.Tensor, title: str, columns: int, captions: Sequence[str] = ()) -> Image.Image:
    """Return a `captioned_grid` of images with a title."""
    return add_title(sheets.captioned_grid(images, columns, captions), title)
