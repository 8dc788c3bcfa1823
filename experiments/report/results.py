"""What a search found, as a table: trials, best first, and the command that repeats the best."""

import shlex
from dataclasses import dataclass
from itertools import chain
from types import ModuleType

import pandas as pd

from experiments.check import module_of
from experiments.nni_adapter.database import Experiment, Trial
from trials.session.records import read_record

JUDGE_FIGURES = {"auc": "AUC", "accuracy": "accuracy"}  # that tell how good a judge is


@dataclass(frozen=True)
class Row:
    """A trial with what it wrote into its own folder."""

    trial: Trial
    record: dict
    """Its run.json; empty where it never came to write one."""
    reference: bool
    """Whether it is the published setting."""

    @property
    def score(self) -> float | None:
        """What the search ranks by, at the end or at the last report before it."""
        return self.trial.latest["default"] if self.trial.latest else None

    @property
    def state(self) -> str:
        """NNI's state, or what the trial says of its end where that tells more."""
        told = self.record.get("status")
        return told if told in ("diverged", "failed") else self.trial.state.lower().replace("_", " ")

    @property
    def data(self) -> str | None:
        """What it trained on, said to be a stand-in where it is one."""
        data = self.record.get("data")
        return data and data["name"] + " (stand-in)" * data["stand_in"]


def rows(experiment: Experiment) -> list[Row]:
    """The trials, best score first, those without one last."""
    module = module_of(experiment.config["trialCommand"])
    found = [
        Row(trial, read_record(trial.folder), is_published(trial, module))
        for trial in experiment.trials()
    ]
    return sorted(found, key=lambda row: (row.score is None, -(row.score or 0), row.trial.number))


def is_published(trial: Trial, module: ModuleType) -> bool:
    """Whether the trial's parameters are the trial program's defaults, which every search runs."""
    defaults = vars(module.Settings())
    return all(defaults.get(key) == value for key, value in trial.parameters.items())


def name(trial: Trial, published: bool) -> str:
    """The trial's number, and whether it is the published setting."""
    return f"{trial.number}{' published' * published}"


def finished(found: list[Row]) -> list[Row]:
    """Those that trained to the end of their budget, and did not diverge."""
    return [row for row in found if row.trial.final and row.state == "succeeded"]


def best(found: list[Row]) -> Row | None:
    """The best of those that are finished."""
    return next(iter(finished(found)), None)


def frame(found: list[Row]) -> pd.DataFrame:
    """A line a trial: number, id, state, score, its parts, its parameters."""
    lines = []
    for row in found:
        parts = {k: v for k, v in (row.trial.latest or {}).items() if k != "default"}
        lines.append({
            "trial": name(row.trial, row.reference), "id": row.trial.id, "data": row.data, "state": row.state,
            "reports": len(row.trial.reports), "score": row.score, **parts, **row.trial.parameters,
        })  # fmt: skip
    return pd.DataFrame(lines)


def text(experiment: Experiment) -> str:
    """The report: what was searched, the table, the best trial and what to do with it."""
    found = rows(experiment)
    lines = [heading(experiment, found)]
    if found:
        shown = frame(found).drop(columns=["data", "kid_error"], errors="ignore")
        lines += ["", shown.to_string(index=False, na_rep="", float_format="{:.4g}".format)]
    why = [f"trial {row.trial.number}: {row.record['reason']}" for row in found
           if row.state in ("diverged", "failed") and row.record.get("reason")]
    lines += why and ["", *why]
    if winner := best(found):
        lines += ["", *advice(experiment, winner, found)]
    return "\n".join(lines)


def heading(experiment: Experiment, found: list[Row]) -> str:
    """Which experiment, on what data, by which judge, and how many trials ended how."""
    states = pd.Series([row.state for row in found], dtype=str).value_counts()
    lines = [f"experiment {experiment.id}: {experiment.config.get('experimentName', '')}"]
    record = next((row.record for row in found if row.record.get("data")), None)
    if record:
        data, judge, settings = record["data"], record.get("judge"), record.get("settings") or {}
        stand_in = " (built-in stand-in: shows that the machine works, not what paints well)"
        lines.append(f"data: {data['name']}{stand_in if data['stand_in'] else ''}")
        if judge:
            known = {word: judge.get(key) for key, word in JUDGE_FIGURES.items()}
            figures = [f"{word} {value:.3f}" for word, value in known.items() if value is not None]
            lines.append(", ".join([f"judge: {judge['file']}, trained on {judge.get('data')}", *figures]))
        lines.append("; ".join(f"{name}: {settings[name]}" for name in ("size", "budget", "seed")
                               if name in settings))
    lines += ["trials: " + (", ".join(f"{count} {state}" for state, count in states.items()) or "none yet")]
    return "\n".join(lines)


def advice(experiment: Experiment, winner: Row, found: list[Row]) -> list[str]:
    """How the best stands against the published setting, and the next commands."""
    reference = next((row for row in found if row.reference and row.score is not None), None)
    against = f", the published setting {reference.score:.4f}" if reference else ""
    if reference and not reference.trial.final:
        against += f" when it was stopped at report {len(reference.trial.reports)}"
    return [
        f"best: trial {winner.trial.number} with {winner.score:.4f}{against} (one seed: a lead, not a proof)",
        "parameters: " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                                   for k, v in winner.trial.parameters.items()),
        f"pictures: {winner.trial.folder / 'samples'}",
        f"repeat it: {command(experiment, winner)}",
        f"train it on to the end: {command(experiment, winner, budget=1.0, out=winner.trial.folder)}",
        f"does it really win? python -m experiments promote {experiment.id}",
    ]  # fmt: skip


def command(experiment: Experiment, row: Row, **changes: object) -> str:
    """The trial as a command by hand."""
    return command_with(experiment, row.record, row.trial.parameters | changes)


def command_with(experiment: Experiment, record: dict, values: dict) -> str:
    """The experiment's trial command with options for `values`.

    Data, judge and size are those that a trial's `record` names, whatever `auto` would mean today.
    """
    settings = record.get("settings") or {}
    values = {name: settings[name] for name in ("data", "judge", "size") if name in settings} | values
    options = {f"--{name.replace('_', '-')}": str(value) for name, value in values.items()}
    words, kept = iter(shlex.split(experiment.config["trialCommand"])), []
    for word in words:
        if word in options:
            next(words, None)  # its value, which gives way to the one below
        else:
            kept.append(word)
    return shlex.join([*kept, *chain.from_iterable(options.items())])
