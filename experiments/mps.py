"""NVIDIA's MPS: a daemon through which the kernels of several trials run on one GPU at the same time.

Without it, processes that share a GPU take turns.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from experiments.nni_adapter.processes import with_variable, with_word
from judge.common.errors import UserError

CONTROL = "nvidia-cuda-mps-control"  # part of NVIDIA's driver
QUIT_TIMEOUT = 120  # seconds: the daemon waits for its clients to end
START_TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Daemon:
    """A daemon that runs."""

    variables: dict[str, str]  # of the environment, by which programs find it
    processes: list[psutil.Process]

    def problem(self) -> str | None:
        """Return a line if it has ended: no program can use the GPU through it any more."""
        if len(with_word(self.processes, CONTROL)) < len(self.processes):
            return f"--mps: {CONTROL} has ended"
        return None


@contextmanager
def daemon(gpus: int) -> Iterator[Daemon]:
    """Run a daemon of this user's, and yield it.

    Raises UserError if trials use no GPU here, or the daemon is not installed or does not start.
    """
    if not gpus:
        raise UserError("--mps shares a GPU among trials, but none will run on a GPU of this machine")
    if not shutil.which(CONTROL):
        raise UserError(f"--mps: there is no {CONTROL} here, it comes with NVIDIA's driver: search without")
    with tempfile.TemporaryDirectory(prefix="salon-mps-", ignore_cleanup_errors=True) as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = os.environ | variables
        # The daemon would number these GPUs anew, and NNI's numbers for its trials would be wrong.
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        # This ends the daemon, which is nobody's child, when the pipe ends, also by kill -9 of this process.
        # Its command does not name the daemon's program, by which `_start` finds the daemon.
        ending = subprocess.Popen(
            ["sh", "-c", 'cat; echo quit | "$CONTROL"'], env=environment | {"CONTROL": CONTROL},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        try:
            yield _start(environment, variables)
        finally:
            ending.stdin.close()
            try:
                ending.wait(QUIT_TIMEOUT)
            except subprocess.TimeoutExpired:
                print(f"--mps: {CONTROL} has not ended within {QUIT_TIMEOUT} s", file=sys.stderr)


def _start(environment: dict[str, str], variables: dict[str, str]) -> Daemon:
    output = Path(variables["CUDA_MPS_LOG_DIRECTORY"], "start")
    with open(output, "w") as file:  # not a pipe, which the daemon would hold open
        try:
            code = subprocess.run([CONTROL, "-d"], env=environment, stdin=subprocess.DEVNULL, stdout=file,
                                  stderr=file, timeout=START_TIMEOUT,
                                  start_new_session=True).returncode  # Ctrl-C is for the trials first
        except subprocess.TimeoutExpired:
            code = 1
    if code:
        raise UserError(f"--mps: {CONTROL} did not start: {output.read_text().strip() or 'no output'}")
    return Daemon(variables, with_word(with_variable(*next(iter(variables.items()))), CONTROL))
