"""NNI 2.10.1 from outside: starting and stopping it, and reading what it stores.

Only this file knows NNI's commands, folders and tables (`experiments.tuner` is its tuner's child, and
`experiments.check` reads an experiment file as NNI does). What NNI itself must do otherwise is in
`experiments.nnictl`, its command, and in `preload.js`, its manager.
"""

import json
import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import requests
import yaml

from judge.command import UserError, one_line
from trials.forms import CONFIG, NUMBER, PROPOSAL, fits

ROOT = Path(__file__).parent.parent  # of the repo: where the experiments' commands run
PRELOAD = Path(__file__).with_name("preload.js")
HOME = Path.home() / "nni-experiments"  # NNI's own: its list of experiments is here

# A trial's states in NNI before its end, and when the experiment was stopped under it.
WAITING, RUNNING = "WAITING", "RUNNING"
CUT_OFF = ("USER_CANCELED", "SYS_CANCELED")
# An experiment's states after which nothing more happens by itself.
FINISHED = ("DONE", "TUNER_NO_MORE_TRIAL")  # the latter: a grid is used up
OVER = (*FINISHED, "ERROR", "STOPPED")

TAKEN = "is not idle"  # says NNI where another process has taken the port that was free

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
    def before(self) -> "list[Trial]":
        """The trials of the search that this one goes on with (`experiments.resumption`): it has ended."""
        arguments = (self.config.get("tuner") or {}).get("classArgs") or {}
        return find(arguments[RESUMES]).trials() if RESUMES in arguments else []

    @property
    def most(self) -> int | None:
        """How many trials it is to have, those settled before among them; None where nobody said."""
        own = self.config.get("maxTrialNumber")
        return own and own + len(settled(self.before))

    def trials(self) -> list[Trial]:
        """All trials so far, in the order in which they were proposed; of a search that goes on with
        another those that were settled there come first, and its own are numbered after them.

        Raises:
            UserError: NNI's database cannot be read.
        """
        first = 1 + max((trial.number for trial in self.before), default=-1)
        with _reading(self.folder):
            own = [replace(trial, number=first + trial.number, reports=[*trial.reports])
                   for trial in self._log.read_on()]
        return settled(self.before) + own

    @cached_property
    def _log(self) -> "Log":
        return Log(self.folder)


def settled(trials: list[Trial]) -> list[Trial]:
    """Those that came to an end of their own."""
    return [trial for trial in trials if trial.settled]


# ---------------------------------------------------------------------------------------------
# Reading


def find(name: str) -> Experiment:
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
        if not fits(config, CONFIG):
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
        return json.loads((HOME / ".experiment").read_text())
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


class Log:
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
            if not fits(value, {"default": NUMBER, "*": NUMBER}):
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
                if not fits(proposal, PROPOSAL):
                    raise ValueError(f"{data} is no proposal")
                trial.parameters = proposal["parameters"]
            elif event == RUNNING:
                trial.started, trial.place = at / 1000, place or ""
            else:
                trial.ended = at / 1000
            self._events = row


# ---------------------------------------------------------------------------------------------
# Starting and stopping


def write(file: Path, config: dict) -> Path:
    """An experiment file of NNI's configuration.

    Raises:
        UserError: it cannot be written.
    """
    part = file.with_name(f"{file.name}.part")  # not `records.atomically`: the tuner's process has no torch
    try:
        part.write_text(yaml.safe_dump(config, sort_keys=False))
        part.replace(file)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            part.unlink()
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    return file


def create(file: Path, prepare: Callable[[int], None] = lambda port: None) -> tuple[Experiment, int]:
    """Start the experiment that `file` describes, on loopback; returns it and its port.

    Args:
        prepare: called with the port before each attempt to start there.

    Raises:
        UserError: NNI refuses it, with NNI's reason; or as `prepare`.
    """
    options = f"{os.environ.get('NODE_OPTIONS', '')} --require {PRELOAD}".strip()
    for _ in range(3):
        port = free_port()
        prepare(port)
        done = subprocess.run(
            [*nnictl(), "create", "--config", str(file.resolve()), "--port", str(port)],
            env=os.environ | {"NODE_OPTIONS": options, "PATH": path()},
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        output = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
        found = re.search(r"Experiment ID: (\w+)", output)
        if done.returncode == 0 and found:
            return _stored(found[1]), port
        if TAKEN not in output:
            break
    raise UserError(f"NNI did not start: {(output.strip().splitlines() or ['no output'])[-1]}")


def _stored(id_: str, seconds: float = 60) -> Experiment:
    """A new experiment, once NNI has written it to its database: nnictl does not wait for that.

    Raises:
        UserError: it never came; NNI is stopped.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return find(id_)
        except UserError:
            if time.monotonic() > end:
                stop(id_)
                raise
            time.sleep(0.5)


def stop(id_: str) -> None:
    """End the experiment: its manager, its tuner and its running trials."""
    subprocess.run([*nnictl(), "stop", id_], capture_output=True, cwd=ROOT)


def status(port: int) -> str:
    """The experiment's state, for example RUNNING, DONE, ERROR; STOPPED where nothing listens."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/nni/check-status", timeout=30)
        return answer.json()["status"]
    except requests.Timeout:  # busy, not gone
        return "RUNNING"
    except (requests.RequestException, ValueError, KeyError):
        return "STOPPED"


def is_running(experiment: Experiment) -> bool:
    """Whether NNI is at work on it: at its port, which another may have since, it answers for it."""
    port = _known().get(experiment.id, {}).get("port")
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/nni/experiment", timeout=10)
        return answer.json()["id"] == experiment.id
    except (requests.RequestException, ValueError, KeyError):
        return False


def complaint(experiment: Experiment) -> str:
    """The last error in NNI's own logs, which its status does not tell."""
    for name in ("dispatcher.log", "nnimanager.log"):
        file = experiment.folder / "log" / name
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        errors = [line for line in lines if "] ERROR" in line or re.match(r"\w*(Error|Exception):", line)]
        if errors:
            return f"{errors[-1]} ({file})"
    return f"see {experiment.folder / 'log'}"


def abandoned(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Where, on another machine, NNI's runner has died under a trial: NNI's log says so, but the trial
    stays RUNNING, and it would wait for it for ever."""
    log = experiment.folder / "log" / "nnimanager.log"
    places = {trial.place.removeprefix("file://") for trial in trials if trial.state == RUNNING}
    remote = [place for place in places if "/envs/" in place]
    said = log.read_text(errors="replace") if remote else ""
    return next((place for place in remote if f"pid in {place}/pid is not alive" in said), None)


def nnictl() -> list[str]:
    """NNI's command, for whoever is in the repo."""
    return [sys.executable, "-m", "experiments.nnictl"]


def path() -> str:
    """PATH with this environment first: `python` in a trial command is the one that runs this."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def free_port() -> int:
    """A port on loopback that nothing listens on now, nor on the next: there NNI listens for its runners on
    other machines, and where it cannot it says so in its log and waits. Below those that systems lend to
    connections: such a one could take either before NNI has started."""
    while True:
        port = 10_000 + 2 * secrets.randbelow(10_000)
        with socket.socket() as own, socket.socket() as following, suppress(OSError):
            own.bind(("127.0.0.1", port))
            following.bind(("127.0.0.1", port + 1))
            return port
