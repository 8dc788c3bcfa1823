"""The table of an experiment's trials, best first, and the commands that repeat its best trial."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pandas as pd

from experiments import trial_command
from experiments.nni_adapter.database import ROOT, RUNNING, Experiment, Trial
from judge.common.errors import UserError
from judge.common.files import last_line_of
from judge.score import Formula
from trials.session.records import read_lines, read_record, recorded_settings, was_killed
from trials.session.steady import score_text, steady

COLUMNS = ["trial", "id", "data", "state", "reports", "score"]  # of a table without trials


@dataclass(frozen=True)
class Row:
    """A trial and its record."""

    trial: Trial
    record: dict
    """Its run.json; empty if the trial wrote none."""
    published: bool
    """True if its parameters are the published setting."""
    formula: Formula | None = None
    """The formula that its scores are computed by, from the recorded parts; None for the search's own."""

    @property
    def score(self) -> float | None:
        """The final score, or the last one reported; None before the first report."""
        return self.trial.latest["default"] if self.trial.latest else None

    @property
    def error(self) -> float:
        """The standard error of the score; 0 where there is none."""
        return (self.trial.latest or {}).get("error", 0.0)

    @property
    def score_text(self) -> str:
        """The score with its error, for a reader."""
        return score_text(self.trial.latest) if self.trial.latest else ""

    @property
    def state(self) -> str:
        """NNI's state in lower case, or `diverged`, `failed` or `stopped` if the record says so."""
        status = self.record.get("status")
        # NNI stores no end of the trials that it stops with the search, nor of any when it is killed itself.
        if self.trial.state == RUNNING and (status == "stopped" or status and was_killed(self.trial.folder)):
            return "stopped"
        return status if status in ("diverged", "failed") else self.trial.state.lower().replace("_", " ")


def rows(experiment: Experiment, formula: Formula | None = None,
         read: Callable[[Path], dict] = read_record) -> list[Row]:  # fmt: skip
    """Return the trials, best score first, then those without a score.

    With a formula, all scores are computed by it. `read` returns the record in a trial's folder. Raises
    UserError as `rescored`.
    """
    module = trial_command.module_of(experiment.config["trialCommand"])
    trials = experiment.trials() if formula is None else [
        rescored(trial, formula) for trial in experiment.trials()]
    rows = [Row(trial, read(trial.folder), is_published(trial, module), formula) for trial in trials]
    return sorted(rows, key=lambda row: (row.score is None, -(row.score or 0), row.trial.number))


def rescored(trial: Trial, formula: Formula) -> Trial:
    """Return a trial as if another formula had scored it: from the parts in its stats.jsonl.

    The score of a trial that diverged has no parts, and stays the worst one; a trial whose stats.jsonl is
    lost has no score. Raises UserError if parts that the formula weighs are missing.
    """
    reports = list(recorded_scores(trial, formula).values())
    reports = [steady(reports[:count]) for count in range(1, len(reports) + 1)]
    diverged = trial.final and set(trial.final) == {"default"}
    final = trial.final if diverged else reports[-1] if trial.final and reports else None
    return replace(trial, final=final, reports=reports)


def recorded_scores(trial: Trial, formula: Formula | None = None) -> dict[int, dict[str, float]]:
    """Return a trial's own scores by step, without an early look: of each report alone, with its parts.

    With a formula, `default` is computed by it. Raises UserError if parts that it weighs are missing.
    """
    lines = [line for line in read_lines(trial.folder / "stats.jsonl") if not line.get("early")]
    scores = {line["step"]: line["score"] for line in lines}
    if formula is None:
        return scores
    if missing := set().union(*(formula.weighed - set(score) for score in scores.values())):
        raise UserError(f"--score {formula.name}: the trials recorded no {', '.join(sorted(missing))}")
    return {step: {**score, "default": formula(score)} for step, score in scores.items()}


def is_published(trial: Trial, module: ModuleType) -> bool:
    """Return True if the trial's parameters are the published setting of its program."""
    published = trial_command.published(module)
    return all(published.get(key) == value for key, value in trial.parameters.items())


def name(trial: Trial, published: bool) -> str:
    """Return the trial's number, followed by "published" for the published setting."""
    return f"{trial.number}{' published' * published}"


def finished(rows: list[Row]) -> list[Row]:
    """Return the trials that trained to the end of their budget and did not diverge."""
    return [row for row in rows if row.trial.final and row.state == "succeeded"]


def best(rows: list[Row]) -> Row | None:
    """Return the best finished trial; None if no trial has finished."""
    return next(iter(finished(rows)), None)


def level_with(best: Row, rows: list[Row]) -> list[Row]:
    """Return the other finished trials whose score plus its error reaches the best one's minus its error."""
    return [row for row in finished(rows)
            if row is not best and row.score + row.error >= best.score - best.error]


def first_record(rows: list[Row]) -> dict:
    """Return the first record with data, which tells the conditions of the search; an empty one without."""
    return next((row.record for row in rows if row.record.get("data")), {})


def devices(rows: list[Row]) -> list[str]:
    """Return the different devices of the trials, GPUs with their memory, in the order of the rows."""
    # `gpu` is null for a CPU, and older versions recorded only the GPU's name, as `device`.
    return list(dict.fromkeys(
        f"{gpu['name']} with {gpu['memory'] // 2**30} GiB" if (gpu := row.record.get("gpu"))
        else str(row.record["device"]) for row in rows if row.record.get("device")))


def frame(rows: list[Row]) -> pd.DataFrame:
    """Return a table with a row per trial: number, id, data, state, score, its parts, the parameters."""
    lines = []
    for row in rows:
        trial, data = row.trial, row.record.get("data")
        parts = {key: value for key, value in (trial.latest or {}).items() if key != "default"}
        lines.append({
            "trial": name(trial, row.published), "id": trial.id,
            "data": data and data["name"] + " (stand-in)" * data["stand_in"], "state": row.state,
            "reports": len(trial.reports), "score": row.score, **parts, **trial.parameters,
        })  # fmt: skip
    return pd.DataFrame(lines, columns=None if lines else COLUMNS)


def text(experiment: Experiment, formula: Formula | None = None) -> str:
    """Return the report as text: heading, table, reasons of failures, the best trial and what to do next."""
    trials = rows(experiment, formula)
    lines = heading(experiment, trials)
    if trials:
        lines += ["", table_text(trials)]
    reasons = [f"trial {row.trial.number}: {why}" for row in trials
               if (row.state in ("diverged", "failed") or overtime(experiment, row.trial))
               and (why := reason(experiment, row) or log_text(row.trial))]
    lines += reasons and ["", *reasons]
    if winner := best(trials):
        next_steps = [f"{label}: {line}" for label, line in commands(experiment, winner, trials)]
        lines += ["", *advice(experiment, winner, trials), "", *next_steps]
    return "\n".join(lines)


def table_text(rows: list[Row], width: int = 160) -> str:
    """Return the table for a terminal of `width` columns: numbers with three digits, and without what says
    nothing there: ids, errors of parts, columns with one value. What does not fit is named below."""
    table = frame(rows).drop(columns=["id", "data", "error", "kid_error"], errors="ignore")
    table["score"] = [row.score_text for row in rows]
    constant = [name for name in table if name not in ("trial", "state", "score") and len(rows) > 1
                and table[name].nunique(dropna=False) == 1]  # fmt: skip
    names = [name for name in table if name not in constant]
    shown_names = list(names)
    while len((lines := _lines(table[shown_names]))[0]) > width and len(shown_names) > 1:
        parts = [name for name in shown_names if name in (rows[0].trial.latest or {})]
        shown_names.remove((parts or shown_names)[-1])
    left_out = [name for name in names if name not in shown_names]
    return "\n".join([*lines, *([f"left out here, in --csv: {', '.join(left_out)}"] if left_out else [])])


def _lines(table: pd.DataFrame) -> list[str]:
    """Return a table as lines, with a name such as `cycle_weight` in two lines above its column."""
    heads = [name.rpartition("_")[::2] for name in table]
    columns = pd.MultiIndex.from_tuples(heads) if any(first for first, _ in heads) else table.columns
    text = table.set_axis(columns, axis=1).to_string(
        index=False, na_rep="", float_format="{:.3g}".format, sparsify=False)
    return text.split("\n")


def heading(experiment: Experiment, rows: list[Row]) -> list[str]:
    """Return lines on an experiment: name, data, judge, main settings, devices, number of trials by state."""
    lines = [f"experiment {experiment.id}: {experiment.config.get('experimentName', '')}"]
    if record := first_record(rows):
        data, judge, settings = record["data"], record.get("judge"), record.get("settings") or {}
        stand_in = " (built-in stand-in: shows that the program works, not which settings paint well)"
        lines.append(f"data: {data['name']}{stand_in if data['stand_in'] else ''}")
        if judge:
            line = f"judge: {judge['file']}, trained on {judge.get('data')}"
            labels = {"auc": "AUC", "accuracy": "accuracy"}  # of the judge's own test results
            lines.append(line + "".join(f", {label} {judge[key]:.3f}" for key, label in labels.items()
                                        if judge.get(key) is not None))
        shown = [key for key in ("size", "budget", "seed") if key in settings]
        lines.append("; ".join(f"{key}: {settings[key]}" for key in shown))
    if names := devices(rows):
        lines.append(f"{'device' if len(names) == 1 else 'devices'}: {'; '.join(names)}")
    if rows and rows[0].formula:
        lines.append(f"scores: by {rows[0].formula.name}, not by the formula of the search")
    counts = pd.Series([row.state for row in rows], dtype=str).value_counts()
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    return [*lines, f"trials: {states or 'none yet'}"]


def advice(experiment: Experiment, winner: Row, rows: list[Row]) -> list[str]:
    """Return sentences on the best trial: against the published setting, its parameters, trained on."""
    published = next((row for row in rows if row.published and row.score is not None), None)
    said = f"best: trial {winner.trial.number}, score {winner.score_text} (one seed: a hint, not a proof)"
    if published is winner:
        said += "; it is the published setting"
    elif published:
        said += f"; the published setting: {published.score_text}"
        if not published.trial.final:
            said += f" when it was stopped at report {len(published.trial.reports)}"
    numbers = [str(row.trial.number) for row in level_with(winner, rows)]
    level = [f"level with it, within the errors: trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}"]
    return [
        said,
        *(level if numbers else []),
        "parameters: " + ", ".join(f"{key} {three_digits(value)}"
                                   for key, value in winner.trial.parameters.items()),
        *filter(None, (trained_on(experiment, row) for row in rows)),
    ]


def three_digits(value: object) -> str:
    """Return a parameter's value for a reader, for example 5.6e-05, 0.0123, 1000."""
    return f"{float(f'{value:.3g}'):g}" if isinstance(value, float) else str(value)


def commands(experiment: Experiment, winner: Row, rows: list[Row]) -> list[tuple[str, str]]:
    """Return what to do next with the best trial: labels, each with a shell command."""
    settings, promote = settings_of(experiment, winner), f"python -m experiments promote {experiment.id}"
    lines = [("Repeat the best trial", command(experiment, winner))]
    if settings.get("budget") != 1:
        longer = command(experiment, winner, budget=1.0, out=shown(continued_folder(experiment, winner)))
        lines.append(("Train it on to the end", longer))
    lines.append(("Confirm it with several seeds", promote))
    if {"judge", "size"} <= set(settings) and settings["size"] != "paper":
        lines.append(("Confirm it at the published size", f"{promote} --size paper --judge FILE"))
    return lines


def continued_folder(experiment: Experiment, row: Row) -> Path:
    """Return the folder for a trial that is trained on after the search, which stays as it was."""
    return experiment.folder / "continued" / row.trial.id


def trained_on(experiment: Experiment, row: Row) -> str | None:
    """Return a sentence with the score of a trial that was trained on after the search; None for others."""
    folder = continued_folder(experiment, row)
    record = read_record(folder)
    if not (score := record.get("score")):
        return None
    budget = (record.get("settings") or {}).get("budget")
    end = "the end" if budget in (None, 1) else f"{budget:g} of its schedule"
    return f"trial {row.trial.number} trained on to {end}: {score_text(score)} ({shown(folder)})"


def command(experiment: Experiment, row: Row, **options: object) -> str:
    """Return the shell command that repeats a trial by hand, with further `options`."""
    module = trial_command.module_of(experiment.config["trialCommand"])
    if row.record.get("settings"):
        return trial_command.render(module, {}, like=shown(row.trial.folder), **options)
    return trial_command.render(module, settings_of(experiment, row), **options)


def shown(path: Path) -> Path:
    """Return a path as commands have it: below the root of the repository, where they run, relative to it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def reason(experiment: Experiment, row: Row) -> str | None:
    """Return why a trial ended before its end, as far as its record says; None if a user stopped it."""
    if row.state == "early stopped":
        count, planned = len(row.trial.reports), (row.record.get("settings") or {}).get("reports")
        by = overtime(experiment, row.trial) or "the assessor"
        return f"stopped by {by} after {count}{f' of {planned}' * bool(planned)} reports"
    return row.record.get("reason") if row.state in ("diverged", "failed") else None


def overtime(experiment: Experiment, trial: Trial) -> str | None:
    """Return the limit of time that stopped a trial, as the experiment file has it; None if none did."""
    limit = experiment.config.get("maxTrialDuration")
    if limit is None or trial.state != "EARLY_STOPPED" or not (trial.started and trial.ended):
        return None
    from nni.experiment.config.utils import parse_time  # not above: the import takes a second

    return f"maxTrialDuration {limit}" if trial.ended - trial.started >= parse_time(limit) else None


def log_of(trial: Trial) -> tuple[str, Path] | tuple[None, None]:
    """Return the last line that a trial printed, errors first, and the file; None if it printed nothing."""
    for name in ("stderr", "trial.log", "stdout"):
        if line := last_line_of(trial.folder / name):
            return line, trial.folder / name
    return None, None


def log_text(trial: Trial) -> str | None:
    """Return the last line that a trial printed, and where; None if it printed nothing."""
    line, file = log_of(trial)
    return line and f"{line} ({shown(file)})"


def settings_of(experiment: Experiment, row: Row) -> dict:
    """Return a trial's settings: those in its record, else the trial command's with its parameters."""
    command = experiment.config["trialCommand"]
    if row.record.get("settings"):
        return recorded_settings(trial_command.module_of(command).Settings, row.record)
    _, settings, _ = trial_command.parse(command)
    return vars(settings) | row.trial.parameters
