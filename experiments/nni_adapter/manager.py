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

import psutil
import requests
import yaml

from experiments.nni_adapter import database
from experiments.nni_adapter.database import ROOT, RUNNING, Experiment, Trial
from experiments.nni_adapter.processes import with_variable, with_word
from judge.common.children import bound
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write, last_line_of

PRELOAD = Path(__file__).with_name("preload.js")
NNICTL = [sys.executable, "-m", "experiments.nni_adapter.nnictl"]
FINISHED = ("DONE", "TUNER_NO_MORE_TRIAL")  # states; the latter: the tuner's list is used up
PORT_TAKEN = "is not idle"  # in NNI's message (nni/experiment/launcher.py:185)
STOP_TIMEOUT = 120.0  # seconds for a soft end: NNI's manager may take 60, and its trials some after that
KILL_TIMEOUT = 5.0  # seconds until killed processes are gone
MANAGER, TUNER = "--experiment-id", "--exp_params"  # words in the commands of NNI's manager and dispatcher
TUNER_ERROR = "Dispatcher stream error, tuner may have crashed."  # of NNI (core/nnimanager.js:588)
TRACEBACK_END = re.compile(r"^[\w.]+(?:: .*)?$", re.MULTILINE)  # the line with the error
# Variables of the environment of all processes of an experiment: its id, and the process that started it.
EXPERIMENT, STARTER = "SALON_EXPERIMENT", "SALON_STARTER"


def write_config(file: Path, config: dict) -> Path:
    """Write NNI's configuration `config` as the experiment file `file`, and return `file`."""
    with as_user_error(file.parent):
        atomic_write(file, lambda part: part.write_text(yaml.safe_dump(config, sort_keys=False)))
    return file


def search_path() -> str:
    """Return PATH for trials, this environment first: `python` is then the Python that runs this."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def new_id() -> str:
    """Return an id for an experiment."""
    return secrets.token_hex(4)


def create(file: Path, id_: str, prepare: Callable[[int], None] = lambda port: None,
           variables: Mapping[str, str] = MappingProxyType({})) -> tuple[Experiment, int]:  # fmt: skip
    """Start an experiment on loopback, with `prepare(port)` before each attempt; return it with its port.

    NNI and its trials get the environment `variables` in addition to those of this process, and end with it.
    Whatever is raised, `stop` ends what has been started until then.
    """
    preload = f"{os.environ.get('NODE_OPTIONS', '')} --require {PRELOAD}".strip()
    environment = os.environ | {"NODE_OPTIONS": preload, "PATH": search_path(), EXPERIMENT: id_,
                                STARTER: str(os.getpid()), **variables}
    for _ in range(3):
        port = free_port()
        prepare(port)
        result = subprocess.run(
            bound([*NNICTL, "create", "--config", file.resolve(), "--port", port]), cwd=ROOT,
            env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            start_new_session=True)  # Ctrl-C reaches us only
        if result.returncode == 0:
            return _wait_until_stored(id_), port
        output = re.sub(r"\x1b\[\d*m", "", result.stdout + result.stderr)
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
                raise
            time.sleep(0.5)


def stop(id_: str, hurry: Callable[[], bool] = lambda: False) -> None:
    """End all processes of an experiment that `create` started, and print a line if some live on.

    NNI's manager ends its tuner and its trials, which save their checkpoints. What it leaves, because it was
    killed, is ended too; only trials notice that by themselves (`trials.session.engine`). All are killed
    after `STOP_TIMEOUT`, or as soon as `hurry()` is true.
    """
    deadline, asked = time.monotonic() + STOP_TIMEOUT, set()
    while (left := with_variable(EXPERIMENT, id_)) and time.monotonic() < deadline and not hurry():
        ending = with_word(left, MANAGER) or [process for process in left if not is_trial(process)]
        for process in set(ending) - asked:
            with suppress(psutil.Error):
                process.terminate()
        asked.update(ending)
        time.sleep(0.2)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, KILL_TIMEOUT)
    if left := with_variable(EXPERIMENT, id_):
        pids = " ".join(str(process.pid) for process in left)
        print(f"experiment {id_}: processes are still running, end them by kill -9 {pids}", file=sys.stderr)


def is_trial(process: psutil.Process) -> bool:
    """Return whether a process of an experiment is a trial, or a shell with NNI's script that starts it."""
    with suppress(psutil.Error):
        return "NNI_TRIAL_JOB_ID" in process.environ() or "/run.sh" in " ".join(process.cmdline())
    return True  # it has ended


def status(port: int) -> tuple[str, list[str]]:
    """Return the experiment's state, for example RUNNING or DONE, and NNI's errors so far.

    The state is STOPPED if nothing listens at `port`.
    """
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/nni/check-status", timeout=30).json()
        return answer["status"], answer["errors"]
    except requests.Timeout:  # busy, not gone
        return "RUNNING", []
    except (requests.RequestException, ValueError, KeyError):
        return "STOPPED", []


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


def ended_tensorboards(port: int) -> dict[str, str]:
    """Return, by id, the addresses of those TensorBoards of NNI's web UI that have ended by themselves."""
    url = f"http://127.0.0.1:{port}/api/v1/nni"
    try:
        tasks = requests.get(f"{url}/tensorboard-tasks", timeout=30).json()
        asked = [requests.get(f"{url}/tensorboard/{task['id']}", timeout=30).json() for task in tasks]
        return {task["id"]: f"http://127.0.0.1:{task['port']}" for task in asked if task["status"] == "ERROR"}
    except (requests.RequestException, ValueError, KeyError, TypeError):  # `status` reports it
        return {}


def what_ended(experiment: Experiment, errors: list[str]) -> str:
    """Return which of NNI's processes has ended or failed, with the last line of its log, and the log."""
    logs = experiment.folder / "log"
    manager_log, tuner_log = logs / "nnimanager.log", logs / "dispatcher.log"
    if TUNER_ERROR in errors or (not with_word(with_variable(EXPERIMENT, experiment.id), TUNER)
                                 and not has_line(tuner_log, "Connection lost")):  # to the manager
        raised = TRACEBACK_END.findall(tuner_log.read_text(errors="replace")) if tuner_log.is_file() else []
        last = raised[-1] if raised else last_line_of(tuner_log)
        return f"NNI's tuner or assessor has ended, its last line: {last} ({tuner_log})"
    if errors:
        return f"NNI's manager failed: {errors[-1]} ({manager_log})"
    return f"NNI's manager has ended, its last line: {last_line_of(manager_log, '[')} ({manager_log})"


def has_line(log: Path, words: str) -> bool:
    """Return whether a log has these words."""
    return log.is_file() and words in log.read_text(errors="replace")


def dead_runner(experiment: Experiment, trials: list[Trial]) -> str | None:
    """Return where, on another machine, NNI's runner has died during a trial, or None.

    NNI only logs it (reusable/environments/remoteEnvironmentService.js:135): the trial stays RUNNING.
    """
    places = {trial.place.removeprefix("file://") for trial in trials if trial.state == RUNNING}
    places = [place for place in places if "/envs/" in place]  # on other machines
    log = experiment.folder / "log" / "nnimanager.log"
    return next((place for place in places if has_line(log, f"pid in {place}/pid is not alive")), None)


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
