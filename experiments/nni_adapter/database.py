"""Read NNI's SQLite database of an experiment (tables in nni_node/core/sqlDatabase.js)."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from judge.common.constants import ROOT as ROOT  # callers say database.ROOT
from judge.common.errors import UserError, one_line
from judge.common.schema import NUMBER, matches

RUNS = ROOT / "runs"  # the shipped files put experiments here
NNI_HOME = Path.home() / "nni-experiments"  # NNI's list of experiments is here
LATEST = "latest"  # in place of an id: the experiment that was started last

WAITING, RUNNING = "WAITING", "RUNNING"  # states of a trial before its end
FAILED = "FAILED"  # state of a trial whose program ended with an error
CANCELED = ("USER_CANCELED", "SYS_CANCELED")  # states of a trial that was ended with its experiment
# Events that are no states, and what NNI makes of them (core/nniDataStore.js:236). The former may be stored
# after the trial's end.
EVENT_STATES = {"USER_TO_CANCEL": "USER_CANCELED", "ADD_CUSTOMIZED": WAITING}
RESUMES = "resumes"  # the tuner's argument with the folder of the search that is resumed
LISTED_TUNER = "experiments.tuner.Listed"  # proposes a fixed list of settings: the tuner of confirmations

CONFIG = {  # form of an experiment's configuration
    "trialCommand": str, "experimentName?": str, "maxTrialNumber?": int, "trialConcurrency?": int,
    "experimentWorkingDirectory?": str, "trialCodeDirectory?": str,
    "tuner?": {"className?": str, "classArgs?": {"resumes?": str}}, "trainingService?": {},
}  # fmt: skip
PROPOSAL = {"parameters": {"*": (str, int, float, bool)}}  # form of what the tuner proposes for a trial
NNI_LIST = {"*": {"logDir?": str, "port?": int, "pid?": int}}  # form of NNI's list


@dataclass
class Trial:
    """One trial in NNI's database."""

    id: str
    number: int  # 0 for the first
    folder: Path
    state: str = WAITING
    place: str = ""  # where NNI runs it: file://HOST:FOLDER
    parameters: dict = field(default_factory=dict)
    reports: list[dict] = field(default_factory=list)  # intermediate results, first to last
    final: dict | None = None
    started: float | None = None  # seconds since the epoch
    ended: float | None = None

    @property
    def latest(self) -> dict | None:
        """The final result, or the last report before it."""
        return self.final or (self.reports[-1] if self.reports else None)

    @property
    def over(self) -> bool:
        """True after the trial's end, whatever the reason."""
        return self.state not in (WAITING, RUNNING)

    @property
    def settled(self) -> bool:
        """True if the trial ended, and neither failed nor was stopped by the user or with the experiment."""
        return self.over and self.state not in (FAILED, *CANCELED)


@dataclass(eq=False)
class Experiment:
    """One experiment on disk, running or not."""

    id: str
    folder: Path
    config: dict  # NNI's, complete, with the YAML's camel-case keys
    started: float = 0.0  # seconds since the epoch
    _trials: dict[str, Trial] = field(default_factory=dict)
    _last_event: int = 0  # ids of the last rows that were read
    _last_metric: int = 0

    @property
    def name(self) -> str:
        """The name in its experiment file; `run` may have added data, size and judge after a bar."""
        return (self.config.get("experimentName") or "").split(" | ")[0]

    @property
    def tuner_arguments(self) -> dict:
        """The arguments of its tuner."""
        return (self.config.get("tuner") or {}).get("classArgs") or {}

    @cached_property
    def earlier_trials(self) -> list[Trial]:
        """All trials of the search that this one resumes; it has ended."""
        resumed = self.tuner_arguments.get(RESUMES)
        return find_experiment(resumed).trials() if resumed else []

    @property
    def max_trials(self) -> int | None:
        """Number of trials asked for, with the settled ones of the resumed search; None means no limit."""
        limit = self.config.get("maxTrialNumber")
        return limit and limit + len(settled_trials(self.earlier_trials))

    def trials(self) -> list[Trial]:
        """Return all trials so far, in the order in which they were proposed.

        The settled trials of the search that this one resumes come first; numbers go on after them.
        """
        with error_prefix(f"{self.folder / 'db'} cannot be read"):
            self._read_new_rows()
        first = 1 + max((trial.number for trial in self.earlier_trials), default=-1)
        return settled_trials(self.earlier_trials) + [
            replace(trial, number=first + trial.number, reports=[*trial.reports])
            for trial in sorted(self._trials.values(), key=lambda trial: trial.number)]

    def _read_new_rows(self) -> None:
        sql = "select rowid, trialJobId, {} from {} where rowid > {} order by rowid"
        metrics = _query(self.folder, sql.format("type, data", "MetricData", self._last_metric))
        # The events after the metrics, so that the trial of each metric is known.
        columns = "event, data, sequenceId, timestamp, logPath"
        events = _query(self.folder, sql.format(columns, "TrialJobEvent", self._last_event))
        for row, id_, event, data, number, time, place in events:
            if id_ not in self._trials:
                self._trials[id_] = Trial(_checked_id(id_), number, self.folder / "trials" / id_)
            trial = self._trials[id_]
            trial.state = EVENT_STATES.get(event, event)
            if event == WAITING:
                proposal = json.loads(data)
                if not matches(proposal, PROPOSAL):
                    raise ValueError(f"{data} is not a proposal of a tuner")
                trial.parameters = proposal["parameters"]
            elif event == RUNNING:
                trial.started, trial.place = time / 1000, place or ""
            elif trial.over:
                trial.ended = time / 1000
            self._last_event = row
        for row, id_, kind, data in metrics:
            if id_ not in self._trials:  # not written by NNI
                continue
            value = json.loads(json.loads(data))  # NNI stores JSON in JSON
            value = value if isinstance(value, dict) else {"default": value}
            if not matches(value, {"default": NUMBER, "*": NUMBER}):
                raise ValueError(f"{data} is not a score")
            if kind == "FINAL":
                self._trials[id_].final = value
            else:
                self._trials[id_].reports.append(value)
            self._last_metric = row


def settled_trials(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.settled]


def find_experiment(name: str) -> Experiment:
    """Return the experiment with this id, in this folder or of this name; `latest` is the one started last.

    Raises UserError if there is none, or if several have this name.
    """
    for folder in (Path(name), RUNS / name, _folder_of(name, known_experiments())):
        if _has_database(folder):
            return _read(folder)
    newest_first = all_experiments()
    if name == LATEST and newest_first:
        return newest_first[0]
    namesakes = [each for each in newest_first if each.name.casefold() == name.casefold() != ""]
    if len(namesakes) > 1:
        raise UserError(f"{len(namesakes)} experiments are called {name}: give an id, "
                        f"{', '.join(each.id for each in namesakes)} (the newest first)")
    if namesakes:
        return namesakes[0]
    known = dict.fromkeys(word for each in newest_first for word in (each.id, each.name) if word)
    close = " or ".join(get_close_matches(name, known))
    close = f"is it {close}? " if close else ""
    raise UserError(f"no experiment {name}: {close}give an id, a name or a folder, see python -m "
                    "experiments list")


def is_confirmation(experiment: Experiment) -> bool:
    """Return True if `experiment` is a confirmation, not a search."""
    return (experiment.config.get("tuner") or {}).get("className") == LISTED_TUNER


def search_of(experiment: Experiment) -> str | None:
    """Return the ID of the search that `experiment` confirms; None if it is not a confirmation."""
    return experiment.tuner_arguments.get("search") if is_confirmation(experiment) else None


def find_trial(experiment: Experiment, name: str) -> Trial:
    """Return the trial of this number or id. Raises UserError if there is none."""
    trials = experiment.trials()
    for trial in trials:
        if name in (trial.id, str(trial.number)):
            return trial
    known = ", ".join(f"{trial.number} {trial.id}" for trial in trials) or "none yet"
    raise UserError(f"experiment {experiment.id} has no trial {name}; there are {known}")


def all_experiments(damaged: Callable[[str], None] = lambda line: None) -> list[Experiment]:
    """Return the experiments below runs/ and in NNI's list, the one started last first.

    `damaged` gets a line on each that cannot be read.
    """
    listed = known_experiments()
    folders = [*RUNS.glob("*"), *(_folder_of(id_, listed) for id_ in listed)]
    found = []
    for folder in dict.fromkeys(folder.resolve() for folder in folders if _has_database(folder)):
        try:
            found.append(_read(folder))
        except UserError as error:
            damaged(str(error))
    return sorted(found, key=lambda experiment: experiment.started, reverse=True)


def _folder_of(id_: str, listed: dict[str, dict]) -> Path:
    """Return the folder of the experiment with this id by NNI's list, or below runs/. It need not exist."""
    return Path(listed.get(id_, {}).get("logDir") or RUNS) / id_


def _read(folder: Path) -> Experiment:
    """Return the experiment in this folder. Raises UserError if its database cannot be read."""
    with error_prefix(f"{folder / 'db'} cannot be read"):  # wrong values raise many kinds of errors
        ((params, id_, started),) = _query(
            folder, "select params, id, startTime from ExperimentProfile order by revision desc limit 1")
        config, folder = json.loads(params), folder.resolve()  # NNI's folder _latest is a link
        if not matches(config, CONFIG):
            raise ValueError("it is not an experiment of this program")
        return Experiment(_checked_id(id_), folder, moved(without_repeats(config), folder), started / 1000)


def moved(config: dict, folder: Path) -> dict:
    """Return the configuration of an experiment that is in `folder` now.

    If it was started elsewhere, its working directory is the one where it is now, and paths below the code
    directory of then are those of this repository. Relative paths, which are relative to the code directory,
    and paths elsewhere stay.
    """
    old, code = config.get("experimentWorkingDirectory"), config.get("trialCodeDirectory")
    if old is None or Path(old) == folder.parent:
        return config
    now = {json.dumps(path)[1:-1]: json.dumps(str(place))[1:-1]
           for path, place in ((old, folder.parent), (code, ROOT.resolve())) if path}
    paths = "|".join(map(re.escape, sorted(now, key=len, reverse=True)))  # one is below the other, perhaps
    return json.loads(re.sub(rf"(?<![\w./~-])({paths})(?![\w.~-])", lambda match: now[match[0]],
                             json.dumps(config)))


def without_repeats(config: dict) -> dict:
    """Return NNI's configuration without what it repeats in trainingService: trialCommand and others, which
    would override new ones there."""
    service = config.get("trainingService", {})
    return config | {"trainingService": {key: value for key, value in service.items() if key not in config}}


def known_experiments() -> dict[str, dict]:
    """Return NNI's list of experiments, by id; an empty one if it cannot be read."""
    try:
        listed = json.loads((NNI_HOME / ".experiment").read_text())
    except (OSError, ValueError):
        return {}
    return listed if matches(listed, NNI_LIST) else {}


def check_file(file: Path) -> None:
    """Raise UserError if there is no such experiment file."""
    if not file.is_file():
        raise UserError(f"no experiment file {file}")


@contextmanager
def error_prefix(prefix: str, kinds: type | tuple[type, ...] = Exception) -> Iterator[None]:
    """Turn errors of these kinds into a UserError of one line that begins with `prefix`."""
    try:
        yield
    except kinds as error:
        raise UserError(f"{prefix}: {one_line(error) or type(error).__name__}") from None


def _has_database(folder: Path) -> bool:
    return os.path.isfile(folder / "db" / "nni.sqlite")  # Path.is_file raises for long names


def _checked_id(id_: str) -> str:
    """Return the id of an experiment or trial, which becomes part of file names."""
    if not re.fullmatch(r"\w+", id_):
        raise ValueError(f"{id_!r} is not an id of NNI's")
    return id_


def _query(folder: Path, sql: str, *values: int) -> list[tuple]:
    """Return rows of the experiment's database, which NNI may be writing to."""
    database = (folder / "db" / "nni.sqlite").resolve().as_uri()  # escapes ?, # and % in the name
    with closing(sqlite3.connect(f"{database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql, values).fetchall()
