"""What a search listens on, seen from a machine beside this one: a second network namespace."""

import socket
import subprocess
import sys

import psutil
import pytest
import requests

from experiments import engine
from tests.experiments.test_search import TINY, home, processes_of, started, tensorboard_of, until  # noqa: F401

pytestmark = pytest.mark.slow
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


def test_no_port_of_a_search_is_reached_from_another_machine(experiment, started, neighbour):  # noqa: F811
    running, port = started(experiment(options=f"{TINY} --steps 100000 --reports 5000", maxTrialNumber=1))
    trial = until(lambda: next(running.folder.glob("trials/*"), None))
    until(lambda: (trial / "checkpoint.pt").exists())
    url = f"http://127.0.0.1:{port}/api/v1/nni/tensorboard"  # what the UI's button calls
    assert requests.post(url, json={"trials": trial.name}, timeout=30).ok
    until(lambda: tensorboard_of(running.folder))
    ours = {
        c.laddr
        for process in processes_of(running.folder)
        for c in process.net_connections()
        if c.status == psutil.CONN_LISTEN
    }
    ports = {address.port for address in ours}
    assert port in ports and len(ports) >= 2  # the manager's and TensorBoard's
    with socket.create_server(("0.0.0.0", 0)) as control:
        open_ = control.getsockname()[1]
        assert neighbour(open_, *ports) == {open_}
    for address in ours:  # and they do listen
        with socket.create_connection((address.ip, address.port), timeout=5):
            pass


FORMS = {
    "a port": "s.listen(0)",
    "a port and a callback": "s.listen(0, () => {})", "a port as text": "s.listen('0')",
    "every interface": "s.listen(0, '0.0.0.0')", "by name": "s.listen({port: 0, host: '::'})",
    "a port and a queue": "s.listen(0, 16)", "options": "s.listen({port: 0})", "nothing": "s.listen()",
    "only a callback": "s.listen(() => {})", "an empty host": "s.listen(0, undefined, 16, () => {})",
    "null": "s.listen(null)", "null and a callback": "s.listen(null, () => {})",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_whatever_way_a_server_is_told_to_listen_it_listens_on_loopback(form):
    import nni_node

    node = f"{nni_node.__path__[0]}/node"
    code = (
        f"const s = require('http').createServer(); {FORMS[form]}; "
        "s.on('listening', () => { console.log(s.address().address); process.exit(); })"
    )
    done = subprocess.run(
        [node, "--require", engine.LOOPBACK, "-e", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "127.0.0.1", done.stderr
