"""Images: which files are found, what a file decodes to, what is skipped, what is cached."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from judge import images
from judge.common.constants import STAND_IN
from judge.common.errors import UserError
from judge.images import PAINTINGS, PHOTOS

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "salon"


def save_image(path: Path, colour=RED, size: int | tuple[int, int] = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size) if isinstance(size, int) else size, colour).save(path)
    return path


def save_truncated_jpeg(path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def save_dataset(folder: Path) -> Path:
    """Save two images in each of the four folders."""
    for part in ("trainA", "testA", "trainB", "testB"):
        for index in range(2):
            save_image(folder / part / f"{index}.png")
    return folder


def first_pixel(loaded: images.Images) -> tuple[int, ...]:
    return tuple(loaded.pixels[0, :, 5, 5].tolist())


def refused(function: Callable, *arguments, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_data_that_is_missing_or_incomplete_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(images.find_dataset, "x/nowhere", words=["x/nowhere", "give --data a folder"])
    refused(images.find_dataset, "monet2photo", words=["data/monet2photo", "judge data monet2photo"])
    for folder in ("trainA", "testA", "trainB", "testB"):
        shutil.rmtree(save_dataset(tmp_path / f"no-{folder}") / folder)
        refused(images.find_dataset, f"./no-{folder}", words=["no folder", f"no-{folder}/{folder}"])
    (tmp_path / f"no-{folder}" / folder).mkdir()
    refused(images.find_dataset, f"./no-{folder}", words=["no images in", f"no-{folder}/{folder}"])


def test_auto_is_monet2photo_if_it_is_there_and_else_the_sample_marked_as_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (save_dataset(Path("data/sample")) / STAND_IN).touch()
    data = images.find_dataset("auto")
    assert data.stand_in and data.description == "sample (built-in stand-in, not real paintings)"
    save_dataset(Path("data/monet2photo"))
    data = images.find_dataset("auto")
    assert (data.name, data.stand_in, data.description) == ("monet2photo", False, "monet2photo")
    for domain in (PAINTINGS, PHOTOS):
        assert [path.parent.name for path in data.train[domain]] == [f"train{domain}"] * 2
        assert [path.parent.name for path in data.test[domain]] == [f"test{domain}"] * 2
    save_dataset(Path("monet2photo"))  # a folder of one's own with a known name
    assert images.find_dataset("./monet2photo").train[PAINTINGS][0] == Path("monet2photo/trainA/0.png")


def test_from_folders_holds_out_every_tenth_of_each_domain_and_refuses_fewer_than_ten(tmp_path):
    for folder, count in (("monet", 11), ("cezanne", 10), ("views", 10), ("few", 9)):
        for index in range(count):
            save_image(tmp_path / folder / f"{index:02}.png")
    monet, cezanne, views, few = (tmp_path / name for name in ("monet", "cezanne", "views", "few"))
    data = images.from_folders([monet, cezanne], [views])
    assert data.test == {PAINTINGS: [monet / "00.png", monet / "10.png", cezanne / "09.png"], PHOTOS: [
        views / "00.png"]}
    assert len(data.train[PAINTINGS]) == 18 and not {*data.train[PAINTINGS]} & {*data.test[PAINTINGS]}
    assert len(data.train[PHOTOS]) == 9
    assert data.name == "monet + cezanne + views" and not data.stand_in
    for paintings, photos in ((few, views), (monet, few)):
        refused(images.from_folders, [paintings], [photos], words=[str(few), "9 images are too few"])


def test_a_broken_file_is_skipped_and_named_and_refused_where_there_is_no_other(tmp_path, capsys):
    broken = save_truncated_jpeg(tmp_path / "1.jpg")
    refused(images.load_images, [broken, broken], 64, words=["none of 2 files", f"first {broken}: "])
    paths = [save_image(tmp_path / "0.png", RED), broken, save_image(tmp_path / "2.png", BLUE)]
    assert images.list_images([tmp_path]) == paths
    loaded = [images.load_images(paths, 64) for _ in range(2)][0]
    assert loaded.paths == [str(paths[0]), str(paths[2])]
    assert loaded.pixels[:, :, 0, 0].tolist() == [list(RED), list(BLUE)]
    [reason] = loaded.skipped
    assert reason.startswith(f"{broken}: image file is truncated")
    assert loaded.counts() == {"images": 2, "skipped": [reason], "enlarged": 0}
    assert capsys.readouterr().err == f"left out, cannot be read: {reason}\n"  # once


def test_of_many_broken_files_twenty_are_named_and_all_are_counted(tmp_path, capsys):
    for number in range(30):
        (tmp_path / f"{number:02}.jpg").touch()
    save_image(tmp_path / "x.png")
    assert len(images.load_images(images.list_images([tmp_path]), 16).skipped) == 30
    *named, last = capsys.readouterr().err.splitlines()
    assert len(named) == 20 and last == "left out, cannot be read: 30 of 31 files, first those above"


def test_pairs_are_of_equal_names_whatever_the_order_of_the_endings(tmp_path):
    names = ["a", "a.original", "a-1", "sub/a", "b.jpg", "b.png"]
    sources = [save_image(tmp_path / "in" / (name if "b" in name[:1] else f"{name}.jpg")) for name in names]
    made = [save_image(tmp_path / "out" / f"{name}.png") for name in names]
    sources.append(save_image(tmp_path / "in/caf\u00e9.jpg"))  # the same text in Unicode's two forms
    made.append(save_image(tmp_path / "out/cafe\u0301.png"))
    folders = tmp_path / "out", tmp_path / "in", 16
    assert sorted(zip(*images.read_pairs(*folders))) == sorted(zip(made, sources))
    made[2].unlink()
    refused(images.read_pairs, *folders,
            words=[f"{sources[2]} has no partner in {folders[0]}: give both the same name"])
    sources[2].write_text("not an image")  # needs none
    del made[2], sources[2]
    assert sorted(zip(*images.read_pairs(*folders))) == sorted(zip(made, sources))
    save_image(tmp_path / "out/a.bmp")  # a second one for a source
    refused(images.read_pairs, *folders, words=["has no partner"])
    for number, path in enumerate(made):
        (path if number % 2 else sources[number]).write_text("not an image")
    (tmp_path / "out/a.bmp").unlink()
    refused(images.read_pairs, *folders, words=["no pair of images", "can be read"])


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def save_png(path: Path, width: int, height: int, rows: bytes, extra: bytes = b"") -> Path:
    """Save a black and white PNG whose header may not fit its content."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    parts = header + extra + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def test_files_that_are_skipped_leave_no_gap(tmp_path):
    colours = [None, RED, None, None, BLUE, GREEN, None]
    paths = [tmp_path / f"{i}.jpg" for i in range(len(colours))]
    for path, colour in zip(paths, colours):
        save_image(path, colour, 8) if colour else save_truncated_jpeg(path)
    loaded = images.load_images(paths, 16)
    assert loaded.pixels.amax((2, 3)).argmax(1).tolist() == [0, 2, 1]  # red, blue, green
    assert loaded.paths == [str(paths[i]) for i in (1, 4, 5)] and len(loaded.skipped) == 4


LOAD = """
import resource, sys, torch
from pathlib import Path
from judge import images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loaded = images.load_images([Path(path) for path in sys.argv[1:]], 64)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(len(loaded.paths), round(grown), *loaded.skipped, sep="\\n")
"""


def test_bombs_are_skipped_and_named_and_several_large_images_take_the_memory_of_one(tmp_path):
    much = b"a\0\0" + zlib.compress(bytes(100_000_000))
    bombs = [
        save_png(tmp_path / "declared.png", 60_000, 60_000, b""),
        save_png(tmp_path / "compressed.png", 60_000, 60_000, bytes(100_000_000)),
        save_png(tmp_path / "notes.png", 8, 8, bytes(16), png_chunk(b"zTXt", much)),
        save_png(tmp_path / "absurd.png", 1, 2**31 - 1, b""),
        save_png(tmp_path / "none.png", 0, 0, b""),
    ]
    # 256 MB as pixels, 8 kB as a file
    large = [save_png(tmp_path / f"{index}.png", 8000, 8000, bytes(8000 * 1001)) for index in range(3)]
    command = [sys.executable, "-W", "ignore", "-c", LOAD, *map(str, large + bombs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    count, grown, *skipped = done.stdout.splitlines()
    assert count == "3" and [reason.split(": ")[0] for reason in skipped] == [str(path) for path in bombs]
    assert int(grown) < 1.7 * 256 + 200, f"grew by {grown} MB"


@pytest.mark.parametrize("skipped", [0, 1])
def test_the_pixels_are_in_memory_once_also_if_a_file_is_skipped(tmp_path, skipped):
    paths = [save_image(tmp_path / f"{i:03}.png", RED, 8) for i in range(400)]
    for path in paths[:skipped]:
        path.write_text("not an image")
    load = LOAD.replace(", 64)", ", 256)")
    done = subprocess.run([sys.executable, "-c", load, *map(str, paths)], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    count, grown, *_ = done.stdout.splitlines()
    megabytes = int(count) * 3 * 256**2 / 2**20
    assert int(count) == 400 - skipped and int(grown) < 1.5 * megabytes


def test_a_telephones_200_megapixels_are_read_in_the_memory_of_a_small_image(tmp_path):
    Image.new("L", (16320, 12240), 77).save(tmp_path / "large.jpg", quality=1)
    command = [sys.executable, "-c", LOAD, tmp_path / "large.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    count, grown = done.stdout.splitlines()
    assert count == "1" and int(grown) < 100


def test_the_centre_square_is_cut_out_and_not_squashed(tmp_path):
    y, x = np.mgrid[:100, :240]
    pixels = np.full((100, 240, 3), 255, np.uint8)
    pixels[(y - 49.5) ** 2 + (x - 119.5) ** 2 < 30**2] = 0
    pixels[:, :60], pixels[:, 180:] = RED, RED
    for image, name in ((pixels, "wide.png"), (pixels.transpose(1, 0, 2), "tall.png")):
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name)
        square, enlarged = images.decode(tmp_path / name, 50)
        dark = square.max(2) < 128
        assert square.shape == (50, 50, 3) and not enlarged
        assert 29 <= dark.any(0).sum() <= 31 and 29 <= dark.any(1).sum() <= 31
        assert (square[..., 0].astype(int) - square[..., 2] < 20).all()


def test_smaller_images_are_enlarged_and_counted_and_the_order_is_kept(tmp_path):
    sizes = [64, 40, (200, 63), 200, (1, 100_000), (100_000, 1), (1, 1), *[64] * 30]
    paths = [save_image(tmp_path / f"{i:02}.png", (i, 2 * i, 3 * i), size) for i, size in enumerate(sizes)]
    loaded = images.load_images(paths[::-1], 64)
    assert loaded.pixels.shape == (37, 3, 64, 64) and loaded.pixels.dtype == torch.uint8
    assert loaded.counts() == {"images": 37, "skipped": [], "enlarged": 5}
    assert loaded.paths == [str(path) for path in paths[::-1]]
    assert loaded.pixels[:, :, 5, 5].tolist() == [[i, 2 * i, 3 * i] for i in range(36, -1, -1)]


def test_floats_span_a_generators_range_and_return_to_the_same_bytes():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert images.to_float(pixels)[[0, 51, 255]].tolist() == pytest.approx([-1, -0.6, 1])
    assert torch.equal(images.to_bytes(images.to_float(pixels)), pixels)
    assert images.to_bytes(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


def test_batches_of_bytes_and_of_floats_are_the_same_floats():
    pixels = torch.arange(5 * 12, dtype=torch.uint8).view(5, 3, 2, 2)
    floats = images.to_float(pixels)
    for given in (pixels, floats):
        batches = list(images.float_batches(given, torch.device("cpu"), 2))
        assert [len(batch) for batch in batches] == [2, 2, 1] and torch.cat(batches).equal(floats)


def test_the_default_size_is_draft_with_a_gpu_and_sketch_without():
    assert [images.default_size(torch.device(name)) for name in ("cuda", "cpu")] == ["draft", "sketch"]


@pytest.fixture
def forbid_decoding(monkeypatch) -> Callable[[], None]:
    """Return a function after whose call no file can be decoded."""
    def fail(path: Path, size: int):
        raise OSError("decoded, though it was cached")

    return lambda: monkeypatch.setattr(images, "decode", fail)


def test_a_second_load_opens_no_image(tmp_path, forbid_decoding):
    paths = [save_image(tmp_path / "0.png"), save_truncated_jpeg(tmp_path / "1.jpg"),
             save_image(tmp_path / "2.png", size=9)]
    first = images.load_images(paths, 16)
    forbid_decoding()
    second = images.load_images(paths, 16)
    assert torch.equal(first.pixels, second.pixels)
    assert (first.paths, first.counts()) == (second.paths, second.counts())
    assert second.enlarged == 1 and len(second.skipped) == 1


def test_a_change_of_size_files_or_decoder_is_decoded_anew(tmp_path, monkeypatch):
    path = save_image(tmp_path / "0.bmp", RED)  # a format whose length depends on the size alone
    assert [images.load_images([path], size).pixels.shape[-1] for size in (16, 32, 16)] == [16, 32, 16]
    before = path.stat()
    save_image(path, BLUE)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert first_pixel(images.load_images([path], 16)) == BLUE
    (tmp_path / "1.png").symlink_to("elsewhere/2.png")
    assert len(images.load_images(images.list_images([tmp_path]), 16).paths) == 1
    save_image(tmp_path / "elsewhere/2.png")  # mends the link
    assert len(images.load_images([path, tmp_path / "1.png"], 16).paths) == 2
    assert len(images.load_images(images.list_images([tmp_path]), 16).paths) == 3
    monkeypatch.setattr(images, "DECODER_VERSION", images.DECODER_VERSION + 1)
    monkeypatch.setattr(images, "decode", lambda path, size: (np.full((size, size, 3), 7, np.uint8), False))
    assert first_pixel(images.load_images([path], 16)) == (7, 7, 7)


def test_a_file_that_was_made_readable_is_read(tmp_path, monkeypatch):
    """chmod changes neither size nor time of the content; this test may be run by root, who may read all."""
    paths, decode = [save_image(tmp_path / "0.png"), save_image(tmp_path / "1.png")], images.decode

    def may(path: Path, size: int):
        if not path.stat().st_mode & 0o400:
            raise PermissionError(errno.EACCES, "Permission denied")
        return decode(path, size)

    monkeypatch.setattr(images, "decode", may)
    paths[1].chmod(0)
    assert images.load_images(paths, 16).skipped == [f"{paths[1]}: Permission denied"]
    paths[1].chmod(0o600)
    assert len(images.load_images(paths, 16).paths) == 2


def test_the_bytes_that_decoding_will_add_to_the_cache_are_known_before(tmp_path, cache_folder):
    paths = [save_image(tmp_path / f"{i}.png") for i in range(20)]
    announced = images.bytes_to_cache(paths, 64)
    images.load_images(paths, 64)
    [file] = cache_folder.glob("*.pt")
    assert announced <= file.stat().st_size < 1.1 * announced
    assert images.bytes_to_cache(paths, 64) == 0 < images.bytes_to_cache(paths, 32)


def test_paths_are_as_given_and_relative_paths_of_two_folders_are_told_apart(tmp_path, monkeypatch):
    for name, colour in (("here", RED), ("there", BLUE)):
        os.utime(save_image(tmp_path / name / "0.png", colour), ns=(1, 1))
        save_truncated_jpeg(tmp_path / name / "1.jpg")
        monkeypatch.chdir(tmp_path / name)
        loaded = images.load_images([Path("0.png"), Path("1.jpg")], 16)
        assert first_pixel(loaded) == colour and loaded.paths == ["0.png"]
    path = tmp_path / "here/0.png"
    loaded = images.load_images([path, path.with_name("1.jpg")], 16)
    assert loaded.paths == [str(path)] and loaded.skipped[0].startswith(str(path.with_name("1.jpg")))


class Evil:
    """Creates a folder when it is unpickled without care."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def change_one_byte(file: Path) -> None:
    content = file.read_bytes()
    at = content.index(bytes(BLUE[2:]) * 16)  # within the blue channel
    file.write_bytes(content[:at] + b"\0" + content[at + 1 :])


DAMAGES = {
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "another version's": lambda file: torch.save({"images": torch.zeros(3)}, file),
    "a tensor": lambda file: torch.save(torch.zeros(3), file),
    "one byte changed": change_one_byte,
    "code": lambda file: torch.save({"pixels": Evil(file.with_name("evil"))}, file),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_remade_and_code_in_it_is_not_run(tmp_path, cache_folder, forbid_decoding, damage):
    paths = [save_image(tmp_path / "0.png", BLUE)]
    expected = images.load_images(paths, 16).pixels.clone()  # not a view of the file
    [file] = cache_folder.glob("*.pt")
    DAMAGES[damage](file)
    assert torch.equal(images.load_images(paths, 16).pixels, expected)
    forbid_decoding()
    assert torch.equal(images.load_images(paths, 16).pixels, expected)
    assert set(cache_folder.iterdir()) == {file, file.with_name(f"{file.name}.lock")}


def test_what_was_not_used_for_long_is_removed_when_something_new_is_cached(tmp_path, cache_folder, capsys):
    used, unused, new = (save_image(tmp_path / name) for name in ("0.png", "1.png", "2.png"))
    for path in (used, unused):
        images.load_images([path], 16)
    (cache_folder / "killed.1.part").touch()
    (cache_folder / "folder").mkdir()  # not the cache's: left alone
    for file in cache_folder.iterdir():
        os.utime(file, (0, 0))
    images.load_images([used], 16)
    [kept] = (file for file in cache_folder.iterdir() if file.stat().st_mtime > 0)
    images.load_images([new], 16)
    left = {file.name for file in cache_folder.iterdir()}
    assert {kept.name, "folder"} < left and len(left) == 4  # and the new one with its lock
    assert "could not be cached" not in capsys.readouterr().err
