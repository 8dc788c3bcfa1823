"""Files that several processes may use at once: locks, and writes that are complete or absent."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from judge.common.errors import UserError, one_line


def file_lock(file: Path, doing: str) -> IO:
    """Create `file` and lock it until it is closed or this process ends, however it ends.

    The file is never removed: another process may have opened it already.

    Args:
        doing: the work that the lock protects, for the error message: "training in runs/x".

    Raises:
        UserError: another process holds the lock, or `file` cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(file, "w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is {doing}: wait for it to end") from None
    except OSError as error:
        raise UserError(f"cannot write to {file.parent}: {error.strerror}") from None
    return lock


@contextmanager
def as_user_error(folder: Path) -> Iterator[None]:
    """Turn a failed write to `folder` (disk full, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        hint = ": make room and start it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise UserError(f"cannot write to {folder}: {error.strerror}{hint}") from None
    except RuntimeError as error:  # torch.save raises it when a write fails
        raise UserError(f"cannot write to {folder}, is the disk full? {one_line(error)}") from None


def atomic_write(file: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary path next to `file`, then rename that to `file`.

    `file` is complete or unchanged at any time, even if two processes write it at once.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        write(part)
        with open(part) as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
