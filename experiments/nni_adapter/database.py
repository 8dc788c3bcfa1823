"""NNI 2.10.1 from outside: starting and stopping it, and reading what it stores.

Only this file knows NNI's commands, folders and tables (`experiments.tuner` is its tuner's child, and
`experiments.check` reads an experiment file as NNI does). What NNI itself must do otherwise is in
`experiments.nnictl`, its command, and in `preload.js`, its manager.
"""

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from judge.common.errors import UserError, one_line
from judge.common.schema import NUMBER, matches

ROOT = Path(__file__).parents[2]  # of the repo: where the experiments' commands run
NNI_HOME = Path.home() / "nni-experiments"  # NNI's own: its list of experiments is here

# A trial's states in NNI before its end, and when the experiment was stopped under it.
WAITING, RUNNING = "WAITING", "RUNNING"
CUT_OFF = ("USER_CANCELED", "SYS_CANCELED")

CONFIG = {  # an experiment's, as NNI stores it
    "trialCommand": str, "experimentName?": str, "maxTrialNumber?": int, "experimentWorkingDirectory?": str,
    "tuner?": {"className?": str, "classArgs?": {"resumes?": str}}, "trainingService?": {},
}  # fmt: skip
PROPOSAL = {"parameters": {"*": (str, int, float, bool)}}  # of the tuner to a trial

RESUMES = "resumes"  # the tuner's argument that names the folder of the search it goes on with


@dataclass
class Trial:
    """One trial as NNI's database has it."""

    id: str
    number: int
    """0 for the first."""
    folder: Path
    state: str = WAITING
    place: str = ""
    """Where NNI runs it: file://HOST:FOLDER."""
    parameters: dict = field(default_factory=dict)
    reports: list[dict] = field(default_factory=list)
    """Intermediate results, first to last."""
    final: dict | None = None
    started: float | None = None
    """Seconds since the epoch."""
    ended: float | None = None

    @property
    def latest(self) -> dict | None:
        """The final result, or the last report before it."""
        return self.final or (self.reports[-1] if self.reports else None)

    @property
    def over(self) -> bool:
        """Whether it will report nothing more."""
        return self.state not in (WAITING, RUNNING)

    @property
    def settled(self) -> bool:
        """Whether it came to an end of its own."""
        return self.over and self.state not in CUT_OFF


@dataclass(frozen=True)
class Experiment:
    """One experiment on disk, running or not."""

    id: str
    folder: Path
    config: dict
    """NNI's, complete: camel-case keys as in the YAML."""

    @cached_property
    def earlier_trials(self) -> "list[Trial]":
        """The trials of the search that this one goes on with (`experiments.resumption`): it has ended."""
        arguments = (self.config.get("tuner") or {}).get("classArgs") or {}
        return find_experiment(arguments[RESUMES]).trials() if RESUMES in arguments else []

    @property
    def max_trials(self) -> int | None:
        """How many trials it is to have, those settled before among them; None where nobody said."""
        own = self.config.get("maxTrialNumber")
        return own and own + len(settled_trials(self.earlier_trials))

    def trials(self) -> list[Trial]:
        """All trials so far, in the order in which they were proposed; of a search that goes on with
        another those that were settled there come first, and its own are numbered after them.

        Raises:
            UserError: NNI's database cannot be read.
        """
        first = 1 + max((trial.number for trial in self.earlier_trials), default=-1)
        with _reading(self.folder):
            own = [replace(trial, number=first + trial.number, reports=[*trial.reports])
                   for trial in self._log.read_on()]
        return settled_trials(self.earlier_trials) + own

    @cached_property
    def _log(self) -> "DatabaseReader":
        return DatabaseReader(self.folder)


def settled_trials(trials: list[Trial]) -> list[Trial]:
    """Those that came to an end of their own."""
    return [trial for trial in trials if trial.settled]


# ---------------------------------------------------------------------------------------------
# Reading


def find_experiment(name: str) -> Experiment:
    """The experiment with this id, or in this folder.

    Raises:
        UserError: there is none.
    """
    folder = Path(name)
    if not _has_database(folder):
        place = _known().get(name, {}).get("logDir", ROOT / "runs")
        folder = Path(place) / name
    if not _has_database(folder):
        raise UserError(f"no experiment {name}: give the id that `run` printed, or its folder")
    with _reading(folder):
        ((params, id_),) = _query(
            folder, "select params, id from ExperimentProfile order by revision desc limit 1")
        config = json.loads(params)
        if not matches(config, CONFIG):
            raise ValueError("its experiment is none of ours")
        # NNI repeats the trial's command and more in the service, where it would win over a new one.
        service = config.get("trainingService", {})
        config["trainingService"] = {key: value for key, value in service.items() if key not in config}
        return Experiment(_named(id_), folder.resolve(), config)  # resolved: NNI links its latest


def _has_database(folder: Path) -> bool:
    return os.path.isfile(folder / "db" / "nni.sqlite")  # a path's own method fails on long names


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turns what a damaged or foreign database makes its reader fail with into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # foreign values fail in many ways, all with one meaning
        raise UserError(f"{folder / 'db'} cannot be read: {one_line(error)}") from None


def _named(id_: str) -> str:
    """An id of an experiment or a trial, which is to name a file."""
    if not re.fullmatch(r"\w+", id_):
        raise ValueError(f"{id_!r} is no id of NNI's")
    return id_


def _known() -> dict:
    """NNI's list of experiments by id; empty where it has none yet."""
    try:
        return json.loads((NNI_HOME / ".experiment").read_text())
    except (OSError, ValueError):
        return {}


def _query(folder: Path, sql: str, *values: int) -> list[tuple]:
    """Rows from the experiment's database, which NNI may be writing to."""
    database = (folder / "db" / "nni.sqlite").resolve().as_uri()  # a name may hold ?, # and %
    connection = sqlite3.connect(f"{database}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


class DatabaseReader:
    """The trials in an experiment's database, of which each look reads what is new."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._trials: dict[str, Trial] = {}
        self._events = self._metrics = 0  # the last rows read: NNI only ever adds some

    def read_on(self) -> list[Trial]:
        """All trials as they stand, in the order in which they were proposed."""
        sql = "select rowid, trialJobId, type, data from MetricData where rowid > ? order by rowid"
        metrics = _query(self._folder, sql, self._metrics)
        # After the metrics: then each of those belongs to a trial that is known.
        self._read_events()
        for row, id_, kind, data in metrics:
            if id_ not in self._trials:  # none of NNI's
                continue
            value = json.loads(json.loads(data))  # JSON in JSON
            value = value if isinstance(value, dict) else {"default": value}
            if not matches(value, {"default": NUMBER, "*": NUMBER}):
                raise ValueError(f"{data} is no score")
            if kind == "FINAL":
                self._trials[id_].final = value
            else:
                self._trials[id_].reports.append(value)
            self._metrics = row
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def _read_events(self) -> None:
        sql = ("select rowid, trialJobId, event, data, sequenceId, timestamp, logPath from TrialJobEvent "
               "where rowid > ? order by rowid")
        for row, id_, event, data, number, at, place in _query(self._folder, sql, self._events):
            trial = self._trials.setdefault(id_, Trial(_named(id_), number, self._folder / "trials" / id_))
            trial.state = event
            if event == WAITING:  # its data holds what the tuner proposed
                proposal = json.loads(data)
                if not matches(proposal, PROPOSAL):
                    raise ValueError(f"{data} is no proposal")
                trial.parameters = proposal["parameters"]
            elif event == RUNNING:
                trial.started, trial.place = at / 1000, place or ""
            else:
                trial.ended = at / 1000
            self._events = row
