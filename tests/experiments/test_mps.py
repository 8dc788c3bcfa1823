"""`run --mps` starts NVIDIA's daemon for the search and ends it, however the search ends."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import disk, mps, search
from experiments.check import check
from experiments.nni_adapter import manager
from judge.common.errors import UserError
from tests.experiments import helpers

CONTROL = """#!/bin/bash
[ -d "$CUDA_MPS_PIPE_DIRECTORY" ] && [ -d "$CUDA_MPS_LOG_DIRECTORY" ] || exit 3
if [ "$1" = -d ]; then
    echo "start $CUDA_MPS_PIPE_DIRECTORY GPUs:$CUDA_VISIBLE_DEVICES" >> RECORD
    FAIL
    (exec -a DAEMON sleep 60) &  # which keeps its output open
    echo $! > RECORD.pid
else
    read line; echo "$line $CUDA_MPS_PIPE_DIRECTORY GPUs:" >> RECORD; kill $(cat RECORD.pid)
fi
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Return a function that puts NVIDIA's program on PATH; it returns what the program has recorded."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    def install(fail: str = ""):
        program, record = tmp_path / "bin" / mps.CONTROL, tmp_path / "record"
        program.parent.mkdir()
        text = CONTROL.replace("FAIL", fail).replace("RECORD", str(record)).replace("DAEMON", mps.CONTROL)
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return lambda: [line.split() for line in record.read_text().splitlines()]

    return install


@pytest.fixture
def searched(experiment, monkeypatch):
    """Return a function that runs a search with MPS, of trials on a GPU, in which `create` replaces NNI."""
    monkeypatch.setattr(disk, "cache_needed", lambda settings: 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the tests keep their own handlers

    def run(create, gpus: int = 1):
        plan = replace(check(experiment()), gpus=gpus)
        monkeypatch.setattr(search, "check", lambda file, given: plan)
        monkeypatch.setattr(manager, "create", create)
        return search.run(plan.file, unmeasured=True, mps=True)

    return run


def check_ended(record: list[list[str]]) -> str:
    """Check that the daemon was started and ended, for all GPUs; return its folder, which is gone."""
    (started, folder, gpus), (ended, same, _) = record
    assert (started, ended) == ("start", "quit") and folder == same and gpus == "GPUs:"
    assert not Path(folder).exists()
    return folder


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("NNI did not start")])
def test_the_daemon_ends_after_ctrl_c_and_after_a_failed_start(control, searched, error):
    record = control()

    def create(*_):
        raise error

    with pytest.raises(type(error) if isinstance(error, UserError) else error):
        searched(create)
    check_ended(record())


def test_nni_and_so_its_trials_find_the_daemon_and_its_end_is_noticed(
    control, searched, monkeypatch, tmp_path, capsys,
):
    record, seen = control(), {}

    def create(file, id_, prepare, variables):
        assert len(record()) == 1
        seen.update(variables)
        return SimpleNamespace(folder=tmp_path, id=id_, trials=lambda: []), 1

    def watch(experiment, port, plan, keep, mps_daemon, *_):
        assert mps_daemon.problem() is None
        os.kill(int((tmp_path / "record.pid").read_text()), signal.SIGKILL)
        return helpers.until(mps_daemon.problem)

    monkeypatch.setattr(search, "find_experiment", lambda name: None)
    monkeypatch.setattr(search.LivePage, "begin", lambda *_: None)
    monkeypatch.setattr(search, "watch", watch)
    assert searched(create)[1] == 1 and "nvidia-cuda-mps-control has ended" in capsys.readouterr().err
    folder = check_ended(record())
    assert seen == {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    monkeypatch.undo()
    done = subprocess.CompletedProcess([], 1, "", "no")
    calls = []
    monkeypatch.setattr(manager.subprocess, "run", lambda *_, env, **more: calls.append(env) or done)
    with pytest.raises(UserError, match="NNI did not start: no"):
        manager.create(Path("x.yml"), "id", variables=seen)
    assert seen.items() <= calls[0].items()


def test_the_daemon_ends_with_a_run_that_is_killed(control, tmp_path):
    record = control()
    parent = os.fork()
    if not parent:
        with mps.daemon(1):
            signal.pause()
    helpers.until((tmp_path / "record.pid").exists)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    helpers.until(lambda: [words[0] for words in record()] == ["start", "quit"])


@pytest.mark.parametrize("gpus, fail, said", [
    (1, None, "there is no nvidia-cuda-mps-control here"),
    (0, "", "none will run on a GPU of this machine"),
    (1, "echo 'Cannot find MPS daemon' >&2; exit 1", "did not start: Cannot find MPS daemon"),
])
def test_without_a_gpu_or_the_program_one_line_says_so(control, searched, gpus, fail, said):
    if fail is not None:
        control(fail)
    with pytest.raises(UserError, match=said) as error:
        searched(lambda *_: pytest.fail("it started"), gpus)
    assert "\n" not in str(error.value)
