"""The files that a trial leaves behind, written whole or not at all, and the facts in them."""

import errno
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from judge.command import UserError, cores, one_line

RECORDED_VERSIONS = ("torch", "torchvision", "torchmetrics", "numpy", "nni")

# ---------------------------------------------------------------------------------------------
# Files


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns a full disk or a folder without permission into one line, a UserError."""
    try:
        yield
    except OSError as error:
        hint = ": make room and start it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise UserError(f"cannot write to {folder}: {error.strerror}{hint}") from None
    except RuntimeError as error:  # torch's name for a failed write
        raise UserError(f"cannot write to {folder}, is the disk full? {one_line(error)}") from None


def atomically(file: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a neighbour of `file`, then put it in its place: never half a file."""
    part = file.with_name(f"{file.name}.part")
    try:
        write(part)
        with open(part) as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_json(file: Path, content: dict) -> None:
    """`content` as readable JSON, whole or not at all."""
    text = json.dumps(content, indent=2, default=str)
    atomically(file, lambda part: part.write_text(text + "\n"))


def json_line(content: dict) -> str:
    """`content` as one line of JSON."""
    return json.dumps(content) + "\n"


def read_json(file: Path) -> dict:
    """The object in `file`; empty where there is none or it is not JSON."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_lines(file: Path) -> list[dict]:
    """The JSON objects in `file`, one a line; a last line cut off by a crash is left out."""
    lines = file.read_text().splitlines() if file.exists() else []
    parsed = []
    for line in lines:
        try:
            parsed.append(json.loads(line))
        except ValueError:
            break
    return parsed


# ---------------------------------------------------------------------------------------------
# Facts


def identity(settings: Any) -> str:
    """Short hash of all that makes a trial this one."""
    return identity_of(asdict(settings))


def identity_of(settings: dict) -> str:
    """As `identity`, of settings read back; a longer budget is the same trial going on."""
    kept = {key: value for key, value in settings.items() if key != "budget"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def device_name(device: torch.device) -> str:
    """The processor's or GPU's name, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {cores()} cores)"


def versions() -> dict[str, str]:
    """Versions of what decides the numbers, `python` first."""
    found = {"python": platform.python_version()}
    for package in RECORDED_VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # by hand, NNI need not be there
            pass
    return found


def git_commit() -> str | None:
    """The commit of this code, `-dirty` when files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # no git here
        return None
    return done.stdout.strip() or None
