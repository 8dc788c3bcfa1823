"""Folders of images as uint8 tensors, and data sets by name. No other file opens images to train on.

A data set has two domains, in CycleGAN's folder layout and in the order of its `monet2photo`:
A is the paintings, B the photographs.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from judge.common import cache
from judge.common.constants import DATA, LUMA, STAND_IN
from judge.common.constants import SIZES as SIZES  # callers say images.SIZES
from judge.common.device import available_cores
from judge.common.errors import UserError, one_line, printable
from judge.common.files import as_user_error, scratch_folder
from judge.folders import (
    ASIDE,
    FORMATS,
    check_data,
    check_disjoint,
    data_folder,
    list_images,
    made_data,
    name_apart,
    note,
    resolve_name,
)

DECODER_VERSION = 2  # part of the cache's key: raise it when `decode` returns other pixels for a file

LARGE_IMAGE_PIXELS = 2**25  # larger images are decoded one by one, at 4 bytes a pixel
MAX_IMAGE_PIXELS = 2**29  # of a file: 2 GB in memory. Pillow's own limit is below a telephone's 200 million
Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS // 2  # Pillow refuses twice this
MAX_NAMED = 20  # files that are left out, in one line each; a last line counts the others
PAINTINGS, PHOTOS = "A", "B"  # domains: `monet2photo/trainA` holds Monets, `trainB` landscapes


def default_size(device: torch.device) -> str:
    """Return `sketch` without a GPU, `draft` with one."""
    return "draft" if device.type == "cuda" else "sketch"


@dataclass(frozen=True)
class DataSet:
    """The image files of two domains."""

    name: str
    train: dict[str, list[Path]]  # by domain (`PAINTINGS`, `PHOTOS`)
    test: dict[str, list[Path]]
    stand_in: bool = False  # the built-in sample, whose results only show that the programs run

    @property
    def description(self) -> str:
        """The name, with a mark if it is a stand-in."""
        return f"{self.name} (built-in stand-in, not real paintings)" if self.stand_in else self.name


def find_dataset(data: str) -> DataSet:
    """Return the data set that `data` names; make the built-in sample on first use.

    `data` is `auto`, `sample`, the name of another folder under `data/`, or a folder with the subfolders
    `trainA testA` (paintings) and `trainB testB` (photographs). Raises UserError if one of them is missing.
    """
    data = resolve_name(data)
    folder = data_folder(data)
    if data == "sample" and not folder.is_dir():
        from judge import sample  # scikit-learn takes a second to import

        folder = made_data() / data
        print(f"making the built-in sample in {folder}", file=sys.stderr)
        with as_user_error(folder.parent):
            sample.make(folder)
    check_data(data)
    train, test = ({domain: list_images([folder / f"{split}{domain}"]) for domain in (PAINTINGS, PHOTOS)}
                   for split in ("train", "test"))
    check_disjoint({f"{split}{domain}": paths for split, domains in (("train", train), ("test", test))
                    for domain, paths in domains.items()})
    return DataSet(printable(folder.resolve().name), train, test, stand_in=(folder / STAND_IN).exists())


@contextmanager
def making_aside() -> Iterator[Callable[[], None]]:
    """Make data in a temporary folder, here and in programs that are started, until the end of the block or
    until the function that this yields moves it to `DATA`: what is only checked, or is refused, writes none.
    """
    with tempfile.TemporaryDirectory(prefix="salon-") as folder:

        def keep() -> None:
            os.environ.pop(ASIDE, None)
            for made in Path(folder).iterdir():
                with as_user_error(DATA), scratch_folder(DATA / made.name) as part:
                    shutil.copytree(made, part, dirs_exist_ok=True)
                    with suppress(OSError):  # another process was first: keep its data
                        part.rename(DATA / made.name)

        os.environ[ASIDE] = folder
        try:
            yield keep
        finally:
            os.environ.pop(ASIDE, None)


def from_folders(paintings: Sequence[Path], photos: Sequence[Path]) -> DataSet:
    """Return a data set of any folders with ten images or more; every tenth of a domain is a test image."""
    by_folder = {domain: {f"{option} {folder}": list_images([folder]) for folder in folders}
                 for domain, option, folders in (
                     (PAINTINGS, "--paintings", paintings), (PHOTOS, "--photos", photos))}  # fmt: skip
    check_disjoint(by_folder[PAINTINGS] | by_folder[PHOTOS])
    files = {domain: [*chain(*lists.values())] for domain, lists in by_folder.items()}
    for paths in files.values():
        if len(paths) < 10:
            raise UserError(f"{paths[0].parent}: {len(paths)} images are too few, give at least 10")
    name = " + ".join(printable(Path(folder).resolve().name) for folder in [*paintings, *photos])
    train, test = zip(*map(split_every_tenth, files.values()))
    return DataSet(name, dict(zip(files, train)), dict(zip(files, test)))


def split_every_tenth(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return training files and test files; the latter are every tenth, from the first."""
    return [path for i, path in enumerate(paths) if i % 10], paths[::10]


@dataclass(frozen=True)
class Images:
    """Decoded images of one size."""

    pixels: torch.Tensor  # uint8 [N, 3, size, size], RGB
    paths: list[str]
    skipped: list[str]  # files that could not be decoded, each with the reason
    enlarged: int  # number of images whose shorter side was below `size`

    def counts(self) -> dict:
        """Return the number of images, the skipped files and the number of enlarged ones, for records."""
        return {"images": len(self.paths), "skipped": self.skipped, "enlarged": self.enlarged}


def load_images(paths: Sequence[Path], size: int) -> Images:
    """Decode `paths` to squares of `size` pixels: the shorter side is resized, the centre cut out.

    CycleGAN squashes images instead, which distorts all but square ones. The pixels are cached, because every
    trial needs them. Files that cannot be decoded are named on stderr. Raises UserError if none can be.
    """
    loaded = Images(**cache.get_or_make(_cache_name(paths, size), lambda: vars(_decode_all(paths, size))))
    for file in loaded.skipped[:MAX_NAMED]:
        note(f"left out, cannot be read: {file}")
    if len(loaded.skipped) > MAX_NAMED:
        note(f"left out, cannot be read: {len(loaded.skipped)} of {len(paths)} files, first those above")
    return loaded


def read_pairs(folder: Path, sources: Path, size: int) -> tuple[list[Path], list[Path]]:
    """Return the images of `folder` and, for each, the one in `sources` of the same name (`name_apart`).

    Pairs of which one cannot be decoded are left out; `size` is that of `load_images`, which names it. Raises
    UserError if another image has no partner, or none is left.
    """
    made, photos = (name_apart(list_images([each]), each) for each in (folder, sources))
    read = {path for named in (made, photos) for path in load_images([*named.values()], size).paths}
    broken = {name for named in (made, photos) for name, path in named.items() if str(path) not in read}
    if alone := sorted((made.keys() ^ photos.keys()) - broken):
        path, other = (made[alone[0]], sources) if alone[0] in made else (photos[alone[0]], folder)
        more = f"; {len(alone) - 1} more have none" if len(alone) > 1 else ""
        raise UserError(f"{path} has no partner in {other}{more}: give both the same name, up to the ending")
    names = [name for name in made if name not in broken]
    if not names:
        raise UserError(f"no pair of images in {folder} and {sources} can be read")
    return [made[name] for name in names], [photos[name] for name in names]


def bytes_to_cache(paths: Sequence[Path], size: int) -> int:
    """Return the bytes that `load_images` with these arguments adds to the cache, 0 if they are there."""
    return 0 if (cache.cache_folder() / _cache_name(paths, size)).exists() else len(paths) * 3 * size**2


def _cache_name(paths: Sequence[Path], size: int) -> str:
    key = repr((DECODER_VERSION, size, [_file_state(path) for path in paths]))
    return f"images-{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt"


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 0..255 to float [-1, 1], a generator's range."""
    return pixels.float() / 127.5 - 1


def float_batches(images: torch.Tensor, device: torch.device, batch: int) -> Iterator[torch.Tensor]:
    """Yield `images`, uint8 or float in [-1, 1] on any device, as batches of floats on `device`."""
    for part in images.split(batch):
        part = part.to(device)
        yield part if part.is_floating_point() else to_float(part)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Convert float [-1, 1] to uint8 0..255, clipped and rounded."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def luma(images: torch.Tensor) -> torch.Tensor:
    """Return the luma (Rec. ITU-R BT.601) of RGB images, [N, 3, H, W] to [N, 1, H, W]."""
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _file_state(path: Path) -> tuple:
    """Return values that change when the file is renamed, rewritten, or made readable."""
    try:
        # With the path as given, too: `Images` names the files so.
        return str(path), str(path.resolve()), path.stat().st_size, path.stat().st_ctime_ns
    except (OSError, RuntimeError):  # a broken link, which decoding will report
        return str(path), None


def _decode_all(paths: Sequence[Path], size: int) -> Images:
    # Allocated once and filled in place: a data set may take most of the machine's memory.
    pixels = np.empty((len(paths), 3, size, size), np.uint8)
    # Large images all in one thread, because a thread keeps the memory that it has once allocated.
    with ThreadPoolExecutor(available_cores()) as threads, ThreadPoolExecutor(1) as single_thread:
        futures = [(single_thread if _is_large(path) else threads).submit(_decode_into, square, path, size)
                   for path, square in zip(paths, pixels)]
    results = [future.result() for future in futures]
    decoded = [row for row, result in enumerate(results) if not isinstance(result, str)]
    skipped = [f"{printable(path)}: {reason}" for path, reason in zip(paths, results)
               if isinstance(reason, str)]
    if not decoded:
        raise UserError(f"none of {len(paths)} files could be read as an image, first {skipped[0]}")
    for row, source in enumerate(decoded):  # close the gaps of the skipped files, and cut off the end
        if row != source:
            pixels[row] = pixels[source]
    pixels.resize((len(decoded), *pixels.shape[1:]), refcheck=False)
    return Images(torch.from_numpy(pixels), [str(paths[row]) for row in decoded], skipped,
                  sum(results[row] for row in decoded))


def _is_large(path: Path) -> bool:
    try:
        with open_image(path) as image:
            return image.width * image.height > LARGE_IMAGE_PIXELS
    except Exception:  # decoding will report it
        return False


def _decode_into(square: np.ndarray, path: Path, size: int) -> bool | str:
    """Write a file's pixels to `square`, uint8 [3, size, size]. Return whether it had to be enlarged, or the
    reason if it cannot be decoded."""
    try:
        pixels, enlarged = decode(path, size)
    except Exception as error:  # each format's decoder raises errors of its own
        return _reason(error)
    square[:] = pixels.transpose(2, 0, 1)
    return enlarged


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a format that is read ({', '.join(FORMATS)})"
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__


def decode(path: Path, size: int) -> tuple[np.ndarray, bool]:
    """Return a file as uint8 [size, size, 3] RGB, and whether it had to be enlarged."""
    image = _open_rgb(path, size)
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square), min(image.size) < size


def read_full_size(path: Path) -> torch.Tensor:
    """Return a file, or the first picture of an animation, at its own size: uint8 [3, H, W] RGB.

    Raises UserError if it cannot be read.
    """
    try:
        return torch.from_numpy(np.array(_open_rgb(path))).permute(2, 0, 1)
    except Exception as error:  # each format's decoder raises errors of its own
        raise UserError(f"{path} cannot be read as an image ({_reason(error)})") from None


def open_image(path: Path) -> Image.Image:
    """Open a file in one of `FORMATS`; decode nothing yet."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise ValueError("not a regular file")
    return Image.open(path, formats=FORMATS)


def _open_rgb(path: Path, size: int | None = None) -> Image.Image:
    """Open an image as a viewer shows it: turned as its EXIF data say, in 8-bit RGB, on white.

    Where `size` pixels are wanted, a large JPEG is decoded at a half, a quarter or an eighth of its size.
    """
    with open_image(path) as image:
        if size and image.width * image.height > LARGE_IMAGE_PIXELS:
            image.draft(None, (8 * size, 8 * size))
        ImageOps.exif_transpose(image, in_place=True)  # also loads the pixels
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    if image.has_transparency_data:  # `convert` would show the hidden colours of transparent pixels
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # `convert` always copies


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of more than 8 bits a pixel with 8: Pillow's `convert` would clip it at 255."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F" or (image.mode == "I" and tags):  # may be 0 to 1, 0 to 255, metres ...
        raise ValueError("which of its numbers are black and white is not known: save it with 8 or 16 bits")
    most = 2 ** tags.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1
    values = np.array(image, np.uint32)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # 0 is white
        values = most - values
    if "transparency" in image.info:  # this value is; on white, as below
        values[values == image.info["transparency"]] = most
    return Image.fromarray((values * 255 // most).astype(np.uint8))
