"""Ending an experiment's processes, and saying which of NNI's has ended; without NNI."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from experiments.nni_adapter import manager
from experiments.nni_adapter.processes import with_variable
from tests.processes import runs

# Each prints that it runs. A manager ends its children by SIGTERM before itself, as NNI's does.
MANAGER = """
import signal, subprocess, sys
children = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
def end(*_):
    for child in children: child.terminate(); child.wait()
    sys.exit()
signal.signal(signal.SIGTERM, end); print(flush=True); signal.pause()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
PLAIN = "import signal; print(flush=True); signal.pause()"


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a process of the experiment `id` and waits until it runs."""
    started = []

    def start(code: str, *words: str, **variables: str) -> psutil.Process:
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE,
                                   env=os.environ | {manager.EXPERIMENT: tmp_path.name} | variables)
        started.append(process)
        process.stdout.readline()
        return psutil.Process(process.pid)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(*processes: psutil.Process) -> list[bool]:
    return [not runs(process) for process in processes]


def test_the_manager_ends_its_children_and_what_it_leaves_is_ended_except_trials_which_end_themselves(
    start, tmp_path, capfd,
):
    other = start(PLAIN, manager.MANAGER, **{manager.EXPERIMENT: "another"})
    nni, tuner = start(MANAGER, manager.MANAGER), start(PLAIN, manager.TUNER)
    trial = start("import sys, time; print(flush=True); time.sleep(3); sys.exit(7)", NNI_TRIAL_JOB_ID="a")
    assert len(with_variable(manager.EXPERIMENT, tmp_path.name)) == 5
    manager.stop(tmp_path.name)
    assert all(ended(nni, tuner, trial)) and ended(other) == [False]
    assert trial.wait() == 7  # it was not told
    assert not with_variable(manager.EXPERIMENT, tmp_path.name) and capfd.readouterr().err == ""
    manager.stop(tmp_path.name)  # once more is no mistake


def test_who_does_not_listen_is_killed_in_time_or_when_the_user_is_in_a_hurry(start, tmp_path, monkeypatch):
    deaf = [start(DEAF, manager.MANAGER), start(DEAF, NNI_TRIAL_JOB_ID="a")]
    monkeypatch.setattr(manager, "STOP_TIMEOUT", 1.0)
    manager.stop(tmp_path.name)
    assert all(ended(*deaf))
    monkeypatch.undo()
    deaf = [start(DEAF, manager.MANAGER), start(DEAF, NNI_TRIAL_JOB_ID="a")]
    manager.stop(tmp_path.name, hurry=lambda: True)
    assert all(ended(*deaf))


def test_what_cannot_be_ended_is_named_with_the_command_that_ends_it(start, tmp_path, monkeypatch, capsys):
    stays = start(DEAF, manager.MANAGER)
    for name, value in (("STOP_TIMEOUT", 0.5), ("KILL_TIMEOUT", 0.5)):
        monkeypatch.setattr(manager, name, value)
    monkeypatch.setattr(psutil.Process, "kill", lambda self: None)
    manager.stop(tmp_path.name)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"end them by kill -9 {stays.pid}") and tmp_path.name in line


TRACEBACK = "[2026] ERROR (nni) x\nTraceback (most recent call last):\n  File ...\nValueError: sigma < 0\n"
LOST = "[2026] WARNING Connection lost. Trying to reconnect...\nConnectionRefusedError: 127.0.0.1\n"


@pytest.mark.parametrize("running, log, errors, words", [
    ("", "[2026] INFO a proposal\n", [], "NNI's tuner or assessor has ended, its last line: [2026] INFO a"),
    ("", LOST, [], "NNI's manager has ended, its last line: [2026] INFO submitTrialJob: {"),
    (manager.TUNER, "", [], "NNI's manager has ended"),
    (manager.TUNER, TRACEBACK, [manager.TUNER_ERROR], "NNI's tuner or assessor has ended, its last line: V"),
    (manager.TUNER, "", ["SQLITE_FULL"], "NNI's manager failed: SQLITE_FULL"),
])
def test_which_of_nnis_processes_has_ended_is_said_with_its_last_line_and_its_log(
    running, log, errors, words, start, tmp_path,
):
    logs = tmp_path / "log"
    logs.mkdir()
    (logs / "dispatcher.log").write_text(log)
    (logs / "nnimanager.log").write_text("[2026] INFO submitTrialJob: {\n  id: 0\n}\n")
    if running:
        start(PLAIN, running)
    said = manager.what_ended(SimpleNamespace(id=tmp_path.name, folder=tmp_path), errors)
    assert said.startswith(words) and "\n" not in said
    assert said.endswith(f"({logs / ('dispatcher.log' if 'tuner' in words else 'nnimanager.log')})")


def test_the_manager_is_gone_when_nothing_listens_at_its_port():
    assert manager.status(manager.free_port()) == ("STOPPED", [])
