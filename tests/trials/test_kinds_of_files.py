"""One table of kinds of files: each is read as these pixels, skipped with a reason, or left out by its name.

All of them lie in one folder, which the judge's loader and `trials.translate` go through once.
"""

import os
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from judge.common.errors import printable
from judge.folders import list_images
from judge.images import load_images
from trials.inspection.translation import translate_folder
from trials.translate import Options

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
QUARTERS = (RED, GREEN, BLUE, WHITE)  # upper left, upper right, lower left, lower right
GREYS = (0, 100, 200, 255)
INKS = ((0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 0))  # of the same four in CMYK
EDGE = 32  # pixels of most pictures
NOISE = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)

Make = Callable[[Path], object]


def quarters(mode: str, colours=QUARTERS) -> Image.Image:
    """A picture of four colours."""
    image, half = Image.new(mode, (EDGE, EDGE)), EDGE // 2
    for number, colour in enumerate(colours):
        left, top = half * (number % 2), half * (number // 2)
        image.paste(colour, (left, top, left + half, top + half))
    return image


def greys(most: int, dtype: type, colours=GREYS) -> np.ndarray:
    """A picture of four greys whose white is `most`, [H, W]."""
    return (np.asarray(quarters("L", colours)).astype(np.float64) / 255 * most).round().astype(dtype)


def three(values) -> tuple:
    return tuple((value,) * 3 for value in values)


def saved(image: Image.Image, **options) -> Make:
    """Write `image` in the format of the name's ending, or in `format`."""
    return lambda path: image.save(path, **options)


def rgb(suffix: str, **options) -> Make:
    return saved(quarters("RGB"), format=Image.registered_extensions()[suffix], **options)


def written(content: bytes | Callable[[], bytes]) -> Make:
    return lambda path: path.write_bytes(content)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(orientation: int) -> Make:
    """A picture that is stored so that this EXIF orientation shows it upright."""
    inverse = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
               4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
               6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
               8: Image.Transpose.ROTATE_270}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = quarters("RGB").transpose(inverse[orientation]) if orientation in inverse else quarters("RGB")
    return saved(stored, exif=exif, quality=95)


def animated(suffix: str) -> Make:
    others = [Image.new("RGB", (EDGE, EDGE), colour) for colour in (GREEN, BLUE)]
    return rgb(suffix, save_all=True, append_images=others, lossless=True)


def tiff(pixels: np.ndarray, bits: int, kind: int = 1, white: int = 1, order: str = "<",
         tile: int = 0) -> Make:  # fmt: skip
    """A plain grey TIFF; `kind` is 1 for unsigned numbers, 2 for signed ones, 3 for floats."""
    height, width = pixels.shape[0], pixels.shape[1] * pixels.itemsize * 8 // bits
    if tile:
        pixels = pixels.reshape(height // tile, tile, width // tile, tile).swapaxes(1, 2)
    data = pixels.tobytes()
    places = [8 + number * tile**2 for number in range(len(data) // tile**2)] if tile else [8]
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: white, 277: 1, 339: kind}
    if tile:
        table = struct.pack(f"{order}{len(places)}I", *places)
        sizes = struct.pack(f"{order}{len(places)}I", *[tile**2] * len(places))
        tags |= {322: tile, 323: tile}
    else:
        table = sizes = b""
        tags |= {273: 8, 278: height, 279: len(data)}
    directory = 8 + len(data) + len(table) + len(sizes)
    rows = [(tag, 4, 1, value) for tag, value in tags.items()]
    if tile:
        rows += [(324, 4, len(places), 8 + len(data)), (325, 4, len(places), 8 + len(data) + len(table))]
    packed = b"".join(struct.pack(f"{order}HHII", *row) for row in sorted(rows))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", directory)
    return written(head + data + table + sizes + struct.pack(f"{order}H", len(rows)) + packed + bytes(4))


def packed_12_bits(values: np.ndarray) -> np.ndarray:
    """Two values of 12 bits as three bytes, [H, W] to [H, W * 3 / 2]."""
    pairs = values.reshape(-1, 2)
    first, second = pairs[:, 0], pairs[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    return packed.astype(np.uint8).reshape(len(values), -1)


def png_of_16_bits(path: Path) -> None:
    """An RGB PNG of 16 bits a channel, which Pillow reads but does not write."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    rows = (np.asarray(quarters("RGB")).astype(">u2") * 257).reshape(EDGE, -1)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", EDGE, EDGE, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def palette(path: Path, **options) -> None:
    image = quarters("P", (0, 1, 2, 3))
    image.putpalette([channel for colour in QUARTERS for channel in colour])
    image.save(path, **options)


def linked_folder(path: Path) -> None:
    """A link to a folder elsewhere, with one picture."""
    other = path.parent.with_name("elsewhere")
    other.mkdir()
    quarters("RGB").save(other / "there.png")
    path.symlink_to(other)


def folder(*names: str) -> Make:
    """A folder with a picture of each name."""
    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            quarters("RGB").save(path / name)

    return make


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        server.bind(path.name)
        os.chdir(here)


def unreadable(path: Path) -> None:
    quarters("RGB").save(path)
    path.chmod(0)


@dataclass(frozen=True)
class Read:
    """The file is read as these colours, from `name` on, and its translation has the name `painted`."""

    colours: tuple = QUARTERS
    name: str | None = None
    painted: str | None = None
    tolerance: int = 0


@dataclass(frozen=True)
class Skipped:
    """The file is tried, and skipped with this reason."""

    reason: str


@dataclass(frozen=True)
class Named:
    """The file is not tried; the note on its folder counts it as this kind."""

    kind: str


SILENT = None  # hidden files are nobody's pictures
LOSSY = Read(tolerance=60)
GREY = Read(three(GREYS))
NOT_KNOWN = Skipped("which of its numbers are black and white is not known")
NO_FORMAT = Skipped("not an image in a format that is read")
WIDE, ROOT = "w" * 251, os.geteuid() == 0
PNG = encoded(quarters("RGB"), "PNG")

TABLE: list[tuple[str, Make, object]] = [
    # formats
    ("plain.png", rgb(".png"), Read()),
    ("plain.jpg", rgb(".jpg", quality=95), LOSSY),
    ("UPPER.JPG", rgb(".jpg", quality=95), LOSSY),
    ("long.jpeg", rgb(".jpg", quality=95), LOSSY),
    ("progressive.jfif", rgb(".jpg", quality=95, progressive=True), LOSSY),
    ("lossy.webp", rgb(".webp", quality=95), LOSSY),
    ("new.avif", rgb(".avif", quality=95), LOSSY),
    ("wavelets.jp2", rgb(".jp2"), Read(tolerance=3)),
    ("windows.bmp", rgb(".bmp"), Read()),
    ("still.gif", rgb(".gif"), Read()),
    ("plain.ppm", rgb(".ppm"), Read()),
    ("two.mpo.jpg", saved(quarters("RGB"), format="MPO", save_all=True, quality=95,
                          append_images=[Image.new("RGB", (EDGE, EDGE))]), LOSSY),
    ("icc.png", rgb(".png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()),
     Read()),  # the numbers as they are
    # wrong and missing endings, formats that are not read
    ("is-png.jpg", written(PNG), Read()),
    ("is-icon.png", written(encoded(quarters("RGB"), "ICO")), NO_FORMAT),
    ("program.eps", rgb(".eps"), Named(".eps")),  # Pillow would run it
    ("is-postscript.jpg", written(encoded(quarters("RGB"), "EPS")), NO_FORMAT),
    ("is-tga.png", written(encoded(quarters("RGB"), "TGA")), NO_FORMAT),
    ("is-heic.jpg", written(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)), NO_FORMAT),
    ("is-page.jpg", written(b"<html>404</html>"), NO_FORMAT),
    ("telephone.heic", written(b"\0\0\0\x18ftypheic"), Named(".heic")),
    ("old.tga", rgb(".tga"), Named(".tga")),
    ("drawing.svg", written(b"<svg/>"), Named(".svg")),
    ("icon.ico", rgb(".ico"), Named(".ico")),
    ("raw.dng", written(b"II*\0"), Named(".dng")),
    ("no-ending", written(PNG), Named("no ending")),
    ("x.jpg.txt", written(PNG), Named(".txt")),
    ("dot.jpg.", written(PNG), Named("no ending")),
    ("space.png ", written(PNG), Named(".png ")),
    # EXIF
    *((f"turned{number}.jpg", turned(number), LOSSY) for number in range(1, 9)),
    ("turned9.jpg", turned(9), LOSSY),  # there is no such orientation
    ("exif.jpg", rgb(".jpg", quality=95, exif=b"Exif\0\0nonsense"), LOSSY),
    # colours
    ("ink.jpg", saved(quarters("CMYK", INKS), quality=95), LOSSY),
    ("grey.jpg", saved(quarters("L", GREYS), quality=95), Read(three(GREYS), tolerance=8)),
    ("bits.png", saved(quarters("1", (0, 1, 1, 0))), Read((BLACK, WHITE, WHITE, BLACK))),
    ("16.png", saved(Image.fromarray(greys(65535, np.uint16))), GREY),
    ("16rgb.png", png_of_16_bits, Read()),
    ("16clear.png", saved(Image.fromarray(greys(65535, np.uint16)), transparency=0),
     Read(three((255, 100, 200, 255)))),
    ("16.pgm", saved(Image.fromarray(greys(65535, np.uint16))), GREY),
    ("16.jp2", saved(Image.fromarray(greys(65535, np.uint16))), Read(three(GREYS), tolerance=2)),
    ("float.pfm", written(b"Pf\n32 32\n-1.0\n" + greys(1, np.float32).tobytes()), NOT_KNOWN),
    ("alpha.png", saved(quarters("RGBA", ((*RED, 0), (*RED, 51), (*BLUE, 255), (0, 0, 0, 0)))),
     Read((WHITE, (255, 204, 204), BLUE, WHITE))),
    ("grey-alpha.png", saved(quarters("LA", ((0, 0), (0, 51), (100, 255), (255, 0)))),
     Read(three((255, 204, 100, 255)))),
    ("clear.webp", saved(quarters("RGBA", ((*RED, 0), RED, BLUE, BLUE)), lossless=True, exact=True),
     Read((WHITE, RED, BLUE, BLUE))),
    ("palette.png", palette, Read()),
    ("palette-clear.png", lambda path: palette(path, transparency=bytes([0, 255, 51, 255])),
     Read((WHITE, GREEN, (204, 204, 255), WHITE))),
    ("palette-clear.gif", lambda path: palette(path, transparency=0), Read((WHITE, *QUARTERS[1:]))),
    # animations: the first picture
    *((f"animated{suffix}", animated(suffix), Read()) for suffix in (".gif", ".apng", ".webp")),
    # TIFF
    ("plain.tif", rgb(".tif"), Read()),
    *((f"{name}.tiff", rgb(".tif", compression=name), Read())
      for name in ("tiff_lzw", "tiff_deflate", "packbits")),
    ("pages.tif", rgb(".tif", save_all=True, append_images=[Image.new("RGB", (9, 9))]), Read()),
    ("tiled.tif", tiff(greys(255, np.uint8), 8, tile=16), GREY),
    ("0-is-white.tif", tiff(255 - greys(255, np.uint8), 8, white=0), GREY),
    ("16.tif", tiff(greys(65535, np.uint16), 16), GREY),
    ("16-motorola.tif", tiff(greys(65535, ">u2"), 16, order=">"), GREY),
    ("16-0-is-white.tif", tiff(65535 - greys(65535, np.uint16), 16, white=0), GREY),
    ("12.tif", tiff(packed_12_bits(greys(4095, np.uint16)), 12), GREY),
    ("ink.tif", saved(quarters("CMYK", INKS)), Read()),
    ("lab.tif", saved(quarters("LAB", ((0, 128, 128), (255, 128, 128), (0, 128, 128), (255, 128, 128)))),
     Read((BLACK, WHITE, BLACK, WHITE), tolerance=3)),
    ("clear.tif", saved(quarters("RGBA", ((*RED, 0), RED, BLUE, BLUE))), Read((WHITE, RED, BLUE, BLUE))),
    ("float.tif", saved(Image.fromarray(greys(1, np.float32))), NOT_KNOWN),
    ("float255.tif", saved(Image.fromarray(greys(255, np.float32))), NOT_KNOWN),
    ("int32.tif", saved(Image.fromarray(greys(255, np.int32))), NOT_KNOWN),
    ("uint32.tif", tiff(greys(2**32 - 1, np.uint32), 32), NOT_KNOWN),
    ("int16.tif", tiff(greys(32767, np.int16), 16, 2), NOT_KNOWN),
    ("float64.tif", tiff(greys(1, np.float64), 64, 3), NO_FORMAT),
    # damage
    ("empty.jpg", written(b""), NO_FORMAT),
    ("cut.jpg", written(encoded(Image.fromarray(NOISE), "JPEG")[:-600]), Skipped("truncated")),
    ("cut.png", written(encoded(Image.fromarray(NOISE), "PNG")[:-600]), Skipped("truncated")),
    ("cut.tif", written(encoded(Image.fromarray(NOISE), "TIFF")[:-600]), Skipped("")),
    ("cut.gif", written(encoded(quarters("RGB"), "GIF")[:-30]), Skipped("")),
    ("cut.webp", written(encoded(Image.fromarray(NOISE), "WEBP")[:-60]), Skipped("")),
    # Without the box that says which item is the image.
    ("cut.avif", written(encoded(quarters("RGB"), "AVIF").replace(b"pitm", b"free")), Skipped("")),
    ("bomb.pgm", written(b"P5 60000 60000 255\n"), Skipped("more than 537 million pixels")),
    # sizes
    ("dot.png", saved(Image.new("RGB", (1, 1), RED)), Read((RED,) * 4)),
    ("wide.png", saved(Image.new("RGB", (3000, 2), RED)), Read((RED,) * 4)),
    ("high.png", saved(Image.new("RGB", (2, 3000), RED)), Read((RED,) * 4)),
    ("line.png", saved(Image.new("1", (100_000, 1), 1)), Read((WHITE,) * 4)),
    # links, folders and what else is no file
    ("link.png", lambda path: path.symlink_to("plain.png"), Read()),
    ("broken.png", lambda path: path.symlink_to("nowhere.png"), Skipped("No such file")),
    ("broken-link", lambda path: path.symlink_to("nowhere"), Named("broken link")),
    ("loop.png", lambda path: path.symlink_to("loop.png"), Skipped("symbolic link")),
    ("linked", linked_folder, Read(name="linked/there.png", painted="linked/there.png")),
    ("back", lambda path: path.symlink_to("."), SILENT),
    ("folder.jpg", folder("inside.png"), Read(name="folder.jpg/inside.png", painted="folder.jpg/inside.png")),
    ("empty-folder.png", folder(), SILENT),
    ("pipe.png", lambda path: os.mkfifo(path), Skipped("not a regular file")),
    ("socket.png", listening, Skipped("not a regular file")),
    ("device.png", lambda path: path.symlink_to("/dev/zero"), Skipped("not a regular file")),
    ("mode.png", unreadable, Read() if ROOT else Skipped("Permission denied")),
    # names
    (os.fsdecode(b"latin-\xe9.png"), rgb(".png"), Read()),
    (os.fsdecode(b"latin-\xe7.heic"), written(b""), Named(".heic")),
    (os.fsdecode(b"latin-\xe8.jpg"), written(b"no image"), NO_FORMAT),
    ("line\nbreak.png", rgb(".png"), Read()),
    ("line\nbroken.jpg ", written(b""), Named(".jpg ")),
    ("red\x1b[31m.jpg", written(b"no image"), NO_FORMAT),
    ("-dash.png", rgb(".png"), Read()),
    (" two  spaces .png", rgb(".png"), Read()),
    ("<script>alert(1)<script>.png", rgb(".png"), Read()),
    ("%s{0}$HOME`id`'\".png", rgb(".png"), Read()),
    ("画家 🎨.png", rgb(".png"), Read()),
    (f"{WIDE}.png", rgb(".png"), Read()),  # 255 bytes, all that there may be
    ("IMG_0.original.png", rgb(".png"), Read()),
    ("IMG_0.png", rgb(".png"), Read()),
    ("same.png", rgb(".png"), Read()),
    ("same.bmp", rgb(".bmp"), Read()),
    ("same.bmp.gif", rgb(".gif"), Read(painted="same.bmp.gif.png")),
    # hidden files, and those that systems leave behind
    (".hidden.png", rgb(".png"), SILENT),
    ("._plain.jpg", written(b"\0\x05\x16\x07"), SILENT),
    (".png", written(PNG), SILENT),
    ("Thumbs.db", written(b""), SILENT),
    ("desktop.ini", written(b""), SILENT),
    (".thumbnails", folder("x.png"), SILENT),
    (".AppleDouble", folder("x.png"), SILENT),
    *((name, folder("x.png"), Named("folder of a system"))
      for name in ("@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found")),
]


STEMS = Counter(Path(name).stem for name, _, expected in TABLE if isinstance(expected, Read | Skipped))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    photos = tmp_path_factory.mktemp("kinds") / "photos"
    photos.mkdir()
    for name, make, _ in TABLE:
        make(photos / name)
    return photos


@pytest.fixture(scope="module")
def loaded(photos) -> tuple[dict[str, np.ndarray], str]:
    """What the judge's loader makes of them: pixels by name, and what it says."""
    with redirect_stderr(StringIO()) as said:
        images = load_images(list_images([photos]), EDGE)
    names = [str(Path(path).relative_to(photos)) for path in images.paths]
    note, *_ = said.getvalue().splitlines()
    return dict(zip(names, images.pixels.permute(0, 2, 3, 1).numpy())), "\n".join([note, *images.skipped])


class Same(torch.nn.Module):
    """A generator whose paintings are the photographs."""

    stride = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def painted(photos) -> tuple[Path, str]:
    """What trials.translate makes of them: its folder, and what it says."""
    out = photos.with_name("painted")
    options = Options(photos, photos, out, longest=EDGE)
    with redirect_stdout(StringIO()) as said:
        assert translate_folder(Same(), options, torch.device("cpu")) == 1
    return out, said.getvalue()


def corners(pixels: np.ndarray) -> np.ndarray:
    """The pixels near the four corners, [4, 3]."""
    places = [[round((edge - 1) * share) for share in (0.2, 0.8)] for edge in pixels.shape[:2]]
    return pixels[np.ix_(*places)].reshape(4, 3).astype(int)


@pytest.mark.parametrize(("name", "expected"), [row[::2] for row in TABLE],
                         ids=[printable(row[0])[:40] for row in TABLE])
def test_each_kind_of_file_is_read_right_or_skipped_with_the_reason(loaded, painted, photos, name, expected):
    (pixels, lines), (out, said) = loaded, painted
    if isinstance(expected, Read):
        inside = expected.name or name
        short = Path(name).stem  # or with the ending, where another file differs in nothing else
        target = out / (expected.painted or f"{short if STEMS[short] == 1 else name}.png")
        for found in (pixels[inside], np.asarray(Image.open(target))):
            difference = np.abs(corners(found) - np.array([colour[:3] for colour in expected.colours]))
            assert difference.max() <= expected.tolerance, corners(found)
        return
    assert not [inside for inside in pixels if Path(inside).parts[0] == name]
    assert not (out / Path(name).with_suffix(".png")).exists()
    shown = printable(photos / name)
    if isinstance(expected, Skipped):
        [line] = [line for line in lines.splitlines() if line.startswith(f"{shown}: ")]
        [printed] = [line for line in said.splitlines() if line.startswith(f"skipped: {shown} ")]
        assert expected.reason in line and expected.reason in printed
    else:
        assert f"{shown}: " not in lines and f"{shown} " not in said
        note = lines.splitlines()[0]
        assert (f" {printable(expected.kind)} (" in note) if expected else (f"({printable(name)}" not in note)


def test_the_kinds_are_counted_and_what_is_said_has_a_line_for_each_and_fits_any_terminal(loaded, painted):
    kinds = {kind: [name for name, _, expected in TABLE if isinstance(expected, kind)]
             for kind in (Read, Skipped, Named)}
    assert len(TABLE) >= 50 and min(map(len, kinds.values())) >= 10
    (pixels, lines), (_, said) = loaded, painted
    assert len(pixels) == len(kinds[Read]) and len(lines.splitlines()) == 1 + len(kinds[Skipped])
    assert said.count("skipped: ") == len(kinds[Skipped])
    assert f"{len(kinds[Read])} of {len(kinds[Read] + kinds[Skipped])} images translated" in said
    assert f"; {len(kinds[Skipped])} skipped" in said
    assert (lines + said).replace("\n", "").isprintable()
