"""What goes to this machine goes through no proxy."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from experiments.nni_adapter import bypass_proxies, manager

DEAD = "http://127.0.0.1:9"  # nothing listens there
PROXIES = [
    {"http_proxy": DEAD}, {"HTTP_PROXY": DEAD, "no_proxy": "intranet.example"}, {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"all_proxy": DEAD, "http_proxy": DEAD, "https_proxy": DEAD, "NO_PROXY": "example.com,.local"},
    {"http_proxy": DEAD, "no_proxy": "*"}, {"http_proxy": "nonsense"},
]  # fmt: skip
ASK = """
import sys
from experiments.nni_adapter import manager
from nni.experiment import rest
print(manager.status(int(sys.argv[1]))[0], rest.get(int(sys.argv[1]), "/check-status")["status"])
"""


class Answers(BaseHTTPRequestHandler):
    """Answers as NNI's manager does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"status": "RUNNING", "errors": []}).encode())

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def port():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def variables(monkeypatch):
    """Return a function that sets variables of proxies; there are no others."""
    for name in ("http", "https", "all", "no"):
        for spelling in (f"{name}_proxy", f"{name}_PROXY".upper()):
            monkeypatch.setenv(spelling, "")  # so that it is restored
            monkeypatch.delenv(spelling)
    return lambda given: [monkeypatch.setenv(*each) for each in given.items()]


@pytest.mark.parametrize("given", PROXIES)
def test_nnis_manager_is_asked_directly(port, variables, given):
    variables(given)
    bypass_proxies()
    assert manager.status(port) == ("RUNNING", [])
    assert set((given.get("no_proxy") or given.get("NO_PROXY") or "").split(",")) <= {
        "", *os.environ["no_proxy"].split(",")}
    if given.get("no_proxy") != "*":
        with pytest.raises(requests.RequestException):  # others still go through it
            requests.get("http://198.51.100.1/", timeout=5)


def test_programs_that_are_started_inherit_it(port, variables):
    variables(PROXIES[1])
    asked = subprocess.run([sys.executable, "-c", ASK, str(port)], capture_output=True, text=True)
    assert asked.stdout == "RUNNING RUNNING\n", asked.stderr
