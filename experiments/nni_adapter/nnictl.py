"""NNI's command nnictl, with longer waits, and with an experiment's id that the caller chooses.

    python -m experiments.nni_adapter.nnictl create --config FILE

NNI waits 3 s for its manager to start (nni/experiment/launcher.py:188, `_check_rest_server`, called right
after `_start_rest_server`) and 20 s for each of its answers (nni/experiment/rest.py:16, `timeout`). A machine
that is busy with trials may need longer. And who has chosen the id can end what has been started, whenever
nnictl is interrupted. No longer needed when these are options of nnictl.
"""

import os
import socket
import subprocess
import sys
import time

from nni.experiment import RunMode, launcher, management, rest
from nni.tools.nnictl.nnictl import parse_args

from experiments.nni_adapter.manager import EXPERIMENT

TIMEOUT = 300  # seconds
start_manager = launcher._start_rest_server


def start_and_wait(arguments: launcher.NniManagerArgs, mode: RunMode) -> subprocess.Popen:
    """Start NNI's manager and wait until it listens, has ended, or `TIMEOUT` is over; NNI reports errors."""
    manager = start_manager(arguments, mode)
    deadline = time.monotonic() + TIMEOUT
    while manager.poll() is None and time.monotonic() < deadline:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", arguments.port)) == 0:
                break
        time.sleep(0.1)
    return manager


if __name__ == "__main__":
    launcher._start_rest_server = start_and_wait
    rest.timeout = TIMEOUT
    if id_ := os.environ.get(EXPERIMENT):
        management.generate_experiment_id = lambda: id_
    sys.exit(parse_args())
