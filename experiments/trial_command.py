"""The command of a trial, `python -m trials.NAME OPTIONS`: read it and write it."""

import importlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.nni_adapter.database import ROOT, error_prefix
from judge.common.errors import UserError
from trials.session import RunOptions, parse_trial


def module_of(command: str) -> ModuleType:
    """Return the module that a trial command runs, or raise a UserError if there is no such trial."""
    words = _words(command)
    if words[:1] == ["exec"]:
        raise UserError("trialCommand: remove `exec`, it hides the exit state from NNI")
    if len(words) < 3 or words[1] != "-m":
        raise UserError(f"trialCommand {command!r} is not of the form python -m trials.NAME OPTIONS")
    # Look for the file first: an import runs code, and the experiment may be from someone else.
    file = ROOT.joinpath(*words[2].split(".")).with_suffix(".py")
    module = importlib.import_module(words[2]) if "." in words[2] and file.is_file() else None
    if not hasattr(module, "Settings"):
        raise UserError(f"trialCommand: there is no trial {words[2]}")
    return module


def published(module: ModuleType) -> dict[str, Any]:
    """Return the published settings of a trial: its defaults, and `Settings.PUBLISHED` where those depend on
    more."""
    return vars(module.Settings()) | getattr(module.Settings, "PUBLISHED", {})


@contextmanager
def trials_folder(folder: Path | str) -> Iterator[None]:
    """Work where trials will: names of data and judges are relative to that folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def quoted(command: str) -> str:
    """Return a trial command such that the shell reads in it the words that we read, and nothing else.

    It may have several lines, also with a backslash at their ends. What a shell would replace or take as the
    end of the command (`$HOME`, `*`, `~`, `;`, `>`, `#` ...) becomes part of its word.
    """
    return shlex.join(_words(command))


def python_of(command: str) -> str:
    """Return the interpreter that a trial command names."""
    return _words(command)[0]


def parse(command: str) -> tuple[ModuleType, Any, RunOptions]:
    """Return a trial command's module, settings (not completed: `auto` is still `auto`) and run options."""
    module = module_of(command)
    with error_prefix("trialCommand", UserError):
        return module, *parse_trial(module.Settings, module.__name__, _words(command)[3:])


def given(options: RunOptions) -> dict[str, Any]:
    """Return the run options that are not the defaults, by name."""
    return {name: value for name, value in vars(options).items() if value != getattr(RunOptions(), name)}


def render(module: ModuleType, settings: Mapping[str, Any], *, python: str = "python", **options: Any) -> str:
    """Return the shell command that runs `module` with these settings and options.

    Left out are settings that are not fields of `module.Settings` or equal the field's default, and options
    that are None. An option with the name of a setting replaces it.
    """
    defaults = vars(module.Settings())
    changed = {field.name: settings[field.name] for field in fields(module.Settings)
               if settings.get(field.name, defaults[field.name]) != defaults[field.name]
               and field.name not in options}  # fmt: skip
    words = [python, "-m", module.__name__]
    for name, value in (changed | options).items():
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    return shlex.join(words)


def _words(command: str) -> list[str]:
    with error_prefix(f"trialCommand {command!r}", ValueError):  # quotes that do not close
        return shlex.split(re.sub(r"\\\r?\n", " ", command))
