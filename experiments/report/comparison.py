"""Several searches at equal budget: the best score so far against trials and against seconds."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative

from experiments.nni_adapter.database import Experiment
from experiments.report import page, results
from judge.common.errors import UserError

TABLE_FORMAT = {"index": False, "float_format": "{:.4g}".format, "na_rep": ""}
UNITS = ("trials", "seconds")  # of a budget


def best_so_far(search: Experiment) -> pd.DataFrame:
    """Return a row per ended trial, in the order of their ends, from the first score on.

    Columns: `trials` so far, with or without a score; `seconds` since the first began; `best` score so far.
    """
    ended = sorted((trial for trial in search.trials() if trial.over and trial.ended), key=lambda t: t.ended)
    start = min((trial.started for trial in ended if trial.started), default=0.0)
    scores = pd.Series([trial.latest["default"] if trial.latest else None for trial in ended], dtype=float)
    return pd.DataFrame({
        "trials": range(1, len(ended) + 1), "seconds": [trial.ended - start for trial in ended],
        "best": scores.cummax().ffill(),
    }).dropna()  # fmt: skip


def groups(searches: list[Experiment]) -> dict[str, list[pd.DataFrame]]:
    """Return the searches' `best_so_far` by name: searches of one name are one search with several seeds.

    Raises UserError if a search has no trial with a score.
    """
    by_name: dict[str, list[pd.DataFrame]] = {}
    for search in searches:
        curve = best_so_far(search)
        if curve.empty:
            raise UserError(f"experiment {search.id} has no trial with a score yet")
        by_name.setdefault(search.config.get("experimentName") or search.id, []).append(curve)
    return by_name


def values_at(group: list[pd.DataFrame], unit: str, budgets: list[float]) -> pd.DataFrame:
    """Return the best scores after each of `budgets` trials or seconds, a row per search.

    They are 0, the worst score, before a search's first one.
    """
    reached = [np.searchsorted(curve[unit], budgets, side="right") for curve in group]
    return pd.DataFrame([np.append(0.0, curve["best"])[at] for curve, at in zip(group, reached)])


def at_equal_budget(curves: dict[str, list[pd.DataFrame]]) -> pd.DataFrame:
    """Return each group's mean ± standard deviation where the shortest search ends, in trials and seconds."""
    table = pd.DataFrame({"search": curves.keys(), "seeds": map(len, curves.values())})
    for unit in UNITS:
        limit = min(curve[unit].max() for group in curves.values() for curve in group)
        values = [values_at(group, unit, [limit])[0] for group in curves.values()]
        table[f"best after {limit:.0f} {unit}"] = [each.mean() for each in values]
        table[f"± ({unit})"] = [each.std() for each in values]
    return table


def differences(searches: list[Experiment]) -> list[str]:
    """Return the conditions in which the searches differ, which makes their scores not comparable."""
    conditions = []
    for search in searches:
        record = results.first_record(results.rows(search))
        settings, judge, data = (record.get(key) or {} for key in ("settings", "judge", "data"))
        conditions.append({
            "judge": judge.get("sha256"), "data set": data.get("name"),
            **{key: settings.get(key) for key in ("score", "size", "budget")},
        })  # fmt: skip
    return [name for name in conditions[0] if len({str(each[name]) for each in conditions}) > 1]


def text(searches: list[Experiment], curves: dict[str, list[pd.DataFrame]]) -> str:
    """Return the table of the searches' `groups` as text, with a warning if they are not comparable."""
    names, table = differences(searches), at_equal_budget(curves).to_string(**TABLE_FORMAT)
    return table + f"\nnot comparable: the searches differ in {', '.join(names)}" * bool(names)


def write(searches: list[Experiment], curves: dict[str, list[pd.DataFrame]], out: Path) -> Path:
    """Write the page of the searches' `groups` into the folder `out`, and return the file."""
    html = page.PAGES.get_template("comparison.html").render(
        names=list(curves), differences=differences(searches),
        table=at_equal_budget(curves).to_html(border=0, **TABLE_FORMAT),
        figures=[page.Figure(f"Against {unit}", figure(curves, unit)) for unit in UNITS],
    )  # fmt: skip
    return page.save(out / f"compare-{'-'.join(search.id for search in searches)}.html", html)


def figure(curves: dict[str, list[pd.DataFrame]], unit: str) -> go.Figure:
    """Return a plot with a line per group, the mean of its searches, in a band from lowest to highest."""
    plot = go.Figure()
    for (name, group), colour in zip(curves.items(), qualitative.D3 * len(curves)):
        x = sorted({value for curve in group for value in curve[unit]})
        values = values_at(group, unit, x)
        if len(group) > 1:
            edge = {"line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
            plot.add_scatter(x=x, y=values.min(), mode="lines", **edge)
            plot.add_scatter(x=x, y=values.max(), mode="lines", fill="tonexty", opacity=0.2, **edge)
        line = {"color": colour, "shape": "hv"}
        plot.add_scatter(x=x, y=values.mean(), name=f"{name} ({len(group)})", mode="lines", line=line)
    return plot.update_layout(
        xaxis_title=unit, yaxis_title="best score so far", legend={"orientation": "h", "y": -0.25})
