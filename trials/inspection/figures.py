"""What a trial's numbers and outputs look like: figures (Matplotlib), strips and sheets (Pillow)."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from judge.common.errors import UserError
from judge.images import to_bytes
from trials.inspection.metrics import Diversity
from trials.parts import sheets

MARGIN = 14  # px, for a line of text
FRAME = 400  # ms that a frame of an animation is shown, the last one longer

# ---------------------------------------------------------------------------------------------
# Figures


def figure(panels: int):
    """A Matplotlib figure of so many panels, one above the other, and their axes."""
    from matplotlib.figure import Figure  # not above: takes half a second; nor pyplot, which has state

    drawn = Figure(figsize=(8, 1 + 2.4 * panels), layout="constrained")
    return drawn, drawn.subplots(panels, squeeze=False)[:, 0]


def curves(lines: list[dict], title: str):
    """Losses of generators and of discriminators, parts of the score, and each distance with its error,
    against steps. `lines` are those of stats.jsonl."""
    losses, score = list(lines[0]["losses"]), list(lines[0]["score"])
    with_error = [name for name in score if f"{name}_error" in score]
    panels = {
        "generator loss": [name for name in losses if not name.startswith("discriminator")],
        "discriminator loss": [name for name in losses if name.startswith("discriminator")],
        "score": [name for name in score
                  if name not in with_error and name.removesuffix("_error") not in with_error],
        **{name: [name] for name in with_error},
    }  # fmt: skip
    panels = {panel: names for panel, names in panels.items() if names}
    drawn, axes = figure(len(panels))
    steps = [line["step"] for line in lines]
    for axis, (panel, names) in zip(axes, panels.items()):
        for name in names:
            values = [(line["losses"] | line["score"])[name] for line in lines]
            bold = {"linewidth": 2.5, "color": "black"} if name == "default" else {"linewidth": 1.2}
            axis.plot(steps, values, marker=".", label="score" if name == "default" else name, **bold)
            if name in with_error:
                errors = [line["score"][f"{name}_error"] for line in lines]
                low, high = ([v + sign * e for v, e in zip(values, errors)] for sign in (-1, 1))
                axis.fill_between(steps, low, high, alpha=0.2, label="+- one standard error")
        axis.set_ylabel(panel)
        axis.grid(alpha=0.3)
        if len(axis.get_lines()) > 1 or panel in with_error:
            axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    return drawn


def histogram(found: Diversity, title: str):
    """Outputs beside real images: the share in each class, and how sure of it the classifier is."""
    drawn, (by_class, by_confidence) = figure(2)
    for at, (name, shares) in enumerate(found.shares.items()):
        places = [number + (at - 0.5) * 0.4 for number in range(len(shares))]
        by_class.bar(places, shares, 0.4, label=name)
    by_class.set_xticks(range(len(found.names)), found.names)
    by_class.set(title=title, ylabel="share of images", xlabel="class")
    weights = [[1 / len(values)] * len(values) for values in found.confidence.values()]
    by_confidence.hist(list(found.confidence.values()), 20, range=(0, 1), weights=weights,
                       label=list(found.confidence))
    by_confidence.set(ylabel="share of images", xlabel="probability of the class it is put in")
    by_class.legend()
    return drawn


# ---------------------------------------------------------------------------------------------
# Sample sheets over time


def samples(folder: Path) -> dict[int, Image.Image]:
    """What the trial in `folder` made, by step: the lower halves of its sample sheets. A sheet that
    cannot be read, half written perhaps, is left out.

    Raises:
        UserError: there is none.
    """
    halves = {step: sheets.crop_half(file, lower=True) for step, file in sheets.list_sheets(folder).items()}
    found = {step: picture for step, picture in halves.items() if picture}
    if not found:
        raise UserError(f"{folder / 'samples'} holds no sample sheet yet: it is written at the first report")
    return found


def titled(picture: Image.Image, title: str) -> Image.Image:
    """`picture` with a line of text above it."""
    whole = Image.new("RGB", (picture.width, picture.height + MARGIN), "white")
    whole.paste(picture, (0, MARGIN))
    ImageDraw.Draw(whole).text((2, 1), title, "black", ImageFont.load_default(MARGIN - 4))
    return whole


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """`pictures`, one below the other."""
    whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


def animate(frames: list[Image.Image], file: Path, kind: str) -> None:
    """Write `frames` as an animation of a `kind` that Pillow knows (webp, gif)."""
    shown = [FRAME] * (len(frames) - 1) + [4 * FRAME]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=shown, loop=0)


# ---------------------------------------------------------------------------------------------
# Outputs


def row(images: torch.Tensor, title: str, columns: int) -> Image.Image:
    """Images, float [N, C, H, W] in [-1, 1], in rows of `columns` under a title, small ones enlarged."""
    images = interpolate(images.float(), scale_factor=max(1, 2 * sheets.EDGE // images.shape[-1]))
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    return titled(to_pil_image(make_grid(to_bytes(images).cpu(), nrow=columns, pad_value=255)), title)


def numbered(images: torch.Tensor, columns: int = 10) -> Image.Image:
    """A sheet of images with their numbers, from 0."""
    return stacked([row(part, f"outputs {at * columns} to {at * columns + len(part) - 1}", columns)
                    for at, part in enumerate(images.split(columns))])
