"""What takes long to make and can be made again: decoded images, classifiers of digits.

A cache is a convenience: it may be removed at any time, and where it cannot be written, all is only slower.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from judge.common.tensors import read_tensors

MAX_AGE_DAYS = 30  # after which what nobody asked for is removed


def cache_folder() -> Path:
    """Where it lies: `$XDG_CACHE_HOME/salon` or `~/.cache/salon`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salon"


def get(name: str) -> dict | None:
    """What `keep` wrote under that name, if it is there and whole."""
    file = cache_folder() / name
    try:
        content = read_tensors(file)
        if content.pop("name") != name:
            return None
    except (OSError, ValueError, AttributeError, KeyError):  # absent, damaged, or something else
        return None
    with suppress(OSError):  # another's cache can be read, and only that
        os.utime(file)  # `_clear_out` goes by when it was last of use
    return content


def put(name: str, content: dict) -> None:
    """Write tensors and plain data by name, whole or not at all: other trials may be starting now."""
    file = cache_folder() / name
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"name": name, **content}, part)
        part.replace(file)
        _remove_old_files(file.parent)
    except (OSError, RuntimeError) as error:  # the latter is torch's name for a full disk
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            part.unlink()
        print(f"note: {name} could not be cached in {file.parent} ({error})", file=sys.stderr)


def _remove_old_files(folder: Path) -> None:
    """Remove what was of no use in `DAYS`, left behind by killed writers too."""
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # others may be clearing out as well
            if time.time() - file.stat().st_mtime > MAX_AGE_DAYS * 24 * 3600:
                file.unlink()
