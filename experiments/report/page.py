"""The page of an experiment as one HTML file, which needs no server and no network; and pages in general.

`templates/` has the HTML, and the JavaScript that draws the document of `experiments.report.page_data`.
"""

import base64
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape
from plotly.offline import get_plotlyjs

from experiments.nni_adapter.database import Experiment
from experiments.report.page_data import PageData
from judge.common.files import as_user_error, atomic_write
from judge.common.progress import progress
from judge.score import Formula

MAX_PIXELS = 48e6  # of all pictures in a file: with more, each trial shows fewer steps
MAX_BEST = 100  # trials, the first of the table, whose last picture is in the best quality
FOLDER = Path(__file__).with_name("templates")
SCRIPTS = ("data.js", "pictures.js", "table.js", "figures.js", "live.js", "report.js")  # in this order
STYLE = "report.css"


class Figure(NamedTuple):
    """A figure of a page, with `note` as HTML above it; a narrow screen scrolls a `wide` one."""

    title: str
    plot: go.Figure | None
    note: str = ""
    wide: bool = False


def to_html(plot: go.Figure) -> str:
    """Return a plot without plotly's own code, in colours that suit a light and a dark page."""
    plot.update_layout(
        template="none", width=None, autosize=True, title=None,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#888"}, margin={"l": 60, "r": 20, "t": 30, "b": 50},
    )  # fmt: skip
    plot.update_xaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False)
    plot.update_yaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False, exponentformat="e")
    # Plotly's own bar has a button that sends the chart to a server.
    config = {"responsive": True, "modeBarButtonsToRemove": ["sendChartToCloud"]}
    return plot.to_html(full_html=False, include_plotlyjs=False, config=config)


PAGES = Environment(loader=FileSystemLoader(FOLDER), autoescape=select_autoescape(), trim_blocks=True)
PAGES.globals |= {"to_html": to_html, "get_plotlyjs": get_plotlyjs}


def write(experiment: Experiment, out: Path | None = None, formula: Formula | None = None) -> Path:
    """Write the page of `experiment` into its own folder or into `out`, and return the file.

    With a formula, all scores are computed by it. What takes seconds shows its progress.
    """
    return write_data(PageData(experiment, formula), out, partial(progress, doing="trials on the page"))


def write_data(data: PageData, out: Path | None = None, each: Callable[[list], Iterable] = iter) -> Path:
    """Write the page of the experiment that `data` reads, as `write` does; `each` goes through its trials."""
    folder = out or data.experiment.folder
    document = data.document(links_from=folder if folder == data.experiment.folder else None)
    return save(folder / f"{data.experiment.id}.html", render(*embed(data, document, each)))


def save(file: Path, html: str) -> Path:
    """Write a page to `file`, atomically, and return the file. Raises UserError if it cannot be written."""
    with as_user_error(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, lambda part: part.write_text(html))
    return file


def render(document: dict, strips: dict[str, str]) -> str:
    """Return the HTML of a document, with its pictures by key: none on a page that is served."""
    search = document["search"]
    return PAGES.get_template("report.html").render(
        data=to_script(document), pictures=to_script(strips), live=document["live"],
        title=f"{search['name']} {search['id']}", scripts=SCRIPTS, style=STYLE)


def to_script(value: dict) -> str:
    """Return JSON that is safe inside an HTML script: "<" could begin a comment or the end tag."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def embed(data: PageData, document: dict, each: Callable[[list], Iterable] = iter,
          ) -> tuple[dict, dict[str, str]]:  # fmt: skip
    """Return a document for a file, and its pictures as data URLs by key.

    The last pictures of the first `MAX_BEST` trials are in the best quality. With many trials each shows
    fewer steps, evenly spaced; pictures that cannot be read are left out.
    """
    painted = sum(bool(trial["pictures"]) for trial in document["trials"])
    count, strips = (document["sources"] or {}).get("count", 0), {}

    def add(key: str | None, best: bool = True) -> bool:
        if strip := data.picture(key, best) if key else None:
            strips[key] = "data:image/webp;base64," + base64.b64encode(strip.webp).decode()
        return strip is not None

    def reduced(place: int, trial: dict) -> dict:
        steps, finest = list(trial["pictures"]), place < MAX_BEST
        share = MAX_PIXELS / max(1, painted) / max(1, count * (trial["pixels"] or 0) ** 2)
        places = np.linspace(len(steps) - 1, 0, min(len(steps), max(1, int(share)))).round().astype(int)
        kept = {steps[at]: trial["pictures"][steps[at]] for at in places[::-1]}
        kept = {step: key for step, key in kept.items() if add(key, best=finest and step == steps[-1])}
        return trial | {"pictures": kept, "trained_on": checked(trial["trained_on"])}

    def checked(place: dict | None) -> dict | None:
        return place and place | {"picture": place["picture"] if add(place["picture"]) else None}

    trials = [reduced(place, trial) for place, trial in enumerate(each(document["trials"]))]
    return document | {"trials": trials, "sources": checked(document["sources"])}, strips
