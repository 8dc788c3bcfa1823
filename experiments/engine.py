"""NNI 2.10.1 from outside: starting and stopping it, and reading what it stores.

Only this file knows NNI's commands, folders and tables (`experiments.tuner` is its tuner's child, and
`experiments.check` reads an experiment file as NNI does).
"""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from judge.command import UserError

ROOT = Path(__file__).parent.parent  # of the repo: where the experiments' commands run
LOOPBACK = Path(__file__).with_name("loopback.js")
HOME = Path.home() / "nni-experiments"  # NNI's own: its list of experiments is here

# A trial's states in NNI before its end, and when the experiment was stopped under it.
WAITING, RUNNING = "WAITING", "RUNNING"
CUT_OFF = ("USER_CANCELED", "SYS_CANCELED")
# An experiment's states after which nothing more happens by itself.
FINISHED = ("DONE", "TUNER_NO_MORE_TRIAL")  # the latter: a grid is used up
OVER = (*FINISHED, "ERROR", "STOPPED")

RESUMES = "resumes"  # the tuner's argument that names the folder of the search it goes on with


@dataclass
class Trial:
    """One trial as NNI's database has it."""

    id: str
    number: int
    """0 for the first."""
    folder: Path
    state: str = WAITING
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

    @property
    def resumed(self) -> "Experiment | None":
        """The search that this one goes on with (`experiments.resumption`)."""
        arguments = (self.config.get("tuner") or {}).get("classArgs") or {}
        return find(arguments[RESUMES]) if RESUMES in arguments else None

    @property
    def most(self) -> int | None:
        """How many trials it is to have, those settled before among them; None where nobody said."""
        own = self.config.get("maxTrialNumber")
        return own if own is None or not self.resumed else own + len(self.resumed.settled())

    def trials(self) -> list[Trial]:
        """All trials so far, in the order in which they were proposed; of a search that goes on with
        another those that were settled there come first, and its own are numbered after them."""
        earlier = self.resumed.trials() if self.resumed else []
        first = 1 + max((trial.number for trial in earlier), default=-1)
        own = [replace(trial, number=first + trial.number) for trial in _trials(self.folder)]
        return [trial for trial in earlier if trial.settled] + own

    def settled(self) -> list[Trial]:
        """The trials that came to an end of their own."""
        return [trial for trial in self.trials() if trial.settled]


# ---------------------------------------------------------------------------------------------
# Reading


def find(name: str) -> Experiment:
    """The experiment with this id, or in this folder.

    Raises:
        UserError: there is none.
    """
    folder = Path(name)
    if not (folder / "db" / "nni.sqlite").is_file():
        place = _known().get(name, {}).get("logDir", ROOT / "runs")
        folder = Path(place) / name
    if not (folder / "db" / "nni.sqlite").is_file():
        raise UserError(f"no experiment {name}: give the id that `run` printed, or its folder")
    try:
        ((params, id_),) = _query(
            folder, "select params, id from ExperimentProfile order by revision desc limit 1")
    except (sqlite3.Error, ValueError) as error:
        raise UserError(f"{folder / 'db'} cannot be read: {error}") from None
    config = json.loads(params)
    # NNI repeats the trial's command and more in the service, where it would win over a new one.
    service = config.get("trainingService", {})
    config["trainingService"] = {key: value for key, value in service.items() if key not in config}
    return Experiment(id_, folder.resolve(), config)  # resolved: NNI links its latest


def _known() -> dict:
    """NNI's list of experiments by id; empty where it has none yet."""
    try:
        return json.loads((HOME / ".experiment").read_text())
    except (OSError, ValueError):
        return {}


def _query(folder: Path, sql: str) -> list[tuple]:
    """Rows from the experiment's database, which NNI may be writing to."""
    database = folder / "db" / "nni.sqlite"
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _trials(folder: Path) -> list[Trial]:
    trials: dict[str, Trial] = {}
    events = "select trialJobId, event, data, sequenceId, timestamp from TrialJobEvent order by rowid"
    for id_, event, data, number, at in _query(folder, events):
        trial = trials.setdefault(id_, Trial(id_, number, folder / "trials" / id_))
        trial.state = event
        if event == WAITING:  # its data holds what the tuner proposed
            trial.parameters = json.loads(data)["parameters"]
        elif event == RUNNING:
            trial.started = at / 1000
        else:
            trial.ended = at / 1000
    for id_, kind, data in _query(folder, "select trialJobId, type, data from MetricData order by rowid"):
        if id_ in trials:
            value = json.loads(json.loads(data))  # JSON in JSON
            value = value if isinstance(value, dict) else {"default": value}
            if kind == "FINAL":
                trials[id_].final = value
            else:
                trials[id_].reports.append(value)
    return sorted(trials.values(), key=lambda trial: trial.number)


# ---------------------------------------------------------------------------------------------
# Starting and stopping


def create(file: Path) -> tuple[Experiment, int]:
    """Start the experiment that `file` describes, on loopback; returns it and its port.

    Raises:
        UserError: NNI refuses it, with NNI's reason.
    """
    options = f"{os.environ.get('NODE_OPTIONS', '')} --require {LOOPBACK}".strip()
    for attempt in range(3):  # on a loaded machine NNI gives its own server too little time
        port = free_port()
        done = subprocess.run(
            [*nnictl(), "create", "--config", str(file.resolve()), "--port", str(port)],
            env=os.environ | {"NODE_OPTIONS": options, "PATH": path()},
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        output = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
        found = re.search(r"Experiment ID: (\w+)", output)
        if done.returncode == 0 and found:
            return _stored(found[1]), port
        if "Timeout" not in output:
            break
        time.sleep(5 * attempt)
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
        errors = [line for line in lines if "ERROR" in line or re.match(r"\w*(Error|Exception):", line)]
        if errors:
            return f"{errors[-1]} ({file})"
    return f"see {experiment.folder / 'log'}"


def nnictl() -> list[str]:
    """The command of the environment that runs this, activated or not."""
    return [str(Path(sys.executable).with_name("nnictl"))]


def path() -> str:
    """PATH with this environment first: `python` in a trial command is the one that runs this."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
