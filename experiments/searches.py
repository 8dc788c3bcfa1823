"""The experiments on this machine: a table of them, and their removal. Nothing here needs torch."""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from experiments import notes
from experiments.nni_adapter import database
from experiments.nni_adapter.database import Experiment, all_experiments, is_confirmation, search_of
from judge.common.errors import UserError
from judge.common.files import as_user_error
from judge.common.schema import matches
from trials.session.steady import score_text

CUT_OFF = ("name", "data", "note")  # columns that may be cut off where a terminal is narrow


@dataclass(frozen=True)
class Summary:
    """An experiment in the list."""

    id: str
    name: str
    kind: str  # search or confirmation
    data: str | None  # name of the data; None before the first trial has read them
    ended: int  # number of trials, with those of the search that it resumes
    max_trials: int | None  # None means no limit
    failed: int
    best: float | None  # highest final score
    error: float | None  # its standard error
    started: str  # ISO 8601, local time
    bytes: int  # of its folder
    state: str  # running, ended or interrupted
    pinned: bool
    note: str
    folder: str


def summaries() -> list[Summary]:
    """Return the experiments, those that are pinned first, then the one started last.

    A line on stderr names each that cannot be read.
    """
    found = []
    for experiment in all_experiments(_warn):
        try:
            found.append(summary(experiment))
        except UserError as error:
            _warn(str(error))
    return sorted(found, key=lambda each: not each.pinned)


def _warn(line: str) -> None:
    print(f"left out: {line}", file=sys.stderr)


def summary(experiment: Experiment) -> Summary:
    """Return an experiment's row. Raises UserError if its database or its notes are damaged."""
    trials, mark = experiment.trials(), notes.read(experiment.folder).search
    finals = [trial.final for trial in trials if trial.final]
    best = max(finals, key=lambda final: final["default"], default={})
    ended = sum(trial.over and trial.state not in database.CANCELED for trial in trials)
    return Summary(
        experiment.id, experiment.name, "confirmation" if is_confirmation(experiment) else "search",
        data_name(trial.folder for trial in trials), ended, experiment.max_trials,
        sum(trial.state == database.FAILED for trial in trials), best.get("default"), best.get("error"),
        datetime.fromtimestamp(experiment.started).isoformat(timespec="seconds"),
        size_on_disk(experiment.folder), state(experiment, ended), mark.pinned, mark.note,
        str(experiment.folder))  # fmt: skip


def data_name(trials: Iterator[Path]) -> str | None:
    """Return the name of the data in the first record of these trials' folders that has it."""
    for folder in trials:
        with suppress(OSError, ValueError, RecursionError):
            record = json.loads((folder / "run.json").read_bytes())
            if matches(record, {"data": {"name": str}}):
                return record["data"]["name"]
    return None


def state(experiment: Experiment, ended: int) -> str:
    """Return `running`, `ended` (all its trials have), or `interrupted`."""
    if is_running(experiment):
        return "running"
    # Only time or its user ends a search without a number of trials.
    return "interrupted" if ended < (experiment.max_trials or 0) else "ended"


def is_running(experiment: Experiment) -> bool:
    """Return whether NNI's manager runs this experiment."""
    process = database.known_experiments().get(experiment.id, {}).get("pid")
    if process is None or not psutil.pid_exists(process):
        return False
    from experiments.nni_adapter import manager  # requests takes a third of a second to import

    return manager.is_running(experiment)


def size_on_disk(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # a running trial renames and removes files
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def as_json(rows: Sequence[Summary]) -> str:
    """Return the list as JSON."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)


def as_csv(rows: Sequence[Summary]) -> str:
    """Return the list as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Summary)], lineterminator="\n")
    table.writeheader()
    table.writerows(map(asdict, rows))
    return text.getvalue().rstrip("\n")


def print_list(rows: Sequence[Summary]) -> None:
    """Print the list for a reader; in a terminal, long names and notes are cut off at its width."""
    if not rows:
        return print("no experiments yet: python -m experiments run experiments/quickstart.yml starts one")
    lines = [cells(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in lines[0]:
        width = max(len(line[title]) for line in lines)
        table.add_column(title, justify="right" if title in ("trials", "size") else "left", no_wrap=True,
                         min_width=None if title in CUT_OFF else width)  # fmt: skip
    for line in lines:
        table.add_row(*map(Text, line.values()))
    # Elsewhere than in a terminal nothing is cut off. Rich itself would end with code 1 if nobody reads.
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    with console.capture() as text:
        console.print(table)
    print(text.get(), end="")


def cells(row: Summary) -> dict[str, str]:
    """Return a row's texts by the titles of their columns."""
    failed = f", {row.failed} failed" if row.failed else ""
    score = {"default": row.best} | ({} if row.error is None else {"error": row.error})
    return {
        " ": "*" if row.pinned else "", "id": row.id, "name": row.name, "kind": row.kind,
        "data": row.data or "", "trials": f"{row.ended} of {row.max_trials or 'any'}{failed}",
        "best": "" if row.best is None else score_text(score), "started": row.started[:16].replace("T", " "),
        "size": decimal(row.bytes), "state": row.state, "note": next(iter(row.note.splitlines()), ""),
    }  # fmt: skip


def remove(experiments: Sequence[Experiment], yes: bool = False) -> None:
    """Delete these experiments and their entries in NNI's list, after asking; with `yes` without.

    Raises UserError, before anything is deleted, if one is running, if another experiment that is not among
    them needs one, or if there is nobody to ask.
    """
    experiments = list({experiment.folder: experiment for experiment in experiments}.values())
    for experiment in experiments:
        if is_running(experiment):
            raise UserError(f"experiment {experiment.id} is running: nnictl stop {experiment.id} ends it")
    for other in all_experiments():
        for needed in experiments:
            if needs(other, needed) and other.folder not in {each.folder for each in experiments}:
                doing = "confirms" if is_confirmation(other) else "resumes"
                raise UserError(f"experiment {other.id} {doing} {needed.id}: name both, or keep both")
    for experiment in experiments:
        print(describe(experiment))
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("rm asks before it deletes, and here is nobody to ask: add --yes")
        if input("delete? [y/N] ").strip().lower() not in ("y", "yes"):
            return print("nothing is deleted")
    from nni.tools.nnictl.config_utils import Experiments  # NNI takes half a second to import

    for experiment in experiments:
        with as_user_error(experiment.folder):
            delete(experiment.folder)
        Experiments(str(database.NNI_HOME)).remove_experiment(experiment.id)
        newest = experiment.folder.parent / "_latest"  # NNI's link
        if newest.is_symlink() and not newest.exists():
            newest.unlink()
        print(f"deleted {experiment.folder}")


def delete(folder: Path) -> None:
    """Delete an experiment's folder, its database last: after an interruption `rm` still knows it."""
    for place in folder.iterdir():
        if place.is_dir() and not place.is_symlink() and place.name != "db":
            shutil.rmtree(place)
    shutil.rmtree(folder)


def needs(experiment: Experiment, other: Experiment) -> bool:
    """Return whether `experiment` resumes or confirms `other`."""
    resumed = experiment.tuner_arguments.get(database.RESUMES)
    return (resumed is not None and Path(resumed).resolve() == other.folder
            or search_of(experiment) == other.id)


def describe(experiment: Experiment) -> str:
    """Return a line on what is lost with an experiment."""
    trials = len(list(experiment.folder.glob("trials/*")))
    checkpoints = len(list(experiment.folder.glob("**/checkpoint.pt")))
    mark = notes.read(experiment.folder)
    marked = (mark.search != notes.Mark()) + len(mark.trials)
    return (f"{experiment.id} {experiment.name}: {trials} trials, {checkpoints} checkpoints"
            f"{f', {marked} notes or pins' if marked else ''}, {decimal(size_on_disk(experiment.folder))} in "
            f"{experiment.folder}")
