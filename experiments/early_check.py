"""Find misspelt names, missing files and what NNI cannot read before torch is imported."""

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from experiments import overrides, trial_command
from experiments.nni_adapter.database import check_file, error_prefix
from experiments.overrides import Overrides
from judge.common.errors import UserError
from judge.common.schema import matches

FORM = {"trialCommand": str, "trialCodeDirectory?": str, "searchSpace?": {}, "searchSpaceFile?": str}


def check(file: Path, given: Overrides) -> None:
    """Raise UserError if an experiment file is missing or no YAML, if its trial command, its search space or
    what is given names a setting that its trials do not have, if the judge or the data is missing, or if NNI
    cannot read it.

    `experiments.check` finds all other mistakes.
    """
    check_file(file)
    with error_prefix(str(file)):
        content = yaml.safe_load(file.read_text())
    if matches(content, FORM):
        check_names(file.parent, content, given)
    from experiments.nni_adapter import config  # after the names: NNI takes half a second

    config.load(file)


def check_names(place: Path, content: dict, given: Overrides) -> None:
    """Raise UserError as `check` for the names in an experiment file, of this content and in the folder
    `place`."""
    folder = place / (content.get("trialCodeDirectory") or ".")
    if not folder.is_dir():
        return
    command = trial_command.quoted(content["trialCommand"])
    if values := overrides.values_of(given):
        command = overrides.with_values(command, values, folder)
    with trial_command.trials_folder(folder):
        module, settings, _ = trial_command.parse(command)
        if hasattr(settings, "check_paths"):
            settings.check_paths()
    check_space(content.get("searchSpace") or read_space(place, content), module, settings)


def read_space(folder: Path, content: dict) -> Any:
    """Return the search space in the file that an experiment file in `folder` names; None without one."""
    with suppress(OSError, ValueError, RecursionError):  # the last: brackets nested too deep
        return json.loads((folder / (content.get("searchSpaceFile") or "")).read_text())


def check_space(space: Any, module: ModuleType, settings: Any) -> None:
    """Raise UserError if a search space names what is no setting of the trials of `module`."""
    names = sorted(field.name for field in fields(settings))
    for name in space if isinstance(space, dict) else ():
        if name not in names:
            raise UserError(f"search space: {name} is not a setting of {module.__name__}; there are "
                            f"{', '.join(names)}")
