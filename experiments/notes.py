"""Notes and pins on a search and its trials: notes.json in the experiment's folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from judge.common.errors import UserError
from judge.common.files import FileLock, as_user_error, atomic_write
from judge.common.schema import matches

FILE_NAME = "notes.json"
MAX_NOTE = 2000  # characters
MARK = {"note": str, "pinned": bool}  # form
FORM = {"search": MARK, "trials": {"*": MARK}}


@dataclass(frozen=True)
class Mark:
    """What a user wrote on a search or a trial, and whether it is pinned: shown first in lists and tables."""

    note: str = ""
    pinned: bool = False


@dataclass(frozen=True)
class Notes:
    """The mark of a search, and those of its trials by id; trials without one are not listed."""

    search: Mark = Mark()
    trials: dict[str, Mark] = field(default_factory=dict)


def read(folder: Path) -> Notes:
    """Return the notes in an experiment's folder. Raises UserError if the file is damaged."""
    file = folder / FILE_NAME
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return Notes()
    except (OSError, ValueError, RecursionError):
        content = None
    if not matches(content, FORM):
        raise UserError(f"{file} is damaged: mend it or move it away")
    return Notes(Mark(**content["search"]), {id_: Mark(**mark) for id_, mark in content["trials"].items()})


def write(folder: Path, trial: str | None = None, *, note: str | None = None,
          pinned: bool | None = None) -> None:  # fmt: skip
    """Write a note or a pin on the search or on the trial with this id; None leaves as it is.

    Raises UserError if the note is too long or the file is damaged or cannot be written.
    """
    if note is not None and len(note) > MAX_NOTE:
        raise UserError(f"a note has at most {MAX_NOTE} characters, this one has {len(note)}")
    with as_user_error(folder), FileLock(folder / ".notes.lock", "writing a note", wait=True):
        notes = read(folder)
        old = notes.search if trial is None else notes.trials.get(trial, Mark())
        new = Mark(old.note if note is None else note, old.pinned if pinned is None else pinned)
        if trial is None:
            notes = Notes(new, notes.trials)
        else:
            notes = Notes(notes.search, {**notes.trials, trial: new})
        kept = {id_: mark for id_, mark in notes.trials.items() if mark != Mark()}
        text = json.dumps(asdict(Notes(notes.search, kept)), indent=2, ensure_ascii=False)
        atomic_write(folder / FILE_NAME, lambda part: part.write_text(text + "\n"))
