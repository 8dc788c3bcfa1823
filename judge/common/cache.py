"""A cache of results that take long to compute: decoded images, classifiers of digits.

Its folder may be deleted at any time. Where it cannot be written, programs are only slower.
"""

import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from judge.common.files import atomic_write
from judge.common.tensors import read_tensors

MAX_AGE_DAYS = 30  # files that were not used for longer are removed


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/salon` or `~/.cache/salon`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salon"


def get(name: str) -> dict | None:
    """Return the content that `put` stored as `name`, or None if it is absent or damaged."""
    file = cache_folder() / name
    try:
        content = read_tensors(file)
        if content.pop("name") != name:
            return None
    except (OSError, ValueError, AttributeError, KeyError):  # the last two: another kind of content
        return None
    with suppress(OSError):  # the folder may be read-only
        os.utime(file)  # `_remove_old_files` goes by the last use
    return content


def put(name: str, content: dict) -> None:
    """Store a dict of tensors and plain data as `name`; print a note where that fails."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, partial(torch.save, {"name": name, **content}))
        _remove_old_files(folder)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter when the disk is full
        print(f"note: {name} could not be cached in {folder} ({error})", file=sys.stderr)


def _remove_old_files(folder: Path) -> None:
    """Remove files that were not used for `MAX_AGE_DAYS`, also unfinished ones of killed processes."""
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may have removed it
            if time.time() - file.stat().st_mtime > MAX_AGE_DAYS * 24 * 3600:
                file.unlink()
