"""The searches of the protocol as a table, with the winner of each."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments import trial_command
from experiments.api import load
from experiments.confirmation import PUBLISHED
from judge.common.errors import UserError
from trials import cyclegan

SHARED = 6  # trials with which both searches of a seed begin: the published one, five at random
PARAMETERS = ("identity_weight", "cycle_weight", "adversarial_weight", "generator_lr", "discriminator_lr",
              "upsampling")  # fmt: skip
PUBLISHED_RESIZE = f"{PUBLISHED}, resize"
SIZES_SHARES = (0, 0.25, 0.5, 0.75)  # of the list of trials, best first, which are compared at two sizes
SEARCH = ["pair", "kind", "seed"]  # the columns that name a search


def collect(names: Sequence[str]) -> pd.DataFrame:
    """Return a row per report of each trial of the searches with these ids, names or folders.

    Columns: pair, kind (tpe or random) and seed of the search, its id; number and state of the trial, its
    parameters; `final`, the score that it reported last; step; score and parts at this report alone.
    A trial without a report has one row. Raises UserError if a search is missing or not of the protocol.
    """
    return pd.concat([of_search(name) for name in names], ignore_index=True).sort_values(
        [*SEARCH, "trial", "step"], ignore_index=True)


def of_search(name: str) -> pd.DataFrame:
    """Return the rows of one search, as `collect`."""
    search = load(name)
    kind = {"Protocol, TPE": "tpe", "Protocol, random": "random"}.get(search.name)
    settings = next((search.trial(number).settings for number in search.trials.index), {})
    if kind is None or not settings.get("data"):
        raise UserError(f"experiment {search.id} is no search of experiments/answer/PROTOCOL.md")
    trials = search.trials.rename(columns={"score": "final"})[["state", "final", *PARAMETERS]].sort_index()
    trials.loc[trials["state"] == "diverged", "final"] = 0.0
    table = trials.reset_index().merge(search.curves, on="trial", how="left")
    pair = Path(settings["data"]).parent.name.removesuffix("-halves")
    for place, (column, value) in enumerate({"pair": pair, "kind": kind, "seed": settings["seed"],
                                             "search": search.id}.items()):
        table.insert(place, column, value)
    return table


def trials(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per trial that came to its end, diverged ones included, from the table of `collect`."""
    ended = table[table["state"].isin(["succeeded", "diverged"])]
    return ended.drop_duplicates([*SEARCH, "trial"])[[*SEARCH, "trial", "state", "final", *PARAMETERS]]


def without_published(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials of other settings than the published one, which is the first of each search."""
    return trials[trials["trial"] > 0]


def winners(table: pd.DataFrame, pair: str) -> dict[str, dict]:
    """Return the parameters of each search's best finished trial, the published one excluded, by a name."""
    finished = without_published(trials(table)).query("pair == @pair and state == 'succeeded'")
    best = finished.loc[finished.groupby(SEARCH)["final"].idxmax()]
    return {f"{row['kind']} {row['seed']}": {name: row[name] for name in PARAMETERS}
            for row in best.to_dict("records")}  # fmt: skip


def published_settings() -> dict[str, dict]:
    """Return the published setting with both upsamplings, by name."""
    defaults = trial_command.published(cyclegan)
    published = {name: defaults[name] for name in PARAMETERS}
    return {PUBLISHED: published, PUBLISHED_RESIZE: published | {"upsampling": "resize"}}


def confirmed_settings(table: pd.DataFrame, pair: str) -> dict[str, dict]:
    """Return what the confirmation of a pair of domains trains: settings by name."""
    return published_settings() | winners(table, pair)


def sizes_settings(table: pd.DataFrame, pair: str) -> dict[str, dict]:
    """Return the six settings that are compared at two sizes: the two published ones, and of the others,
    sorted by score, the best one and those at one quarter, one half and three quarters of the list."""
    others = without_published(trials(table)).query("pair == @pair").drop_duplicates([*PARAMETERS])
    others = others.sort_values("final", ascending=False, kind="stable")
    places = {share_name(share): round(share * (len(others) - 1)) for share in SIZES_SHARES}
    chosen = {name: others.iloc[place][list(PARAMETERS)].to_dict() for name, place in places.items()}
    return published_settings() | chosen


def share_name(share: float) -> str:
    """Return the name of the setting at this place of the list, 0 for the best."""
    return f"{share:.0%} of the list"
