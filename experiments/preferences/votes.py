"""The file of votes, preferences.jsonl beside the searches: one JSON object per line, only ever appended to.

A vote is {"time", "voter", "pair": its number in the run, "repeat": true if the pair was shown before,
"left", "right": the sheets, "vote": left, right or level}; a sheet is {"experiment", "trial", "step",
"folder": the trial's, relative to the file, "parts": of its score}. {"time", "voter", "undo": TIME}
undoes that voter's vote of that time.
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from judge.common.errors import UserError
from judge.common.files import as_user_error
from judge.common.schema import NUMBER, matches
from judge.score import PARTS

FILE_NAME = "preferences.jsonl"
LEAST_PART = 1e-4  # parts below it count as this: below it differences mean nothing, and 0 has no logarithm
PREFERENCE = {"left": 1.0, "level": 0.5, "right": 0.0}  # a vote as a share of one for the left sheet

SHEET = {"experiment": str, "trial": str, "step": int, "folder": str, "parts": {"*": NUMBER}}  # form
VOTE = {"time": str, "voter": str, "pair": int, "repeat": bool, "left": SHEET, "right": SHEET, "vote": str}
UNDO = {"time": str, "voter": str, "undo": str}


@dataclass(frozen=True)
class Sheet:
    """What a trial had painted at a step."""

    experiment: str
    trial: str
    step: int
    folder: str  # of the trial, relative to the file of votes
    parts: dict[str, float]  # of its score

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from other sheets."""
        return self.folder, self.step


@dataclass(frozen=True)
class Vote:
    """A viewer's answer to the question which of two sheets is better."""

    time: str
    voter: str
    pair: int
    repeat: bool
    left: Sheet
    right: Sheet
    vote: str

    @property
    def key(self) -> frozenset:
        """The pair, whichever side each was on."""
        return frozenset((self.left.key, self.right.key))

    @property
    def winner(self) -> tuple[str, int] | None:
        """The key of the preferred sheet; None if they are level."""
        return {"left": self.left.key, "right": self.right.key}.get(self.vote)


def log_parts(parts: dict[str, float]) -> np.ndarray:
    """Return the logarithms of what a formula multiplies, each to the power of 1, [parts]."""
    goodness = [1 / (1 + max(0.0, parts[name])) if name == "kid" else parts[name] for name in PARTS]
    return np.log(np.maximum(goodness, LEAST_PART))


def differences(votes: Iterable[Vote]) -> tuple[np.ndarray, np.ndarray]:
    """Return `log_parts` of the left sheets minus those of the right, [N, parts], and `PREFERENCE`, [N]."""
    x = [log_parts(vote.left.parts) - log_parts(vote.right.parts) for vote in votes]
    return np.reshape(x, (-1, len(PARTS))), np.array([PREFERENCE[vote.vote] for vote in votes])


def has_parts(parts: dict[str, float]) -> bool:
    """Return True if every formula can be computed from these parts."""
    return set(PARTS) <= set(parts) and all(map(math.isfinite, parts.values()))


def now() -> str:
    """Return the time in UTC, precise enough to tell votes apart."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def append(file: Path, line: Vote | dict) -> None:
    """Append a vote, or an undo, to the file at once. Raises UserError if it cannot be written."""
    text = json.dumps(asdict(line) if isinstance(line, Vote) else line) + "\n"
    with as_user_error(file), open(file, "ab+") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            text = text if lines.read() == b"\n" else "\n" + text  # a full disk cut the last line off
        lines.write(text.encode())


def read(file: Path) -> tuple[list[Vote], int]:
    """Return the votes that were not undone, first to last, and the number of damaged lines left out."""
    try:
        lines = [parse(line) for line in file.read_bytes().splitlines()]
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    undone = {(line["voter"], line["undo"]) for line in lines if isinstance(line, dict)}
    votes = [line for line in lines if isinstance(line, Vote) and (line.voter, line.time) not in undone]
    return votes, lines.count(None)


def parse(line: bytes) -> Vote | dict | None:
    """Return the vote in a line, or its undo as it is; None if the line is damaged or lacks a part."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: brackets nested too deep
        return None
    if matches(value, UNDO):
        return value
    if not matches(value, VOTE) or value["vote"] not in PREFERENCE or not value["voter"].isprintable():
        return None
    left, right = (Sheet(**{name: value[side][name] for name in SHEET}) for side in ("left", "right"))
    if not has_parts(left.parts) or not has_parts(right.parts):
        return None
    return Vote(**{name: value[name] for name in VOTE} | {"left": left, "right": right})
