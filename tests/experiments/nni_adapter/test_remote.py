"""Searches on other machines: each a real sshd behind a network and a /tmp of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from experiments.nni_adapter import database
from experiments.nni_adapter import remote as workers
from experiments.nni_adapter.manager import free_port, stop
from tests.experiments.long_run import manager_of
from tests.experiments.test_search import ENOUGH, ROOT, TINY, home, newest, run_command, until
from trials.session.records import read_json, read_lines

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
PYTHON = Path(sys.executable).parent
SPACE = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
TUNER = {"classArgs": {"reference": "trials.cyclegan", "optimize_mode": "maximize",
                       "tpe_args": {"n_startup_jobs": 1}}}  # fmt: skip
pytestmark = pytest.mark.slow
__all__ = ["home", "run_command"]  # fixtures


class Machine:
    """Another machine, as far as processes can tell: nothing reaches it but ssh, through a port of this
    machine's loopback, and it reaches nothing. Its disk is this one's but for /tmp, in which it sees
    `shared` alone."""

    def __init__(self, shared: Path, sshd: list[str], disk: str):
        setup = (f"ip link set lo up && mount --bind {shared} /mnt"
                 f" && mount -t tmpfs -o size={disk} tmpfs /tmp && mkdir -p {shared}"
                 f" && mount --move /mnt {shared} && echo up && exec sleep 1000000")
        self._space = subprocess.Popen(["unshare", "--net", "--mount", "bash", "-c", setup], text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._listener, self._doors, self._sshd = socket.socket(), [], sshd
        if self._space.stdout.readline() != "up\n":
            pytest.skip(f"no network and /tmp of its own to be had: {self._space.stderr.read().strip()}")
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._admit, daemon=True).start()

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self._space.pid), "--net", "--mount", *command]

    def _admit(self) -> None:
        """An sshd for each that knocks, as inetd would start it."""
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            with visitor:
                self._doors.append(subprocess.Popen(
                    self._inside(*self._sshd), stdin=visitor, stdout=visitor, stderr=subprocess.DEVNULL))

    def says(self, script: str) -> str:
        """What `script` prints there."""
        return subprocess.run(self._inside("bash", "-c", script), text=True, capture_output=True).stdout

    def processes(self, word: str = "") -> list[psutil.Process]:
        """All that run there with this word in their command, but for sshd."""
        network, found = os.readlink(f"/proc/{self._space.pid}/ns/net"), []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):  # it has ended
                if (os.readlink(f"/proc/{process.pid}/ns/net") == network and process.pid != self._space.pid
                        and process.name() != "sshd" and word in " ".join(process.cmdline())
                        and process.status() != psutil.STATUS_ZOMBIE):
                    found.append(process)
        return found

    def cut(self, gone: bool) -> None:
        """Every connection ends, as when sshd is killed; where it is gone nobody comes in any more."""
        if gone:
            with suppress(OSError):  # the second time
                self._listener.shutdown(socket.SHUT_RDWR)  # close would wait for accept
        for door in self._doors:
            if door.poll() is None:
                for session in psutil.Process(door.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if session.name() == "sshd":
                            session.kill()
                door.kill()
            door.wait()

    def end(self) -> None:
        self.cut(gone=True)
        self._listener.close()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._space.kill()
        self._space.communicate()


@pytest.fixture
def machine(tmp_path, tmp_path_factory, monkeypatch):
    """Sets up machines: `machine(disk)` to an entry of machineList."""
    if not SSHD:
        pytest.skip("no sshd here: .ci/ssh installs it")
    if os.geteuid():
        pytest.skip("a network of its own takes root")
    Path("/run/sshd").mkdir(exist_ok=True)  # as the service does
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "sshd_config").write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
        f"SetEnv OMP_NUM_THREADS=1 XDG_CACHE_HOME={os.environ['XDG_CACHE_HOME']}\n")
    # ssh reads the user's list of known hosts, whatever HOME says.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(
        f'#!/bin/sh\nexec {shutil.which("ssh")} -F none -o UserKnownHostsFile={tmp_path}/known "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    sshd, made = [SSHD, "-i", "-f", str(tmp_path / "sshd_config")], []

    def make(disk: str = "1G") -> tuple[Machine, dict]:
        one = Machine(tmp_path_factory.getbasetemp(), sshd, disk)
        made.append(one)
        key = (tmp_path / "host.pub").read_text()
        with open(tmp_path / "known", "a") as known:
            known.write(f"[127.0.0.1]:{one.port} {key}")
        return one, {"host": "127.0.0.1", "port": one.port, "user": "root",
                     "sshKeyFile": str(tmp_path / "user"), "pythonPath": str(PYTHON)}

    yield make
    for one in made:
        one.end()


@pytest.fixture
def remote(experiment, tmp_path):
    """Writes an experiment for machines of the shipped file's form."""

    def write(machines: list[dict], options: str, **changes) -> Path:
        shipped = yaml.safe_load((ROOT / "experiments/cyclegan-remote.yml").read_text())
        shipped["trainingService"]["machineList"] = machines
        return experiment(SPACE, options=f"{TINY} {options}", assessor=None, tuner=TUNER,
                          trialConcurrency=len(machines),
                          trainingService=shipped["trainingService"], **changes)

    return write


def until_trained(run: subprocess.Popen, one: Machine) -> None:
    """Waits until a trial there has a checkpoint, or the search has ended."""
    checkpoints = f"ls {workers.FOLDER}/*/trials/*/*/checkpoint.pt"
    try:
        until(lambda: run.poll() is not None or one.says(checkpoints))
    except pytest.fail.Exception:  # before all of it is cleared away
        print(one.says(f"find {workers.FOLDER}; tail {workers.FOLDER}/*/envs/*/trialrunner_std*"),
              *[process.cmdline() for process in one.processes()], sep="\n")
        raise


def test_a_search_on_two_machines_comes_to_its_end_with_all_that_its_trials_left(
    machine, remote, run_command,
):
    machines = [machine(), machine()]
    file = remote([entry for _, entry in machines], "--steps 20 --reports 2", maxTrialNumber=4)
    run = run_command(file)
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 0, output
    folder = newest(file.parent / "runs")
    trials = database.find_experiment(str(folder)).trials()
    assert [trial.state for trial in trials] == ["SUCCEEDED"] * 4
    for trial in trials:
        record = read_json(trial.folder / "run.json")
        assert record["status"] == "finished" and record["score"] == trial.final
        assert record["parameters"] == trial.parameters
        assert [line["score"] for line in read_lines(trial.folder / "stats.jsonl")] == trial.reports
        assert len(list(trial.folder.glob("samples/step_*.png"))) == 2
        assert torch.load(trial.folder / "checkpoint.pt", weights_only=True)["step"] == 20
    page = next(folder.glob("*.html")).read_text()
    assert page.count("data:image/webp;base64,") == 1 + 4 * 2
    for one, _ in machines:
        until(lambda one=one: not one.processes())
        assert one.says("ls /tmp/nni-experiments") == ""  # moved here, not copied


@pytest.mark.parametrize("gone", [False, True])
def test_a_cut_connection_ends_the_search_in_a_line_and_the_trials_with_their_checkpoints(
    machine, remote, run_command, gone,
):
    one, entry = machine()
    file = remote([entry], "--steps 100000 --reports 5000", maxTrialNumber=2)
    run = run_command(file)
    until_trained(run, one)
    assert run.poll() is None
    one.cut(gone)
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 1, output
    assert "Traceback" not in output
    (said,) = (line for line in output.splitlines() if line.startswith("the search broke off"))
    assert "the connection to root@127.0.0.1 was cut" in said
    assert ("not fetched: root@127.0.0.1" in output) == gone
    until(lambda: not one.processes())  # nobody was there to tell them
    folder = newest(file.parent / "runs")
    (trial,) = database.find_experiment(str(folder)).trials()
    assert (trial.folder / "checkpoint.pt").exists() != gone  # fetched where ssh came through again
    record = json.loads(one.says("cat /tmp/nni-experiments/*/trials/*/*/run.json") if gone
                        else (trial.folder / "run.json").read_text())
    assert record["status"] == "stopped" and "SIGTERM" in record["reason"]
    assert bool(one.says("ls /tmp/nni-experiments/*/trials/*/*/checkpoint.pt")) == gone


def test_a_runner_that_dies_ends_the_search_in_a_line(machine, remote, run_command):
    one, entry = machine()
    file = remote([entry], "--steps 100000 --reports 5000", maxTrialNumber=2)
    run = run_command(file)
    until_trained(run, one)
    one.says("kill -9 $(cat /tmp/nni-experiments/*/envs/*/pid)")
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 1, output
    assert "NNI's runner has ended in 127.0.0.1:/tmp/nni-experiments/" in output
    folder = newest(file.parent / "runs")
    (trial,) = database.find_experiment(str(folder)).trials()
    assert (trial.folder / "checkpoint.pt").exists()
    assert read_json(trial.folder / "run.json")["status"] == "stopped"
    assert not one.processes()


def test_ctrl_c_ends_the_trials_and_fetches_their_checkpoints(machine, remote, run_command):
    one, entry = machine()
    file = remote([entry], "--steps 100000 --reports 5000", maxTrialNumber=2)
    run = run_command(file)
    until_trained(run, one)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 130 and "Traceback" not in output, output
    folder = newest(file.parent / "runs")
    (trial,) = database.find_experiment(str(folder)).trials()
    assert (trial.folder / "checkpoint.pt").exists()
    assert read_json(trial.folder / "run.json")["status"] == "stopped"
    assert not one.processes() and one.says("ls /tmp/nni-experiments") == ""


def test_a_runner_that_found_no_way_back_is_started_again(machine, remote, run_command, tmp_path):
    """NNI starts it once; where it could not connect in ten seconds it ends, and NNI waits on for it."""
    one, entry = machine()
    slow = tmp_path / "slow"
    slow.mkdir()
    for name, pause in (("python", 0), ("python3", 1)):  # a runner's, long enough to be met before it calls
        (slow / name).write_text(f'#!/bin/sh\nsleep {pause}; exec {PYTHON}/{name} "$@"\n')
        (slow / name).chmod(0o755)
    file = remote([entry | {"pythonPath": str(slow)}], "--steps 20 --reports 2", maxTrialNumber=2)
    run = run_command(file)
    runner = "nni.tools.trial_tool.trial_runner"
    until(lambda: one.processes(runner), run=run)
    folder = newest(file.parent / "runs")
    manager = manager_of(folder.name)
    manager.suspend()
    try:
        until(lambda: not one.processes(runner))
    finally:
        manager.resume()
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 0, output
    assert one.says("ls /tmp/nni-experiments") == ""


def test_a_runner_that_never_comes_up_ends_its_line_with_what_it_said(machine, monkeypatch):
    """Also where the user's login shell is another than bash."""
    monkeypatch.setattr(workers, "WATCHDOG", workers.WATCHDOG.replace("60 120 240", "3 3 3"))
    one, entry = machine()
    one.says(f"""mkdir -p {workers.FOLDER}/a/envs/b && cd {workers.FOLDER}/a
             echo 'cd {workers.FOLDER}/a/envs/b; echo >> tried; echo an Error > trialrunner_stderr
                   echo setting is > trialrunner_stdout' > run.sh
             sed s,/bash$,/dash, /etc/passwd > /tmp/passwd && mount --bind /tmp/passwd /etc/passwd""")
    lines = workers.Tunnels([workers.Worker(entry)])
    try:
        lines.open(free_port())
        lines.tie("a")
        assert until(lines.lost) == "NNI's runner does not come up on root@127.0.0.1: an Error"
    finally:
        lines.close()
    assert one.says(f"cat {workers.FOLDER}/a/envs/b/tried") == 3 * "\n" and not one.processes()


def test_a_killed_run_leaves_no_process_on_a_machine(machine, remote, run_command):
    one, entry = machine()
    file = remote([entry], "--steps 100000 --reports 5000", maxTrialNumber=2)
    run = run_command(file)
    until_trained(run, one)
    run.kill()
    try:
        until(lambda: not one.processes())
    finally:
        for folder in (file.parent / "runs").glob("[!_]*/"):
            stop(folder.name)  # NNI's manager stays, as of any search


def test_a_full_disk_on_a_machine_fails_the_trial_in_a_line_and_the_search_goes_on(
    machine, remote, run_command,
):
    """Only while the first trial trains."""
    one, entry = machine(disk="40M")
    file = remote([entry], "--steps 200 --reports 20", maxTrialNumber=2)
    run = run_command(file)
    until_trained(run, one)
    one.says("cat /dev/zero > /tmp/full; truncate -s -32K /tmp/full")  # a log goes on, no checkpoint does
    folder = newest(file.parent / "runs")
    search = database.find_experiment(str(folder))
    until(lambda: search.trials()[0].over)
    one.says("rm /tmp/full")
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 0, output
    first, second = search.trials()
    assert (first.state, second.state) == ("FAILED", "SUCCEEDED") and second.final
    (said,) = (file.read_text() for file in folder.glob("envs/*/trialrunner_stdout"))
    (line,) = (line for line in said.splitlines() if "No space left on device" in line)
    assert line.startswith("python -m trials.cyclegan: cannot write to /tmp/nni-experiments/")
    assert torch.load(first.folder / "checkpoint.pt", weights_only=True)["step"] > 0
