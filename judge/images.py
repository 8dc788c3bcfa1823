"""Folders of images as uint8 tensors, and data sets by name. Only this file opens images.

A data set has two domains, in CycleGAN's folder layout and in the order of its `monet2photo`:
A is the paintings, B the photographs.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from judge.common import cache
from judge.common.errors import UserError
from judge.common.files import as_user_error

# The edge of the square images that each size of the workbench trains on, in pixels.
SIZES = {"sketch": 64, "draft": 128, "paper": 256}

DATA = Path("data")  # where data sets by name are kept, on the user's machine
STAND_IN = ".stand-in"  # a file of this name marks the built-in sample, wherever it lies

DECODER_VERSION = 1  # raise it when `decode` makes other pixels of a file: it names what is cached

# Pillow knows more, and goes by content whatever a file is called: of an .eps it runs a program.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
LARGE_IMAGE_PIXELS = 2**25  # pixels beyond which images are decoded one at a time, 4 bytes each: Pillow's end is 2**27.4

LUMA = (0.299, 0.587, 0.114)  # of RGB, Rec. ITU-R BT.601

# The order, written down once: `monet2photo/trainA` holds Monets, `trainB` landscapes.
PAINTINGS, PHOTOS = "A", "B"


def default_size(device: torch.device) -> str:
    """`sketch` without a GPU, `paper` with one."""
    return "paper" if device.type == "cuda" else "sketch"


# ---------------------------------------------------------------------------------------------
# Data sets


@dataclass(frozen=True)
class DataSet:
    """Where the images of two domains lie, not yet opened."""

    name: str
    """Name for tables and records: the folder's, or `sample`."""
    train: dict[str, list[Path]]
    """Files to train on, by domain (`PAINTINGS`, `PHOTOS`)."""
    test: dict[str, list[Path]]
    """Files held out, by domain."""
    stand_in: bool = False
    """Whether this is the built-in sample, whose results mean nothing beyond "it runs"."""

    @property
    def description(self) -> str:
        """What to say of the data wherever results are shown."""
        return f"{self.name} (built-in stand-in, not real paintings)" if self.stand_in else self.name


def find_dataset(data: str) -> DataSet:
    """The data set that `data` names.

    Args:
        data: `auto` (`data/monet2photo` where it is, the built-in sample otherwise), `sample`
            (made under `data/` on first use), the name of another folder under `data/`, or a
            folder with the subfolders `trainA testA` (paintings) and `trainB testB` (photographs).

    Raises:
        UserError: there is no such folder, or one of the four holds no image.
    """
    data = resolve_name(data)
    folder = Path(data) if Path(data).is_dir() else DATA / data
    if data == "sample" and not folder.is_dir():
        from judge import sample  # not above: scikit-learn takes a second to import

        print(f"making the built-in sample in {folder}", file=sys.stderr)
        with as_user_error(folder.parent):
            sample.make(folder)
    if not folder.is_dir():
        hint = f"python -m judge data {data}, or " if Path(data).name == data else ""
        raise UserError(f"no data folder {folder}: {hint}give --data a folder, or sample")
    splits = (
        {domain: list_images([folder / f"{split}{domain}"]) for domain in (PAINTINGS, PHOTOS)}
        for split in ("train", "test")
    )
    return DataSet(folder.resolve().name, *splits, stand_in=(folder / STAND_IN).exists())


def resolve_name(data: str) -> str:
    """`auto` as what it stands for on this machine; anything else as it is."""
    if data != "auto":
        return data
    return "monet2photo" if (DATA / "monet2photo").is_dir() else "sample"


def from_folders(paintings: Sequence[Path], photos: Sequence[Path]) -> DataSet:
    """A data set of any folders; every tenth file of each domain is held out.

    Raises:
        UserError: a folder is missing or holds no image, or a domain has fewer than ten files.
    """
    files = {PAINTINGS: list_images(paintings), PHOTOS: list_images(photos)}
    for paths in files.values():
        if len(paths) < 10:
            raise UserError(f"{paths[0].parent}: {len(paths)} images are too few, give at least 10")
    name = " + ".join(Path(folder).resolve().name for folder in [*paintings, *photos])
    train = {domain: [p for i, p in enumerate(paths) if i % 10] for domain, paths in files.items()}
    return DataSet(name, train, {domain: paths[::10] for domain, paths in files.items()})


def list_images(folders: Sequence[Path]) -> list[Path]:
    """Image files below `folders`, sorted, those hidden or in hidden folders left out.

    Raises:
        UserError: a folder does not exist or holds no file with an image's ending.
    """
    endings = {ending for ending, of in Image.registered_extensions().items() if of in FORMATS}
    files = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: images are read from it")
        found = sorted(
            path for path in folder.rglob("*")
            if path.suffix.lower() in endings
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        if not found:
            raise UserError(f"no images in {folder}: put JPEG, PNG, WebP or TIFF files there")
        files += found
    return files


# ---------------------------------------------------------------------------------------------
# Images


@dataclass(frozen=True)
class Images:
    """Decoded images of one size."""

    pixels: torch.Tensor
    """uint8 [N, 3, size, size], RGB."""
    paths: list[str]
    """Where each came from, N of them."""
    skipped: list[str]
    """Files that could not be decoded, with the reason."""
    enlarged: int
    """How many had a shorter edge than `size` and were scaled up."""

    def counts(self) -> dict:
        """For records: how many images, which were left out and why, how many were scaled up."""
        return {"images": len(self.paths), "skipped": self.skipped, "enlarged": self.enlarged}


def load_images(paths: Sequence[Path], size: int) -> Images:
    """Decode `paths` to squares of `size` pixels: shorter edge resized, centre cut out.

    CycleGAN squashes to a square instead, which is the same on its square data and distorts
    other people's. Decoded pixels are cached (`judge.cache`), since every trial needs them.

    Raises:
        UserError: not one file could be decoded.
    """
    name = f"images-{_fingerprint(paths, size)}.pt"
    found = cache.get(name)
    if not found:
        found = vars(_decode_all(paths, size))
        cache.put(name, found)
    return Images(**found)


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float [-1, 1], a generator's range."""
    return pixels.float() / 127.5 - 1


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """float [-1, 1] to uint8 0..255, clipped and rounded."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def luma(images: torch.Tensor) -> torch.Tensor:
    """How light each pixel is, [N, 3, H, W] to [N, 1, H, W], Rec. ITU-R BT.601."""
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _fingerprint(paths: Sequence[Path], size: int) -> str:
    """Changes when a file is added, removed, renamed or rewritten, or another size is asked for."""
    return hashlib.sha256(repr((DECODER_VERSION, size, [_stamp(path) for path in paths])).encode()).hexdigest()[:32]


def _stamp(path: Path) -> tuple:
    try:
        # As given too: that is how `Images` names the files.
        return str(path), str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns
    except (OSError, RuntimeError):  # a broken link: decoding will say so
        return str(path), None


def _decode_all(paths: Sequence[Path], size: int) -> Images:
    # Large ones all in one thread: each keeps for itself the memory that it has once had.
    with ThreadPoolExecutor() as many, ThreadPoolExecutor(1) as one:
        futures = [(one if _is_large(path) else many).submit(_decode_or_reason, path, size) for path in paths]
    decoded = [future.result() for future in futures]
    good = [(path, *image) for path, image in zip(paths, decoded) if not isinstance(image, str)]
    skipped = [f"{path}: {why}" for path, why in zip(paths, decoded) if isinstance(why, str)]
    if not good:
        raise UserError(f"none of {len(paths)} files could be read as an image, first {skipped[0]}")
    names, pixels, enlarged = zip(*good)
    stack = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Images(stack, [str(name) for name in names], skipped, sum(enlarged))


def _is_large(path: Path) -> bool:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height > LARGE_IMAGE_PIXELS
    except Exception:  # decoding will say what is wrong
        return False


def _decode_or_reason(path: Path, size: int) -> tuple[np.ndarray, bool] | str:
    try:
        return decode(path, size)
    except Exception as error:  # each format's decoder fails in its own ways, all with one meaning
        return str(error) or type(error).__name__


def decode(path: Path, size: int) -> tuple[np.ndarray, bool]:
    """One file as uint8 [size, size, 3] RGB, and whether it had to be enlarged.

    EXIF orientation is applied, transparency laid on white, 16-bit grey scaled to 8.

    Raises:
        Exception: as Pillow does, of OSError, SyntaxError, ValueError, RuntimeError and others.
    """
    with open_image(path) as image:
        image = to_rgb(image)
        fitted = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        return np.asarray(fitted), min(image.size) < size


def read_full_size(path: Path) -> torch.Tensor:
    """One file at its own size, uint8 [3, H, W] RGB, as `decode`; the first picture of several.

    Raises:
        Exception: as `decode`.
    """
    with open_image(path) as image:
        return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image file of one of `FORMATS`, turned as its EXIF data say.

    Raises:
        Exception: as `decode`.
    """
    with Image.open(path, formats=FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        yield image


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in 8-bit RGB as a viewer would show it; Pillow's own `convert` clips and uncovers."""
    if image.mode.startswith("I"):  # 16 bits a pixel: `convert` would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:  # `convert` would uncover what transparency hides
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies in any case
