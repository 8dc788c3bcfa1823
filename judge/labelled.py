"""Labelled images: scikit-learn's digits, MNIST, and folders with a subfolder of images for each class."""

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch.nn.functional import pad

from judge import images
from judge.common.constants import DATA, DIGITS, FOLDER, MNIST
from judge.common.errors import UserError, printable
from judge.common.files import scratch_folder
from judge.common.rng import rng
from judge.folders import check_disjoint, data_folder, is_visible, made_data, note
from judge.score import MIN_IMAGES

MNIST_PADDING = 2  # black pixels on each side, as for LeNet-5 (LeCun et al. 1998): 32 px can be halved to 4
TEN_DIGITS = tuple("0123456789")  # classes of both
DIGITS_TEST_EVERY = 5  # one in five of the digits is a test image


@dataclass(frozen=True)
class LabelledImages:
    """Images with the number of their class."""

    name: str
    classes: tuple[str, ...]
    pixels: torch.Tensor  # for training, uint8 [N, C, H, W]
    labels: torch.Tensor  # int64 [N], below `len(classes)`
    test_pixels: torch.Tensor
    test_labels: torch.Tensor
    stand_in: bool = False  # True for built-in data
    skipped: tuple[str, ...] = ()  # files that could not be decoded, each with the reason

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.pixels.shape[1:])

    def summary(self) -> dict:
        """Return the name, the classes and the numbers of images, for records."""
        counts = {"images": len(self.pixels), "test": len(self.test_pixels), "skipped": list(self.skipped)}
        return {"name": self.name, "stand_in": self.stand_in, "classes": list(self.classes), **counts}


def resolve_labelled_name(data: str) -> str:
    """Return what `auto` stands for, MNIST if it has been downloaded, else the digits; keep other names."""
    return data if data != "auto" else MNIST if _has_mnist(DATA) else DIGITS


def describe_data(data: str) -> str:
    """Return the name of the data for display with results: a stand-in is marked as one."""
    return f"{data} (built-in stand-in for MNIST)" if data == DIGITS else data


def data_kind(data: str) -> str:
    """Return `DIGITS`, `MNIST`, or `FOLDER`, for which the trial chooses the image size."""
    if data == DIGITS:
        return DIGITS
    return MNIST if data == MNIST or _has_mnist(Path(data)) else FOLDER


def load_labelled(data: str, size: int = 0) -> LabelledImages:
    """Load the images that `data` names.

    `data` is `digits` (8 px, built in), `mnist` (32 px, downloaded into data/ on first use), a folder that
    holds `MNIST/raw`, or a folder of images to load with `size` pixels a side: one class for each subfolder,
    or a single class without subfolders. In CycleGAN's layout the paintings are loaded, with testA for the
    test; otherwise every tenth image is a test image.

    Raises UserError if the folder does not exist or holds too few images, or MNIST cannot be downloaded.
    """
    kind = data_kind(data)
    if kind == DIGITS:
        return _load_digits()
    if kind == MNIST:
        named = DATA if _has_mnist(DATA) else made_data()
        return _load_mnist(named if data == MNIST else Path(data), download=data == MNIST)
    loaded = _load_folder(data_folder(data), size)
    if len(loaded.test_pixels) < MIN_IMAGES:
        raise UserError(f"{data}: {len(loaded.test_pixels)} test images, a score takes at least {MIN_IMAGES}")
    return loaded


def load_domains(data: str, size: int) -> LabelledImages:
    """Load the images of two or more domains, with `size` pixels a side; each domain is a class.

    `data` names a data set of `images.find_dataset`, whose domains are paintings and photographs, or a folder
    with a subfolder of images for each domain, of which every tenth is a test image. Raises UserError if the
    data does not exist, has one domain only, or too few images of a domain.
    """
    folder = data_folder(data)
    if folder.is_dir() and not _has_cyclegan_layout(folder):
        loaded = _load_folder(folder, size)
    else:
        dataset = images.find_dataset(data)
        files = {name: (dataset.train[domain], dataset.test[domain])
                 for name, domain in (("paintings", images.PAINTINGS), ("photos", images.PHOTOS))}
        loaded = replace(_load_classes(dataset.name, files, size), stand_in=dataset.stand_in)
    if len(loaded.classes) < 2:
        raise UserError(f"{data} has one domain: give a folder with a subfolder of images for each")
    for name, count in zip(loaded.classes, torch.bincount(loaded.test_labels).tolist()):
        if count < MIN_IMAGES:
            raise UserError(f"{data}: {count} test images of {name}, a score takes at least {MIN_IMAGES}")
    return loaded


def _load_digits() -> LabelledImages:
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    digits = load_digits()
    pixels = torch.from_numpy(digits.images / 16 * 255).round().byte()[:, None]
    labels = torch.from_numpy(digits.target).long()
    # A random split, because the file is sorted by writer.
    test = torch.randperm(len(pixels), generator=rng("digits")) % DIGITS_TEST_EVERY == 0
    splits = pixels[~test], labels[~test], pixels[test], labels[test]
    return LabelledImages(DIGITS, TEN_DIGITS, *splits, stand_in=True)


def _has_mnist(root: Path) -> bool:
    return (root / "MNIST" / "raw").is_dir()


def _load_mnist(root: Path, download: bool) -> LabelledImages:
    try:
        from torchvision import datasets  # takes seconds to import

        if download and not _has_mnist(root):
            with scratch_folder(root / "MNIST") as folder:  # without a network, an empty one would be left
                datasets.MNIST(folder, download=True)
                with suppress(OSError):  # another process was first: its files stay
                    (folder / "MNIST").rename(root / "MNIST")
        splits = [datasets.MNIST(root, train) for train in (True, False)]
        if any(len(split.data) != len(split.targets) for split in splits):
            raise RuntimeError("images and labels are not equally many")
    except (OSError, RuntimeError) as error:  # no network, damaged files
        raise UserError(f"MNIST cannot be loaded ({error}): put its four files into {root}/MNIST/raw, or "
                        f"give --data {DIGITS}") from None
    (pixels, labels), (test_pixels, test_labels) = (
        (pad(split.data[:, None], (MNIST_PADDING,) * 4), split.targets) for split in splits)
    return LabelledImages(MNIST, TEN_DIGITS, pixels, labels, test_pixels, test_labels)


def _load_folder(folder: Path, size: int) -> LabelledImages:
    if not folder.is_dir():
        raise UserError(f"no data folder {folder}: give --data {DIGITS}, {MNIST}, or a folder with a "
                        "subfolder of images for each class")
    if _has_cyclegan_layout(folder):
        dataset = images.find_dataset(str(folder))
        paintings = dataset.train[images.PAINTINGS], dataset.test[images.PAINTINGS]
        return _load_classes(dataset.name, {dataset.name: paintings}, size)
    visible = sorted(path for path in folder.iterdir() if is_visible(path.name))
    subfolders = [path for path in visible if path.is_dir()]
    if loose := len(visible) - len(subfolders) if subfolders else 0:
        files = "file beside the subfolders is" if loose == 1 else "files beside the subfolders are"
        note(f"note: {printable(folder)}: {loose} {files} left out; each subfolder is a class")
    files = {}
    for class_folder in subfolders or [folder]:
        paths = images.list_images([class_folder])
        if len(paths) < 2:
            raise UserError(f"{class_folder}: one image is too few, training and test take at least one each")
        files[printable(class_folder.name)] = images.split_every_tenth(paths)
    check_disjoint({name: chain(*splits) for name, splits in files.items()})
    return _load_classes(printable(folder.resolve().name), files, size)


def _has_cyclegan_layout(folder: Path) -> bool:
    return (folder / f"train{images.PAINTINGS}").is_dir()


def _load_classes(name: str, files: dict[str, tuple[list[Path], list[Path]]], size: int) -> LabelledImages:
    """Load the training files and the test files of each class as images of `size` pixels."""
    loaded = [[images.load_images(paths, size) for paths in splits] for splits in files.values()]
    (pixels, labels), (test_pixels, test_labels) = (
        (torch.cat([part.pixels for part in split]) if len(split) > 1 else split[0].pixels,
         torch.cat([torch.full((len(part.pixels),), label) for label, part in enumerate(split)]))
        for split in zip(*loaded))
    skipped = tuple(file for splits in loaded for part in splits for file in part.skipped)
    return LabelledImages(name, tuple(files), pixels, labels, test_pixels, test_labels, skipped=skipped)
