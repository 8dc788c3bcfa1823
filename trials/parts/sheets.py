"""Sample sheets: real images above, what a trial makes of them or like them below."""

import re
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import interpolate

from judge.images import to_bytes

COLUMNS, ROWS = 16, 2
EDGE = 32  # smaller images are enlarged to this many pixels
PADDING = 2  # pixels around each image
CAPTION_PIXELS = 16  # height of a line of text: in smaller ones the digits run together


def sheet_pixels(shape: tuple[int, int, int]) -> int:
    """Return the number of pixels of the largest sheet of images of the shape [C, H, W]."""
    height, width = (max(EDGE, edge) for edge in shape[1:])
    return 2 * ROWS * COLUMNS * height * width


def sheet(real: torch.Tensor, made: torch.Tensor, columns: int = COLUMNS) -> torch.Tensor:
    """Return a sheet of real images above generated ones, up to two rows of each: float [3, H, W] in [0, 1].

    Both are float [N, C, H, W] in [-1, 1]; the first of each are shown, equally many.
    """
    columns = min(columns, len(real), len(made))
    count = columns * min(ROWS, len(real) // columns, len(made) // columns)
    images = torch.cat([real[:count], made[:count]])
    images = interpolate(images, scale_factor=max(1, EDGE // images.shape[-1]))
    from torchvision.utils import make_grid  # takes seconds to import

    return make_grid(images, nrow=columns, padding=PADDING, normalize=True, value_range=(-1, 1))


def captioned_grid(images: torch.Tensor, columns: int, captions: Sequence[str] = ()) -> Image.Image:
    """Return images, float [N, C, H, W] in [-1, 1], in rows of `columns`; the first ones below the captions.

    Small images are enlarged, and all if a caption is wider.
    """
    font, edge = ImageFont.load_default(CAPTION_PIXELS - 4), images.shape[-1]
    widest = max((font.getlength(caption) for caption in captions), default=0)
    scale = max(1, 2 * EDGE // edge, ceil(widest / edge))
    pixels = to_bytes(interpolate(images.float(), scale_factor=scale).expand(-1, 3, -1, -1)).cpu()
    height, width = (PADDING + size for size in pixels.shape[2:])
    rows, captioned_rows = ceil(len(pixels) / columns), ceil(len(captions) / columns)
    grid = Image.new("RGB", (PADDING + min(columns, len(pixels)) * width,
                             PADDING + rows * height + captioned_rows * CAPTION_PIXELS), "white")  # fmt: skip
    for i, image in enumerate(pixels):
        row, column = divmod(i, columns)
        left = PADDING + column * width
        top = PADDING + row * height + min(row + 1, captioned_rows) * CAPTION_PIXELS
        grid.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (left, top))
        if i < len(captions):
            ImageDraw.Draw(grid).text((left, top - CAPTION_PIXELS), captions[i], "black", font)
    return grid


def list_sheets(folder: Path) -> dict[int, Path]:
    """Return the sample sheets of the trial in `folder` by step, first to last."""
    files = {re.fullmatch(r"step_(\d{1,12})\.png", file.name): file for file in folder.glob("samples/*")}
    return dict(sorted((int(match[1]), file) for match, file in files.items() if match))


def crop_half(sheet: Path, lower: bool) -> Image.Image | None:
    """Return the lower half of a sheet, which the trial made, or the upper half, which it was given, in RGB;
    None if the file cannot be read, for example because it is half written."""
    try:
        with Image.open(sheet, formats=["PNG"]) as picture:
            width, height = picture.size
            box = (0, height // 2, width, height) if lower else (0, 0, width, height // 2)
            return picture.convert("RGB").crop(box)
    except Exception:  # Pillow raises many types for a damaged file
        return None


def cut_images(sheet: Path, lower: bool, pixels: int) -> list[Image.Image]:
    """Return the images of `pixels` width and height in a half of a sheet, row by row, as `crop_half` does;
    none if the file cannot be read or its images have another size."""
    half, pitch = crop_half(sheet, lower), pixels + PADDING
    if half is None or (half.width - PADDING) % pitch or (half.height - PADDING // 2) % pitch:
        return []
    first = PADDING // 2 if lower else PADDING  # the halves share the rows of pixels between them
    return [half.crop((left, top, left + pixels, top + pixels))
            for top in range(first, half.height - pixels + 1, pitch)
            for left in range(PADDING, half.width - pixels + 1, pitch)]
