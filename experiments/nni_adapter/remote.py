"""Workers: other machines that NNI's remote service trains on, reached by SSH and by nothing else.

NNI's runner on a worker calls its manager at the manager's port + 1, and the manager listens on this
machine's loopback (`preload.js`). So every worker gets a line: an ssh connection that lends it that
port (-R), on its own loopback. Nothing listens where strangers could reach it, on either side.

A line is a leash too. What waits at its far end starts NNI's runner again where it has not come up, for
NNI starts it once and waits for ever. When the line ends, be it cut or this process killed, it ends the
runner, and the trials end with their runner (`trials.engine`), saving their checkpoints.
"""

import json
import shlex
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.nni_adapter.database import Experiment, Trial
from judge.common.errors import UserError

# NNI's own choice, on every worker; trials work there in trials/TRIAL.
FOLDER = "/tmp/nni-experiments"

# BatchMode: never ask. An unknown host key is an error, not a question.
SSH_OPTIONS = ("BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=15", "ServerAliveInterval=15",
           "ServerAliveCountMax=3", "ExitOnForwardFailure=yes")  # fmt: skip

# Data that need not be brought to a machine.
BUILT_IN = ("sample", "digits", "pattern")

# A runner writes its pid once it has reached the manager; one that did not in ten seconds has given up.
# NNI starts it in a login shell, at some time after it has brought run.sh: not a second time, once that
# is ours. A trial that ends holds its lock until its checkpoint is written.
WATCHDOG = f"""
echo ready; read -r id; [ -n "$id" ] || exit
here={FOLDER}/$id
end() {{ pkill -f "bash $here/(run|again).sh|trial_runner.*$here/"; }}
look() {{ sleep 1; kill -0 $line || {{ end; exit; }}; }}
up() {{ for second in $(seq $patience); do look; ls $here/envs/*/pid && exit; done; }}
again() {{
    mv $here/run.sh $here/again.sh; end; rm $here/envs/*/pid
    bash -lc "PATH='$PATH':\\$PATH; exec bash $here/again.sh" 3>&- &
}}
exec 4<&0; cat <&4 > /dev/null & line=$!
{{
    until [ -e $here/run.sh ]; do look; done
    for patience in 60 120 240; do up; again; done; up
    tail -qn 1 $here/envs/*/trialrunner_std* >&3
    grep -h "ERROR\\|Error" $here/envs/*/trialrunner_std* | tail -n 1 >&3
    kill $line
}} 3>&2 4<&- > /dev/null 2>&1 &
wait $line 2> /dev/null; code=$?
end
for lock in $here/trials/*/nnioutput/.lock; do flock -w 60 "$lock" true; done 2> /dev/null
exit $code
"""
RUNNER_NOT_UP = 143  # the code of a leash that has cut its line itself: a shell's word for "ended by SIGTERM"

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

    machine: dict
    """NNI's: host, port, user, sshKeyFile, pythonPath."""

    @property
    def name(self) -> str:
        return f"{self.machine['user']}@{self.machine['host']}"

    def ssh(self, script: str, *options: str) -> list[str]:
        """The command that runs `script` there, in bash whatever the user's shell, with the machine's
        Python."""
        settings = [word for option in SSH_OPTIONS for word in ("-o", option)]
        place = self.machine.get("pythonPath")
        path = f"PATH={shlex.quote(place)}:$PATH; " if place else ""
        return ["ssh", *settings, "-i", self.machine["sshKeyFile"], "-p", str(self.machine["port"]),
                *options, self.name, f"exec bash -c {shlex.quote(path + script)}"]

    def probe(self, python: str, paths: list[str]) -> dict:
        """What a search finds there: nni (version), gpus, cores, and which of `paths` are missing.

        Raises:
            UserError: it cannot be reached, or something is not installed there.
        """
        words = shlex.join([python, "-", *paths])
        try:
            done = subprocess.run(self.ssh(words), input=PROBE, capture_output=True, text=True)
        except FileNotFoundError:
            raise UserError("machineList: there is no ssh here, which reaches other machines") from None
        if done.returncode:
            raise UserError(f"machineList: {self.name}: {last_line(done.stderr)}")
        return json.loads(done.stdout.splitlines()[-1])

    def fetch(self, id_: str, into: Path, trials: list[str] | None = None) -> None:
        """Move what trials wrote there into the experiment's folder `into`: of all, if not of `trials`.
        What they and NNI's runner printed comes with it, in envs/.

        Raises:
            UserError: the worker cannot be reached or `into` not be written; what is there stays there.
        """
        script = PACK % (id_, "$(ls trials)" if trials is None else shlex.join(trials))
        gone = [f"{FOLDER}/{id_}"] if trials is None else [f"{FOLDER}/{id_}/trials/{t}" for t in trials]
        packing = subprocess.Popen(self.ssh(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        with packing:
            try:
                with tarfile.open(fileobj=packing.stdout, mode="r|") as archive:
                    archive.extractall(into, filter="data")
            except (OSError, tarfile.TarError) as error:
                problem = str(error)
            else:
                problem = ""
            said = packing.stderr.read().decode(errors="replace")
        if packing.returncode or (problem and problem != "empty file"):
            raise UserError(f"{self.name}: {last_line(said) or problem}")
        subprocess.run(self.ssh(shlex.join(["rm", "-rf", *gone])), capture_output=True)


def last_line(text: str) -> str:
    """The last line that says something, which is where programs say what was wrong."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def workers(config: dict) -> list[Worker]:
    """The machines of an experiment's configuration; none where it trains on this one."""
    return [Worker(machine) for machine in config["trainingService"].get("machineList", [])]


class Tunnels:
    """The lines to an experiment's workers, while it runs; without workers all of this is nothing."""

    def __init__(self, workers: list[Worker]):
        self._workers = workers
        self._lines: list[tuple[Worker, subprocess.Popen]] = []
        self._fetched: set[str] = set()

    def open(self, port: int) -> None:
        """Lend every worker the port that NNI's runner will call, for a manager at `port`.

        Raises:
            UserError: one cannot be reached, or something listens at that port there.
        """
        self.close()
        call = f"127.0.0.1:{port + 1}:127.0.0.1:{port + 1}"
        for worker in self._workers:
            line = subprocess.Popen(
                worker.ssh(WATCHDOG, "-R", call), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,  # Ctrl-C is for us, who close it in turn
            )  # fmt: skip
            self._lines.append((worker, line))
            if line.stdout.readline() != "ready\n":
                raise UserError(f"{worker.name}: {last_line(line.stderr.read())}")

    def tie(self, id_: str) -> None:
        """Say what is to end there when a line ends: the runner of this experiment."""
        for _, line in self._lines:
            with suppress(BrokenPipeError):  # `lost` will tell
                line.stdin.write(f"{id_}\n")
                line.stdin.flush()

    def lost(self) -> str | None:
        """Which worker's line was cut or whose runner never came up, and what ssh or the runner said of
        it. NNI never calls it again: its trials stay RUNNING, and it is given further ones."""
        for worker, line in self._lines:
            if line.poll() is not None:
                what = (f"NNI's runner does not come up on {worker.name}" if line.returncode == RUNNER_NOT_UP
                        else f"the connection to {worker.name} was cut")
                return f"{what}: {last_line(line.stderr.read())}"
        return None

    def fetch(self, experiment: Experiment, trials: list[Trial] | None = None) -> list[str]:
        """Move what workers hold of the experiment here: of all, if not of those `trials` that are over.

        Returns:
            What could not be done, a line a worker.
        """
        over = None if trials is None else [t.id for t in trials if t.over and t.id not in self._fetched]
        if over == []:
            return []
        problems = []
        for worker in self._workers:
            try:
                worker.fetch(experiment.id, experiment.folder, over)
            except UserError as error:
                problems.append(str(error))
        if not problems:
            self._fetched.update(over or [])
        return problems

    def close(self) -> None:
        """End the lines, and with them NNI's runners."""
        for _, line in self._lines:
            with line:  # closes the other ends too, and waits
                with suppress(BrokenPipeError):
                    line.stdin.close()
        self._lines = []
