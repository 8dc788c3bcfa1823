"""Claims about images: what is found, what a file decodes to, what is skipped, what is cached."""

import os
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from judge import images
from judge.common.errors import UserError
from judge.images import PAINTINGS, PHOTOS

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "salon"


def picture(path: Path, colour=RED, size: int | tuple[int, int] = 64) -> Path:
    """A file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size) if isinstance(size, int) else size, colour).save(path)
    return path


def truncated(path: Path) -> Path:
    """A JPEG whose second half is missing."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def data_set(folder: Path) -> Path:
    """A whole data set of two images in each of the four folders."""
    for part in ("trainA", "testA", "trainB", "testB"):
        for index in range(2):
            picture(folder / part / f"{index}.png")
    return folder


def one_line(caught: pytest.ExceptionInfo, *words: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


# ---------------------------------------------------------------------------------------------
# Data sets


def test_no_data_folder_is_one_line_that_says_what_to_give(tmp_path):
    with pytest.raises(UserError) as caught:
        images.find_dataset(str(tmp_path / "nowhere"))
    one_line(caught, str(tmp_path / "nowhere"), "--data")


def test_a_known_data_set_that_is_not_there_is_one_line_with_the_command_that_gets_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        images.find_dataset("monet2photo")
    one_line(caught, "data/monet2photo", "python -m judge data monet2photo")


@pytest.mark.parametrize("missing", ["trainA", "testA", "trainB", "testB"])
def test_a_missing_subfolder_is_named(tmp_path, missing):
    (data_set(tmp_path / "mine") / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as caught:
        images.find_dataset(str(tmp_path / "mine"))
    one_line(caught, f"mine/{missing}")


def test_a_folder_without_images_is_named(tmp_path):
    for file in (data_set(tmp_path / "mine") / "testB").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(UserError) as caught:
        images.find_dataset(str(tmp_path / "mine"))
    one_line(caught, "no images in", "mine/testB")


def test_a_data_set_has_paintings_in_a_and_photographs_in_b(tmp_path):
    found = images.find_dataset(str(data_set(tmp_path / "mine")))
    for domain, letter in ((PAINTINGS, "A"), (PHOTOS, "B")):
        assert [path.parent.name for path in found.train[domain]] == [f"train{letter}"] * 2
        assert [path.parent.name for path in found.test[domain]] == [f"test{letter}"] * 2
    assert (found.name, found.stand_in, found.description) == ("mine", False, "mine")


def test_auto_is_monet2photo_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("data/monet2photo"))
    data_set(Path("data/sample"))
    found = images.find_dataset("auto")
    assert (found.name, found.stand_in) == ("monet2photo", False)
    assert found.train[PAINTINGS][0] == Path("data/monet2photo/trainA/0.png")


def test_auto_is_the_sample_otherwise_and_says_that_it_is_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("data/sample"))
    (Path("data/sample") / images.STAND_IN).touch()
    found = images.find_dataset("auto")
    assert (found.name, found.stand_in) == ("sample", True)
    assert "stand-in, not real paintings" in found.description


def test_ones_own_folder_is_no_stand_in_whatever_its_name(tmp_path):
    data_set(tmp_path / "sample")
    assert not images.find_dataset(str(tmp_path / "sample")).stand_in


def test_the_sample_is_made_on_first_use_and_what_is_said_of_it_keeps_out_of_the_output(
    tmp_path, monkeypatch, capsys
):
    made = []

    def small(folder: Path) -> None:
        made.append(data_set(folder))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("judge.sample.make", small)
    images.find_dataset("sample")
    images.find_dataset("sample")
    said = capsys.readouterr()
    assert made == [Path("data/sample")]
    assert said.out == "" and said.err == "making the built-in sample in data/sample\n"


def test_a_folder_that_is_called_like_a_known_data_set_is_still_reachable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("monet2photo"))
    assert images.find_dataset("./monet2photo").train[PAINTINGS][0] == Path("monet2photo/trainA/0.png")


def test_from_folders_holds_out_every_tenth(tmp_path):
    for index in range(21):
        picture(tmp_path / "monets" / f"{index:02}.png")
    for index in range(10):
        picture(tmp_path / "views" / f"{index:02}.png")
    found = images.from_folders([tmp_path / "monets"], [tmp_path / "views"])
    assert [path.stem for path in found.test[PAINTINGS]] == ["00", "10", "20"]
    assert [path.stem for path in found.test[PHOTOS]] == ["00"]
    assert len(found.train[PAINTINGS]) == 18 and len(found.train[PHOTOS]) == 9
    assert not {*found.train[PAINTINGS]} & {*found.test[PAINTINGS]}
    assert found.name == "monets + views" and not found.stand_in


def test_from_folders_takes_several_folders_of_a_domain(tmp_path):
    for name in ("monet", "cezanne", "views"):
        for index in range(10):
            picture(tmp_path / name / f"{index}.png")
    found = images.from_folders([tmp_path / "monet", tmp_path / "cezanne"], [tmp_path / "views"])
    assert len(found.train[PAINTINGS]) == 18 and len(found.train[PHOTOS]) == 9


def test_from_folders_refuses_fewer_than_ten(tmp_path):
    for index in range(10):
        picture(tmp_path / "many" / f"{index}.png")
        picture(tmp_path / "few" / f"{index}.png")
    (tmp_path / "few/9.png").unlink()
    for folders in (["few", "many"], ["many", "few"]):
        with pytest.raises(UserError) as caught:
            images.from_folders(*([tmp_path / name] for name in folders))
        one_line(caught, str(tmp_path / "few"), "9 images are too few")


# ---------------------------------------------------------------------------------------------
# Which files are images


def test_files_are_listed_in_the_order_of_their_names(tmp_path):
    names = ["b.png", "a.JPG", "c/a.png", "a10.jpeg", "a2.webp"]
    for name in names:
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert [str(path.relative_to(tmp_path)) for path in images.list_images([tmp_path])] == sorted(names)


def test_folders_are_listed_in_the_order_given(tmp_path):
    ours, theirs = picture(tmp_path / "b/0.png"), picture(tmp_path / "a/0.png")
    assert images.list_images([tmp_path / "b", tmp_path / "a"]) == [ours, theirs]


@pytest.mark.parametrize("hidden", [".0.png", "._0.png", ".thumbnails/0.png", "a/.ipynb_checkpoints/0.png"])
def test_hidden_files_and_folders_are_ignored(tmp_path, hidden):
    shown = picture(tmp_path / "0.png")
    picture(tmp_path / hidden)
    assert images.list_images([tmp_path]) == [shown]


def test_a_folder_below_a_hidden_one_can_be_named(tmp_path):
    shown = picture(tmp_path / ".secret/images/0.png")
    assert images.list_images([shown.parent]) == [shown]


# ---------------------------------------------------------------------------------------------
# Broken files


def test_a_truncated_jpeg_is_skipped_and_named(tmp_path):
    first, last = picture(tmp_path / "0.png", RED), picture(tmp_path / "2.png", BLUE)
    paths = [first, truncated(tmp_path / "1.jpg"), last]
    loaded = images.load_images(paths, 64)
    assert loaded.paths == [str(first), str(last)]
    assert loaded.pixels[:, :, 0, 0].tolist() == [list(RED), list(BLUE)]
    [reason] = loaded.skipped
    assert reason.startswith(f"{paths[1]}: ") and "truncated" in reason
    assert loaded.counts() == {"images": 2, "skipped": [reason], "enlarged": 0}


def text_named_jpg(path: Path) -> None:
    path.write_text("<html>404</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.png")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def folder_named_jpg(path: Path) -> None:
    path.mkdir()


def avif_without_its_image(path: Path) -> None:
    """libavif's complaint is a RuntimeError, not an OSError like other decoders'."""
    avif = picture(path.with_suffix(".avif"))
    avif.write_bytes(avif.read_bytes().replace(b"pitm", b"free"))  # which item it is, is not said
    avif.rename(path)


BROKEN = [text_named_jpg, empty, dangling_link, link_to_itself, folder_named_jpg, avif_without_its_image]


@pytest.mark.parametrize("make", BROKEN)
def test_what_only_looks_like_an_image_is_skipped_and_named(tmp_path, make):
    good = picture(tmp_path / "0.png")
    make(tmp_path / "1.jpg")
    loaded = images.load_images(images.list_images([tmp_path]), 64)
    assert loaded.paths == [str(good)]
    assert [reason.split(": ")[0] for reason in loaded.skipped] == [str(tmp_path / "1.jpg")]


@pytest.mark.parametrize("make", BROKEN)
def test_a_folder_of_broken_files_is_refused_with_the_first_reason(tmp_path, make):
    make(tmp_path / "0.jpg")
    truncated(tmp_path / "1.jpg")
    with pytest.raises(UserError) as caught:
        images.load_images(images.list_images([tmp_path]), 64)
    one_line(caught, "none of 2 files", str(tmp_path / "0.jpg"))


def test_an_image_that_would_fill_the_memory_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    good, bomb = picture(tmp_path / "0.png", size=30), picture(tmp_path / "1.png", size=64)
    loaded = images.load_images([good, bomb], 16)
    assert loaded.paths == [str(good)] and "1.png" in loaded.skipped[0]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, width: int, height: int, rows: bytes, also: bytes = b"") -> Path:
    """A black and white PNG with that header, whatever follows it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    parts = header + also + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def bombs(folder: Path) -> list[Path]:
    """Small files that say, or are, very much."""
    declared = png(folder / "declared.png", 60_000, 60_000, b"")
    compressed = png(folder / "compressed.png", 60_000, 60_000, bytes(100_000_000))
    much = b"a\0\0" + zlib.compress(bytes(100_000_000))
    notes = png(folder / "notes.png", 8, 8, bytes(16), chunk(b"zTXt", much))
    profile = png(folder / "profile.png", 8, 8, bytes(16), chunk(b"iCCP", much))
    absurd = png(folder / "absurd.png", 1, 2**31 - 1, b"")
    none = png(folder / "none.png", 0, 0, b"")
    return [declared, compressed, notes, profile, absurd, none]


LOADS = """
import resource, sys, torch
from pathlib import Path
from judge import images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loaded = images.load_images([Path(path) for path in sys.argv[1:]], 64)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(len(loaded.paths), len(loaded.skipped), round(grown))
print(*loaded.skipped, sep="\\n")
"""


def loaded_elsewhere(*paths: Path) -> tuple[int, int, int, str]:
    """By a process of its own: images, images skipped, megabytes that it grew by, and what it said."""
    command = [sys.executable, "-W", "ignore", "-c", LOADS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    first, rest = done.stdout.split("\n", 1)
    return *map(int, first.split()), rest


def test_bombs_are_skipped_and_named_and_take_no_memory(tmp_path):
    good, found = picture(tmp_path / "0.png"), bombs(tmp_path)
    images_, skipped, megabytes, said = loaded_elsewhere(good, *found)
    assert (images_, skipped) == (1, len(found)), said
    assert all(f"{path}: " in said for path in found)
    assert megabytes < 100, f"grew by {megabytes} MB"


def test_many_images_of_the_largest_size_take_the_memory_of_one(tmp_path):
    """20 kB each, and 676 MB once they are pixels."""
    first = png(tmp_path / "0.png", 13_000, 13_000, bytes(13_000 * (1 + 13_000 // 8)))
    paths = [first, *(Path(shutil.copy(first, tmp_path / f"{at}.png")) for at in range(1, 4))]
    images_, _, megabytes, _ = loaded_elsewhere(*paths)
    assert images_ == 4 and megabytes < 1.7 * 676 + 300, f"grew by {megabytes} MB"


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1), (1, 1)])
def test_an_absurd_shape_is_an_image_that_was_enlarged(tmp_path, size):
    loaded = images.load_images([picture(tmp_path / "0.png", BLUE, size)], 64)
    assert loaded.enlarged == 1 and loaded.pixels[0, :, 5, 5].tolist() == list(BLUE)


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path, ending):
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / f"0.{ending}", save_all=True, append_images=frames[1:], lossless=True)
    loaded = images.load_images([tmp_path / f"0.{ending}"], 64)
    assert loaded.pixels[0, :, 5, 5].tolist() == list(RED) and not loaded.skipped


def test_an_ending_that_is_not_the_contents_is_no_matter(tmp_path):
    picture(tmp_path / "0.png", BLUE).rename(tmp_path / "0.jpg")
    assert images.load_images([tmp_path / "0.jpg"], 64).pixels[0, :, 5, 5].tolist() == list(BLUE)


def test_an_image_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin/gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for name in ("0.eps", "1.jpg"):
        (tmp_path / name).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    with suppress(OSError), Image.open(tmp_path / "0.eps") as image:
        image.load()
    assert (tmp_path / "ran").exists(), "this Pillow runs nothing: this test shows nothing"
    (tmp_path / "ran").unlink()
    good = picture(tmp_path / "2.png")
    loaded = images.load_images(images.list_images([tmp_path]), 64)
    assert loaded.paths == [str(good)] and [reason.split(": ")[0] for reason in loaded.skipped] == [
        str(tmp_path / "1.jpg")]
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------------------------
# What a file decodes to: what a viewer shows


def shown(image: Image.Image, path: Path, **options) -> np.ndarray:
    """The pixels of `image` after it was a file: [H, W, 3], H = W = the image's own edge."""
    image.save(path, **options)
    return images.decode(path, image.width)[0]


def halves(left, right, mode: str) -> Image.Image:
    image = Image.new(mode, (16, 16), left)
    image.paste(right, (8, 0, 16, 16))
    return image


def both(pixels: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The colours of the left and of the right half, each of which must be of one colour."""
    left, right = pixels[:, :8].reshape(-1, 3), pixels[:, 8:].reshape(-1, 3)
    assert (left == left[0]).all() and (right == right[0]).all()
    return tuple(left[0].tolist()), tuple(right[0].tolist())


def test_rgb_is_itself(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert (shown(Image.fromarray(pixels), tmp_path / "x.png") == pixels).all()


def test_grey_has_three_equal_channels(tmp_path):
    assert both(shown(halves(77, 200, "L"), tmp_path / "x.png")) == ((77,) * 3, (200,) * 3)


def test_black_and_white_is_black_and_white(tmp_path):
    assert both(shown(halves(0, 1, "1"), tmp_path / "x.png")) == (BLACK, WHITE)


def test_a_palette_gives_its_colours(tmp_path):
    image = halves(1, 2, "P")
    image.putpalette([*GREEN, 10, 20, 30, 200, 100, 50])
    assert both(shown(image, tmp_path / "x.png")) == ((10, 20, 30), (200, 100, 50))


def test_transparency_of_a_palette_is_laid_on_white(tmp_path):
    image = halves(0, 1, "P")
    image.putpalette([*BLACK, *BLUE])
    assert both(shown(image, tmp_path / "x.png", transparency=0)) == (WHITE, BLUE)
    assert both(shown(image, tmp_path / "x.gif", transparency=0)) == (WHITE, BLUE)
    assert both(shown(image, tmp_path / "y.png", transparency=bytes([51, 255]))) == ((204,) * 3, BLUE)


def test_alpha_is_laid_on_white(tmp_path):
    image = halves((255, 0, 0, 0), (255, 0, 0, 51), "RGBA")
    assert both(shown(image, tmp_path / "x.png")) == (WHITE, (255, 204, 204))
    assert both(shown(image, tmp_path / "x.webp", lossless=True, exact=True)) == (WHITE, (255, 204, 204))
    opaque = halves((255, 0, 0, 255), (0, 0, 0, 0), "RGBA")
    assert both(shown(opaque, tmp_path / "y.png")) == (RED, WHITE)


def test_alpha_of_grey_is_laid_on_white(tmp_path):
    image = halves((0, 51), (100, 255), "LA")
    assert both(shown(image, tmp_path / "x.png")) == ((204,) * 3, (100,) * 3)


def test_a_colour_that_stands_for_transparency_becomes_white(tmp_path):
    image = halves(GREEN, RED, "RGB")
    assert both(shown(image, tmp_path / "x.png", transparency=GREEN)) == (WHITE, RED)
    assert both(shown(halves(7, 8, "L"), tmp_path / "y.png", transparency=7)) == (WHITE, (8,) * 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight_not_clipped(tmp_path, ending):
    values = np.zeros((16, 16), np.uint16)
    values[:, :8], values[:, 8:] = 100 * 257, 65535
    assert both(shown(Image.fromarray(values), tmp_path / f"x.{ending}")) == ((100,) * 3, WHITE)


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
    pixels = shown(image, tmp_path / "x.jpg", quality=100)
    assert np.abs(pixels.astype(int) - RED).max() <= 6


@pytest.mark.parametrize(("orientation", "corner"), [
    (1, "top left"), (2, "top right"), (3, "bottom right"), (4, "bottom left"),
    (5, "top left"), (6, "top right"), (7, "bottom right"), (8, "bottom left"),
])
def test_exif_orientation_turns_the_image_as_a_viewer_does(tmp_path, orientation, corner):
    """The first pixel of the file is shown in the corner that the EXIF standard's table names."""
    image = Image.new("RGB", (32, 32), BLACK)
    image.paste(WHITE, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = shown(image, tmp_path / "x.jpg", exif=exif, quality=95)
    corners = {
        "top left": pixels[4, 4], "top right": pixels[4, -4],
        "bottom left": pixels[-4, 4], "bottom right": pixels[-4, -4],
    }
    assert [name for name, pixel in corners.items() if pixel.min() > 200] == [corner]


def test_exif_orientation_counts_before_the_square_is_cut(tmp_path):
    """A portrait stored lying: the middle of the standing picture is kept."""
    image = Image.new("RGB", (96, 32), RED)
    image.paste(GREEN, (0, 0, 48, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    image.save(path, exif=exif, quality=95)
    pixels, _ = images.decode(path, 32)
    assert pixels[2, 16, 1] > 200 > 100 > pixels[-2, 16, 1]  # green above, red below


def test_transparency_survives_a_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = shown(halves((255, 0, 0, 255), (0, 0, 0, 0), "RGBA"), tmp_path / "x.png", exif=exif)
    assert pixels[0, 0].tolist() == list(RED) and pixels[-1, 0].tolist() == list(WHITE)


def test_a_wide_image_is_cut_in_the_centre_not_squashed(tmp_path):
    """A disc stays round, and what lies beside the centre square is gone."""
    y, x = np.mgrid[:100, :240]
    pixels = np.full((100, 240, 3), 255, np.uint8)
    pixels[(y - 49.5) ** 2 + (x - 119.5) ** 2 < 30**2] = 0
    pixels[:, :60], pixels[:, 180:] = RED, RED
    for image, name in ((pixels, "wide.png"), (pixels.transpose(1, 0, 2), "tall.png")):
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name)
        cut, enlarged = images.decode(tmp_path / name, 50)
        dark = cut.max(2) < 128
        assert cut.shape == (50, 50, 3) and not enlarged
        assert 29 <= dark.any(0).sum() <= 31 and 29 <= dark.any(1).sum() <= 31
        assert (cut[..., 0].astype(int) - cut[..., 2] < 20).all(), "red from beside the square"


def test_smaller_images_are_enlarged_and_counted(tmp_path):
    paths = [
        picture(tmp_path / "0.png", size=64), picture(tmp_path / "1.png", size=40),
        picture(tmp_path / "2.png", size=(200, 63)), picture(tmp_path / "3.png", size=200),
    ]
    loaded = images.load_images(paths, 64)
    assert loaded.pixels.shape == (4, 3, 64, 64) and loaded.pixels.dtype == torch.uint8
    assert loaded.counts() == {"images": 4, "skipped": [], "enlarged": 2}


def test_pixels_are_in_the_order_of_the_paths(tmp_path):
    paths = [picture(tmp_path / f"{index:02}.png", (index, 2 * index, 3 * index)) for index in range(40)]
    loaded = images.load_images(paths[::-1], 16)
    assert loaded.paths == [str(path) for path in paths[::-1]]
    assert loaded.pixels[:, :, 0, 0].tolist() == [[i, 2 * i, 3 * i] for i in range(39, -1, -1)]


def test_floats_span_a_generators_range():
    floats = images.to_float(torch.tensor([0, 255, 51], dtype=torch.uint8))
    assert floats.tolist() == pytest.approx([-1, 1, -0.6])


# ---------------------------------------------------------------------------------------------
# Cache


@pytest.fixture
def no_decoding(monkeypatch):
    """Call it, and from then on no file can be decoded."""
    def boom(path: Path, size: int):
        raise OSError("decoded, though it was cached")

    return lambda: monkeypatch.setattr(images, "decode", boom)


def test_a_second_load_opens_no_image(tmp_path, no_decoding):
    paths = [picture(tmp_path / "0.png"), truncated(tmp_path / "1.jpg"), picture(tmp_path / "2.png", size=9)]
    first = images.load_images(paths, 16)
    no_decoding()
    second = images.load_images(paths, 16)
    assert torch.equal(first.pixels, second.pixels)
    assert (first.paths, first.counts()) == (second.paths, second.counts())
    assert second.counts()["enlarged"] == 1 and len(second.skipped) == 1


def test_another_size_is_decoded_anew(tmp_path):
    paths = [picture(tmp_path / "0.png")]
    assert [images.load_images(paths, size).pixels.shape[-1] for size in (16, 32, 16)] == [16, 32, 16]


def test_a_changed_file_is_decoded_anew(tmp_path):
    path = picture(tmp_path / "0.bmp", RED)  # of one length, whatever is in it
    images.load_images([path], 16)
    stat = path.stat()
    picture(path, BLUE)
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert images.load_images([path], 16).pixels[0, :, 0, 0].tolist() == list(BLUE)


def test_a_mended_link_is_decoded_anew(tmp_path):
    paths = [picture(tmp_path / "0.png"), tmp_path / "1.png"]
    paths[1].symlink_to("2.png")
    assert len(images.load_images(paths, 16).paths) == 1
    picture(tmp_path / "2.png", BLUE)
    assert images.load_images(paths, 16).pixels[:, 2, 0, 0].tolist() == [0, 255]


def test_paths_are_as_given_whatever_folder_the_cache_was_filled_from(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    path = picture(tmp_path / "here/0.png")
    truncated(tmp_path / "here/1.jpg")
    monkeypatch.chdir(tmp_path / "here")
    images.load_images([Path("0.png"), Path("1.jpg")], 16)
    monkeypatch.chdir(tmp_path / "there")
    loaded = images.load_images([path, path.with_name("1.jpg")], 16)
    assert loaded.paths == [str(path)]
    assert loaded.skipped[0].startswith(str(path.with_name("1.jpg")))


def test_equal_relative_paths_of_two_folders_are_told_apart(tmp_path, monkeypatch):
    for name, colour in (("here", RED), ("there", BLUE)):
        os.utime(picture(tmp_path / name / "0.png", colour), ns=(1, 1))
        monkeypatch.chdir(tmp_path / name)
        assert images.load_images([Path("0.png")], 16).pixels[0, :, 0, 0].tolist() == list(colour)


def test_an_added_file_is_decoded(tmp_path):
    picture(tmp_path / "0.png")
    assert len(images.load_images(images.list_images([tmp_path]), 16).paths) == 1
    picture(tmp_path / "1.png")
    assert len(images.load_images(images.list_images([tmp_path]), 16).paths) == 2


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("hello world\n")


def another_versions(file: Path) -> None:
    torch.save({"images": torch.zeros(3)}, file)


def a_mere_tensor(file: Path) -> None:
    torch.save(torch.zeros(3), file)


def a_judges(file: Path) -> None:
    torch.save({"format": "x", "card": {}}, file)


def one_byte_changed(file: Path) -> None:
    content = file.read_bytes()
    at = content.index(bytes(BLUE[2:]) * 16)  # within the blue channel
    file.write_bytes(content[:at] + b"\0" + content[at + 1 :])


@pytest.mark.parametrize("damage", [
    cut_in_half, emptied, text, another_versions, a_mere_tensor, a_judges, one_byte_changed,
])
def test_a_damaged_cache_is_remade(tmp_path, cache, no_decoding, damage):
    paths = [picture(tmp_path / "0.png", BLUE)]
    expected = images.load_images(paths, 16).pixels
    [file] = cache.iterdir()
    damage(file)
    assert torch.equal(images.load_images(paths, 16).pixels, expected)
    no_decoding()
    assert torch.equal(images.load_images(paths, 16).pixels, expected)


def test_a_cache_that_would_run_code_is_remade_without_running_it(tmp_path, cache):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    paths = [picture(tmp_path / "0.png", BLUE)]
    images.load_images(paths, 16)
    [file] = cache.iterdir()
    torch.save({"pixels": Evil()}, file)
    assert images.load_images(paths, 16).pixels[0, :, 0, 0].tolist() == list(BLUE)
    assert not (tmp_path / "evil").exists()


def test_a_cache_that_cannot_be_written_only_costs_a_note_outside_the_output(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    loaded = images.load_images([picture(tmp_path / "0.png", BLUE)], 16)
    assert loaded.pixels[0, :, 0, 0].tolist() == list(BLUE)
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("note: images-")
    assert said.err.count("\n") == 1


def test_a_full_disk_leaves_no_half_written_cache(tmp_path, cache, monkeypatch):
    def full(content, file):
        Path(file).write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")  # how torch.save says so

    monkeypatch.setattr(torch, "save", full)
    images.load_images([picture(tmp_path / "0.png")], 16)
    assert not list(cache.iterdir())


def test_another_way_of_decoding_is_not_served_what_the_old_one_made(tmp_path, monkeypatch):
    path = picture(tmp_path / "0.png", RED)
    images.load_images([path], 16)
    monkeypatch.setattr(images, "DECODER_VERSION", images.DECODER_VERSION + 1)
    monkeypatch.setattr(images, "decode", lambda path, size: (np.full((size, size, 3), 7, np.uint8), False))
    assert images.load_images([path], 16).pixels.unique().tolist() == [7]


def test_what_was_of_no_use_for_long_is_removed_when_something_new_is_cached(tmp_path, cache):
    used, unused, new = (picture(tmp_path / name) for name in ("0.png", "1.png", "2.png"))
    for path in (used, unused):
        images.load_images([path], 16)
    (cache / "killed.1.part").touch()
    for file in cache.iterdir():
        os.utime(file, (0, 0))
    images.load_images([used], 16)
    [kept] = (file for file in cache.iterdir() if file.stat().st_mtime > 0)
    images.load_images([new], 16)
    assert kept in cache.iterdir() and len(list(cache.iterdir())) == 2


def load_in_another_process(path: Path) -> int:
    return images.load_images([path], 16).pixels.sum().item()


def test_trials_that_start_at_once_decode_each_for_itself_and_leave_one_whole_cache(
    tmp_path, cache, no_decoding
):
    path = picture(tmp_path / "0.png", WHITE)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        sums = list(pool.map(load_in_another_process, [path] * 2))
    no_decoding()
    assert sums == [255 * 3 * 16 * 16] * 2 == [load_in_another_process(path)] * 2
    assert len(list(cache.iterdir())) == 1
