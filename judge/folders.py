"""Folders of images: where they are, which files are images, which belong together, and which must not.

Nothing here needs torch: what is missing is refused before it is imported.
"""

import os
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache as once
from itertools import combinations
from pathlib import Path

from PIL import Image

from judge.common.constants import DATA
from judge.common.errors import UserError, printable

# Pillow knows more formats and goes by content, not by file name: it runs an .eps file as a program.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
ENDINGS = ".jpg, .png, .webp, .tif, .gif, .bmp, .ppm, .avif or .jp2"  # the usual ones, for messages
# Files and folders that systems put beside pictures, in lower case: thumbnails, deleted files and the like.
OF_SYSTEMS = {"@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx",
              "lost+found", "system volume information", "thumbs.db", "desktop.ini"}
ASIDE = "SALON_DATA"  # variable of the environment: see `images.making_aside`


def resolve_name(data: str) -> str:
    """Return what `auto` stands for, monet2photo if it is there, else the sample; keep other names."""
    return data if data != "auto" else "monet2photo" if (DATA / "monet2photo").is_dir() else "sample"


def data_folder(data: str) -> Path:
    """Return the folder that `data` names: a path, or a name below `data/`. It need not exist."""
    places = Path(data), DATA / data, made_data() / data
    return next((folder for folder in places if folder.is_dir()), DATA / data)


def made_data() -> Path:
    """Return the folder in which data is made, or put that is downloaded, on first use."""
    return Path(os.environ.get(ASIDE, DATA))


def check_data(data: str) -> None:
    """Raise UserError if the folder that `data` names is missing; the built-in sample is made when needed."""
    data = resolve_name(data)
    folder = data_folder(data)
    if data != "sample" and not folder.is_dir():
        hint = f"python -m judge data {data}, or " if Path(data).name == data else ""
        raise UserError(f"no data folder {folder}: {hint}give --data a folder, or sample")


def check_judge(file: Path | str) -> None:
    """Raise UserError if there is no such file of a judge."""
    if not Path(file).exists():
        raise UserError(f"no judge at {file}: python -m judge train --out {file}")


def list_images(folders: Sequence[Path]) -> list[Path]:
    """Return the files below `folders` that have the ending of an image, sorted within each folder.

    Linked folders are followed. A note counts the files with other endings; hidden files and those of systems
    (`is_visible`) are not pictures of anybody. Raises UserError if a folder does not exist or holds no image.
    """
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    files = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: images are read from it")
        visible, left_out = _walk(folder)
        paths = sorted(path for path in visible if path.suffix.lower() in suffixes)
        for path in set(visible).difference(paths):
            kind = path.suffix.lower() or "no ending"
            left_out[kind if path.exists() else "broken link"].append(path.name)
        others = printable(", ".join(f"{len(names)} {kind} ({min(names)}{', ...' * (len(names) > 1)})"
                                     for kind, names in sorted(left_out.items())))
        if not paths:
            only = f", only {others}" if others else ""
            raise UserError(f"no images in {folder}{only}: put {ENDINGS} files there")
        if others:
            note(f"note: left out in {printable(folder)}: {others}; images end in {ENDINGS}")
        files += paths
    return files


def _walk(folder: Path) -> tuple[list[Path], defaultdict[str, list[str]]]:
    """Return the visible files below `folder`, and the names of the folders that are left out, by the reason.

    A folder that several links lead to is visited once.
    """
    files, left_out, seen = [], defaultdict(list), set()

    def unreadable(error: OSError) -> None:
        left_out[f"folder, {error.strerror}"].append(Path(error.filename).name)

    for here, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        state = os.stat(here)
        if (state.st_dev, state.st_ino) in seen:  # a link may lead back to where it is
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        files += [Path(here, name) for name in names if is_visible(name)]
        if systems := [name for name in folders if name.lower() in OF_SYSTEMS]:
            left_out["folder of a system"] += systems
        folders[:] = sorted(filter(is_visible, folders))
    return files, left_out


def is_visible(name: str) -> bool:
    """Return whether a file or folder of this name is the user's: neither hidden nor a system's."""
    return not name.startswith(".") and name.lower() not in OF_SYSTEMS


@once
def note(line: str) -> None:
    """Print `line` on stderr, once in a process: a folder is listed, and a file read, more than once."""
    print(line, file=sys.stderr)


def check_disjoint(groups: Mapping[str, Iterable[Path]]) -> None:
    """Raise UserError if a file is in two of the groups, by their names: directly, or by a link."""
    files = {name: {_identity(path): path for path in paths} for name, paths in groups.items()}
    for (a, ours), (b, others) in combinations(files.items(), 2):
        if common := [path for key, path in ours.items() if key and key in others]:
            raise UserError(f"{common[0]} is in {a} and in {b}: a picture belongs to one of them")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        return (state := path.stat()).st_dev, state.st_ino
    except (OSError, ValueError):  # a broken link
        return None


def name_apart(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Return `paths` by their names below `folder` without endings, for files that belong together.

    x.jpg is named x, and its translation is x.png. Where that would not tell two files apart, as x.jpg and
    x.png, both keep their endings. Names are texts in Unicode's composed form, NFC: Macs may write the same
    name in the other form, NFD. Raises UserError if only that tells two files apart.
    """
    names = {path: Path(unicodedata.normalize("NFC", str(path.relative_to(folder)))) for path in paths}
    counts = Counter(str(name) for full in names.values() for name in (full, full.with_suffix("")))
    named = {}
    for path, full in names.items():
        name = str(full if counts[short := str(full.with_suffix(""))] > 1 else short)
        if named.setdefault(name, path) != path:
            raise UserError(f"{named[name]} and {path} have the same name, in Unicode's forms NFC and NFD: "
                            "rename one of them")
    return named
