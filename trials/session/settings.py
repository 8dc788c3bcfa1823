"""The options of a trial, and how the command line, the tuner and presets fill its settings."""

import sys
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any

from judge.common.cli import ComputeOptions, NonNegativeInt, Parser, parse_values
from judge.common.errors import UserError


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


def trial_parser(Settings: type, prog: str) -> Parser:
    """Return a trial's command line parser: an option for each field of `Settings` and `RunOptions`."""
    parser = Parser(sys.modules[Settings.__module__].__doc__, prog=prog)
    parser.add_fields(Settings)
    parser.add_fields(RunOptions)
    return parser


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
