"""The report as one HTML file, which needs no server and no network.

Pictures are cut from the trials' sample sheets, plotly draws the figures, and `templates/` has the rest.
"""

import base64
import io
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape
from optuna.visualization import plot_parallel_coordinate, plot_slice
from plotly.offline import get_plotlyjs

from experiments import confirmation
from experiments.nni_adapter.database import Experiment, find_experiment
from experiments.report import importance, results
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write
from judge.score import Formula
from trials.parts import sheets

STRIP_PIXELS = 96  # largest height of a strip: one row of a sample sheet
MAX_STRIPS = 1500  # in a page: with more trials, each shows fewer steps
FEW_TRIALS = 50  # with fewer finished trials, the importances come with a warning
COLOURS = {"other trials": "rgba(128,128,128,.45)", "published": "#2a7fde", "best": "#e0672f"}

RATIO_NOTE = "Loss weights are shown as ratios: with Adam, a factor common to all has next to no effect."
FEW_NOTE = """ <strong>With so few trials this is a hint, not a finding</strong>:
where the intervals overlap, the order means nothing."""


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
    plot.update_yaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False)
    return plot.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True})


TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"))
PAGES = Environment(loader=TEMPLATES, autoescape=select_autoescape(), trim_blocks=True)
PAGES.globals |= {"to_html": to_html, "get_plotlyjs": get_plotlyjs}


def write(experiment: Experiment, out: Path | None = None, formula: Formula | None = None) -> Path:
    """Write the page of `experiment` into its own folder or into `out`, and return the file.

    With a formula, all scores are computed by it.
    """
    return save((out or experiment.folder) / f"{experiment.id}.html", render(experiment, formula))


def save(file: Path, html: str) -> Path:
    """Write a page to `file`, atomically, and return the file. Raises UserError if it cannot be written."""
    with as_user_error(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, lambda part: part.write_text(html))
    return file


def render(experiment: Experiment, formula: Formula | None = None) -> str:
    """Return the page's HTML."""
    rows = results.rows(experiment, formula)
    winner = results.best(rows)
    strips = [painted_strips(row.trial.folder, max(1, MAX_STRIPS // len(rows))) for row in rows]
    scores = [row.trial.latest or {} for row in rows]
    return PAGES.get_template("report.html").render(
        entries=list(zip(rows, scores, strips, [results.command(experiment, row) for row in rows])),
        winner=winner, parameters=list(rows[0].trial.parameters) if rows else [],
        score_names=list(dict.fromkeys(name for score in scores for name in score if name != "error")),
        heading=results.heading(experiment, rows),
        advice=results.advice(experiment, winner, rows) if winner else [],
        confirmation=confirmation_text(experiment), sources=source_strip(rows),
        steps=sorted({step for by_step in strips for step in by_step}), figures=figures(rows),
    )  # fmt: skip


def confirmation_text(experiment: Experiment) -> str | None:
    """Return the table of `experiment` if it is a confirmation, else of its newest one beside it, or None."""
    if confirmation.is_confirmation(experiment):
        return confirmation.text(experiment, confirmation.ends(experiment))
    databases = experiment.folder.parent.glob("[!_]*/db/nni.sqlite")
    for file in sorted(databases, key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(UserError):  # the other experiment may be damaged
            other = find_experiment(str(file.parents[1]))
            if confirmation.search_of(other) == experiment.id:
                return confirmation.text(other, confirmation.ends(other))
    return None


def painted_strips(folder: Path, count: int) -> dict[int, str]:
    """Return a trial's readable paintings as data URLs by step: the last, and others evenly spaced."""
    files = sheets.list_sheets(folder)
    steps = list(files)[::-1]
    places = np.linspace(0, len(steps) - 1, min(count, len(steps))).round().astype(int)
    strips = {steps[at]: strip(files[steps[at]], lower=True) for at in places[::-1]}
    return {step: url for step, url in strips.items() if url}


def source_strip(rows: list[results.Row]) -> str | None:
    """Return the photographs that every trial paints, as a data URL; None before the first report."""
    files = (file for row in rows for file in sheets.list_sheets(row.trial.folder).values())
    return next(filter(None, (strip(file, lower=False) for file in files)), None)


def strip(sheet: Path, lower: bool) -> str | None:
    """Return the lower or upper half of a sample sheet as a WebP data URL; None if it is unreadable."""
    image = sheets.crop_half(sheet, lower)
    if image is None:
        return None
    image.thumbnail((image.width, STRIP_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def figures(rows: list[results.Row]) -> list[Figure]:
    """Return the figures that the trials so far allow."""
    figures = [Figure("Learning curves", curves(rows))]
    finished = [row for row in rows if row.trial.final and row.state != "diverged"]
    if len(finished) >= 2:
        parameters = pd.DataFrame([row.trial.parameters for row in finished])
        parameters = parameters.loc[:, parameters.nunique() > 1]
        finals = pd.DataFrame([row.trial.final for row in finished])
        score, ratios = finals[["default"]], importance.weight_ratios(parameters)
        few = sum(row.trial.final is not None for row in rows) < FEW_TRIALS
        note = RATIO_NOTE + FEW_NOTE * few
        figures.append(Figure("What matters", importances(ratios, finals["default"]), note))
        if len(parameters.columns):
            both = parameters.join(ratios[ratios.columns.difference(parameters.columns, sort=False)])
            slices = plot_slice(importance.optuna_study(both, score), target_name="score")
            study = importance.optuna_study(parameters, score)
            figures += [Figure("Slices", slices, wide=True), Figure(
                "Parallel coordinates", plot_parallel_coordinate(study, target_name="score"), wide=True)]
        figures.append(Figure("Style against content", trade_off(finished, finals)))
    return [figure for figure in figures if figure.plot is not None]


def curves(rows: list[results.Row]) -> go.Figure | None:
    """Return a plot of score and parts against steps, with the best and the published setting in colour."""
    winner, groups = results.best(rows), {group: [] for group in COLOURS}
    for row in rows:
        group = "best" if row is winner else "published" if row.published else "other trials"
        label, by_step = results.name(row.trial, row.published), results.recorded_scores(
            row.trial, row.formula)
        groups[group] += [(step, score, label) for step, score in by_step.items()]
        # A gap between trials: plotly draws one trace of all trials faster than a trace of each.
        groups[group] += [(None, {}, "")] if by_step else []
    scores = [score for points in groups.values() for _, score, _ in points]
    names = list(dict.fromkeys(name for score in scores for name in score))
    if not names:
        return None
    figure = go.Figure()
    for name, (group, points) in product(names, groups.items()):
        figure.add_scatter(
            x=[step for step, _, _ in points], y=[score.get(name) for _, score, _ in points],
            text=[label for _, _, label in points], name=group, mode="lines+markers", marker={"size": 4},
            line={"color": COLOURS[group], "width": 1 if group == "other trials" else 3},
            visible=name == names[0], hovertemplate="trial %{text}, step %{x}: %{y:.4g}",
        )  # fmt: skip
    buttons = [{"label": "score" if name == "default" else name, "method": "update",
                "args": [{"visible": [name == other for other in names for _ in groups]}]} for name in names]
    menu = {"buttons": buttons, "direction": "right", "type": "buttons", "x": 0, "xanchor": "left",
            "y": 1.12, "yanchor": "bottom", "bgcolor": "rgba(128,128,128,.15)"}  # fmt: skip
    return figure.update_layout(
        updatemenus=[menu], legend={"orientation": "h", "y": -0.2}, xaxis_title="step")


def importances(parameters: pd.DataFrame, scores: pd.Series) -> go.Figure | None:
    """Return bars with intervals: the importance of each parameter."""
    table = importance.importance(parameters, scores)[::-1]
    if table.empty:
        return None
    x = table["importance"]
    intervals = {"array": (table["high"] - x).clip(lower=0), "arrayminus": (x - table["low"]).clip(lower=0),
                 "color": "#888"}
    bars = go.Bar(x=x, y=table.index, orientation="h", error_x=intervals, marker={"color": "#2a7fde"})
    axis = "share of the explained variance (fANOVA), adds up to 1; 90 % interval over resampled trials"
    return go.Figure(bars).update_yaxes(automargin=True).update_layout(xaxis_title=axis)


def trade_off(finished: list[results.Row], finals: pd.DataFrame) -> go.Figure | None:
    """Return a plot of style against content with the Pareto front.

    Only the published setting and the front are labelled: hundreds of labels would hide the points. The
    others' show under the pointer.
    """
    if not {"style", "content"} <= set(finals):
        return None
    points = finals[["style", "content"]]
    front = points.loc[importance.pareto_front(points)].sort_values("style")
    names = pd.Series([results.name(row.trial, row.published) for row in finished], points.index)
    labels = names.where([row.published for row in finished] | points.index.isin(front.index), "")
    figure = go.Figure([
        go.Scatter(x=points["style"], y=points["content"], text=labels, mode="markers+text", name="trials",
                   hovertext=names, textposition="top center",
                   marker={"color": finals["default"], "showscale": True, "colorbar": {"title": "score"}}),
        go.Scatter(x=front["style"], y=front["content"], mode="lines", name="Pareto front",
                   line={"color": "#e0672f", "dash": "dot"}),
    ])  # fmt: skip
    return figure.update_layout(xaxis_title="style", yaxis_title="content", showlegend=False)
