"""Pages that this program serves to the user's browser, on this machine's loopback address only.

Every request needs the random token in the page's address, so that neither other users of this machine nor
other pages in the browser can see or change anything. A request under another host's name is refused too: a
page elsewhere may have let its own name point here.
"""

import json
import secrets
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from judge.common.errors import UserError

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")  # in a request; the port may be another one, by ssh -L
TIMEOUT = 30  # seconds in which a request must be complete
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".webp": "image/webp"}
HEADERS = {"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}  # nobody learns the token


def new_token() -> str:
    """Return a token for a page's address."""
    return secrets.token_urlsafe(16)


class Handler(BaseHTTPRequestHandler):
    """Answers requests below the token; `policy` says what a page may load (Content-Security-Policy)."""

    timeout = TIMEOUT
    policy = "default-src 'none'"

    def __init__(self, token: str, *arguments: Any):
        self.token = token
        super().__init__(*arguments)

    def path_below_token(self) -> str | None:
        """Return the request's path without the token; None if the token is not there, or the host's name is
        not this machine's."""
        _, token, path = [*self.path.split("/", 2), "", ""][:3]
        known = secrets.compare_digest(token.encode(), self.token.encode())
        return path if known and self._host() in HOSTS else None

    def _host(self) -> str | None:
        with suppress(ValueError):  # no host's name
            return urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return None

    def read_json(self, most: int) -> Any:
        """Return the request's body, of at most so many bytes, as JSON; None if it is none."""
        with suppress(ValueError, RecursionError):  # no number, no JSON, or brackets nested too deep
            length = int(self.headers.get("Content-Length", 0))
            # Also if it is refused: closing a connection with unread bytes would lose the answer.
            return json.loads(self.rfile.read(min(max(0, length), most)))
        return None

    def refuse(self, path: str | None) -> None:
        """Answer that there is no such page, or that the token is missing."""
        self.answer(HTTPStatus.FORBIDDEN if path is None else HTTPStatus.NOT_FOUND)

    def answer_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.answer(status, json.dumps(value, allow_nan=False).encode(), "application/json")

    def answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain",
               cache: str = "no-store") -> None:  # fmt: skip
        """Send an answer; `cache` says how long the browser may keep it."""
        text = kind.startswith(("text/", "application/"))
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Security-Policy": self.policy, "Cache-Control": cache,
                            "Content-Type": kind + "; charset=utf-8" * text,
                            "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing for a request."""


class Server(ThreadingHTTPServer):
    """A server on loopback."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, except if the browser has closed the connection or was too slow."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def listen(port: int, handler: Any) -> Server:
    """Return a server at this port of loopback, or at any free one for 0. Raises UserError if it is taken."""
    try:
        return Server((ADDRESS, port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} cannot be used ({error}): choose another, or none") from None
