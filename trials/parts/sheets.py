"""Sample sheets of generative networks."""

import re
from pathlib import Path

import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

COLUMNS, ROWS = 16, 2
EDGE = 32  # pixels that an image of fewer is enlarged to


def sheet_pixels(shape: tuple[int, int, int]) -> int:
    """Of the largest sheet of images of that shape, [C, H, W]."""
    height, width = (max(EDGE, edge) for edge in shape[1:])
    return 2 * ROWS * COLUMNS * height * width


def sheet(real: torch.Tensor, made: torch.Tensor, columns: int = COLUMNS) -> torch.Tensor:
    """Real images above, what is made below, up to two rows of each: float [3, H, W] in [0, 1].

    Args:
        real, made: float [N, C, H, W] in [-1, 1], the first are shown, as many of each.
        columns: in a row.
    """
    columns = min(columns, len(real), len(made))
    count = columns * min(ROWS, len(real) // columns, len(made) // columns)
    images = torch.cat([real[:count], made[:count]])
    images = interpolate(images, scale_factor=max(1, EDGE // images.shape[-1]))
    return make_grid(images, nrow=columns, normalize=True, value_range=(-1, 1))


def list_sheets(folder: Path) -> dict[int, Path]:
    """Sample sheets of the trial in `folder` by step, first to last."""
    files = {re.fullmatch(r"step_(\d{1,12})\.png", file.name): file for file in folder.glob("samples/*")}
    return dict(sorted((int(match[1]), file) for match, file in files.items() if match))


def crop_half(sheet: Path, lower: bool) -> Image.Image | None:
    """What the trial makes, the lower half of its sheet, or what it was given, in RGB; None where the
    sheet cannot be read, half written perhaps."""
    try:
        with Image.open(sheet, formats=["PNG"]) as picture:
            width, height = picture.size
            box = (0, height // 2, width, height) if lower else (0, 0, width, height // 2)
            return picture.convert("RGB").crop(box)
    except Exception:  # Pillow fails in many ways, all with one meaning
        return None
