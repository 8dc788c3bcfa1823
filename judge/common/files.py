"""Files that several processes may use at once: locks, and writes that are complete or absent."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from judge.common.errors import UserError, one_line

LOG_BYTES = 4000  # of a log's end, in which its last line is looked for


def file_lock(file: Path, doing: str, wait: bool = False) -> IO:
    """Create `file` and lock it until it is closed or this process ends, however it ends.

    The file is never removed: another process may have opened it already. If another process holds the lock,
    wait for it with `wait`, else raise UserError; `doing` names the work that it protects, as in "training in
    runs/x".
    """
    with as_user_error(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(file, "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"another process is {doing}: wait for it to end") from None
    return lock


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
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        write(part)
        with open(part) as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def last_line(file: Path, start: str = "") -> str | None:
    """Return the last line of a text file that is not empty and begins so; None if there is none."""
    with suppress(OSError), open(file, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
        return next((line.strip() for line in reversed(log.read().decode(errors="replace").splitlines())
                     if line.strip() and line.startswith(start)), None)
    return None
