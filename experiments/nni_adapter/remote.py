"""Workers: other machines on which NNI's remote service trains, reached by SSH only.

NNI's runner on a worker calls its manager at the manager's port + 1, and the manager listens on this
machine's loopback (`preload.js`). So each worker gets an SSH tunnel that forwards that port (-R) from its own
loopback. Nothing listens where other machines could reach it.

At the worker's end of each tunnel runs a watchdog. It restarts NNI's runner if that could not connect,
because NNI starts it only once and then waits forever. When the tunnel ends, the watchdog ends the runner;
its trials then save their checkpoints and end (`trials.session.engine`).
"""

import json
import shlex
import shutil
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.nni_adapter.database import Experiment, Trial
from judge.common.children import bound
from judge.common.errors import UserError
from judge.common.files import last_line

FOLDER = "/tmp/nni-experiments"  # on every worker, chosen by NNI; a trial works in ID/trials/TRIAL
# BatchMode: ssh must not ask. An unknown host key is an error, not a question.
SSH_OPTIONS = ("BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=15", "ServerAliveInterval=15",
               "ServerAliveCountMax=3", "ExitOnForwardFailure=yes")

# The runner writes its pid when it has reached the manager; without a pid after ten seconds it has given up.
# NNI starts it in a login shell at some time after it has copied run.sh; the file is renamed before a restart
# so that NNI cannot start it a second time. A trial that ends holds its lock until its checkpoint is written.
WATCHDOG = f"""
echo ready; read -r id; [ -n "$id" ] || exit
here={FOLDER}/$id
end_runner() {{ pkill -f "bash $here/(run|restart).sh|trial_runner.*$here/"; }}
check_tunnel() {{ sleep 1; kill -0 $tunnel || {{ end_runner; exit; }}; }}
wait_for_pid() {{ for second in $(seq $timeout); do check_tunnel; ls $here/envs/*/pid && exit; done; }}
restart() {{
    mv $here/run.sh $here/restart.sh; end_runner; rm $here/envs/*/pid
    bash -lc "PATH='$PATH':\\$PATH; exec bash $here/restart.sh" 3>&- &
}}
exec 4<&0; cat <&4 > /dev/null & tunnel=$!
{{
    until [ -e $here/run.sh ]; do check_tunnel; done
    for timeout in 60 120 240; do wait_for_pid; restart; done; wait_for_pid
    tail -qn 1 $here/envs/*/trialrunner_std* >&3
    grep -h "ERROR\\|Error" $here/envs/*/trialrunner_std* | tail -n 1 >&3
    kill $tunnel
}} 3>&2 4<&- > /dev/null 2>&1 &
wait $tunnel 2> /dev/null; code=$?
end_runner
for lock in $here/trials/*/nnioutput/.lock; do flock -w 60 "$lock" true; done 2> /dev/null
exit $code
"""
RUNNER_NOT_STARTED = 143  # exit code of a watchdog that has ended its tunnel itself: 128 + SIGTERM

PACK = f"""
cd {FOLDER}/%s/ 2> /dev/null || exit 0
set -- envs/*/trialrunner_std*
for trial in %s; do
    [ -d trials/$trial/nnioutput ] || continue
    [ -e trials/$trial/nnioutput/.lock ] && flock -w 60 trials/$trial/nnioutput/.lock true
    set -- "$@" trials/$trial/nnioutput
done
tar -cf - --exclude=.lock --transform='s,/nnioutput,,' "$@"
"""

PROBE = """
import json, os, sys
import nni.tools.trial_tool.trial_runner, tensorboard, torch, torchmetrics, torchvision
from importlib.metadata import version
print(json.dumps({"nni": version("nni"), "gpus": torch.cuda.device_count(),
                  "cores": len(os.sched_getaffinity(0)),
                  "missing": [path for path in sys.argv[1:] if not os.path.exists(path)]}))
"""


@dataclass(frozen=True)
class Worker:
    """One machine of NNI's machineList."""

    machine: dict  # NNI's entry: host, port, user, sshKeyFile, pythonPath

    @property
    def name(self) -> str:
        return f"{self.machine['user']}@{self.machine['host']}"

    def ssh(self, script: str, *options: str) -> list[str]:
        """Return the command that runs `script` there in bash, with the machine's Python first in PATH."""
        settings = [word for option in SSH_OPTIONS for word in ("-o", option)]
        python = self.machine.get("pythonPath")
        path = f"PATH={shlex.quote(python)}:$PATH; " if python else ""
        return ["ssh", *settings, "-i", self.machine["sshKeyFile"], "-p", str(self.machine["port"]),
                *options, self.name, f"exec bash -c {shlex.quote(path + script)}"]

    def probe(self, python: str, paths: list[str]) -> dict:
        """Return the version of `nni`, numbers of `gpus` and `cores`, and which of `paths` are `missing`."""
        if not shutil.which("ssh"):
            raise UserError("machineList: install ssh on this machine to reach other machines")
        command = self.ssh(shlex.join([python, "-", *paths]))
        result = subprocess.run(bound(command), input=PROBE, capture_output=True, text=True)
        if result.returncode:
            raise UserError(f"machineList: {self.name}: {last_line(result.stderr)}")
        return json.loads(result.stdout.splitlines()[-1])

    def fetch(self, id_: str, into: Path, trials: list[str] | None = None) -> None:
        """Move what the trials with these ids, and NNI's runner, wrote there into the folder `into`.

        If `trials` is None, all are fetched and the folder of the experiment `id_` there is removed. After an
        error nothing is removed.
        """
        script = PACK % (id_, "$(ls trials)" if trials is None else shlex.join(trials))
        fetched = [f"{FOLDER}/{id_}"] if trials is None else [f"{FOLDER}/{id_}/trials/{t}" for t in trials]
        problem = ""
        with subprocess.Popen(bound(self.ssh(script)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as packing:
            try:
                with tarfile.open(fileobj=packing.stdout, mode="r|") as archive:
                    archive.extractall(into, filter="data")
            except (OSError, tarfile.TarError) as error:
                problem = str(error)
            stderr = packing.stderr.read().decode(errors="replace")
        if packing.returncode or (problem and problem != "empty file"):
            raise UserError(f"{self.name}: {last_line(stderr) or problem}")
        subprocess.run(bound(self.ssh(shlex.join(["rm", "-rf", *fetched]))), capture_output=True)


def workers(config: dict) -> list[Worker]:
    """Return the machines of an experiment's configuration; none if it trains on this machine."""
    return [Worker(machine) for machine in config["trainingService"].get("machineList", [])]


class Tunnels:
    """The SSH tunnels to an experiment's workers while it runs. Without workers, nothing is done."""

    def __init__(self, workers: list[Worker]):
        self._workers = workers
        self._tunnels: list[tuple[Worker, subprocess.Popen]] = []
        self._fetched: set[str] = set()

    def open(self, port: int) -> None:
        """Forward the port that NNI's runner calls, `port` + 1, from every worker to this machine."""
        self.close()
        forward = f"127.0.0.1:{port + 1}:127.0.0.1:{port + 1}"
        for worker in self._workers:
            tunnel = subprocess.Popen(
                bound(worker.ssh(WATCHDOG, "-R", forward)), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches us only; we close it in turn
            )  # fmt: skip
            self._tunnels.append((worker, tunnel))
            if tunnel.stdout.readline() != "ready\n":
                raise UserError(f"{worker.name}: {last_line(tunnel.stderr.read())}")

    def watch(self, id_: str) -> None:
        """Tell the watchdogs the experiment whose runner they restart, and end with the tunnel."""
        for _, tunnel in self._tunnels:
            with suppress(BrokenPipeError):  # `problem` will report it
                tunnel.stdin.write(f"{id_}\n")
                tunnel.stdin.flush()

    def problem(self) -> str | None:
        """Return which tunnel has ended and why, or None; NNI does not notice, and sends further trials."""
        for worker, tunnel in self._tunnels:
            if tunnel.poll() is not None:
                what = f"the connection to {worker.name} was cut"
                if tunnel.returncode == RUNNER_NOT_STARTED:
                    what = f"NNI's runner does not start on {worker.name}"
                return f"{what}: {last_line(tunnel.stderr.read())}"
        return None

    def fetch(self, experiment: Experiment, trials: list[Trial] | None = None) -> list[str]:
        """Move files of those of `trials` that are over, or of all, here; return a line for each error."""
        over = None if trials is None else [t.id for t in trials if t.over and t.id not in self._fetched]
        problems = []
        for worker in self._workers:
            try:
                if over != []:
                    worker.fetch(experiment.id, experiment.folder, over)
            except UserError as error:
                problems.append(str(error))
        if not problems:
            self._fetched.update(over or [])
        return problems

    def close(self) -> None:
        """Close the tunnels, which ends NNI's runners, and wait until they have ended."""
        for _, tunnel in self._tunnels:
            with tunnel, suppress(BrokenPipeError):
                tunnel.stdin.close()
        self._tunnels = []
