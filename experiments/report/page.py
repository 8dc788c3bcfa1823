"""The report as a page: one HTML file that needs no server and no network.

Pictures are cut from the trials' sample sheets, figures are plotly's, the rest is `pages/`.
"""

import base64
import io
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna.visualization as draw
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape
from plotly.offline import get_plotlyjs

from experiments import confirmation
from experiments.nni_adapter.database import Experiment, find_experiment
from experiments.report import importance, results
from judge.common.errors import UserError
from judge.common.files import atomic_write
from trials.parts import sheets
from trials.session.records import read_lines

STRIP = 96  # largest height of a picture, in pixels
PICTURES = 1500  # strips in a page: with more trials each has fewer steps
MANY = 50  # trials from which importances are more than a hint
TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"))
PAGES = Environment(loader=TEMPLATES, autoescape=select_autoescape(), trim_blocks=True)


@dataclass(frozen=True)
class Entry:
    """A trial as the page shows it."""

    row: results.Row
    values: dict[str, float]
    """Score and its parts, last reported."""
    strips: dict[int, str]
    """Its paintings as data URLs, by step."""
    command: str
    best: bool

    @property
    def earlier(self) -> dict[int, str]:
        """The strips before the last, which the page shows first."""
        return {step: picture for step, picture in self.strips.items() if step != max(self.strips)}


def write(experiment: Experiment, out: Path | None = None) -> Path:
    """Write the page of `experiment` into its own folder or into `out`, and return it.

    Raises:
        UserError: it cannot be written.
    """
    file = (out or experiment.folder) / f"{experiment.id}.html"
    return saved(file, render(experiment))


def saved(file: Path, page: str) -> Path:
    """`page` in `file`, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, lambda part: part.write_text(page))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    return file


def render(experiment: Experiment) -> str:
    """The page's HTML."""
    found = results.rows(experiment)
    winner = results.best(found)
    steps = max(1, PICTURES // max(1, len(found)))
    entries = [
        Entry(row, row.trial.latest or {}, strips(row.trial.folder, steps),
              results.command(experiment, row), row is winner)
        for row in found
    ]
    searched = list(found[0].trial.parameters) if found else []
    parts = list(dict.fromkeys(name for entry in entries for name in entry.values))
    return PAGES.get_template("report.html").render(
        entries=entries, parameters=searched, parts=parts, plotly=get_plotlyjs(),
        heading=results.heading(experiment, found).splitlines(),
        advice=results.advice(experiment, winner, found) if winner else [],
        confirmation=promoted(experiment), sources=sources(found),
        steps=sorted({step for entry in entries for step in entry.strips}),
        figures=figures(found), few=sum(row.trial.final is not None for row in found) < MANY,
    )  # fmt: skip


def promoted(search: Experiment) -> str | None:
    """A promotion's table: its own, or that of the newest promotion of the search beside it."""
    if confirmation.is_confirmation(search):
        return confirmation.text(search, confirmation.ends(search))
    folders = sorted(search.folder.parent.glob("[!_]*/db/nni.sqlite"), key=lambda file: -file.stat().st_mtime)
    for folder in (file.parents[1] for file in folders):
        with suppress(UserError):  # a neighbour may be damaged, and is most often none of this search's
            other = find_experiment(str(folder))
            if (other.config.get("experimentName") or "").startswith(confirmation.confirmation_name(search)):
                return confirmation.text(other, confirmation.ends(other))
    return None


# ---------------------------------------------------------------------------------------------
# Pictures


def strips(folder: Path, most: int) -> dict[int, str]:
    """The painted row of a trial's sample sheets as data URLs, by step: the last, and up to `most`
    in all, evenly spaced. A sheet that cannot be read, half written perhaps, is left out."""
    found = sheets.list_sheets(folder)
    steps = list(found)[::-1]
    count = min(most, len(steps))
    chosen = {steps[round(at * (len(steps) - 1) / max(1, count - 1))] for at in range(count)}
    cut = {step: strip(found[step], lower=True) for step in sorted(chosen)}
    return {step: picture for step, picture in cut.items() if picture}


def sources(found: Iterable[results.Row]) -> str | None:
    """The photographs that every trial paints, as a data URL; None before the first report."""
    files = (file for row in found for file in sheets.list_sheets(row.trial.folder).values())
    return next(filter(None, (strip(file, lower=False) for file in files)), None)


def strip(sheet: Path, lower: bool) -> str | None:
    """One of the two rows of a sample sheet as a WebP data URL, at most `STRIP` pixels high."""
    row = sheets.crop_half(sheet, lower)
    if row is None:
        return None
    row.thumbnail((row.width, STRIP))
    buffer = io.BytesIO()
    row.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---------------------------------------------------------------------------------------------
# Figures


def figures(found: list[results.Row]) -> dict[str, str]:
    """Title to HTML of each figure that the trials so far allow."""
    finished = [row for row in found if row.trial.final and row.state != "diverged"]
    made = {"Learning curves": curves(found)}
    if len(finished) >= 2:
        parameters = pd.DataFrame([row.trial.parameters for row in finished])
        parameters = parameters.loc[:, parameters.nunique() > 1]
        finals = pd.DataFrame([row.trial.final for row in finished])
        made |= {
            "What matters": importances(parameters, finals["default"]),
            "Slices": sliced(parameters, finals["default"]),
            "Parallel coordinates": parallel(parameters, finals["default"]),
            "Style against content": trade_off(finished, finals),
        }
    return {title: html(figure) for title, figure in made.items() if figure is not None}


def html(figure: go.Figure) -> str:
    """The figure without plotly's own code, in the page's colours, light or dark."""
    figure.update_layout(
        template="none", width=None, autosize=True, title=None,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#888"}, margin={"l": 60, "r": 20, "t": 30, "b": 50},
    )  # fmt: skip
    figure.update_xaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False)
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True})


def curves(found: list[results.Row]) -> go.Figure | None:
    """Score and parts against steps; the best and the published setting in colour."""
    winner = results.best(found)
    groups: dict[str, list] = {"other trials": [], "published": [], "best": []}
    for row in found:
        group = "best" if row is winner else "published" if row.reference else "other trials"
        lines, label = read_lines(row.trial.folder / "stats.jsonl"), results.name(row.trial, row.reference)
        # a line with a gap after it, so that many trials are one trace
        groups[group] += [(line["step"], line["score"], label) for line in lines]
        groups[group] += [(None, {}, "")] if lines else []
    scores = (score for points in groups.values() for _, score, _ in points)
    names = list(dict.fromkeys(name for score in scores for name in score))
    if not names:
        return None
    figure = go.Figure()
    colours = {"other trials": "rgba(128,128,128,.45)", "published": "#2a7fde", "best": "#e0672f"}
    for name in names:
        for group, points in groups.items():
            figure.add_scatter(
                x=[step for step, _, _ in points], y=[score.get(name) for _, score, _ in points],
                text=[trial for _, _, trial in points], name=group, mode="lines+markers",
                marker={"size": 4}, line={"color": colours[group], "width": 1 if "other" in group else 3},
                visible=name == names[0], hovertemplate="trial %{text}, step %{x}: %{y:.4g}",
            )  # fmt: skip
    buttons = [{"label": "score" if name == "default" else name, "method": "update",
                "args": [{"visible": [name == other for other in names for _ in groups]}]} for name in names]
    figure.update_layout(updatemenus=[{"buttons": buttons, "direction": "right", "type": "buttons", "x": 0,
                                       "xanchor": "left", "y": 1.12, "yanchor": "bottom",
                                       "bgcolor": "rgba(128,128,128,.15)"}],
                         legend={"orientation": "h", "y": -0.2}, xaxis_title="step")  # fmt: skip
    return figure


def importances(parameters: pd.DataFrame, scores: pd.Series) -> go.Figure | None:
    """Bars with intervals, of the parameters with loss weights as ratios."""
    found = importance.importance(importance.weight_ratios(parameters), scores)[::-1]
    if found.empty:
        return None
    gaps = {"array": (found["high"] - found["importance"]).clip(lower=0),
            "arrayminus": (found["importance"] - found["low"]).clip(lower=0), "color": "#888"}
    figure = go.Figure(go.Bar(x=found["importance"], y=found.index, orientation="h", error_x=gaps,
                              marker={"color": "#2a7fde"}))
    figure.update_yaxes(automargin=True)
    return figure.update_layout(xaxis_title="share of the score's variance (fANOVA), 90 % over resamples")


def sliced(parameters: pd.DataFrame, scores: pd.Series) -> go.Figure | None:
    """The score against each parameter and ratio alone."""
    both = pd.concat([parameters, importance.weight_ratios(parameters)], axis=1)
    both = both.loc[:, ~both.columns.duplicated()]
    if both.empty:
        return None
    return draw.plot_slice(importance.optuna_study(both, scores.to_frame()), target_name="score")


def parallel(parameters: pd.DataFrame, scores: pd.Series) -> go.Figure | None:
    """All parameters of a trial and its score as one line."""
    if parameters.empty:
        return None
    return draw.plot_parallel_coordinate(importance.optuna_study(parameters, scores.to_frame()), target_name="score")


def trade_off(finished: list[results.Row], finals: pd.DataFrame) -> go.Figure | None:
    """Style against content, with names of the published setting and of the trials that none beats in
    both; the others' are under the pointer, for hundreds would hide the points."""
    if not {"style", "content"} <= set(finals):
        return None
    aims = finals[["style", "content"]]
    best = aims.loc[importance.pareto_front(aims)].sort_values("style")
    names = pd.Series([results.name(row.trial, row.reference) for row in finished], aims.index)
    shown = names.where([row.reference for row in finished] | aims.index.isin(best.index), "")
    figure = go.Figure([
        go.Scatter(x=aims["style"], y=aims["content"], text=shown, mode="markers+text", name="trials",
                   hovertext=names, textposition="top center",
                   marker={"color": finals["default"], "showscale": True, "colorbar": {"title": "score"}}),
        go.Scatter(x=best["style"], y=best["content"], mode="lines", name="Pareto front",
                   line={"color": "#e0672f", "dash": "dot"}),
    ])  # fmt: skip
    return figure.update_layout(xaxis_title="style", yaxis_title="content", showlegend=False)
