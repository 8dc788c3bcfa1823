"""The document of a page, made without NNI, its HTML, and a server that speaks the live page's protocol."""

import base64
import io
import json
import threading
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.report import live, page

SPACE = {
    "cycle_weight": {"_type": "loguniform", "_value": [1, 100]},
    "adversarial_weight": {"_type": "loguniform", "_value": [0.25, 4]},
    "generator_lr": {"_type": "loguniform", "_value": [5e-5, 2e-3]},
    "upsampling": {"_type": "choice", "_value": ["transposed", "resize"]},
}
PUBLISHED = {"cycle_weight": 10.0, "adversarial_weight": 1.0, "generator_lr": 0.0002,
             "upsampling": "transposed"}
PARTS = [
    {"name": "default", "label": "score", "better": "higher", "help": "style x content / (1 + KID)"},
    {"name": "style", "label": "style", "better": "higher", "help": "how much like paintings"},
    {"name": "content", "label": "content", "better": "higher", "help": "how much of the photograph stays"},
    {"name": "clean", "label": "clean", "better": "higher", "help": "1 without a grid"},
    {"name": "kid", "label": "KID", "better": "lower", "help": "distance to real paintings"},
    {"name": "kid_error", "label": "KID error", "better": None, "help": "standard error of the KID"},
]  # fmt: skip


def document(count: int, reports: int = 3, images: int = 8, pixels: int = 64) -> tuple[dict, dict]:
    """Return the document of a search that has ended, and its pictures as WebP by key.

    Trial 0 is the published setting, 1 diverged, 2 failed on import, and every fourth was stopped early. Each
    image is of one colour, another for each trial and step.
    """
    rng = np.random.default_rng(0)
    pictures = {"pictures/sources.webp": strip(rng, images, pixels)}
    trials = [trial(number, count, reports, rng) for number in range(count)]
    for entry in trials:
        for step in entry["curve"]["step"] if entry["number"] != 2 else []:
            key = f"pictures/{entry['id']}/{step}.webp"
            entry["pictures"][str(step)], entry["pixels"] = key, pixels
            pictures[key] = strip(rng, images, pixels)
    trials.sort(key=lambda entry: (entry["scores"] is None, -(entry["scores"] or {}).get("default", 0)))
    winner = next((entry for entry in trials if entry["state"] == "succeeded"), None)
    if winner:
        winner["best"] = True
    states = [entry["state"] for entry in trials]
    search = {
        "id": "ssssssss", "name": "A search", "kind": "search", "state": "ended", "message": None,
        "facts": ["data: sample (built-in stand-in)", "judge: models/sample.pt", "size: sketch"],
        "counts": {state: states.count(state) for state in dict.fromkeys(states)}, "max_trials": count,
        "ended": count, "failed": states.count("failed"), "expected_end": None,
        "started": 1.7e9, "seconds": 216.0,
        "caption": "Sketch, 300 of 2,000 steps: shows the order of settings, paints nothing yet.",
        "formula": "style-and-scene", "rescored": False, "space": SPACE, "published": PUBLISHED,
        "parts": PARTS,
        "advice": ["best: trial 11, score 0.5 (one seed: a hint, not a proof)"],
        "commands": [{"label": "Repeat the best trial", "command": "python -m trials.cyclegan --like x"}],
        "confirmation": None, "note": "", "pinned": False, "machine": [], "links": [],
    }  # fmt: skip
    rows = [{"name": "cycle_weight / adversarial_weight", "importance": 0.7, "low": 0.5, "high": 0.8},
            {"name": "upsampling", "importance": 0.3, "low": 0.1, "high": 0.4}]
    return {
        "revision": 1, "live": False, "search": search, "trials": trials,
        "sources": {"picture": "pictures/sources.webp", "count": images, "pixels": pixels},
        "importance": {"rows": rows, "note": "Of the finished trials."},
    }, pictures  # fmt: skip


def trial(number: int, count: int, reports: int, rng: np.random.Generator) -> dict:
    """Return one entry, without pictures; later numbers have better scores."""
    parameters = PUBLISHED if number == 0 else {
        "cycle_weight": float(10 ** rng.uniform(0, 2)), "adversarial_weight": float(4 ** rng.uniform(-1, 1)),
        "generator_lr": float(10 ** rng.uniform(-4.3, -2.7)),
        "upsampling": ("transposed", "resize")[number % 2]}
    state = {1: "diverged", 2: "failed"}.get(number, "early stopped" if number % 4 == 3 and number < count - 1
                                             else "succeeded")
    share = (number + 1) / (count + 1)
    scores = {"default": share / 2, "error": 0.01, "style": share, "content": 1 - share, "clean": 1.0,
              "kid": float(rng.uniform(0.1, 2)), "kid_error": 0.02}  # fmt: skip
    steps = [] if state == "failed" else [100 * (at + 1) for at in range(
        max(1, reports - 1) if state == "early stopped" else reports)]
    curve = {name: [value * step / steps[-1] for step in steps] for name, value in scores.items()}
    reasons = {"diverged": "cycle_A loss is nan", "early stopped": "stopped after 2 of 3 reports"}
    id_, failed = f"t{number:03}", state == "failed"
    return {
        "id": id_, "number": number, "state": state, "published": number == 0, "best": False, "level": False,
        "curve": {"step": steps} | curve,
        "scores": None if failed else {"default": 0.0} if state == "diverged" else scores,
        "score_text": "" if failed else "0" if state == "diverged" else f"{scores['default']:.3g} ± 0.01",
        "parameters": parameters, "settings": {"batch_size": 4}, "pictures": {}, "pixels": 64,
        "step": steps[-1] if steps else None, "last_step": 100 * reports, "steps_per_second": 17.9,
        "started": 1.7e9, "seconds": 41.0, "expected_end": None, "memory": None, "reason": reasons.get(state),
        "log": "ModuleNotFoundError: No module named 'x'" if failed else None,
        "log_file": f"/runs/ssssssss/trials/{id_}/stderr" if failed else None,
        "command": f"python -m trials.cyclegan --like runs/ssssssss/trials/{id_}",
        "folder": f"/runs/ssssssss/trials/{id_}",
        "files": [{"label": "run.json", "url": f"trials/{id_}/run.json"}],
        "sheets": [{"label": "1,200", "url": f"trials/{id_}/step_001200.png"}],
        "note": "", "pinned": False, "trained_on": None,
    }  # fmt: skip


def strip(rng: np.random.Generator, images: int, pixels: int) -> bytes:
    """Return `images` squares of one colour each, side by side, as a lossless WebP."""
    squares = np.repeat(np.repeat(rng.integers(0, 256, (1, images, 3), np.uint8), pixels, 0), pixels, 1)
    buffer = io.BytesIO()
    Image.fromarray(squares).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def html(data: dict, pictures: dict[str, bytes]) -> str:
    """Return the page of a document, with its pictures embedded unless it is live."""
    urls = {} if data["live"] else {
        key: "data:image/webp;base64," + base64.b64encode(strip).decode() for key, strip in pictures.items()}
    return page.render(data, urls)


def save(folder: Path, data: dict, pictures: dict[str, bytes]) -> Path:
    """Write the page into a file, and return it."""
    file = folder / "ssssssss.html"
    file.write_text(html(data, pictures))
    return file


class Served:
    """A live page's document at `url`; `posts` has what was sent. It is changed by `change`."""

    def __init__(self, data: dict, pictures: dict[str, bytes]):
        self.data, self.pictures, self.posts = deepcopy(data) | {"live": True}, dict(pictures), []
        self.changed = {trial["id"]: 1 for trial in self.data["trials"]}

    def trial(self, id_: str) -> dict:
        return next(trial for trial in self.data["trials"] if trial["id"] == id_)

    def change(self, id_: str | None, **values: object) -> None:
        """Change a trial, or the search without an id."""
        (self.trial(id_) if id_ else self.data["search"]).update(values)
        self.data["revision"] += 1
        if id_:
            self.changed[id_] = self.data["revision"]

    def answer(self, since: int) -> dict:
        trials = [trial for trial in self.data["trials"] if self.changed[trial["id"]] > since]
        kept = {key: self.data[key] for key in ("revision", "search", "sources", "importance")}
        return kept | {"order": [trial["id"] for trial in self.data["trials"]], "trials": trials}

    def get(self, path: str) -> bytes | None:
        if not path:
            return html(self.data, {}).encode()
        if path.startswith("changes?since="):
            return json.dumps(self.answer(int(path.split("=")[1]))).encode()
        if path in page.SCRIPTS or path == page.STYLE:
            return (page.FOLDER / path).read_bytes()
        return page.get_plotlyjs().encode() if path == "plotly.js" else self.pictures.get(path)

    def post(self, path: str, body: dict) -> bytes:
        since = self.data["revision"]
        self.posts.append((path, body))
        self.change(path.removeprefix("trials/") if path != "search" else None,
                    **{key: value for key, value in body.items() if key != "stop"})
        return json.dumps(self.answer(since)).encode()


TYPES = {"js": "text/javascript", "css": "text/css", "webp": "image/webp"}  # else HTML


@contextmanager
def serve(data: dict, pictures: dict[str, bytes]):
    """Serve a document as the live page is; yields its `Served`, with `stop()`."""
    served = Served(data, pictures)

    class Handler(BaseHTTPRequestHandler):
        def reply(self, content: bytes | None) -> None:
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", TYPES.get(self.path.rsplit(".")[-1], "text/html"))
            self.send_header("Content-Security-Policy", live.Handler.policy)
            self.end_headers()
            self.wfile.write(content or b"{}")

        def do_GET(self) -> None:
            self.reply(served.get(self.path.removeprefix("/token/")))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(served.post(self.path.removeprefix("/token/"), body))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    served.url, served.stop = f"http://127.0.0.1:{server.server_port}/token/", stop
    try:
        yield served
    finally:
        if thread.is_alive():
            stop()
