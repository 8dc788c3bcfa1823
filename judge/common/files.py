"""Files that several processes may use at once: locks, and writes that are complete or absent."""

import errno
import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from judge.common.cli import STOP_SIGNALS
from judge.common.errors import UserError, one_line

LOG_BYTES = 4000  # of a log's end, in which its last line is looked for


class FileLock:
    """A lock on `file` until `close`, or until this process ends, however it ends.

    `close` removes the file, and folders that were made for it if nothing else has come into them, so that a
    refused command leaves nothing. A killed process leaves the file, unlocked.

    If another process has the lock, wait for it with `wait`, else raise UserError; `doing` names the work
    that it protects, as in "training in runs/x".
    """

    def __init__(self, file: Path, doing: str, wait: bool = False):
        self._file = file
        self._made = missing_parents(file)
        with as_user_error(file.parent):
            try:
                self._lock = self._open(wait)
            except BlockingIOError:
                raise UserError(f"another process is {doing}: wait for it to end") from None
            except OSError:
                remove_empty(self._made)
                raise

    def _open(self, wait: bool) -> IO:
        while True:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # removed by the process that had it, perhaps with its folder
                lock = open(self._file, "w")
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if os.path.samestat(os.stat(self._file), os.fstat(lock.fileno())):
                    return lock

    def close(self) -> None:
        """Remove the file and unlock it."""
        if not self._lock.closed:
            with suppress(OSError):  # somebody has removed it
                self._file.unlink()
            self._lock.close()
            remove_empty(self._made)

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_abandoned(file: Path) -> bool:
    """Return whether a process with a `FileLock` on `file` was killed: the file is there, but unlocked."""
    with suppress(OSError), open(file) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def as_user_error(path: Path) -> Iterator[None]:
    """Turn a failed write to `path` (disk full, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        hint = ": make room and start it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise UserError(f"cannot write to {path}: {error.strerror}{hint}") from None
    except RuntimeError as error:  # torch.save raises it when a write fails
        raise UserError(f"cannot write to {path}, is the disk full? {one_line(error)}") from None


def atomic_write(file: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary path and rename that to `file`, which is complete or unchanged always."""
    part = part_of(file)
    try:
        write(part)
        with open(part) as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return the temporary path, beside `path`, of what this process writes to it."""
    # 60 characters are at most 240 bytes in UTF-8; a name may have 255.
    return path.with_name(f"{path.name[:60]}.{os.getpid()}.part")


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield a new folder beside the path `beside`, and remove it at the end of the block.

    Folders that were made for it go too, if nothing else has come into them.
    """
    part = part_of(beside)
    made = missing_parents(part)
    try:
        part.mkdir(parents=True)
        yield part
    finally:
        waiting = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the folder is away
        shutil.rmtree(part, ignore_errors=True)
        remove_empty(made)
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to `folder` at the end of the block.

    `folder`, which is new or empty, is complete or as it was always.
    """
    with scratch_folder(folder) as part:
        yield part
        part.rename(folder)


def missing_parents(path: Path) -> list[Path]:
    """Return the folders above `path` that do not exist, the innermost first."""
    return [folder for folder in path.parents if not os.path.exists(folder)]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of `folders` that are empty, in this order."""
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def last_line(text: str, start: str = "") -> str:
    """Return the last line of a text that is not empty and begins with `start`; an empty one without."""
    return next((line.strip() for line in reversed(text.splitlines())
                 if line.strip() and line.startswith(start)), "")


def last_line_of(file: Path, start: str = "") -> str:
    """Return `last_line` of a text file's end, the last `LOG_BYTES`; an empty one if it cannot be read."""
    with suppress(OSError), open(file, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
        return last_line(log.read().decode(errors="replace"), start)
    return ""
