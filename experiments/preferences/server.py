"""A page on this machine's loopback address that shows pairs of sheets and takes votes."""

import base64
import io
import sys
import threading
import webbrowser
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from PIL import Image

from experiments import loopback
from experiments.preferences import candidates, votes
from experiments.preferences.pairs import Chooser, Pair
from judge.common.errors import UserError
from judge.common.schema import matches

LEAST_PIXELS = 96  # smaller images are enlarged by the smallest whole factor that makes them as large
MAX_BODY = 1000  # bytes of a request
UNDO = "undo"
REQUEST = {"number": int, "vote": str}  # form: the pair's number in the run
FILES = {"": "page.html", "page.js": "page.js", "page.css": "page.css"}  # by path below the token


class Voting:
    """One run of a viewer: the votes so far, and the pair that is shown now."""

    def __init__(self, chooser: Chooser, file: Path, voter: str, total: int):
        self.chooser, self.file, self.voter, self.total = chooser, file, voter, total
        self.earlier = [vote for vote in votes.read(file)[0] if vote.voter == voter]
        self.votes: list[votes.Vote] = []  # of this run
        self.lock = threading.Lock()
        self.pair = self._choose()

    @property
    def number(self) -> int:
        """The number of the pair that is shown, from 1."""
        return len(self.votes) + 1

    def _choose(self) -> Pair | None:
        more = len(self.votes) < self.total
        return self.chooser.choose(self.earlier + self.votes, self.number) if more else None

    def receive(self, number: int, answer: str) -> None:
        """Note a vote on the pair of this number, or take the last one of this run back.

        An answer to another pair than the one shown is ignored: a key was pressed twice.
        """
        if number != self.number:
            return
        if answer == UNDO and self.votes:
            line = {"time": votes.now(), "voter": self.voter, UNDO: self.votes[-1].time}
            votes.append(self.file, line)
            self.votes.pop()
        elif answer in votes.PREFERENCE and self.pair:
            left, right, repeat = self.pair
            vote = votes.Vote(votes.now(), self.voter, number, repeat, left.sheet, right.sheet, answer)
            votes.append(self.file, vote)
            self.votes.append(vote)
        self.pair = self._choose()

    def view(self) -> dict[str, Any]:
        """Return what the page shows now."""
        view = {"number": self.number, "done": len(self.votes), "total": self.total, "voter": self.voter}
        if not self.pair:
            return view | {"end": f"Thank you. {len(self.votes)} votes are in {self.file}. Next: "
                                  f"python -m experiments taste {self.file}"}
        left, right, _ = self.pair
        images = {"photographs": left.cells(lower=False), "left": left.cells(lower=True),
                  "right": right.cells(lower=True)}
        return view | {"edge": left.pixels * -(-LEAST_PIXELS // left.pixels)} | {
            name: list(map(data_url, cells)) for name, cells in images.items()}


def data_url(image: Image.Image) -> str:
    """Return an image as a PNG data URL, with every pixel as it is."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Handler(loopback.Handler):
    """Answers the requests of the page."""

    policy = ("default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
              "base-uri 'none'; frame-ancestors 'none'")  # nothing is loaded from elsewhere

    def __init__(self, voting: Voting, token: str, *arguments: Any):
        self.voting = voting
        super().__init__(token, *arguments)

    def do_GET(self) -> None:
        path = self.path_below_token()
        if path in FILES:
            file = Path(__file__).with_name("templates") / FILES[path]
            self.answer(HTTPStatus.OK, file.read_bytes(), loopback.TYPES[file.suffix])
        elif path == "pair":
            self.answer_view()
        else:
            self.refuse(path)

    def do_POST(self) -> None:
        path, request = self.path_below_token(), self.read_json(MAX_BODY)
        if path != "vote":
            return self.refuse(path)
        if not matches(request, REQUEST):
            return self.answer(HTTPStatus.BAD_REQUEST)
        self.answer_view(request)

    def answer_view(self, request: dict | None = None) -> None:
        """Answer with what the page shows, after a vote if there is one."""
        with self.voting.lock:
            try:
                if request:
                    self.voting.receive(request["number"], request["vote"])
                view = self.voting.view()
            except UserError as error:
                print(error, file=sys.stderr)
                view = {"problem": str(error)}
        self.answer_json(view)


def serve(voting: Voting, port: int, show: bool) -> None:
    """Serve the page until Ctrl-C, which raises KeyboardInterrupt. Prints its address first."""
    token = loopback.new_token()
    server = loopback.listen(port, partial(Handler, voting, token))
    address = f"http://{loopback.ADDRESS}:{server.server_port}/{token}/"
    print(address, flush=True)
    print(f"votes of {voting.voter} go to {voting.file}; Ctrl-C ends this", flush=True)
    if show:
        webbrowser.open(address)
    with server:
        server.serve_forever()


def prefer(names: list[str], voter: str, pairs: int, port: int, show: bool, seed: int) -> None:
    """Ask a viewer about pairs of sheets of these experiments. Raises UserError before a page is served."""
    if not voter or not voter.isprintable():
        raise UserError(f"--voter {voter!r} is not a name: give some letters")
    folder, sheets = candidates.find(names)
    chooser = Chooser(sheets, seed)
    voting = Voting(chooser, folder / votes.FILE_NAME, voter, pairs)
    if not voting.pair:
        raise UserError(f"{voter} has voted on all pairs of {', '.join(names)}: name other experiments")
    serve(voting, port, show)
