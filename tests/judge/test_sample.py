"""Claims about the built-in sample: what is written, where crops come from, how paintings look."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_images

from judge import sample

COUNTS = {"train": 4, "test": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sample"
    sample.make(folder, **COUNTS)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return load_sample_images().images


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def crops(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """One crop of every tile of the training images, unpainted."""
    rng = np.random.default_rng(0)
    return [sample._photograph(tile.of(pictures), 96, rng) for tile in sample.tiles(pictures)["train"]]


def luma(image: np.ndarray) -> np.ndarray:
    return image @ sample.LUMA


# ---------------------------------------------------------------------------------------------
# Files


def test_layout_and_counts_are_as_documented(made):
    expected = {
        f"{split}{domain}/{index:03}.png"
        for split, count in COUNTS.items() for domain in "AB" for index in range(count)
    }
    assert set(contents(made)) == expected | {"README.txt", ".stand-in"}
    for name in expected:
        with Image.open(made / name) as image:
            assert (image.size, image.mode) == ((96, 96), "RGB")


def test_pixels_sets_the_edge_of_the_images(tmp_path):
    sample.make(tmp_path / "s", train=1, test=1, pixels=40)
    for name in ("trainA", "trainB", "testA", "testB"):
        with Image.open(tmp_path / "s" / name / "000.png") as image:
            assert image.size == (40, 40)


def test_equal_seeds_write_equal_files(made, tmp_path):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    sample.make(tmp_path / "again", **COUNTS)
    assert contents(tmp_path / "again") == contents(made)
    assert (np.random.get_state()[1] == before).all(), "the global generator was used"


def test_another_seed_writes_other_images(made, tmp_path):
    sample.make(tmp_path / "other", **COUNTS, seed=1)
    ours, theirs = contents(made), contents(tmp_path / "other")
    assert not any(ours[name] == theirs[name] for name in ours if name.endswith(".png"))


def test_more_images_begin_with_the_same_ones(made, tmp_path):
    sample.make(tmp_path / "more", train=5, test=3)
    assert contents(made).items() <= contents(tmp_path / "more").items()


def test_no_two_images_are_equal(tmp_path):
    sample.make(tmp_path / "s", train=24, test=8, pixels=24)
    files = contents(tmp_path / "s")
    assert len(set(files.values())) == len(files)


def test_readme_says_stand_in_and_credits_the_photographers(made):
    text = (made / "README.txt").read_text(encoding="utf-8")
    for word in ("stand-in", "scikit-learn", "danielbuechele", "licenses/by/2.0"):
        assert word in text


def test_a_second_make_leaves_the_folder_alone(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    sample.make(folder, **COUNTS)
    assert contents(tmp_path) == {"sample/mine.txt": b"mine"}


def test_an_interrupted_make_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(image, rng):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "paint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample.make(tmp_path / "sample", **COUNTS)
    assert not list(tmp_path.iterdir())


def test_a_process_that_finished_first_keeps_its_images(tmp_path, monkeypatch):
    folder = tmp_path / "sample"
    write = sample._write

    def overtaken(whole, *rest):
        write(whole, *rest)
        folder.mkdir()
        (folder / "theirs.txt").write_text("theirs")

    monkeypatch.setattr(sample, "_write", overtaken)
    sample.make(folder, **COUNTS)
    assert contents(tmp_path) == {"sample/theirs.txt": b"theirs"}


@pytest.mark.parametrize("wrong", [{"train": 0}, {"test": 0}, {"pixels": 15}, {"seed": -1}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ValueError, match="out of range"):
        sample.make(tmp_path / "sample", **wrong)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------
# Tiles


def test_no_pixel_is_in_two_tiles(pictures):
    covered = [np.zeros(picture.shape[:2], int) for picture in pictures]
    for found in sample.tiles(pictures).values():
        for tile in found:
            assert tile.of(pictures).shape == (tile.height, tile.width, 3)  # not cut off
            covered[tile.picture][tile.place] += 1
    assert max(count.max() for count in covered) == 1


def test_a_crop_reads_no_pixel_outside_its_tile(pictures):
    tile = sample.tiles(pictures)["train"][0]
    elsewhere = [np.zeros_like(picture) for picture in pictures]
    elsewhere[tile.picture][tile.place] = tile.of(pictures)
    for seed in range(5):
        ours, theirs = (
            sample._photograph(tile.of(source), 96, np.random.default_rng(seed))
            for source in (pictures, elsewhere)
        )
        assert (ours == theirs).all()


def test_both_splits_show_both_pictures_and_more_is_trained_on_than_held_out(pictures):
    found = sample.tiles(pictures)
    assert [{tile.picture for tile in found[split]} for split in ("train", "test")] == [{0, 1}] * 2
    assert len(found["train"]) > 2 * len(found["test"])


@pytest.fixture(scope="module")
def unpainted(tmp_path_factory) -> dict[str, np.ndarray]:
    """The sample as it would be without brushwork, by domain: uint8 [N, 96, 96, 3]."""
    folder = tmp_path_factory.mktemp("unpainted") / "sample"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "paint", lambda image, rng: image)
        sample.make(folder, train=60, test=4)
    return {
        domain: np.stack([np.asarray(Image.open(p)) for p in sorted(folder.glob(f"t*{domain}/*.png"))])
        for domain in "AB"
    }


def test_no_painting_is_made_from_the_crop_of_a_photograph(unpainted):
    photos = {image.tobytes() for image in unpainted["B"]}
    assert len(photos) == 64 and not photos & {image.tobytes() for image in unpainted["A"]}


def test_without_the_brushwork_the_domains_are_alike(unpainted):
    for measure in (np.mean, np.std):
        paintings, photos = (measure(unpainted[domain], axis=(0, 1, 2)) for domain in "AB")
        assert np.abs(paintings - photos).max() < 5  # grey levels
    fine = [np.abs(np.diff(luma(unpainted[domain]), axis=2)).mean() for domain in "AB"]
    assert fine[0] == pytest.approx(fine[1], rel=0.1)


def test_no_tile_is_nearly_empty(pictures):
    for found in sample.tiles(pictures).values():
        assert found and min(luma(tile.of(pictures)).std() for tile in found) > 15


# ---------------------------------------------------------------------------------------------
# Paintings


def ramp() -> np.ndarray:
    """Brighter from left to right: its edges run up and down."""
    return np.broadcast_to(np.linspace(60, 200, 96)[None, :, None], (96, 96, 3)).astype(np.uint8)


def roughness(image: np.ndarray) -> tuple[float, float]:
    """Mean change from pixel to pixel (down, across) of what a wide blur would take away."""
    grey = luma(image)
    fine = grey - ndimage.gaussian_filter(grey, 4)
    return tuple(float(np.abs(np.diff(fine, axis=axis)).mean()) for axis in (0, 1))


def test_paint_keeps_shape_and_type_and_leaves_its_input_alone(pictures):
    image = pictures[0][:60, 200:290].copy()
    before = image.copy()
    painting = sample.paint(image, np.random.default_rng(0))
    assert (painting.shape, painting.dtype) == ((60, 90, 3), np.uint8)
    assert (image == before).all()


def test_paint_follows_its_generator(pictures):
    image = pictures[1][100:196, 200:296]
    first, again, other = (sample.paint(image, np.random.default_rng(s)) for s in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_strokes_are_not_a_blur_they_add_edges_where_the_source_has_none():
    flat = np.full((96, 96, 3), 128, np.uint8)
    assert roughness(flat) == (0, 0)
    assert min(roughness(sample.paint(flat, np.random.default_rng(0)))) > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_strokes_run_along_the_edges_of_the_source(seed):
    down, across = roughness(sample.paint(ramp(), np.random.default_rng(seed)))
    assert across > 1.3 * down
    sideways = np.ascontiguousarray(ramp().transpose(1, 0, 2))
    down, across = roughness(sample.paint(sideways, np.random.default_rng(seed)))
    assert down > 1.3 * across


def test_strokes_still_show_at_the_size_that_images_are_trained_at():
    painting = Image.fromarray(sample.paint(ramp(), np.random.default_rng(0)))
    assert min(roughness(np.asarray(painting.resize((64, 64), Image.Resampling.BICUBIC)))) > 1


def test_a_painting_keeps_the_lights_and_darks_of_its_crop(pictures):
    rng = np.random.default_rng(0)
    for crop in crops(pictures):
        painting = sample.paint(crop, rng)
        assert np.corrcoef(luma(crop).ravel(), luma(painting).ravel())[0, 1] > 0.4
        broad = [ndimage.gaussian_filter(luma(image), 4).ravel() for image in (crop, painting)]
        assert np.corrcoef(*broad)[0, 1] > 0.8


def test_paintings_are_more_saturated_and_warmer_than_their_crops(pictures):
    rng = np.random.default_rng(0)
    before = np.stack(crops(pictures)).astype(float)
    after = np.stack([sample.paint(crop, rng) for crop in crops(pictures)]).astype(float)
    assert np.ptp(after, axis=-1).mean() > np.ptp(before, axis=-1).mean()
    assert (after[..., 0] - after[..., 2]).mean() > (before[..., 0] - before[..., 2]).mean()
