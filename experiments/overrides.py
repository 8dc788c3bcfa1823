"""Options of `check` and `run` that change an experiment: fewer trials, other data, a fixed setting."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments import trial_command
from experiments.nni_adapter.database import without_repeats
from judge.common.cli import Fraction, NonNegativeInt, PositiveInt
from judge.common.errors import UserError
from trials.session.settings import trial_parser

NOT_CHOSEN = ("out", "earlier", "measure")  # options of a trial that NNI or Salon set


@dataclass(frozen=True)
class OverrideOptions:
    """Options that replace what an experiment file says; None leaves it as it is."""

    trials: PositiveInt | None = None
    """Number of trials (maxTrialNumber)."""
    concurrency: PositiveInt | None = None
    """Number of trials at once (trialConcurrency)."""
    data: str | None = None
    """The trials' --data: a name, or a folder."""
    judge: str | None = None
    """The trials' --judge: a file."""
    size: str | None = None
    """The trials' --size: sketch, draft or paper."""
    budget: Fraction | None = None
    """The trials' --budget: the share of the schedule that each of them trains."""
    seed: NonNegativeInt | None = None
    """The trials' --seed, and the seed of the tuner (classArgs)."""
    score: str | None = None
    """The trials' --score: style-and-scene, combined, plain, or a file."""


@dataclass(frozen=True)
class Overrides(OverrideOptions):
    """The options, and further settings of the trials."""

    set: Sequence[str] | None = None
    """Settings of the trials, each as the text `name=value`."""


NO_OVERRIDES = Overrides()
SETTINGS = ("data", "judge", "size", "budget", "seed", "score")  # the overrides that are settings of a trial


def change(config: Any, given: Overrides) -> list[str]:
    """Change NNI's canonical `ExperimentConfig` as given, and return notes on what is no longer searched.

    Raises UserError if the trials have no such setting, or a value does not fit it.
    """
    if given.trials:
        config.max_trial_number = given.trials
    if given.concurrency:
        config.trial_concurrency = given.concurrency
    if given.seed is not None:
        config.tuner.class_args = (config.tuner.class_args or {}) | {"seed": given.seed}
    values = values_of(given)
    if not values:
        return []
    set_command(config, with_values(config.trial_command, values, Path(config.trial_code_directory)))
    space = config.search_space if isinstance(config.search_space, dict) else {}
    fixed = [name for name in values if name in space]
    if fixed:
        config.search_space = {name: spec for name, spec in space.items() if name not in fixed}
        config.search_space_file = None  # NNI would read it again
    if fixed and not config.search_space:
        raise UserError(f"nothing is left to search: the file searches only {', '.join(fixed)}")
    return [f"{name} is {values[name]} in all trials, so it is not searched" for name in fixed]


def set_command(config: Any, command: str) -> None:
    """Change the trial command of NNI's canonical `ExperimentConfig`."""
    config.trial_command = config.training_service.trial_command = command  # NNI has copied it there


def values_of(given: Overrides) -> dict[str, str]:
    """Return the settings of the trials that are given, by name. Raises UserError as `split`."""
    values = {name: str(getattr(given, name)) for name in SETTINGS if getattr(given, name) is not None}
    return values | split(given.set or ())


def split(texts: Sequence[str]) -> dict[str, str]:
    """Return the values by name of texts `name=value`. Raises UserError if one is of another form."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UserError(f"--set {text}: it must be name=value, for example --set cycle_weight=5")
        values[name.replace("-", "_")] = value
    return values


def with_values(command: str, values: dict[str, str], folder: Path) -> str:
    """Return a trial command, which runs in `folder`, with these options in place of its own.

    `values` are texts by name. Raises UserError for an unknown name or a value that does not fit.
    """
    module, settings, options = trial_command.parse(command)
    known = [name for name in {**vars(settings), **vars(options)} if name not in NOT_CHOSEN]
    for name in values:
        if name not in known:
            raise UserError(f"--{name}: {module.__name__} has no such setting; there are "
                            f"{', '.join(sorted(known))}")
    words = [f"--{name}={from_folder(value, folder)}" for name, value in values.items()]
    parsed = vars(trial_parser(module.Settings, module.__name__).parse_args(words))
    new = {name: parsed[name] for name in values}
    of_run = {name: value for name, value in new.items() if name in vars(options)}
    return trial_command.render(module, vars(settings) | new, python=trial_command.python_of(command),
                                **trial_command.given(replace(options, **of_run)))


def from_folder(value: str, folder: Path) -> str:
    """Return a path that exists here such that it names the same file in `folder`; other texts unchanged."""
    path = Path(value)
    same = not path.exists() or Path.cwd() == folder
    return value if same else str(path.resolve())


def source(file: Path, config: Any, given: Overrides) -> bytes:
    """Return an experiment file that says what `config` is: without overrides the user's, byte for byte."""
    if given == NO_OVERRIDES:
        return file.read_bytes()
    content = without_unset(config.json())
    content.pop("searchSpace" if config.search_space_file else "searchSpaceFile", None)
    content = without_repeats(content | {"trainingService": without_unset(content["trainingService"])})
    comment = " ".join(f"# {file.resolve()} with {shlex.join(words(given))}".split())  # no line break in it
    return f"{comment}\n{yaml.safe_dump(content, sort_keys=False, width=math.inf)}".encode()


def without_unset(config: dict) -> dict:
    return {key: value for key, value in config.items() if value is not None}


def words(given: Overrides) -> list[str]:
    """Return what is given as options of the command line."""
    named = [(name, value) for name, value in vars(given).items() if name != "set" and value is not None]
    return [f"--{name}={value}" for name, value in [*named, *(("set", text) for text in given.set or ())]]
