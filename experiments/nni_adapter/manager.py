"""Start, ask and stop NNI's manager, a node process whose children are the tuner and the trials."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import requests
import yaml

from experiments.nni_adapter import database
from experiments.nni_adapter.database import ROOT, RUNNING, Experiment, Trial
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write

PRELOAD = Path(__file__).with_name("preload.js")
NNICTL = [sys.executable, "-m", "experiments.nni_adapter.nnictl"]
FINISHED = ("DONE", "TUNER_NO_MORE_TRIAL")  # states; the latter: the tuner's list is used up
PORT_TAKEN = "is not idle"  # in NNI's message (nni/experiment/launcher.py:185)


def write_config(file: Path, config: dict) -> Path:
    """Write NNI's configuration `config` as the experiment file `file`, and return `file`."""
    with as_user_error(file.parent):
        atomic_write(file, lambda part: part.write_text(yaml.safe_dump(config, sort_keys=False)))
    return file


def search_path() -> str:
    """Return PATH for trials, this environment first: `python` is then the Python that runs this."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def create(file: Path, prepare: Callable[[int], None] = lambda port: None,
           variables: Mapping[str, str] = MappingProxyType({})) -> tuple[Experiment, int]:
    """Start an experiment on loopback, with `prepare(port)` before each attempt; return it with its port.

    NNI and its trials get the environment `variables` in addition to those of this process.
    """
    preload = f"{os.environ.get('NODE_OPTIONS', '')} --require {PRELOAD}".strip()
    environment = os.environ | {"NODE_OPTIONS": preload, "PATH": search_path(), **variables}
    for _ in range(3):
        port = free_port()
        prepare(port)
        result = subprocess.run(
            [*NNICTL, "create", "--config", str(file.resolve()), "--port", str(port)], cwd=ROOT,
            env=environment, capture_output=True, text=True)
        output = re.sub(r"\x1b\[\d*m", "", result.stdout + result.stderr)
        id_ = re.search(r"Experiment ID: (\w+)", output)
        if result.returncode == 0 and id_:
            return _wait_until_stored(id_[1]), port
        if PORT_TAKEN not in output:
            break
    raise UserError(f"NNI did not start: {(output.strip().splitlines() or ['no output'])[-1]}")


def _wait_until_stored(id_: str) -> Experiment:
    """Return a new experiment once it is in NNI's database; nnictl does not wait for that."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return database.find_experiment(id_)
        except UserError:
            if time.monotonic() > deadline:
                stop(id_)
                raise
            time.sleep(0.5)


def stop(id_: str) -> None:
    """End the experiment: its manager, its tuner and its running trials."""
    subprocess.run([*NNICTL, "stop", id_], capture_output=True, cwd=ROOT)


def status(port: int) -> str:
    """Return the experiment's state, for example RUNNING or DONE; STOPPED if nothing listens at `port`."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/nni/check-status", timeout=30)
        return answer.json()["status"]
    except requests.Timeout:  # busy, not gone
        return "RUNNING"
    except (requests.RequestException, ValueError, KeyError):
        return "STOPPED"


def port_of(experiment: Experiment) -> int | None:
    """Return the port of NNI's manager that runs this experiment; None if none does.

    By now the port that NNI's list has may be another experiment's.
    """
    port = database.known_experiments().get(experiment.id, {}).get("port")
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/nni/experiment", timeout=10)
        return port if answer.json()["id"] == experiment.id else None
    except (requests.RequestException, ValueError, KeyError):
        return None


def is_running(experiment: Experiment) -> bool:
    """Return whether NNI's manager runs this experiment."""
    return port_of(experiment) is not None


def cancel_trial(experiment: Experiment, id_: str) -> None:
    """End a trial, as NNI's web UI does. Raises UserError if the experiment or the trial does not run."""
    if (port := port_of(experiment)) is None:
        raise UserError(f"experiment {experiment.id} is not running any more")
    try:
        requests.delete(f"http://127.0.0.1:{port}/api/v1/nni/trial-jobs/{id_}", timeout=30).raise_for_status()
    except requests.RequestException:
        raise UserError(f"NNI cannot stop trial {id_}: perhaps it has just ended") from None


def last_error(experiment: Experiment) -> str:
    """Return the last error in NNI's logs; the experiment's state says only ERROR."""
    for name in ("dispatcher.log", "nnimanager.log"):
        file = experiment.folder / "log" / name
        text = file.read_text(errors="replace") if file.is_file() else ""
        if errors := re.findall(r"^.*\] ERROR.*$|^\w*(?:Error|Exception):.*$", text, re.MULTILINE):
            return f"{errors[-1]} ({file})"
    return f"see {experiment.folder / 'log'}"


def dead_runner(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Return where, on another machine, NNI's runner has died during a trial, or None.

    NNI only logs it (reusable/environments/remoteEnvironmentService.js:135): the trial stays RUNNING.
    """
    places = {trial.place.removeprefix("file://") for trial in trials if trial.state == RUNNING}
    places = [place for place in places if "/envs/" in place]  # on other machines
    log = experiment.folder / "log" / "nnimanager.log"
    text = log.read_text(errors="replace") if places else ""
    return next((place for place in places if f"pid in {place}/pid is not alive" in text), None)


def free_port() -> int:
    """Return a port on loopback such that nothing listens on it or on the next one.

    NNI uses the next port for its runners on other machines; if it is taken, NNI logs that and waits forever.
    Both are below the ports that systems give to outgoing connections, which could take one before NNI does.
    """
    while True:
        port = 10_000 + 2 * secrets.randbelow(10_000)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
