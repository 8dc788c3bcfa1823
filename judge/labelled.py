"""TODO"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import pad
from torchvision import datasets

from judge import images
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.score import MIN_IMAGES

DIGITS, MNIST, FOLDER = "digits", "mnist", "folder"  # kinds of data
MNIST_PADDING = 2  # black pixels around MNIST: 32 px halve to 4, and LeNet-5 read them so (LeCun et al. 1998)
DIGITS_TEST_EVERY = 5  # one in five of the built-in digits is a test image

# ---------------------------------------------------------------------------------------------
# Data


@dataclass(frozen=True)
class LabelledImages:
    """Images with the number of their class."""

    name: str
    classes: tuple[str, ...]
    pixels: torch.Tensor
    """uint8 [N, C, H, W], to train on."""
    labels: torch.Tensor
    """int64 [N], below `len(classes)`."""
    test_pixels: torch.Tensor
    """uint8 [M, C, H, W], held out."""
    test_labels: torch.Tensor
    """int64 [M]."""
    stand_in: bool = False
    """Whether this is the built-in sample."""
    skipped: tuple[str, ...] = ()
    """Files that could not be read, with the reason."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.pixels.shape[1:])

    def summary(self) -> dict:
        """For records: name, and how many images."""
        counts = {"images": len(self.pixels), "test": len(self.test_pixels), "skipped": list(self.skipped)}
        return {"name": self.name, "stand_in": self.stand_in, "classes": list(self.classes), **counts}


def resolve_labelled_name(data: str) -> str:
    """`auto` as what it stands for here: MNIST where it has been downloaded, else the built-in digits."""
    if data != "auto":
        return data
    return MNIST if _has_mnist(images.DATA) else DIGITS


def describe_data(data: str) -> str:
    """What to say of the data wherever results are shown."""
    return f"{data} (built-in stand-in for MNIST)" if data == DIGITS else data


def data_kind(data: str) -> str:
    """`DIGITS`, `MNIST`, or `FOLDER`, whose size is for the trial to choose."""
    if data == DIGITS:
        return DIGITS
    return MNIST if data == MNIST or _has_mnist(Path(data)) else FOLDER


def load_labelled(data: str, size: int = 0) -> LabelledImages:
    """The images that `data` names.

    Args:
        data: `digits` (8 px, built in), `mnist` (32 px, downloaded into data/ on first use), a folder
            that holds `MNIST/raw`, or a folder of images: a class for each subfolder, or one class
            where there are none. Of a folder in CycleGAN's layout the paintings, testA held out; of
            another every tenth image.
        size: edge of a folder's images, in pixels; other data has its own.

    Raises:
        UserError: there is no such folder or no image in it, or MNIST cannot be had.
    """
    if data_kind(data) == DIGITS:
        return _digits()
    if data_kind(data) == MNIST:
        return _mnist(images.DATA if data == MNIST else Path(data))
    found = _load_folder(Path(data) if Path(data).is_dir() else images.DATA / data, size)
    if len(found.test_pixels) < MIN_IMAGES:
        raise UserError(f"{data}: {len(found.test_pixels)} test images, a score takes at least {MIN_IMAGES}")
    return found


def load_domains(data: str, size: int) -> LabelledImages:
    """The images that `data` names, of two domains or more, a class each.

    Args:
        data: what `images.find` knows, whose domains are paintings and photographs, or a folder with a
            subfolder of images for each domain, every tenth of them held out.
        size: edge of the images, in pixels.

    Raises:
        UserError: there is no such data, of one domain only, or too few images of a domain.
    """
    folder = Path(data) if Path(data).is_dir() else images.DATA / data
    if folder.is_dir() and not _has_cyclegan_layout(folder):
        loaded = _load_folder(folder, size)
    else:
        found = images.find_dataset(data)
        files = {"paintings": _split(found, images.PAINTINGS), "photos": _split(found, images.PHOTOS)}
        loaded = replace(_load_classes(found.name, files, size), stand_in=found.stand_in)
    if len(loaded.classes) < 2:
        raise UserError(f"{data} has one domain: give a folder with a subfolder of images for each")
    for name, count in zip(loaded.classes, torch.bincount(loaded.test_labels).tolist()):
        if count < MIN_IMAGES:
            raise UserError(f"{data}: {count} test images of {name}, a score takes at least {MIN_IMAGES}")
    return loaded


def _digits() -> LabelledImages:
    from sklearn.datasets import load_digits  # not above: takes a second

    found = load_digits()
    pixels = torch.from_numpy(found.images / 16 * 255).round().byte()[:, None]
    labels = torch.from_numpy(found.target).long()
    # At random: the file goes from writer to writer.
    test = torch.randperm(len(pixels), generator=rng("digits")) % DIGITS_TEST_EVERY == 0
    classes = tuple(map(str, found.target_names))
    return LabelledImages(DIGITS, classes, pixels[~test], labels[~test], pixels[test], labels[test], stand_in=True)


def _has_mnist(root: Path) -> bool:
    return (root / "MNIST" / "raw").is_dir()


def _mnist(root: Path) -> LabelledImages:
    try:
        train, test = (datasets.MNIST(root, train=of, download=root == images.DATA) for of in (True, False))
    except (OSError, RuntimeError) as error:  # no network, damaged files
        raise UserError(f"MNIST cannot be had ({error}): put its four files into {root}/MNIST/raw, or give "
                        f"--data {DIGITS}") from None
    (pixels, labels), (test_pixels, test_labels) = (
        (pad(part.data[:, None], (MNIST_PADDING,) * 4), part.targets) for part in (train, test))
    classes = tuple(map(str, range(10)))
    return LabelledImages(MNIST, classes, pixels, labels, test_pixels, test_labels)


def _load_folder(folder: Path, size: int) -> LabelledImages:
    if not folder.is_dir():
        raise UserError(f"no data folder {folder}: give --data {DIGITS}, {MNIST}, or a folder with a "
                        "subfolder of images for each class")
    if _has_cyclegan_layout(folder):
        found = images.find_dataset(str(folder))
        return _load_classes(found.name, {found.name: _split(found, images.PAINTINGS)}, size)
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {}
    for part in inside or [folder]:
        paths = images.list_images([part])
        if len(paths) < 2:
            raise UserError(f"{part}: one image, of which none is left to hold out")
        files[part.name] = [p for i, p in enumerate(paths) if i % 10], paths[::10]
    return _load_classes(folder.resolve().name, files, size)


def _has_cyclegan_layout(folder: Path) -> bool:
    return (folder / f"train{images.PAINTINGS}").is_dir()


def _split(found: images.DataSet, domain: str) -> tuple[list[Path], list[Path]]:
    return found.train[domain], found.test[domain]


def _load_classes(name: str, files: dict[str, tuple[list[Path], list[Path]]], size: int) -> LabelledImages:
    """Files to train on and files held out, by class, as images of `size` pixels."""
    loaded = [[images.load_images(paths, size) for paths in of_class] for of_class in files.values()]
    (pixels, labels), (test_pixels, test_labels) = (
        (torch.cat([part.pixels for part in split]),
         torch.cat([torch.full((len(part.pixels),), label) for label, part in enumerate(split)]))
        for split in zip(*loaded))
    skipped = tuple(file for of_class in loaded for part in of_class for file in part.skipped)
    return LabelledImages(name, tuple(files), pixels, labels, test_pixels, test_labels, skipped=skipped)
