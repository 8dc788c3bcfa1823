"""TODO"""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import requests
import yaml

from experiments.nni_adapter.database import ROOT, RUNNING, Experiment, Trial, _known, find_experiment
from judge.common.errors import UserError

PRELOAD = Path(__file__).with_name("preload.js")
# An experiment's states after which nothing more happens by itself.
FINISHED = ("DONE", "TUNER_NO_MORE_TRIAL")  # the latter: a grid is used up
ENDED = (*FINISHED, "ERROR", "STOPPED")

PORT_TAKEN = "is not idle"  # says NNI where another process has taken the port that was free


# ---------------------------------------------------------------------------------------------
# Starting and stopping


def write_config(file: Path, config: dict) -> Path:
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
            env=os.environ | {"NODE_OPTIONS": options, "PATH": path_with_python()},
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        output = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
        found = re.search(r"Experiment ID: (\w+)", output)
        if done.returncode == 0 and found:
            return _wait_until_stored(found[1]), port
        if PORT_TAKEN not in output:
            break
    raise UserError(f"NNI did not start: {(output.strip().splitlines() or ['no output'])[-1]}")


def _wait_until_stored(id_: str, seconds: float = 60) -> Experiment:
    """A new experiment, once NNI has written it to its database: nnictl does not wait for that.

    Raises:
        UserError: it never came; NNI is stopped.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return find_experiment(id_)
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


def last_error(experiment: Experiment) -> str:
    """The last error in NNI's own logs, which its status does not tell."""
    for name in ("dispatcher.log", "nnimanager.log"):
        file = experiment.folder / "log" / name
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        errors = [line for line in lines if "] ERROR" in line or re.match(r"\w*(Error|Exception):", line)]
        if errors:
            return f"{errors[-1]} ({file})"
    return f"see {experiment.folder / 'log'}"


def dead_runner(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Where, on another machine, NNI's runner has died under a trial: NNI's log says so, but the trial
    stays RUNNING, and it would wait for it for ever."""
    log = experiment.folder / "log" / "nnimanager.log"
    places = {trial.place.removeprefix("file://") for trial in trials if trial.state == RUNNING}
    remote = [place for place in places if "/envs/" in place]
    said = log.read_text(errors="replace") if remote else ""
    return next((place for place in remote if f"pid in {place}/pid is not alive" in said), None)


def nnictl() -> list[str]:
    """NNI's command, for whoever is in the repo."""
    return [sys.executable, "-m", "experiments.nni_adapter.nnictl"]


def path_with_python() -> str:
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
