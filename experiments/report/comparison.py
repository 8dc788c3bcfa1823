"""Several searches at equal budget: the best score so far against trials and against seconds."""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.offline import get_plotlyjs

from experiments.nni_adapter.database import Experiment
from experiments.report import page, results
from judge.common.errors import UserError

TABLE_FORMAT = {"index": False, "float_format": "{:.4g}".format, "na_rep": ""}
UNITS = ("trials", "seconds")  # of a budget


def best_so_far(search: Experiment) -> pd.DataFrame:
    """Return a row per ended trial, in the order of their ends, from the first score on.

    Columns: `trials` so far, with or without a score; `seconds` since the first began; `best` score so far.
    """
    ended = [trial for trial in search.trials() if trial.over and trial.ended]
    ended.sort(key=lambda trial: trial.ended)
    start = min((trial.started for trial in ended if trial.started), default=0.0)
    scores = pd.Series([trial.latest["default"] if trial.latest else None for trial in ended], dtype=float)
    return pd.DataFrame({
        "trials": range(1, len(ended) + 1), "seconds": [trial.ended - start for trial in ended],
        "best": scores.cummax().ffill(),
    }).dropna()  # fmt: skip


def groups(searches: list[Experiment]) -> dict[str, list[pd.DataFrame]]:
    """Return the searches' `best_so_far` by name: searches of one name are one search with several seeds.

    Raises:
        UserError: a search has no trial with a score.
    """
    by_name: dict[str, list[pd.DataFrame]] = {}
    for search in searches:
        curve = best_so_far(search)
        if curve.empty:
            raise UserError(f"experiment {search.id} has no trial with a score yet")
        by_name.setdefault(search.config.get("experimentName") or search.id, []).append(curve)
    return by_name


def at_equal_budget(curves: dict[str, list[pd.DataFrame]]) -> pd.DataFrame:
    """Return each group's mean ± standard deviation where the shortest search ends, in trials and seconds."""
    limits = {unit: min(curve[unit].max() for group in curves.values() for curve in group) for unit in UNITS}
    rows = []
    for name, group in curves.items():
        row = {"search": name, "seeds": len(group)}
        for unit, limit in limits.items():
            reached = pd.Series([value_at(curve, unit, limit) for curve in group])
            row |= {f"best after {limit:.0f} {unit}": reached.mean(), f"± ({unit})": reached.std()}
        rows.append(row)
    return pd.DataFrame(rows)


def value_at(curve: pd.DataFrame, unit: str, budget: float) -> float:
    """Return the best score after `budget` trials or seconds; 0, the worst score, before the first one."""
    values = curve.loc[curve[unit] <= budget, "best"]
    return float(values.iloc[-1]) if len(values) else 0.0


def differences(searches: list[Experiment]) -> list[str]:
    """Return the conditions in which the searches differ, which makes their scores not comparable."""
    conditions = []
    for search in searches:
        record = next((row.record for row in results.rows(search) if row.record.get("data")), {})
        settings, judge, data = (record.get(key) or {} for key in ("settings", "judge", "data"))
        conditions.append({
            "judge": judge.get("sha256"), "data set": data.get("name"),
            **{key: settings.get(key) for key in ("score", "size", "budget")},
        })  # fmt: skip
    return [name for name in conditions[0] if len({str(each[name]) for each in conditions}) > 1]


def text(searches: list[Experiment], curves: dict[str, list[pd.DataFrame]]) -> str:
    """Return the table of the searches' `groups` as text, with a warning if they are not comparable."""
    lines = [at_equal_budget(curves).to_string(**TABLE_FORMAT)]
    if names := differences(searches):
        lines.append(f"not comparable: the searches differ in {', '.join(names)}")
    return "\n".join(lines)


def write(searches: list[Experiment], curves: dict[str, list[pd.DataFrame]], out: Path) -> Path:
    """Write the page of the searches' `groups` into the folder `out`, and return the file."""
    html = page.PAGES.get_template("comparison.html").render(
        names=list(curves), differences=differences(searches), plotly=get_plotlyjs(),
        table=at_equal_budget(curves).to_html(border=0, **TABLE_FORMAT),
        figures=[page.Figure(f"Against {unit}", figure(curves, unit)) for unit in UNITS],
    )  # fmt: skip
    return page.save(out / f"compare-{'-'.join(search.id for search in searches)}.html", html)


def figure(curves: dict[str, list[pd.DataFrame]], unit: str) -> go.Figure:
    """Return a plot with a line per group, the mean of its searches, in a band from lowest to highest."""
    plot = go.Figure()
    for (name, group), colour in zip(curves.items(), qualitative.D3 * len(curves)):
        x = sorted({value for curve in group for value in curve[unit]})
        values = pd.DataFrame([[value_at(curve, unit, budget) for budget in x] for curve in group], columns=x)
        if len(group) > 1:
            edge = {"line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
            plot.add_scatter(x=x, y=values.min(), mode="lines", **edge)
            plot.add_scatter(x=x, y=values.max(), mode="lines", fill="tonexty", opacity=0.2, **edge)
        line = {"color": colour, "shape": "hv"}
        plot.add_scatter(x=x, y=values.mean(), name=f"{name} ({len(group)})", mode="lines", line=line)
    return plot.update_layout(
        xaxis_title=unit, yaxis_title="best score so far", legend={"orientation": "h", "y": -0.25})
