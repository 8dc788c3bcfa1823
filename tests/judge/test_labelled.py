"""Labelled images: the digits, folders with a subfolder for each class, and the domains of a data set."""

import struct
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image

from judge.common.errors import UserError
from judge.labelled import load_domains, load_labelled


def save_images(folder: Path, count: int, level: float = 0.5) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        save_image(torch.full((3, 20, 20), level), folder / f"{number:02}.png")


def test_no_digit_is_in_both_splits():
    digits = load_labelled("digits")
    assert digits.shape == (1, 8, 8) and digits.stand_in
    assert (len(digits.pixels), len(digits.test_pixels)) == (1437, 360)
    assert digits.pixels.max() == 255 and set(digits.test_labels.tolist()) == set(range(10))
    splits = digits.pixels, digits.test_pixels
    train, test = ({image.numpy().tobytes() for image in split} for split in splits)
    assert not train & test


def test_each_subfolder_is_a_class_and_every_tenth_image_is_a_test_image(tmp_path):
    save_images(tmp_path / "apples", 20, 0.2)
    save_images(tmp_path / "pears", 20, 0.8)
    data = load_labelled(str(tmp_path), 16)
    assert data.classes == ("apples", "pears") and data.shape == (3, 16, 16)
    assert data.labels.tolist() == [0] * 18 + [1] * 18 and data.test_labels.tolist() == [0, 0, 1, 1]
    assert data.pixels[0].unique().item() == 51 and data.pixels[-1].unique().item() == 204


def test_a_plain_folder_is_one_class_and_so_are_the_paintings_of_cyclegans_layout(tmp_path, sample_data):
    save_images(tmp_path / "pears", 40)
    assert load_labelled(str(tmp_path / "pears"), 16).classes == ("pears",)
    paintings = load_labelled(str(sample_data), 64)
    assert paintings.classes == (sample_data.name,)
    assert (len(paintings.pixels), len(paintings.test_pixels)) == (12, 8)


def test_the_domains_are_the_subfolders_or_paintings_and_photos(tmp_path, sample_data):
    both = load_domains(str(sample_data), 32)
    assert both.classes == ("paintings", "photos") and both.stand_in
    assert both.labels.tolist() == [0] * 12 + [1] * 12 and both.test_labels.tolist() == [0] * 8 + [1] * 8
    for name in ("apples", "pears", "plums"):
        save_images(tmp_path / name, 40)
    assert load_domains(str(tmp_path), 32).classes == ("apples", "pears", "plums")
    with pytest.raises(UserError, match="has one domain"):
        load_domains(str(tmp_path / "pears"), 32)


def test_mnist_with_more_images_than_labels_is_refused(tmp_path):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for split, labels in (("train", 4), ("t10k", 3)):
        images = struct.pack(">4I", 0x803, 4, 28, 28) + bytes(4 * 28 * 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, labels) + bytes(labels))
    with pytest.raises(UserError, match="images and labels are not equally many"):
        load_labelled(str(tmp_path))


def test_mnist_that_cannot_be_downloaded_leaves_nothing(tmp_path, monkeypatch):
    """--data auto would read its empty folder as MNIST."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match="MNIST cannot be loaded"):
        load_labelled("mnist")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "message"), [
    (0, "no data folder"), (1, "one image is too few"), (10, "1 test images, a score takes at least 4")])
def test_missing_data_and_too_few_images_are_one_line(tmp_path, count, message):
    if count:
        save_images(tmp_path / "pears", count)
    with pytest.raises(UserError, match=message) as caught:
        load_labelled(str(tmp_path / "pears"), 16)
    assert "\n" not in str(caught.value)
