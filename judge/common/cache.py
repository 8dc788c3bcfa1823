"""A cache of results that take long to compute: decoded images, classifiers of labelled images.

Its folder may be deleted at any time. Where it cannot be written, programs are only slower.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from judge.common.files import atomic_write
from judge.common.tensors import read_tensors

MAX_AGE_DAYS = 30  # files that were not used for longer are removed
MAX_BYTES = 50e9  # beyond it the files unused for longest are removed first ...
MIN_AGE_DAYS = 1  # ... but none used within a day: trials that run at once would remove each other's


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/salon` or `~/.cache/salon`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salon"


def get_or_make(name: str, make: Callable[[], dict]) -> dict:
    """Return the content cached as `name`. If there is none, call `make` and store what it returns.

    The content is a dict of tensors and plain data. Of several processes that need it, one makes it and the
    others wait. Large tensors are views of the file, so that all processes share the memory.
    """
    if content := get(name):
        return content
    with _lock(name):
        if content := get(name):  # made by the process that held the lock
            return content
        content = make()
        put(name, content)
    return get(name) or content


def get(name: str) -> dict | None:
    """Return the content that `put` stored as `name`, or None if it is absent or damaged."""
    file = cache_folder() / name
    try:
        content = read_tensors(file, mmap=True)
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
    except (OSError, RuntimeError) as error:  # torch.save raises the latter when the disk is full
        print(f"note: {name} could not be cached in {folder} ({error})", file=sys.stderr)
    else:
        _remove_old_files(folder)


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Wait until no other process makes `name`, and keep others waiting during the block.

    The lock ends with the process that holds it, however it ends. There is none where the folder cannot be
    written or its file system has no locks: each process then makes its own.
    """
    file = cache_folder() / f"{name}.lock"
    with ExitStack() as until_the_end:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = until_the_end.enter_context(open(file, "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waits for another process that makes {name}", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_old_files(folder: Path) -> None:
    """Remove files unused for `MAX_AGE_DAYS`, also unfinished ones of killed processes, and then those unused
    for longest until the rest takes `MAX_BYTES`."""
    total, now = 0, time.time()
    for last_use, size, file in sorted(_files(folder), reverse=True):
        total += size
        days = (now - last_use) / (24 * 3600)
        if days > MAX_AGE_DAYS or (total > MAX_BYTES and days > MIN_AGE_DAYS):
            with suppress(OSError):  # another process may have removed it
                file.unlink()


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time of last use, bytes and path of each file."""
    for file in folder.iterdir():
        with suppress(OSError):
            if file.is_file():
                yield file.stat().st_mtime, file.stat().st_size, file
