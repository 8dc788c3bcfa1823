"""The built-in sample: what is written, where crops come from, how paintings look."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_images

from judge import sample
from judge.common.constants import LUMA

COUNTS = {"train": 4, "test": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sample"
    sample.make(folder, **COUNTS)
    return folder


@pytest.fixture(scope="module")
def tiles() -> dict[str, list[np.ndarray]]:
    return sample.cut_tiles(load_sample_images().images)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_files_are_those_of_cyclegans_layout_with_credits_and_the_mark_of_a_stand_in(made, tmp_path):
    expected = {f"{split}{domain}/{index:03}.png"
                for split, count in COUNTS.items() for domain in "AB" for index in range(count)}
    assert set(contents(made)) == expected | {"README.txt", ".stand-in"}
    text = (made / "README.txt").read_text(encoding="utf-8")
    assert all(word in text for word in ("stand-in", "scikit-learn", "danielbuechele", "licenses/by/2.0"))
    sample.make(tmp_path / "small", train=1, test=1, pixels=40)
    for folder, pixels in ((made, 96), (tmp_path / "small", 40)):
        for path in folder.rglob("*.png"):
            with Image.open(path) as image:
                assert (image.size, image.mode) == ((pixels, pixels), "RGB")


def test_equal_arguments_write_equal_files_and_more_images_begin_with_the_same_ones(made, tmp_path):
    sample.make(tmp_path / "more", train=5, test=3)
    assert contents(made).items() <= contents(tmp_path / "more").items()


def test_a_folder_that_exists_is_left_alone_also_if_it_appears_meanwhile(tmp_path, monkeypatch):
    def save_mine(folder: Path) -> None:
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")

    write = sample._write
    monkeypatch.setattr(sample, "_write", lambda *args: (write(*args), save_mine(tmp_path / "late")))
    save_mine(tmp_path / "early")
    for name in ("early", "late"):
        sample.make(tmp_path / name, train=1, test=1, pixels=16)
    assert contents(tmp_path) == {"early/mine.txt": b"mine", "late/mine.txt": b"mine"}


def test_tiles_do_not_overlap_none_is_empty_and_both_splits_show_both_pictures():
    pictures = [picture.copy() for picture in load_sample_images().images]
    tiles = sample.cut_tiles(pictures)
    every = [*tiles["train"], *tiles["test"]]
    assert min((tile @ LUMA).std() for tile in every) > 15
    assert len(tiles["train"]) > 2 * len(tiles["test"])
    for split, picture in product(tiles, pictures):
        assert any(np.may_share_memory(tile, picture) for tile in tiles[split])
    for picture in pictures:
        picture[:] = 0
    for tile in every:
        tile += 1
    assert max(picture.max() for picture in pictures) == 1


def test_without_the_brushwork_the_domains_are_alike_but_share_no_crop(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "paint", lambda image, rng: image)
    sample.make(tmp_path / "sample", train=60, test=4)
    unpainted = [np.stack([np.asarray(Image.open(path)) for path in tmp_path.glob(f"*/t*{domain}/*.png")])
                 for domain in "AB"]
    crops = [{image.tobytes() for image in images} for images in unpainted]
    assert len(crops[0] | crops[1]) == 2 * 64
    for measure in (np.mean, np.std):
        paintings, photos = (measure(images, axis=(0, 1, 2)) for images in unpainted)
        assert np.abs(paintings - photos).max() < 5  # grey levels
    paintings, photos = (np.abs(np.diff(images @ LUMA, axis=2)).mean() for images in unpainted)
    assert paintings == pytest.approx(photos, rel=0.1)


def ramp() -> np.ndarray:
    """Brighter from left to right: its edges run up and down."""
    return np.broadcast_to(np.linspace(60, 200, 96)[None, :, None], (96, 96, 3)).astype(np.uint8)


def roughness(image: np.ndarray) -> tuple[float, float]:
    """Return the mean change from pixel to pixel (down, across), without what a wide blur keeps."""
    grey = image @ LUMA
    fine = grey - ndimage.gaussian_filter(grey, 4)
    return tuple(float(np.abs(np.diff(fine, axis=axis)).mean()) for axis in (0, 1))


def test_paint_depends_on_image_and_generator_alone_and_leaves_its_input_unchanged(tiles):
    image = tiles["train"][0][:60, :90].copy()
    before = image.copy()
    first, again, other = (sample.paint(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first.shape, first.dtype) == ((60, 90, 3), np.uint8)
    assert (first == again).all() and (first != other).any() and (image == before).all()


def test_strokes_add_edges_and_run_along_those_of_the_source():
    flat = np.full((96, 96, 3), 128, np.uint8)
    assert roughness(flat) == (0, 0) and min(roughness(sample.paint(flat, np.random.default_rng(0)))) > 0.5
    upright = sample.paint(ramp(), np.random.default_rng(0))
    down, across = roughness(upright)
    assert across > 1.3 * down
    lying = sample.paint(np.ascontiguousarray(ramp().transpose(1, 0, 2)), np.random.default_rng(0))
    down, across = roughness(lying)
    assert down > 1.3 * across
    at_training_size = Image.fromarray(upright).resize((64, 64), Image.Resampling.BICUBIC)
    assert min(roughness(np.asarray(at_training_size))) > 1


def test_paintings_keep_the_lights_of_their_crops_in_warmer_and_stronger_colours(tiles):
    rng = np.random.default_rng(0)
    crops = [sample._random_crop(tile, 96, rng) for tile in tiles["train"]]
    paintings = [sample.paint(crop, rng) for crop in crops]
    for pair in zip(crops, paintings):
        grey = [image @ LUMA for image in pair]
        assert np.corrcoef(grey[0].ravel(), grey[1].ravel())[0, 1] > 0.4
        broad = [ndimage.gaussian_filter(image, 4).ravel() for image in grey]
        assert np.corrcoef(*broad)[0, 1] > 0.8
    before, after = np.stack(crops).astype(float), np.stack(paintings).astype(float)
    assert np.ptp(after, axis=-1).mean() > np.ptp(before, axis=-1).mean()
    assert (after[..., 0] - after[..., 2]).mean() > (before[..., 0] - before[..., 2]).mean()
