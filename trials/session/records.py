"""The files that a trial leaves behind, written whole or not at all, and the facts in them."""

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from judge.common.files import atomic_write
from judge.common.schema import NUMBER, matches

RECORD = {  # the form of run.json
    "system?": str, "status?": str, "reason?": str, "seconds?": NUMBER, "schedule?": {"steps": int},
    "settings?": {"data?": str, "judge?": str, "size?": str, "seed?": int, "budget?": NUMBER},
    "data?": {"name": str, "stand_in": bool},
    "judge?": {"file": str, "data?": str, "sha256?": str, "auc?": NUMBER, "accuracy?": NUMBER},
}  # fmt: skip
REPORT = {  # the form of a line of stats.jsonl
    "step": int, "seconds?": NUMBER, "scoring_seconds?": NUMBER,
    "score": {"default": NUMBER, "*": NUMBER}, "losses?": {"*": NUMBER},
}  # fmt: skip
RECORDED_VERSIONS = ("torch", "torchvision", "torchmetrics", "numpy", "nni")


def write_json(file: Path, content: dict) -> None:
    """`content` as readable JSON, whole or not at all."""
    text = json.dumps(content, indent=2, default=str)
    atomic_write(file, lambda part: part.write_text(text + "\n"))


def json_line(content: dict) -> str:
    """`content` as one line of JSON."""
    return json.dumps(content) + "\n"


def read_json(file: Path) -> dict:
    """The object in `file`; empty where there is none or it is not JSON."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):  # the last of [[[[...
        return {}
    return content if isinstance(content, dict) else {}


def read_record(folder: Path) -> dict:
    """The run.json of the trial in `folder`; empty where there is none, or none of a trial's form."""
    content = read_json(folder / "run.json")
    return content if matches(content, RECORD) else {}


def read_lines(file: Path) -> list[dict]:
    """The reports in a trial's stats.jsonl, up to the first that is damaged: a crash may cut off the last."""
    parsed = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not matches(report, REPORT):
            break
        parsed.append(report)
    return parsed


class DiskUse(NamedTuple):
    """Bytes that a trial leaves on the disk."""

    checkpoint: int
    sheets: int
    """At most, in samples/ and in TensorBoard's file: PNG makes them smaller."""


# ---------------------------------------------------------------------------------------------
# Facts


def settings_hash(settings: Any) -> str:
    """Short hash of all that makes a trial this one."""
    return hash_of(asdict(settings))


def hash_of(settings: dict) -> str:
    """As `identity`, of settings read back; a longer budget is the same trial going on."""
    kept = {key: value for key, value in settings.items() if key != "budget"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


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
