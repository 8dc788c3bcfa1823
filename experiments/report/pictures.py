"""Strips of a trial's pictures for a page: the first row of a half of a sample sheet, image beside image."""

import io
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from trials.parts import sheets

LOSSLESS_PIXELS = 64  # width of images up to which a strip is lossless where `best` quality is asked for
CACHED_STRIPS = 2000  # of some 10 kB each: a page that is written again cuts only the new sheets
PNG_END = b"IEND\xaeB`\x82"  # the last bytes of the format
GREY = (128, 128, 128)  # beside images that are not square
ENCODINGS = {  # by lossless; the fastest one costs a fifth more bytes than the best, and a tenth of the time
    True: {"lossless": True, "quality": 20, "method": 0},
    False: {"quality": 90, "method": 2},
}


class Layout(NamedTuple):
    """Where the images of a sheet lie: columns, rows in each half, and the size of an image in pixels."""

    columns: int
    rows: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width and height of an image in a strip, which is square."""
        return max(self.width, self.height)


class Strip(NamedTuple):
    """`count` images of `pixels` x `pixels` side by side, as a WebP file."""

    webp: bytes
    count: int
    pixels: int


def layout(sheet: np.ndarray) -> Layout | None:
    """Return the layout of a sheet, uint8 [H, W, 3], by the black lines between its images; None without."""
    height, width = (edge - sheets.PADDING for edge in sheet.shape[:2])
    dark_rows, dark_columns = (~sheet.any(axis=(axis, 2)) for axis in (1, 0))
    # The finest grid whose lines are all black: a coarser one with twice its pitch has black lines too.
    for columns, rows in product(range(sheets.COLUMNS, 0, -1), range(sheets.ROWS, 0, -1)):
        pitches = width / columns, height / rows / 2
        if all(pitch.is_integer() and pitch > sheets.PADDING for pitch in pitches):
            across, down = map(int, pitches)
            if all(dark[start::pitch].all() for dark, pitch in ((dark_columns, across), (dark_rows, down))
                   for start in range(sheets.PADDING)):
                return Layout(columns, rows, across - sheets.PADDING, down - sheets.PADDING)
    return None


def strip(sheet: Path, lower: bool, best: bool = True) -> Strip | None:
    """Return the first row of what a trial made (`lower`) or was given, at its own pixels.

    Images that are not square are padded with grey. With `best` it is lossless up to `LOSSLESS_PIXELS`. None
    if the file is not there or cannot be read, for example because it is half written.
    """
    try:
        return _strip(sheet, sheet.stat().st_mtime_ns, lower, best)
    except OSError:
        return None


def read(sheet: Path) -> np.ndarray | None:
    """Return a sheet as uint8 [H, W, 3]; None if it cannot be read."""
    try:
        with Image.open(sheet, formats=["PNG"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except Exception:  # Pillow raises many types for a damaged file
        return None


@lru_cache(CACHED_STRIPS)
def _strip(sheet: Path, _changed: int, lower: bool, best: bool) -> Strip | None:
    pixels = read(sheet)
    found = None if pixels is None else layout(pixels)
    if found is None:
        return None
    columns, rows, width, height = found
    edge, top = found.pixels, sheets.PADDING + lower * rows * (height + sheets.PADDING)
    row = Image.new("RGB", (columns * edge, edge), GREY)
    for column in range(columns):
        left = sheets.PADDING + column * (width + sheets.PADDING)
        image = Image.fromarray(pixels[top : top + height, left : left + width])
        row.paste(image, (column * edge + (edge - width) // 2, (edge - height) // 2))
    buffer = io.BytesIO()
    row.save(buffer, "WEBP", **ENCODINGS[best and edge <= LOSSLESS_PIXELS])
    return Strip(buffer.getvalue(), columns, edge)


def size(sheet: Path) -> tuple[int, int] | None:
    """Return width and height of a complete PNG file, from its first and last bytes; None of another."""
    try:
        with open(sheet, "rb") as file:
            file.seek(-len(PNG_END), io.SEEK_END)
            complete = file.read() == PNG_END
        with Image.open(sheet, formats=["PNG"]) as picture:
            return picture.size if complete else None
    except Exception:  # Pillow raises many types for a damaged file
        return None
