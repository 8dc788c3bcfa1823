"""The options of a trial, and how the command line, the tuner and presets fill its settings."""

import sys
from dataclasses import dataclass, fields, replace
from json import dumps
from pathlib import Path
from typing import Any

from judge.common.cli import ComputeOptions, NonNegativeInt, Parser, from_namespace, parse_values
from judge.common.errors import UserError
from trials.session import records

LIKE = (
    "Folder of another trial, whose settings are taken. Options beside it replace them, and what a preset "
    "fills in is filled in anew: the networks of another --size, for example. With a larger --budget and "
    "otherwise equal settings, the trial continues from a copy of that one's checkpoint.")


@dataclass(frozen=True)
class RunOptions(ComputeOptions):
    """Options of a run that do not change what the trial computes."""

    out: Path | None = None
    """Folder for the trial's files; by default runs/ and a name made from the settings, so that the same
    command continues the same trial."""
    earlier: Path | None = None
    """Folder to search for earlier runs of the same trial, possibly with a smaller budget; a new trial
    continues from a copy of the one that has trained longest."""
    retries: NonNegativeInt = 3
    """How often to continue from the checkpoint after a temporary failure, for example when other programs
    take the GPU's memory. The first retry waits 10 s, each next one three times as long."""
    keep: bool = False
    """Keep every painting that is scored, in paintings/, so that other scores can be computed from them."""
    measure: bool = False
    """Do not train, but print what a trial takes on this machine, by some steps and a report: a line of JSON
    with the seconds of its start, of a step and of a report, and its GPU memory. No files are kept."""


class Scheduled:
    """Base of settings: a full schedule of `steps`, a share of it as `budget`, and `reports` over this."""

    def last_step(self) -> int:
        """Return the step at which the budget ends."""
        return max(1, round(self.steps * self.budget))

    def report_interval(self) -> int:
        """Return the number of steps between reports."""
        return max(1, self.last_step() // self.reports)

    def report_count(self) -> int:
        """Return the number of reports that a trial with this budget makes."""
        return -(-self.last_step() // self.report_interval())


def system_of(Settings: type) -> str:
    """Return the name of the system whose settings these are: that of their file."""
    return Path(sys.modules[Settings.__module__].__file__).stem


def trial_parser(Settings: type, prog: str) -> Parser:
    """Return a trial's command line parser: --like, and an option for each field of `Settings` and
    `RunOptions`."""
    parser = Parser(sys.modules[Settings.__module__].__doc__, prog=prog)
    parser.add_argument("--like", type=Path, metavar="FOLDER", help=LIKE)
    parser.add_fields(Settings)
    parser.add_fields(RunOptions)
    return parser


def parse_trial(Settings: type, prog: str, arguments: list[str]) -> tuple[Any, RunOptions]:
    """Return the settings, not completed, and the options that a trial's command line gives.

    Raises UserError for a mistake in it, or if --like names no trial of this system and version.
    """
    parser = trial_parser(Settings, prog)
    parsed = parser.parse_args(arguments)
    if parsed.like:
        recorded = settings_like(Settings, parsed.like)
        parser.set_defaults(**without_presets(Settings, recorded))
        parsed = parser.parse_args(arguments)
        if not parsed.earlier and parsed.budget > recorded["budget"]:
            parsed.earlier = parsed.like
    return from_namespace(Settings, parsed), from_namespace(RunOptions, parsed)


def settings_like(Settings: type, folder: Path) -> dict[str, Any]:
    """Return the settings of the trial in `folder`, by name of field. Raises UserError as `parse_trial`."""
    record, system = records.read_record(folder), system_of(Settings)
    if not record.get("settings"):
        raise UserError(f"--like {folder}: there is no trial, a trial's folder has a run.json with settings")
    if (other := record.get("system")) != system:
        raise UserError(f"--like {folder}: that is a trial of trials.{other}, not of trials.{system}")
    try:
        return vars(Settings(**parse_values(Settings, records.settings_here(Settings, record))))
    except UserError as error:
        raise UserError(f"--like {folder}: another version trained it: {error}") from None


def without_presets(Settings: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` without those that the program fills in alike; data, judge and size stay."""
    import torch  # not above: a command line is read without it

    def complete(settings: dict[str, Any]) -> Any:
        try:
            return Settings(**parse_values(Settings, settings)).complete(torch.device("cpu"))
        except (UserError, OSError, ValueError):  # of another version of Salon, or damaged
            return None

    short = {name: value for name, value in settings.items() if value is not None}
    wanted = complete(short)
    for name in [field.name for field in fields(Settings) if field.default in (None, "auto")]:
        shorter = {key: value for key, value in short.items() if key != name}
        if wanted and name not in ("data", "judge", "size") and complete(shorter) == wanted:
            short = shorter
    return short


def with_parameters(settings: Any, parameters: dict) -> Any:
    """Return `settings` with the tuner's `parameters`, by name of field, in place of its own values."""
    for name, value in parameters.items():
        if value is None:  # which a field may be, but only until `complete`
            raise UserError(f"parameter {name} has no value")
    try:
        return replace(settings, **parse_values(type(settings), parameters))
    except UserError as error:
        raise UserError(f"parameters {dumps(parameters)}: {error}") from None


def fill_unset(settings: Any, values: dict) -> Any:
    """Return `settings` with `values`, by name of field, in place of the fields that are None."""
    unset = {name: value for name, value in values.items() if getattr(settings, name) is None}
    return replace(settings, **unset)
