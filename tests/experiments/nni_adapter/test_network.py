"""The ports of a search as seen from another machine: a second network namespace."""

import socket
import subprocess
import sys

import pytest

from tests.experiments.helpers import TINY, listening, processes_of, until

pytestmark = pytest.mark.slow
HERE, THERE = "169.254.77.1", "169.254.77.2"  # link-local, of a pair that leads nowhere else
NAMESPACE, LINK = "salon-test", "salon-test0"

CONNECT = """
import socket, sys
for port in map(int, sys.argv[2:]):
    with socket.socket() as end:
        end.settimeout(5)
        if end.connect_ex((sys.argv[1], port)) == 0:
            print(port)
"""


@pytest.fixture
def reachable():
    """Return a function that returns which of this machine's ports another machine reaches."""
    inside, commands = ["ip", "netns", "exec", NAMESPACE], [
        f"ip netns add {NAMESPACE}", f"ip link add {LINK} type veth peer name there netns {NAMESPACE}",
        f"ip addr add {HERE}/30 dev {LINK}", f"ip link set {LINK} up",
        f"ip -n {NAMESPACE} addr add {THERE}/30 dev there", f"ip -n {NAMESPACE} link set there up",
    ]  # fmt: skip
    try:
        if any(subprocess.run(command.split(), capture_output=True).returncode for command in commands):
            pytest.skip("no right to make a network namespace here")

        def connect(*ports: int) -> set[int]:
            command = [*inside, sys.executable, "-c", CONNECT, HERE, *map(str, ports)]
            return set(map(int, subprocess.check_output(command, text=True).split()))

        yield connect
    finally:
        for command in (f"ip link del {LINK}", f"ip netns del {NAMESPACE}"):
            subprocess.run(command.split(), capture_output=True)


def test_no_port_of_a_search_is_reached_from_another_machine(experiment, started, reachable, tensorboard):
    running, port = started(experiment(options=f"{TINY} --steps 100000 --reports 5000", maxTrialNumber=1))
    trial = until(lambda: next(running.folder.glob("trials/*"), None))
    until(lambda: (trial / "checkpoint.pt").exists())
    tensorboard(running.folder, port, trial.name)
    addresses = {address for process in processes_of(running.folder) for address in listening(process)}
    ports = {address.port for address in addresses}
    assert port in ports and len(ports) >= 2  # the manager's and TensorBoard's
    with socket.create_server(("0.0.0.0", 0)) as control:
        assert reachable(control.getsockname()[1], *ports) == {control.getsockname()[1]}
    for address in addresses:  # they do listen
        socket.create_connection((address.ip, address.port), timeout=5).close()
