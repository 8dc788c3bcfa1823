"""Strips of pictures, cut from sample sheets."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import save_image

from experiments.report import pictures
from trials.parts.sheets import sheet


def opened(strip: pictures.Strip) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(strip.webp)).convert("RGB"))


def test_a_strip_has_the_first_row_of_each_half_at_its_own_pixels_without_loss(tmp_path):
    photos, paintings = (2 * torch.rand(2, 8, 3, 64, 64) - 1)
    save_image(sheet(photos, paintings), tmp_path / "s.png")
    for images, lower in ((photos, False), (paintings, True)):
        strip = pictures.strip(tmp_path / "s.png", lower)
        assert (strip.count, strip.pixels) == (8, 64)
        expected = torch.cat([*images], 2).add(1).mul(127.5)  # [3, 64, 512], in [0, 255]
        assert np.abs(opened(strip).transpose(2, 0, 1) - expected.numpy()).max() <= 1
    lossy = pictures.strip(tmp_path / "s.png", lower=True, best=False)
    assert len(lossy.webp) < len(strip.webp) and opened(lossy).shape == (64, 512, 3)


@pytest.mark.parametrize("shape, images, columns, pixels", [
    ((1, 28, 28), 400, 16, 28), ((1, 8, 8), 10, 10, 32), ((3, 128, 128), 8, 8, 128),
    ((3, 64, 64), 12, 12, 64), ((1, 1, 4), 20, 16, 32), ((3, 60, 90), 1, 1, 90),  # not square: padded
])
def test_images_are_found_by_the_lines_between_them_in_sheets_of_all_systems(
    shape, images, columns, pixels, tmp_path,
):
    save_image(sheet(*(2 * torch.rand(2, images, *shape) - 1)), tmp_path / "s.png")
    strip = pictures.strip(tmp_path / "s.png", lower=True)
    assert (strip.count, strip.pixels) == (columns, pixels)
    assert opened(strip).shape == (pixels, columns * pixels, 3)


def test_a_picture_that_is_not_square_is_padded_and_not_stretched(tmp_path):
    wide = torch.ones(1, 3, 32, 64)
    save_image(sheet(wide, wide), tmp_path / "s.png")
    image = opened(pictures.strip(tmp_path / "s.png", lower=True))
    assert (image[:16] == 128).all() and (image[16:48] == 255).all() and (image[48:] == 128).all()


def test_files_that_are_half_written_or_no_sheets_give_no_strip_and_a_new_one_replaces_the_old(tmp_path):
    file = tmp_path / "s.png"
    assert pictures.strip(file, lower=True) is None and pictures.size(file) is None
    save_image(sheet(*torch.rand(2, 8, 3, 64, 64)), file)
    good, old = file.read_bytes(), pictures.strip(file, lower=True)
    assert old and pictures.size(file) == (530, 134)
    for damage in (good[:2000], b"\x89PNG half", b""):
        file.write_bytes(damage)
        assert pictures.strip(file, lower=True) is None and pictures.size(file) is None
    save_image(torch.rand(3, 134, 530), file)  # no lines
    assert pictures.strip(file, lower=True) is None
    save_image(sheet(*torch.rand(2, 8, 3, 64, 64)), file)
    assert pictures.strip(file, lower=True).webp != old.webp
