"""Searches on other machines: each is a real sshd with its own network and its own /tmp."""

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

from experiments.nni_adapter import remote
from experiments.nni_adapter.database import find_experiment
from experiments.nni_adapter.manager import free_port, stop
from tests.experiments.helpers import FEW, ROOT, SPACE, TINY, finish, manager_of, newest, until
from trials.session.records import read_json, read_lines
from trials.session.steady import steady

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
PYTHON = Path(sys.executable).parent
pytestmark = pytest.mark.slow
ENDLESS = "--steps 100000 --reports 5000"


class Machine:
    """Another machine as far as processes can tell: the only way in is ssh, through a port of our loopback.

    Its disk is this machine's except for /tmp, of which it sees only `shared`, and the code if it is there.
    """

    def __init__(self, shared: Path, sshd: list[str], disk: str):
        seen = [path for path in (shared, ROOT, Path(sys.prefix)) if path.is_relative_to("/tmp")]
        binds = "".join(f" && mkdir -p {path} && mount --bind /mnt/{path.relative_to('/tmp')} {path}"
                        for path in seen)  # fmt: skip
        setup = (f"ip link set lo up && mount --bind /tmp /mnt && mount -t tmpfs -o size={disk} tmpfs /tmp"
                 f"{binds} && umount /mnt && echo up && exec sleep 1000000")
        self._space = subprocess.Popen(["unshare", "--net", "--mount", "bash", "-c", setup], text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._listener, self._servers, self._sshd = socket.socket(), [], sshd
        if self._space.stdout.readline() != "up\n":
            pytest.skip(f"cannot make a network namespace: {self._space.stderr.read().strip()}")
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self._space.pid), "--net", "--mount", *command]

    def _accept(self) -> None:
        """Start an sshd for each connection, as inetd does."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._servers.append(subprocess.Popen(self._inside(*self._sshd), stdin=connection,
                                                      stdout=connection, stderr=subprocess.DEVNULL))

    def sh(self, script: str) -> str:
        """Run `script` there and return what it prints."""
        return subprocess.run(self._inside("bash", "-c", script), text=True, capture_output=True).stdout

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Return the processes there with this word in their command, without sshd."""
        network, processes = os.readlink(f"/proc/{self._space.pid}/ns/net"), []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):  # it has ended
                if (os.readlink(f"/proc/{process.pid}/ns/net") == network and process.pid != self._space.pid
                        and process.name() != "sshd" and word in " ".join(process.cmdline())
                        and process.status() != psutil.STATUS_ZOMBIE):
                    processes.append(process)
        return processes

    def cut(self) -> None:
        """Close all connections, and accept no more."""
        with suppress(OSError):  # already shut down
            self._listener.shutdown(socket.SHUT_RDWR)  # close would wait for accept
        for server in self._servers:
            if server.poll() is None:
                for session in psutil.Process(server.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if session.name() == "sshd":
                            session.kill()
                server.kill()
            server.wait()

    def end(self) -> None:
        self.cut()
        self._listener.close()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._space.kill()
        self._space.communicate()


@pytest.fixture
def machine(tmp_path, tmp_path_factory, monkeypatch):
    """Return a function that makes a machine with this size of /tmp, and its entry of machineList."""
    if not SSHD:
        pytest.skip("no sshd here: .ci/ssh installs it")
    if os.geteuid():
        pytest.skip("only root can make a network namespace")
    Path("/run/sshd").mkdir(exist_ok=True)  # as the service does
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "sshd_config").write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
        f"SetEnv OMP_NUM_THREADS=1 XDG_CACHE_HOME={os.environ['XDG_CACHE_HOME']} CUDA_VISIBLE_DEVICES=-1\n")
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
def run_on(experiment, run_command):
    """Return a function that runs a search on machines, with the shipped file's other keys."""

    def run(machines: list[dict], options: str, trials: int) -> tuple[subprocess.Popen, Path]:
        service = yaml.safe_load((ROOT / "experiments/cyclegan-remote.yml").read_text())["trainingService"]
        file = experiment(
            SPACE, options=f"{TINY} {options}", maxTrialNumber=trials, trialConcurrency=len(machines),
            trainingService=service | {"machineList": machines}, **FEW)
        return run_command(file), file.parent / "runs"

    return run


def until_trained(run: subprocess.Popen, machine: Machine) -> None:
    """Wait until a trial there has a checkpoint."""
    until(lambda: machine.sh(f"ls {remote.FOLDER}/*/trials/*/*/checkpoint.pt"), run)


def test_a_search_on_two_machines_fetches_all_that_its_trials_wrote(machine, run_on):
    machines = [machine(), machine()]
    run, runs = run_on([entry for _, entry in machines], "--steps 20 --reports 2", 4)
    finish(run)
    folder = newest(runs)
    trials = find_experiment(str(folder)).trials()
    assert [trial.state for trial in trials] == ["SUCCEEDED"] * 4
    for trial in trials:
        record = read_json(trial.folder / "run.json")
        assert record["status"] == "finished" and record["score"] == trial.final
        assert record["parameters"] == trial.parameters
        scores = [line["score"] for line in read_lines(trial.folder / "stats.jsonl")]
        assert [steady(scores[: n + 1]) for n in range(2)] == trial.reports
        assert len(list(trial.folder.glob("samples/step_*.png"))) == 2
        assert torch.load(trial.folder / "checkpoint.pt", weights_only=True)["step"] == 20
    assert next(folder.glob("*.html")).read_text().count("data:image/webp;base64,") == 1 + 4 * 2
    for one, _ in machines:
        until(lambda one=one: not one.processes())
        assert one.sh(f"ls {remote.FOLDER}") == ""  # moved, not copied


INTERRUPTIONS = {  # how, the exit code, what is printed
    "ctrl-c": (lambda run, one: run.send_signal(signal.SIGINT), 130, "stopped by SIGINT"),
    "a cut connection": (lambda run, one: one.cut(), 1, "the connection to root@127.0.0.1 was cut"),
    "a dead runner": (lambda run, one: one.sh(f"kill -9 $(cat {remote.FOLDER}/*/envs/*/pid)"), 1,
                      f"NNI's runner has died in 127.0.0.1:{remote.FOLDER}/"),
    "kill -9": (lambda run, one: run.kill(), -9, ""),
}  # fmt: skip


@pytest.mark.parametrize("how", INTERRUPTIONS)
def test_an_interruption_is_a_line_and_trials_save_their_checkpoints(machine, run_on, how):
    one, entry = machine()
    run, runs = run_on([entry], ENDLESS, 2)
    until_trained(run, one)
    interrupt, code, words = INTERRUPTIONS[how]
    interrupt(run, one)
    try:
        output = finish(run, code)
        assert words in output
        until(lambda: not one.processes())
        if how in ("a cut connection", "kill -9"):  # its files stay there
            assert ("not fetched: root@127.0.0.1" in output) == (how == "a cut connection")
            record = json.loads(one.sh(f"cat {remote.FOLDER}/*/trials/*/*/run.json"))
            assert one.sh(f"ls {remote.FOLDER}/*/trials/*/*/checkpoint.pt")
        else:
            (trial,) = find_experiment(str(newest(runs))).trials()
            record = read_json(trial.folder / "run.json")
            assert (trial.folder / "checkpoint.pt").exists() and one.sh(f"ls {remote.FOLDER}") == ""
        assert record["status"] == "stopped" and "SIGTERM" in record["reason"]
    finally:
        stop(newest(runs).name)  # after kill -9, NNI's manager is left


def test_a_runner_that_could_not_connect_is_started_again(machine, run_on, tmp_path):
    one, entry = machine()
    slow = tmp_path / "slow"
    slow.mkdir()
    for name, pause in (("python", 0), ("python3", 1)):  # slow enough to be seen before it calls
        (slow / name).write_text(f'#!/bin/sh\nsleep {pause}; exec {PYTHON}/{name} "$@"\n')
        (slow / name).chmod(0o755)
    run, runs = run_on([entry | {"pythonPath": str(slow)}], "--steps 20 --reports 2", 2)
    runner = "nni.tools.trial_tool.trial_runner"
    until(lambda: one.processes(runner), run)
    manager = manager_of(newest(runs).name)
    manager.suspend()
    try:
        until(lambda: not one.processes(runner))
    finally:
        manager.resume()
    finish(run)
    assert one.sh(f"ls {remote.FOLDER}") == ""


def test_a_runner_that_never_starts_ends_its_tunnel_with_its_error(machine, monkeypatch):
    """Also if the user's login shell is not bash."""
    monkeypatch.setattr(remote, "WATCHDOG", remote.WATCHDOG.replace("60 120 240", "3 3 3"))
    one, entry = machine()
    one.sh(f"""mkdir -p {remote.FOLDER}/a/envs/b && cd {remote.FOLDER}/a
           echo 'cd {remote.FOLDER}/a/envs/b; echo >> tried; echo an Error > trialrunner_stderr
                 echo setting is > trialrunner_stdout' > run.sh
           sed s,/bash$,/dash, /etc/passwd > /tmp/passwd && mount --bind /tmp/passwd /etc/passwd""")
    tunnels = remote.Tunnels([remote.Worker(entry)])
    try:
        tunnels.open(free_port())
        tunnels.watch("a")
        assert until(tunnels.problem) == "NNI's runner does not start on root@127.0.0.1: an Error"
    finally:
        tunnels.close()
    assert one.sh(f"cat {remote.FOLDER}/a/envs/b/tried") == 3 * "\n" and not one.processes()


def test_a_full_disk_on_a_machine_fails_the_trial_in_a_line_and_the_search_goes_on(machine, run_on):
    one, entry = machine(disk="40M")
    run, runs = run_on([entry], "--steps 200 --reports 20", 2)
    until_trained(run, one)
    # Room for a log and a sheet (0.3 MB), not for a checkpoint (1.4 MB and more).
    one.sh("cat /dev/zero > /tmp/full; truncate -s -1M /tmp/full")
    folder = newest(runs)
    search = find_experiment(str(folder))
    until(lambda: search.trials()[0].over)
    one.sh("rm /tmp/full")
    finish(run)
    first, second = search.trials()
    assert (first.state, second.state) == ("FAILED", "SUCCEEDED") and second.final
    (printed,) = (file.read_text() for file in folder.glob("envs/*/trialrunner_stdout"))
    (line,) = (line for line in printed.splitlines() if "trials.cyclegan: cannot write" in line)
    assert line.startswith(f"python -m trials.cyclegan: cannot write to {remote.FOLDER}/")
    assert "No space left on device" in line or "is the disk full?" in line
    assert torch.load(first.folder / "checkpoint.pt", weights_only=True)["step"] > 0
