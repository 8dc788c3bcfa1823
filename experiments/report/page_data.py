"""What the page of an experiment shows: one JSON document, drawn by the page's JavaScript.

The document is the same in a file and on a page that is served, which asks again and again what has changed.
"""

import math
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import confirmation, notes, trial_command
from experiments.nni_adapter.database import Experiment, Trial, find_experiment, is_confirmation
from experiments.report import importance, machine, pictures, results
from experiments.report.results import Row
from judge.common.errors import UserError
from judge.common.schema import matches
from judge.images import SIZES
from judge.score import MEANINGS, Formula, Meaning, find_formula
from trials.parts import sheets
from trials.session import without_presets
from trials.session.records import read_lines, read_record
from trials.session.steady import score_text

FILES = {  # of a trial that the page links to, by label
    "run.json": "run.json", "stats.jsonl": "stats.jsonl", "log": "trial.log", "output": "stdout",
    "errors": "stderr",
}  # fmt: skip
WATCHED = ("run.json", "stats.jsonl", "samples", "stderr")  # of a trial: its entry is made from these
CONFIRMATION_PAUSE = 10.0  # seconds between two looks for a confirmation of the search
SPACE = {"*": {"_type": str, "_value": list}}  # form of NNI's search space
KEY = re.compile(  # of a picture
    r"pictures/(?:continued/(?P<continued>\w+)|(?P<trial>\w+)/(?P<step>\d{1,12})|sources)\.webp")
LARGER = {"sketch": "draft", "draft": "paper"}  # sizes
SHOWS = {  # what a size can show, with a part of its schedule and with the whole
    "sketch": ("hints at which settings are better, paints nothing yet",
               "shows which settings are better, too small for brush strokes"),
    "draft": ("shows which settings are better, no finished paintings yet",
              "shows colours and scenes, coarse brush strokes"),
    "paper": ("the published size, but not trained to the end", None),
}  # fmt: skip


class Sparing:
    """Says when work is due again: after `pause` seconds, and never for more than a tenth of the time."""

    def __init__(self, pause: float):
        self._pause, self._due = pause, -math.inf

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._due

    def __enter__(self) -> None:
        self._begun, self._due = time.monotonic(), math.inf  # not while it is done

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        self._due = now + max(self._pause, 9 * (now - self._begun))


class PageData:
    """The document of an experiment; it reads again only files that have changed, from several threads.

    Args:
        formula: all scores are computed by it; None is the search's own.
        facts: lines on the conditions, until the first trial has recorded them.
        begun_at: the revision to go on from.

    `state`, `message` and `links` are told by whoever runs the experiment.
    """

    def __init__(self, experiment: Experiment, formula: Formula | None = None, *,
                 facts: list[str] | None = None, begun_at: int = 0):  # fmt: skip
        self.experiment, self.formula, self.revision = experiment, formula, begun_at
        self.state, self.message, self.links = "ended", None, []
        self._facts, self._lock = facts or [], threading.RLock()
        self._trials: dict[str, dict] = {}  # entries of the document by id, in the table's order
        self._folders: dict[str, Path] = {}
        self._inputs: dict[str, Any] = {}  # what an entry was made from
        self._watched: dict[str, list[str]] = {}  # files
        self._changed: dict[str, int] = {}  # the revision in which it changed
        self._summary: dict[str, Any] = {}  # of the search, as far as it depends on trials and notes only
        self._importance = self._computed = {"rows": [], "note": "being computed ..."}
        self._ended, self._computing = -1, Sparing(0)  # trials that the importances were computed for
        self._confirmation, self._confirming = None, Sparing(CONFIRMATION_PAUSE)
        self._records: dict[Path, tuple[Any, dict]] = {}
        self._layouts: dict[tuple[int, int], pictures.Layout | None] = {}  # by size of the sheet

    def refresh(self) -> int:
        """Read what is new, and return the revision."""
        with self._lock:
            self._refresh(live=True)
            return self.revision

    def has(self, id_: str) -> bool:
        """Return whether there is a trial of this id."""
        self.refresh()
        return id_ in self._folders

    def document(self, *, live: bool = False, links_from: Path | None = None) -> dict:
        """Return the whole document, as of now: of the page that is served, if `live`.

        Trials have links to their files if it is, and if the page is to be in the folder `links_from`.
        """
        with self._lock:
            rows = self._refresh(live)
            return {"revision": self.revision, "live": live, "search": self._search(rows, live),
                    "sources": self._sources, "importance": self._importance,
                    "trials": [self._shown(id_, live, links_from) for id_ in self._trials]}  # fmt: skip

    def changes(self, since: int) -> dict:
        """Return what has changed on the served page since a revision: trials, and always the rest, which is
        small."""
        with self._lock:
            rows = self._refresh(live=True)
            trials = [self._shown(id_, live=True) for id_ in self._trials if self._changed[id_] > since]
            return {"revision": self.revision, "search": self._search(rows, live=True),
                    "order": list(self._trials), "trials": trials, "sources": self._sources,
                    "importance": self._importance}  # fmt: skip

    def _shown(self, id_: str, live: bool, links_from: Path | None = None) -> dict:
        """Return a trial's entry with links to its files that are not empty, and to its sample sheets."""
        folder = self._folders[id_]

        def links(files: dict[str, Path]) -> list[dict[str, str]]:
            return [{"label": label,
                     "url": f"trials/{id_}/{file.name}" if live else os.path.relpath(file, links_from)}
                    for label, file in files.items() if (live or links_from) and is_filled(file)]  # fmt: skip

        return self._trials[id_] | {
            "files": links({label: folder / name for label, name in FILES.items()}),
            "sheets": links({f"{step:,}": file for step, file in sheets.list_sheets(folder).items()}),
        }  # fmt: skip

    def picture(self, key: str, best: bool = True) -> pictures.Strip | None:
        """Return the strip that the document calls `key`, if there is one."""
        match = KEY.fullmatch(key)
        if match is None:
            return None
        with self._lock:
            if match["continued"]:
                folder = self.experiment.folder / "continued" / match["continued"]
                file = self._newest(folder) if match["continued"] in self._folders else None
            elif match["trial"]:
                folder = self._folders.get(match["trial"])
                file = sheets.list_sheets(folder).get(int(match["step"])) if folder else None
            else:
                file = self._source_sheet()
        return pictures.strip(file, lower=key != "pictures/sources.webp", best=best) if file else None

    def file(self, id_: str, name: str) -> Path | None:
        """Return the file of that name in `FILES`, or sample sheet, of a trial, if both are there."""
        if not (folder := self._folders.get(id_)):
            return None
        files = [*(folder / file for file in FILES.values()), *sheets.list_sheets(folder).values()]
        return next((file for file in files if file.name == name and file.is_file()), None)

    # ---------------------------------------------------------------------------------------------

    def _refresh(self, live: bool) -> list[Row]:
        """Read what is new, and return the trials in the table's order.

        A `live` page does not wait for the importances, which take seconds.
        """
        rows = results.rows(self.experiment, self.formula, self._record)
        marks = self._marks()
        winner = results.best(rows)
        level = {row.trial.id for row in results.level_with(winner, rows)} if winner else set()
        revision, entries, changed = self.revision + 1, {}, list(self._trials) != [r.trial.id for r in rows]
        for row in rows:
            id_ = row.trial.id
            inputs = row, row is winner, id_ in level, marks.trials.get(id_), self._states(row)
            entry = self._trials.get(id_)
            if entry is None or inputs != self._inputs[id_]:
                self._folders[id_], self._inputs[id_] = row.trial.folder, inputs
                new = self._entry(row, row is winner, id_ in level, marks.trials.get(id_, notes.Mark()))
                if new != entry:
                    entry, self._changed[id_], changed = new, revision, True
            entries[id_] = entry
        self._trials = entries
        self._update_importance(rows, live)
        changed |= self._computed is not self._importance
        self._importance = self._computed
        if changed or not self._summary or self._noted != marks.search:
            self._noted, self._sources = marks.search, self._find_sources()
            self._summary = finite(self._summarise(rows, winner))
            self.revision = revision
        return rows

    def _states(self, row: Row) -> tuple:
        """Return the states of the files that a trial's entry is made from."""
        if (files := self._watched.get(row.trial.id)) is None:
            folders = row.trial.folder, results.continued_folder(self.experiment, row)
            files = self._watched[row.trial.id] = [  # texts: to join paths takes longer than to look
                f"{folder}/{name}" for folder in folders for name in WATCHED]
        return tuple(map(state_of, files))

    def _record(self, folder: Path) -> dict:
        state = state_of(f"{folder}/run.json")
        known = self._records.get(folder)
        if known is None or known[0] != state:
            known = self._records[folder] = state, read_record(folder)
        return known[1]

    def _marks(self) -> notes.Notes:
        try:
            return notes.read(self.experiment.folder)
        except UserError:  # damaged: the page shows the rest
            return notes.Notes()

    def _entry(self, row: Row, best: bool, level: bool, mark: notes.Mark) -> dict:
        """Return the document's entry of a trial."""
        trial, record = row.trial, row.record
        lines = read_lines(trial.folder / "stats.jsonl")
        curve = results.recorded_scores(trial, row.formula)
        parts = dict.fromkeys(name for score in curve.values() for name in score)
        log, log_file = results.log_of(trial) if row.state == "failed" else (None, None)
        steps = [step for step, file in sheets.list_sheets(trial.folder).items() if pictures.size(file)]
        entry = {
            "id": trial.id, "number": trial.number, "state": row.state, "published": row.published,
            "best": best, "level": level, "scores": trial.latest, "score_text": row.score_text,
            "parameters": trial.parameters, "settings": changed_settings(self.experiment, row),
            "curve": {"step": list(curve)} | {
                name: [score.get(name) for score in curve.values()] for name in parts} if curve else [],
            "pictures": {str(step): f"pictures/{trial.id}/{step}.webp" for step in steps},
            "pixels": self._pixels(trial.folder),
            **progress(trial, record, lines),
            "memory": record.get("peak_memory"), "reason": results.reason(self.experiment, row),
            "log": log, "log_file": log_file and str(log_file),
            "command": results.command(self.experiment, row), "folder": str(trial.folder),
            "note": mark.note, "pinned": mark.pinned, "trained_on": self._trained_on(row),
        }  # fmt: skip
        return finite(entry)

    def _trained_on(self, row: Row) -> dict | None:
        """Return the document's facts of a trial that was trained on after the search; None of another."""
        id_, folder = row.trial.id, results.continued_folder(self.experiment, row)
        record, lines = self._record(folder), read_lines(folder / "stats.jsonl")
        if not record:
            return None
        newest = self._newest(folder)
        made = progress(Trial(id_, 0, folder), record, lines)
        return {
            "step": made["step"], "last_step": made["last_step"], "state": record.get("status"),
            "score_text": score_text(record["score"]) if record.get("score") else "", "folder": str(folder),
            "picture": f"pictures/continued/{id_}.webp" if newest else None, "pixels": self._pixels(folder),
        }  # fmt: skip

    def _newest(self, folder: Path) -> Path | None:
        """Return the newest sheet in a trial's folder that can be read."""
        files = reversed(sheets.list_sheets(folder).values())
        return next((file for file in files if pictures.size(file)), None)

    def _layout(self, folder: Path) -> pictures.Layout | None:
        """Return the layout of a trial's newest sheet; all sheets of one size have the same."""
        newest = self._newest(folder)
        size = pictures.size(newest) if newest else None
        if size and size not in self._layouts:
            pixels = pictures.read(newest)
            self._layouts[size] = None if pixels is None else pictures.layout(pixels)
        return self._layouts.get(size)

    def _pixels(self, folder: Path) -> int | None:
        found = self._layout(folder)
        return found.pixels if found else None

    def _source_sheet(self) -> Path | None:
        return next(filter(None, map(self._newest, self._folders.values())), None)

    def _find_sources(self) -> dict | None:
        sheet = self._source_sheet()
        found = self._layout(sheet.parents[1]) if sheet else None
        return found and {"picture": "pictures/sources.webp", "count": found.columns, "pixels": found.pixels}

    def _update_importance(self, rows: list[Row], live: bool) -> None:
        """Compute the importances if more trials have ended: `live` in a thread of its own."""
        ended = sum(row.trial.over for row in rows)
        if ended != self._ended and self._computing.due:
            self._ended = ended
            if live:
                threading.Thread(target=self._compute_importance, args=(rows,), daemon=True).start()
            else:
                self._compute_importance(rows)

    def _compute_importance(self, rows: list[Row]) -> None:
        with self._computing:
            table = importance.of_rows(rows).reset_index(names="name")
            self._computed = finite({"rows": table.to_dict("records"), "note": importance.note(rows)})

    def _summarise(self, rows: list[Row], winner: Row | None) -> dict:
        """Return what the document says of the search, without what changes by itself."""
        experiment, config, first = self.experiment, self.experiment.config, results.first_record(rows)
        module = trial_command.module_of(config["trialCommand"])
        defaults, space = trial_command.published(module), config.get("searchSpace")
        space = space if matches(space, SPACE) else {}
        searched = dict.fromkeys([*space, *(name for row in rows for name in row.trial.parameters)])
        facts = [line for line in results.heading(experiment, rows)[1:-1] if line]
        if self._confirming.due:
            with self._confirming:  # it reads all experiments beside this one
                self._confirmation = confirmation_text(experiment)
        commands = results.commands(experiment, winner, rows) if winner else []
        return {
            "id": experiment.id, "name": experiment.name,
            "kind": "confirmation" if is_confirmation(experiment) else "search",
            "facts": facts or self._facts,
            "counts": dict(pd.Series([row.state for row in rows], dtype=str).value_counts().items()),
            "max_trials": experiment.max_trials, "ended": sum(row.trial.over for row in rows),
            "failed": sum(row.state == "failed" for row in rows), "caption": caption(experiment, first),
            "formula": (first.get("settings") or {}).get("score"), "rescored": self.formula is not None,
            "space": space,
            "published": {name: defaults[name] for name in searched if name in defaults},
            "parts": parts(rows, self.formula),
            "advice": results.advice(experiment, winner, rows) if winner else [],
            "commands": [{"label": label, "command": command} for label, command in commands],
            "confirmation": self._confirmation, "note": self._noted.note,
            "pinned": self._noted.pinned,
        }  # fmt: skip

    def _search(self, rows: list[Row], live: bool) -> dict:
        """Return the document's facts of the search, as of now."""
        trials, running = [row.trial for row in rows], self.state == "running"
        began = min((trial.started for trial in trials if trial.started), default=None)
        ended = max((trial.ended for trial in trials if trial.ended), default=None)
        until = time.time() if running else ended
        at_once = self.experiment.config.get("trialConcurrency") or 1
        return self._summary | {
            "state": self.state, "message": self.message, "started": began,
            "seconds": until - began if until and began else None,
            "expected_end": expected_end(trials, self.experiment.max_trials, at_once) if running else None,
            "machine": machine.describe() if live and self.state in ("preparing", "running") else [],
            "links": self.links,
        }  # fmt: skip


def state_of(file: Path | str) -> tuple[int, int] | None:
    """Return when a file or folder was changed last, in ns, and its size; None if there is none."""
    with suppress(OSError):
        facts = os.stat(file)
        return facts.st_mtime_ns, facts.st_size
    return None


def is_filled(file: Path) -> bool:
    """Return whether a file is there and not empty."""
    return bool((state_of(file) or (0, 0))[1])


def finite(value: Any) -> Any:
    """Return a value of JSON with null in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def expected_end(trials: list[Trial], max_trials: int | None, at_once: int) -> float | None:
    """Return when all trials will have ended, in seconds since the epoch; None before the first has."""
    seconds = [trial.ended - trial.started for trial in trials if trial.ended and trial.started]
    if not max_trials or not seconds:
        return None
    remaining = max_trials - sum(trial.over for trial in trials)
    return time.time() + remaining * sum(seconds) / len(seconds) / at_once


def progress(trial: Trial, record: dict, lines: list[dict]) -> dict:
    """Return the document's facts on how far a trial is, by its reports, and how fast it trains."""
    settings, schedule = record.get("settings") or {}, record.get("schedule") or {}
    steps, budget = schedule.get("steps") or settings.get("steps"), settings.get("budget") or 1
    until = schedule.get("until") or (max(1, round(steps * budget)) if type(steps) is int else None)
    last, before = [*reversed(lines), {"step": 0}, {"step": 0}][:2]
    took = [(line.get("seconds") or 0) - (line.get("scoring_seconds") or 0) for line in (last, before)]
    speed = (last["step"] - before["step"]) / (took[0] - took[1]) if took[0] > took[1] else None
    seconds, expected = record.get("seconds") or last.get("seconds"), None
    if not trial.over and lines and until and seconds:
        reported = (trial.folder / "stats.jsonl").stat().st_mtime
        expected = reported + (until - last["step"]) * seconds / max(1, last["step"])
    return {
        "step": last["step"], "last_step": until, "started": trial.started, "seconds": seconds,
        "steps_per_second": speed, "expected_end": expected,
    }  # fmt: skip


def changed_settings(experiment: Experiment, row: Row) -> dict:
    """Return the settings of a trial that differ from the published ones, without its parameters."""
    module = trial_command.module_of(experiment.config["trialCommand"])
    published = trial_command.published(module)
    settings = without_presets(module.Settings, results.settings_of(experiment, row))
    return {name: value for name, value in settings.items()
            if name in published and value != published[name] and name not in row.trial.parameters}


def caption(experiment: Experiment, record: dict) -> str | None:
    """Return what pictures of this size and this part of the schedule can show, and how to get better ones.

    None before the first trial, for systems without sizes, and if there is nothing to say.
    """
    settings, schedule = record.get("settings") or {}, record.get("schedule") or {}
    size, steps, until = settings.get("size"), schedule.get("steps"), schedule.get("until")
    if size not in SHOWS or not steps or not until:
        return None
    part, whole = SHOWS[size]
    shows = part if until < steps else whole
    if shows is None:
        return None
    promote = f"python -m experiments promote {experiment.id}"
    if size in LARGER:
        promote += f" --size {LARGER[size]} --judge FILE"
    return (f"{size.capitalize()} ({SIZES[size]} px), {until:,} of {steps:,} steps: {shows}. "
            f"For pictures: {promote}")


def parts(rows: list[Row], formula: Formula | None) -> list[dict]:
    """Return the score and the parts that trials report, with what they mean."""
    names = dict.fromkeys(name for row in rows for name in row.trial.latest or {} if name != "error")
    shown = ["default", *(name for name in names if name != "default")] if names else []
    described = [(name, MEANINGS.get(name) or Meaning(name.replace("_", " "), None, "")) for name in shown]
    if formula is None:
        with suppress(UserError):  # a file that is gone, or a system without formulas
            formula = find_formula(str((results.first_record(rows).get("settings") or {}).get("score")))
    return [{"name": name, "label": meaning.label, "better": meaning.better,
             "help": f"{meaning.help}: {formula}" if name == "default" and formula else meaning.help}
            for name, meaning in described]  # fmt: skip


def confirmation_text(experiment: Experiment) -> str | None:
    """Return the table of `experiment` if it is a confirmation, else of its newest one beside it, or None."""
    if is_confirmation(experiment):
        return confirmation.text(experiment, confirmation.ends(experiment))
    databases = experiment.folder.parent.glob("[!_]*/db/nni.sqlite")
    for file in sorted(databases, key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(UserError):  # the other experiment may be damaged
            other = find_experiment(str(file.parents[1]))
            if confirmation.search_of(other) == experiment.id:
                return confirmation.text(other, confirmation.ends(other))
    return None
