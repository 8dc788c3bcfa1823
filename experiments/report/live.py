"""The page of an experiment while it runs, or later: served on loopback, with what is new every two seconds.

On it one can pin trials, write notes, and stop a trial.
"""

import re
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from experiments import loopback, notes
from experiments.nni_adapter import manager
from experiments.nni_adapter.database import Experiment
from experiments.report import page
from experiments.report.page_data import PageData, Sparing
from judge.common.cli import interrupt_on_signals
from judge.common.errors import UserError
from judge.common.schema import matches

MAX_BODY = 16_000  # bytes of a request: a note of 2,000 characters, each escaped
MAX_FILE = 5_000_000  # bytes of a log that are shown, the last ones
POLL = 2.0  # seconds between two questions of the page
LAST_POLL = 5.0  # seconds in which a page that is open learns of the end
WRITE_PAUSE = 30.0  # seconds between two files
OVER = ("ended", "failed", "stopped")  # states: by itself, with an error, by its user
REQUEST = {"pinned?": bool, "note?": str, "stop?": bool}  # form
TRIAL = re.compile(r"trials/(\w+)(?:/([\w.]+))?")  # path: a trial, and a file of it
SAMPLE = re.compile(r"pictures/[\w/]+\.webp")


class LivePage:
    """The page of the experiment that `data` reads, served by threads of its own until `close`.

    With `follow` it asks NNI whether the experiment runs; else who runs it says so.
    """

    def __init__(self, data: PageData, port: int = 0, follow: bool = False):
        self.data, self.follow = data, follow
        self._token, self._asked = loopback.new_token(), Sparing(LAST_POLL)
        self._written, self._writing = 0, Sparing(WRITE_PAUSE)
        self._polled, self._told = float("-inf"), threading.Event()
        self._server = loopback.listen(port, partial(Handler, self, self._token))
        self.port = self._server.server_port
        self.address = f"http://{loopback.ADDRESS}:{self.port}/{self._token}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            self._server.serve_forever(0.1)
        except Exception as error:  # of any kind: the search goes on
            print(f"page: no longer served ({error}), python -m experiments show "
                  f"{self.data.experiment.id or 'latest'} serves it again", file=sys.stderr)

    def begin(self, experiment: Experiment, port: int) -> None:
        """Show this experiment, which NNI has started at a port, instead of the one that was prepared."""
        data = PageData(experiment, begun_at=self.data.revision)
        data.state, data.links = "running", nni_links(port)
        self.data = data

    def ask_nni(self) -> None:
        """Find out whether the experiment runs, and where NNI's own pages are."""
        if self.follow and self._asked.due:
            with self._asked:
                port = manager.port_of(self.data.experiment)
                self.data.state, self.data.links = "running" if port else "ended", nni_links(port)

    def polled(self) -> None:
        """Note that a page that is open knows the state of now."""
        self._polled = time.monotonic()
        if self.data.state in OVER:
            self._told.set()

    def write_file(self) -> None:
        """Write the page as a file, if something is new and the last time is long enough ago."""
        if self._writing.due and self.data.refresh() != self._written:
            with self._writing, suppress(UserError):  # no room perhaps; the last one, at the end, says so
                page.write_data(self.data)
            self._written = self.data.revision

    def end(self, state: str, message: str | None = None) -> None:
        """Say how the experiment has ended, one of `OVER`, and why."""
        self.data.state, self.data.message = state, message
        self._told.clear()

    def close(self) -> None:
        """Wait until a page that is open knows of the end, and end the server."""
        if time.monotonic() < self._polled + 2 * POLL:
            self._told.wait(LAST_POLL)
        self._server.shutdown()
        self._server.server_close()

    def change(self, id_: str | None, request: dict) -> None:
        """Do what the page asks for, with a trial or with the search. Raises UserError if it cannot be."""
        experiment = self.data.experiment
        if not experiment.id:
            raise UserError("the search has not started yet: try again in a minute")
        if request.get("stop") and id_:
            manager.cancel_trial(experiment, id_)
        if not request.keys().isdisjoint(("note", "pinned")):
            notes.write(experiment.folder, id_, note=request.get("note"), pinned=request.get("pinned"))


class Handler(loopback.Handler):
    """Answers the requests of the page."""

    policy = ("default-src 'none'; img-src 'self' data: blob:; script-src 'self'; style-src 'self' "
              "'unsafe-inline'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'")

    def __init__(self, page: LivePage, token: str, *arguments: Any):
        self.page = page
        super().__init__(token, *arguments)

    def do_GET(self) -> None:
        try:
            self.find(self.path_below_token())
        except UserError as error:  # NNI's database cannot be read, perhaps just now
            self.answer_json({"problem": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)

    def find(self, path: str | None) -> None:
        """Answer with what is at a path below the token."""
        url, data = urlsplit(f"/{path}"), self.page.data
        name = url.path[1:]
        if path is None:
            self.refuse(path)
        elif not name:
            self.page.ask_nni()
            html = page.render(data.document(live=True), {})
            self.answer(HTTPStatus.OK, html.encode(), "text/html")
        elif name == "changes":
            self.page.ask_nni()
            self.answer_changes(parse_qs(url.query).get("since", [""])[0])
        elif SAMPLE.fullmatch(name) and (strip := data.picture(name)):
            self.answer(HTTPStatus.OK, strip.webp, "image/webp", "private, max-age=3600")
        elif (match := TRIAL.fullmatch(name)) and (file := data.file(match[1], match[2])):
            if file.suffix == ".png":
                return self.answer(HTTPStatus.OK, file.read_bytes(), "image/png")
            with open(file, "rb") as log:
                log.seek(max(0, file.stat().st_size - MAX_FILE))
                self.answer(HTTPStatus.OK, log.read(MAX_FILE))
        elif name in assets():
            kind = loopback.TYPES[name[name.index(".") :]]
            self.answer(HTTPStatus.OK, assets()[name], kind, "private, max-age=3600")
        else:
            self.refuse(path)

    def do_POST(self) -> None:
        path, request = self.path_below_token(), self.read_json(MAX_BODY)
        match, before = TRIAL.fullmatch(path or ""), self.page.data.revision
        id_ = match[1] if match and not match[2] else None
        if path is None or path != "search" and not (id_ and self.page.data.has(id_)):
            return self.refuse(path)
        if not (matches(request, REQUEST) and request and request.keys() <= {key[:-1] for key in REQUEST}):
            return self.answer_json({"problem": "this is no request of the page"}, HTTPStatus.BAD_REQUEST)
        try:
            self.page.change(id_, request)
            self.answer_changes(str(before))
        except UserError as error:
            self.answer_json({"problem": str(error)}, HTTPStatus.CONFLICT)

    def answer_changes(self, since: str) -> None:
        if not re.fullmatch(r"\d{1,12}", since):
            return self.answer_json({"problem": "changes since which revision?"}, HTTPStatus.BAD_REQUEST)
        self.answer_json(self.page.data.changes(int(since)))
        self.page.polled()


@cache
def assets() -> dict[str, bytes]:
    """Return the files that the page loads, by name."""
    files = {name: (page.FOLDER / name).read_bytes() for name in (*page.SCRIPTS, page.STYLE)}
    return files | {"plotly.js": page.get_plotlyjs().encode()}


def nni_links(port: int | None) -> list[dict]:
    """Return links to NNI's own pages, if it runs at a port."""
    return [{"label": "NNI's web UI", "url": f"http://127.0.0.1:{port}"}] if port else []


def announce(live: LivePage, show: bool) -> None:
    """Print the page's address, and open it in the browser with `show`."""
    port = live.port
    print(f"page: {live.address} (this machine only; else ssh -L {port}:127.0.0.1:{port})", flush=True)
    if show:
        webbrowser.open(live.address)


@contextmanager
def served(data: PageData, port: int = 0, show: bool = False) -> Iterator[LivePage]:
    """Serve a page within the `with` block, and print its address. It shows errors and signals."""
    live = LivePage(data, port)
    announce(live, show)
    try:
        yield live
    except UserError as error:
        live.end("failed", str(error))
        raise
    except KeyboardInterrupt as stop:
        live.end("stopped", f"by {stop}")
        raise
    finally:
        live.close()


def show(experiment: Experiment, port: int = 0, show: bool = False) -> None:
    """Serve the page of an experiment, which may be running, until Ctrl-C, which raises KeyboardInterrupt."""
    interrupt_on_signals()
    announce(LivePage(PageData(experiment), port, follow=True), show)
    print("Ctrl-C ends this", file=sys.stderr, flush=True)
    threading.Event().wait()
