"""Several searches at equal budget: the best so far against trials and against seconds."""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.offline import get_plotlyjs

from experiments.nni_adapter.database import Experiment
from experiments.report import page, results
from judge.common.errors import UserError

FORM = {"index": False, "float_format": "{:.4g}".format, "na_rep": ""}  # of the table


def best_so_far(search: Experiment) -> pd.DataFrame:
    """A row a trial that is over, in the order in which they ended: `trials`, `seconds` since the
    first began, and `best`, the best score until then; a trial without one counts as trial too."""
    over = sorted((t for t in search.trials() if t.over and t.ended), key=lambda trial: trial.ended)
    began = min((t.started for t in over if t.started), default=0.0)
    scores = pd.Series([t.latest["default"] if t.latest else None for t in over], dtype=float)
    return pd.DataFrame({
        "trials": range(1, len(over) + 1), "seconds": [t.ended - began for t in over],
        "best": scores.cummax().ffill(),
    }).dropna()  # fmt: skip


def groups(searches: list[Experiment]) -> dict[str, list[pd.DataFrame]]:
    """The searches' courses by name: equal names are one search with several seeds.

    Raises:
        UserError: one has no finished trial.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for search in searches:
        course = best_so_far(search)
        if course.empty:
            raise UserError(f"experiment {search.id} has no trial with a score yet")
        found.setdefault(search.config.get("experimentName") or search.id, []).append(course)
    return found


def at_equal_budget(courses: dict[str, list[pd.DataFrame]]) -> pd.DataFrame:
    """What each group of searches has reached where the shortest search ends, in trials and in
    seconds: mean and standard deviation over its searches."""
    everything = [course for group in courses.values() for course in group]
    lines = []
    for name, group in courses.items():
        line = {"search": name, "seeds": len(group)}
        for unit in ("trials", "seconds"):
            limit = min(course[unit].max() for course in everything)
            reached = pd.Series([value_at(course, unit, limit) for course in group])
            line |= {f"best after {limit:.0f} {unit}": reached.mean(), f"± ({unit})": reached.std()}
        lines.append(line)
    return pd.DataFrame(lines)


def value_at(course: pd.DataFrame, unit: str, at: float) -> float:
    """The best so far at `at` trials or seconds; 0, the worst score, before the first."""
    until = course.loc[course[unit] <= at, "best"]
    return float(until.iloc[-1]) if len(until) else 0.0


def differences(searches: list[Experiment]) -> list[str]:
    """In what, beside their search, the searches differ: then their scores say little of each other."""
    facts = []
    for search in searches:
        record = next((row.record for row in results.rows(search) if row.record.get("data")), {})
        settings, judge, data = (record.get(name) or {} for name in ("settings", "judge", "data"))
        facts.append({
            "judge": judge.get("sha256"), "data set": data.get("name"),
            **{name: settings.get(name) for name in ("score", "size", "budget")},
        })  # fmt: skip
    return [name for name in facts[0] if len({str(fact[name]) for fact in facts}) > 1]


def text(searches: list[Experiment], courses: dict[str, list[pd.DataFrame]]) -> str:
    """The table of the searches' `groups` for reading, and what forbids comparing."""
    lines = [at_equal_budget(courses).to_string(**FORM)]
    if differ := differences(searches):
        lines.append(f"not comparable: the searches differ in {', '.join(differ)}")
    return "\n".join(lines)


def write(searches: list[Experiment], courses: dict[str, list[pd.DataFrame]], out: Path) -> Path:
    """Write the page of the searches' `groups` into the folder `out`, and return it.

    Raises:
        UserError: the page cannot be written.
    """
    html = page.PAGES.get_template("comparison.html").render(
        names=list(courses), differences=differences(searches), plotly=get_plotlyjs(),
        table=at_equal_budget(courses).to_html(border=0, **FORM),
        figures={f"Against {unit}": page.html(figure(courses, unit)) for unit in ("trials", "seconds")},
    )
    return page.saved(out / f"compare-{'-'.join(search.id for search in searches)}.html", html)


def figure(courses: dict[str, list[pd.DataFrame]], unit: str) -> go.Figure:
    """A line for each group, the mean of its searches, with a band from the lowest to the highest."""
    drawn = go.Figure()
    for (name, group), colour in zip(courses.items(), qualitative.D3 * len(courses)):
        at = sorted({x for course in group for x in course[unit]})
        values = pd.DataFrame([[value_at(course, unit, x) for x in at] for course in group], columns=at)
        line = {"color": colour, "shape": "hv"}
        if len(group) > 1:
            none = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "showlegend": False,
                    "hoverinfo": "skip"}
            drawn.add_scatter(x=at, y=values.min(), **none)
            drawn.add_scatter(x=at, y=values.max(), fill="tonexty", opacity=0.2, **none)
        drawn.add_scatter(x=at, y=values.mean(), name=f"{name} ({len(group)})", mode="lines", line=line)
    return drawn.update_layout(
        xaxis_title=unit, yaxis_title="best score so far", legend={"orientation": "h", "y": -0.25})
