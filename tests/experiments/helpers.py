"""Functions for tests that run searches through the real NNI."""

import hashlib
import json
import os
import pty
import runpy
import signal
import sqlite3
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from judge.common.cli import STOP_SIGNALS

ROOT = Path(__file__).parents[2]
TIMEOUT = 600  # seconds for anything that a search does, on a slow and busy machine
TINY = "--size sketch --ngf 4 --blocks 1 --ndf 4 --photos 8"
SPACE = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
FEW = {"assessor": None, "tuner": {"classArgs": {  # changes of an experiment file for few trials
    "reference": "trials.cyclegan", "optimize_mode": "maximize", "tpe_args": {"n_startup_jobs": 1}}}}


def until(condition, run=None):
    """Return the first true value of `condition()`; fail after `TIMEOUT`, or when `run` has ended."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if value := condition():
            return value
        if run and run.poll() is not None:
            pytest.fail(f"ended with {run.returncode}: {run.communicate()[0]}")
        time.sleep(0.5)
    pytest.fail(f"not within {TIMEOUT} s: {condition}")


def finish(run, code: int = 0) -> str:
    """Wait until the command `run` has ended with this exit code, and return what it printed."""
    output, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == code and "Traceback" not in output, output
    return output


def manager_of(id_: str) -> psutil.Process:
    """Return NNI's manager of an experiment."""
    commands = ((p, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
    return next(p for p, words in commands if id_ in words and any("main.js" in word for word in words))


def processes_of(folder: Path, word: str = "") -> list[psutil.Process]:
    """Return the processes that work in or for an experiment's folder, with this word in their command."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            command = " ".join(process.cmdline())
            places = command + process.environ().get("NNI_OUTPUT_DIR", "")
            if folder.name in places and word in command and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def listening(process: psutil.Process) -> list:
    """Return the (address, port) pairs on which a process listens; none if it has ended."""
    with suppress(psutil.Error):
        return [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    return []


def newest(runs: Path) -> Path:
    """Return the folder of the experiment that NNI started last."""
    return (runs / "_latest").resolve()


def folder_of(file: Path, run) -> Path:
    """Return the folder of the experiment that the command `run` started from `file`, once it has a trial."""
    return until(lambda: next((file.parent / "runs").glob("[!_]*/trials/*"), None), run).parents[1]


def write_experiment(runs: Path, id_: str, config: dict, trials: list[tuple]) -> Path:
    """Write a folder below `runs` with NNI's database; trials are (id, parameters, end, scores, final)."""
    folder = runs / id_
    (folder / "db").mkdir(parents=True)
    with sqlite3.connect(folder / "db" / "nni.sqlite") as db:
        db.executescript("""
            create table TrialJobEvent (timestamp, trialJobId, event, data, logPath, sequenceId, message);
            create table MetricData (timestamp, trialJobId, parameterId, type, sequence, data);
            create table ExperimentProfile (params, id, revision, startTime);""")
        for revision, params in enumerate(({}, config)):  # NNI writes it anew at each change
            db.execute("insert into ExperimentProfile values (?, ?, ?, ?)",
                       (json.dumps(params), id_, revision, 1000 * len(list(runs.glob("*/db")))))
        for number, (trial, parameters, end, scores, final) in enumerate(trials):
            proposal = json.dumps({"parameter_id": number, "parameters": parameters})
            events = [("WAITING", proposal), ("RUNNING", None)] + ([(end, None)] if end else [])
            for at, (event, data) in enumerate(events):
                db.execute("insert into TrialJobEvent values (?,?,?,?,'',?,'')",
                           (1000 * at, trial, event, data, number))
            results = [("PERIODICAL", score) for score in scores] + [("FINAL", final)]
            for kind, score in results if final is not None else results[:-1]:
                parts = {"default": score, "style": score, "content": 1 - score, "kid_error": 0.1}
                db.execute("insert into MetricData values (0,?,?,?,0,?)",
                           (trial, str(number), kind, json.dumps(json.dumps(parts))))  # JSON in JSON
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    """Return a hash of each file below `folder`, and "" for each folder."""
    content = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            link = os.readlink(path).encode() if path.is_symlink() else None
            content[str(path.relative_to(folder))] = (
                "" if path.is_dir() and link is None
                else hashlib.sha256(path.read_bytes() if link is None else link).hexdigest())
    return content


class Forked:
    """A command `experiments ...` that is forked off the tests, and so needs no start of Python and torch.

    It looks like a `Popen`. With `terminal` it runs on a terminal of its own, which `close` closes.
    """

    def __init__(self, *words: str, terminal: bool = False):
        self._output, self.returncode = "", None
        output, output_end = os.pipe()
        self.pid, self._terminal = pty.fork() if terminal else (os.fork(), None)
        if self.pid == 0:
            self._be(words, None if terminal else output_end)
        os.close(output_end)
        self._output_file = self._terminal or output
        os.set_blocking(self._output_file, False)

    def _be(self, words: tuple[str, ...], output: int | None) -> None:
        """Be the command, and end this process."""
        code = 1
        try:
            if output is not None:
                os.setsid()
                for descriptor in (1, 2):
                    os.dup2(output, descriptor)
            sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1) for descriptor in (1, 2))
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.chdir(ROOT)
            sys.argv = ["experiments", *words]
            runpy.run_module("experiments", run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(code)

    def text(self) -> str:
        """Return what it has printed so far."""
        with suppress(OSError):
            while new := os.read(self._output_file, 65536):
                self._output += new.decode(errors="replace")
        return self._output

    def close(self) -> None:
        """Close its terminal."""
        os.close(self._terminal)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return its exit code once it has ended, a signal's with a minus."""
        if self.returncode is None and (status := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(status[1])
        return self.returncode

    def communicate(self, timeout: float = TIMEOUT) -> tuple[str, None]:
        """Wait until it has ended, and return what it printed."""
        until(lambda: self.poll() is not None)
        return self.text(), None
