"""Requests to a page on loopback: the token, the host's name, the headers."""

import http.client
import os
import subprocess
import sys
import threading
from functools import partial
from http import HTTPStatus

import pytest

from experiments import loopback
from judge.common.errors import UserError

TOKEN = "secret"


class Echo(loopback.Handler):
    policy = "default-src 'self'"

    def do_GET(self) -> None:
        path = self.path_below_token()
        self.refuse(path) if path != "page" else self.answer(HTTPStatus.OK, b"<p>", "text/html")

    def do_POST(self) -> None:
        body = self.read_json(20)
        self.refuse(None) if self.path_below_token() is None else self.answer_json({"got": body})


@pytest.fixture
def server():
    with loopback.listen(0, partial(Echo, TOKEN)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.headers)


def test_an_answer_says_what_the_page_may_load_and_that_nobody_may_keep_it(server):
    status, body, headers = ask(server, "GET", "/secret/page")
    assert (status, body) == (200, b"<p>")
    expected = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
                "Content-Type": "text/html; charset=utf-8", "Content-Length": "3"}
    assert expected.items() <= headers.items()


def test_without_the_token_or_under_another_hosts_name_everything_is_refused(server):
    for path in ("/", "/page", "//page", "/secret2/page", "/secre/page", "/%73ecret/page"):
        assert ask(server, "GET", path)[0] == ask(server, "POST", path, b"1")[0] == 403, path
    for host in ("evil.com", "evil.com:80", "127.0.0.1.evil.com", "", "[", "localhost@evil.com"):
        assert ask(server, "GET", "/secret/page", Host=host)[0] == 403, host
        assert ask(server, "POST", "/secret/page", b"1", Host=host)[0] == 403, host
    for host in ("localhost:99", "127.0.0.1", "LOCALHOST"):  # ssh -L may have given it another port
        assert ask(server, "GET", "/secret/page", Host=host)[0] == 200, host
    assert ask(server, "GET", "/secret/other")[0] == 404
    assert ask(server, "DELETE", "/secret/page")[0] == ask(server, "PUT", "/secret/page")[0] == 501


def test_a_body_that_is_too_long_or_no_json_is_none(server):
    for body, got in ((b'{"a": 1}', b'{"a": 1}'), (b"[" * 19, b"null"), (b'"' + b"x" * 99, b"null"),
                      (b"\xff", b"null"), (b"", b"null")):
        assert ask(server, "POST", "/secret/", body)[:2] == (200, b'{"got": ' + got + b"}"), body
    for length in ("x", "-1"):
        assert ask(server, "POST", "/secret/", b"", **{"Content-Length": length})[1] == b'{"got": null}'


def test_a_port_that_is_taken_is_one_line(server):
    for port in (server.server_port, 10**6):
        with pytest.raises(UserError, match=f"--port {port} cannot be used"):
            loopback.listen(port, None)


def test_from_another_machines_network_nothing_answers(server):
    """Another network namespace reaches this one only as another machine would, and not its loopback."""
    if os.geteuid():
        pytest.skip("only root can make a network namespace")
    assert {address for address, _ in [server.server_address]} == {"127.0.0.1"}
    code = f"import socket; socket.create_connection(('127.0.0.1', {server.server_port}), 5)"
    here = subprocess.run([sys.executable, "-c", code], capture_output=True)
    inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    there = subprocess.run([*inside, sys.executable, "-c", code], capture_output=True, text=True)
    if "unshare" in there.stderr:
        pytest.skip(f"cannot make a network namespace: {there.stderr}")
    assert here.returncode == 0 and "ConnectionRefusedError" in there.stderr
