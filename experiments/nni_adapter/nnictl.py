"""NNI's own command, with patience. NNI 2.10.1 gives its manager 3 s to start and 20 s to answer, which a
machine at work on trials may not do; a search that such a machine refuses starts well a minute later.

    python -m experiments.nnictl create --config FILE
"""

import socket
import subprocess
import sys
import time

from nni.experiment import RunMode, launcher, rest
from nni.tools.nnictl.nnictl import parse_args

PATIENCE = 300  # seconds
POLL = 0.1

start = launcher._start_rest_server


def started(arguments: launcher.NniManagerArgs, mode: RunMode) -> subprocess.Popen:
    """NNI's manager, once it listens, has ended or has had its time: what is wrong then, NNI says itself."""
    manager = start(arguments, mode)
    end = time.monotonic() + PATIENCE
    while manager.poll() is None and not listened_to(arguments.port) and time.monotonic() < end:
        time.sleep(POLL)
    return manager


def listened_to(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    launcher._start_rest_server = started
    rest.timeout = PATIENCE
    sys.exit(parse_args())
