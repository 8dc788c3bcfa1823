"""What a search listens on, seen from a machine beside this one: a second network namespace."""

import socket
import subprocess
import sys

import pytest

from tests.experiments.test_search import TINY, home, listening, processes_of, started, tensorboard, until

pytestmark = pytest.mark.slow
__all__ = ["home", "started", "tensorboard"]  # fixtures
HERE, THERE = "169.254.77.1", "169.254.77.2"  # link-local, of a pair that leads nowhere else
NAMESPACE, LINK = "salon-test", "salon-test0"

CONNECT = """
import socket, sys
for port in map(int, sys.argv[2:]):
    with socket.socket() as end:
        end.settimeout(5)
        print(port, end.connect_ex((sys.argv[1], port)) == 0)
"""


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


@pytest.fixture
def neighbour():
    """Tells which of this machine's ports another machine reaches."""
    try:
        if not ip("netns", "add", NAMESPACE):
            pytest.skip("no right to make a network namespace here")
        made = (
            ip("link", "add", LINK, "type", "veth", "peer", "name", "there", "netns", NAMESPACE)
            and ip("addr", "add", f"{HERE}/30", "dev", LINK)
            and ip("link", "set", LINK, "up")
            and ip("-n", NAMESPACE, "addr", "add", f"{THERE}/30", "dev", "there")
            and ip("-n", NAMESPACE, "link", "set", "there", "up")
        )
        if not made:
            pytest.skip("no right to join a network namespace here")

        def reached(*ports: int) -> set[int]:
            done = subprocess.run(
                ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", CONNECT, HERE, *map(str, ports)],
                capture_output=True,
                text=True,
                check=True,
            )
            found = dict(line.split() for line in done.stdout.splitlines())
            assert set(map(int, found)) == set(ports)
            return {int(port) for port, open_ in found.items() if open_ == "True"}

        yield reached
    finally:
        ip("link", "del", LINK)
        ip("netns", "del", NAMESPACE)


def test_no_port_of_a_search_is_reached_from_another_machine(
    experiment, started, neighbour, tensorboard,
):
    running, port = started(experiment(options=f"{TINY} --steps 100000 --reports 5000", maxTrialNumber=1))
    trial = until(lambda: next(running.folder.glob("trials/*"), None))
    until(lambda: (trial / "checkpoint.pt").exists())
    tensorboard(running.folder, port, trial.name)
    ours = {address for process in processes_of(running.folder) for address in listening(process)}
    ports = {address.port for address in ours}
    assert port in ports and len(ports) >= 2  # the manager's and TensorBoard's
    with socket.create_server(("0.0.0.0", 0)) as control:
        open_ = control.getsockname()[1]
        assert neighbour(open_, *ports) == {open_}
    for address in ours:  # and they do listen
        with socket.create_connection((address.ip, address.port), timeout=5):
            pass
