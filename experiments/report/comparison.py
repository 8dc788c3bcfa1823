"""Several searches: the best score so far against trials and against seconds, and the ranks of settings."""

import math
from collections import Counter
from itertools import combinations
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, qualitative
from scipy.stats import spearmanr

from experiments import trial_command
from experiments.nni_adapter.database import Experiment
from experiments.report import page, results
from experiments.study.study import spearman_interval
from judge.common.errors import UserError

TABLE_FORMAT = {"index": False, "float_format": "{:.3g}".format, "na_rep": ""}
NONE_YET = "none yet"  # in a table, for a search without a score so far
MAX_LABEL = 40  # characters
UNITS = ("trials", "seconds")  # of a budget
MIN_RANKED = 4  # settings that two searches must share for a rank correlation


def labels(searches: list[Experiment]) -> list[str]:
    """Return a short label for each search, the same for seeds of one search.

    Seeds of one search have one name, ranges and trial command (with its budget), but for the seed. Searches
    that have only the name in common have their ids beside it.
    """
    names = [search.name or search.id for search in searches]
    keys = [(name, repr(conditions_of(search))) for name, search in zip(names, searches)]
    alike = Counter(name for name, _ in dict.fromkeys(keys))
    made = []
    for key in keys:
        ids = "+".join(search.id for search, other in zip(searches, keys) if other == key)
        suffix = f" {ids}" if alike[key[0]] > 1 else ""
        room = max(10, MAX_LABEL - len(suffix))
        made.append((key[0] if len(key[0]) <= room else key[0][: room - 1] + "…") + suffix)
    return made


def conditions_of(search: Experiment) -> tuple[dict | None, dict]:
    """Return what the seeds of a search share: its ranges, and the settings of its trial command."""
    _, settings, _ = trial_command.parse(search.config["trialCommand"])
    return search.config.get("searchSpace"), vars(settings) | {"seed": None}


def groups(searches: list[Experiment]) -> pd.DataFrame:
    """Return the best score so far of all searches, a row per ended trial from a search's first score on.

    Columns: `name`, the search's label; `search`, its place in the list; `trials` that ended so far, with or
    without a score; `seconds` since the first began; `best` score so far.
    Raises UserError if a search has no trial with a score.
    """
    curves = []
    for number, (search, label) in enumerate(zip(searches, labels(searches))):
        ended = [trial for trial in search.trials() if trial.over and trial.ended]
        ended.sort(key=lambda trial: trial.ended)
        start = min((trial.started for trial in ended if trial.started), default=0.0)
        scores = [trial.latest["default"] if trial.latest else math.nan for trial in ended]
        curve = pd.DataFrame({
            "name": label, "search": number,
            "trials": range(1, len(ended) + 1), "seconds": [trial.ended - start for trial in ended],
            "best": pd.Series(scores, dtype=float).cummax().ffill(),
        }).dropna()  # fmt: skip
        if curve.empty:
            raise UserError(f"experiment {search.id} has no trial with a score yet")
        curves.append(curve)
    return pd.concat(curves)


def by_budget(curves: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return the best scores with a row per budget in trials or seconds, and a column per search.

    They are nan before a search's first one.
    """
    values = curves.pivot_table("best", unit, ["name", "search"], aggfunc="last", sort=False)
    return values.sort_index().ffill()


def at_equal_budget(curves: pd.DataFrame) -> pd.DataFrame:
    """Return each group's mean ± standard deviation where the shortest search ends, in trials and seconds.

    A search without a score by then counts with 0, the worst one; if no search of a group has one, the mean
    is nan.
    """
    table = curves.groupby("name", sort=False)["search"].nunique().rename("seeds").to_frame()
    for unit in UNITS:
        limit = curves.groupby("search")[unit].max().min()
        best = by_budget(curves, unit).loc[:limit].iloc[-1]
        some, filled = best.notna().groupby("name").any(), best.fillna(0.0).groupby("name")
        table[f"best after {limit:.0f} {unit}"] = filled.mean().where(some)
        table[f"± ({unit})"] = filled.std()
    return table.rename_axis("search").reset_index()


def cells(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `at_equal_budget` for a reader."""
    table = at_equal_budget(curves)
    best = [name for name in table if name.startswith("best after")]
    return table.assign(**{name: table[name].map("{:.3g}".format).where(table[name].notna(), NONE_YET)
                           for name in best})


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


def settings_scores(search: Experiment) -> pd.Series:
    """Return the score of each setting that trained to the end of its budget, its mean over seeds.

    The index has the parameters without the seed, as sets of names and values. A diverged run scores 0.
    """
    trials = [trial for trial in search.trials() if trial.final]
    settings = [frozenset((trial.parameters | {"seed": None}).items()) for trial in trials]
    scores = pd.Series([trial.final["default"] for trial in trials], settings, dtype=float)
    return scores.groupby(level=0, sort=False).mean()


def rank_correlations(searches: list[Experiment]) -> list[str]:
    """Return for each pair of searches how alike their scores rank the settings that both have trained.

    Of use where the scores themselves are not comparable, such as those of two sizes: do ranks carry over?
    """
    lines = []
    for pair in combinations(searches, 2):
        both = pd.concat([settings_scores(search) for search in pair], axis=1, join="inner")
        line = f"{pair[0].id} and {pair[1].id}: {len(both)} setting{'s' * (len(both) != 1)} in both"
        if len(both) < MIN_RANKED:
            line += f", a rank correlation needs {MIN_RANKED}"
        elif both.nunique().min() == 1:
            line += ", one search has the same score for all of them, so no ranks"
        else:
            x, y = both.to_numpy(float).T
            low, high = spearman_interval(x, y)
            line += (f", Spearman's rank correlation {spearmanr(x, y).statistic:.2f} [{low:.2f}, {high:.2f}] "
                     "(95 %, bootstrap over settings)")
        lines.append(line)
    return lines


def text(searches: list[Experiment], curves: pd.DataFrame) -> str:
    """Return the table of the searches' `groups` as text, with rank correlations and a warning if their
    scores are not comparable."""
    names, table = differences(searches), cells(curves).to_string(**TABLE_FORMAT)
    warning = [f"not comparable: the searches differ in {', '.join(names)}"] if names else []
    return "\n".join([table, *warning, *rank_correlations(searches)])


def write(searches: list[Experiment], curves: pd.DataFrame, out: Path) -> Path:
    """Write the page of the searches' `groups` into the folder `out`, and return the file."""
    html = page.PAGES.get_template("comparison.html").render(
        names=list(curves["name"].unique()), differences=differences(searches),
        ranks=rank_correlations(searches), table=cells(curves).to_html(border=0, **TABLE_FORMAT),
        figures=[page.Figure(f"Against {unit}", figure(curves, unit)) for unit in UNITS],
    )  # fmt: skip
    return page.save(out / f"compare-{'-'.join(search.id for search in searches)}.html", html)


def figure(curves: pd.DataFrame, unit: str) -> go.Figure:
    """Return a plot with a line per group, the mean of its searches, in a band from lowest to highest."""
    plot = go.Figure()
    for number, (name, group) in enumerate(curves.groupby("name", sort=False)):
        values, colour = by_budget(group, unit).fillna(0.0), qualitative.D3[number % len(qualitative.D3)]
        x, count = list(values.index), values.shape[1]
        if count > 1:
            edge = {"line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
            plot.add_scatter(x=x, y=values.min(axis=1), mode="lines", **edge)
            plot.add_scatter(x=x, y=values.max(axis=1), mode="lines", fill="tonexty", **edge,
                             fillcolor=f"rgba{(*hex_to_rgb(colour), 0.2)}")
        line = {"color": colour, "shape": "hv"}
        plot.add_scatter(x=x, y=values.mean(axis=1), name=f"{name} ({count})", mode="lines", line=line)
    if unit == "trials":  # there are no halves of them
        plot.update_xaxes(nticks=min(10, int(curves[unit].max())))
    return plot.update_layout(
        xaxis_title=unit, yaxis_title="best score so far", legend={"orientation": "h", "y": -0.25})
