"""Resume a search that was interrupted: by Ctrl-C, a crash, or a restart of the machine.

NNI's own resume starts interrupted trials beside their still running processes, counts them twice and may
leave some undone. Here the rest is a new experiment: its tuner knows the results so far and proposes the
unfinished trials first, which continue from copies of their checkpoints.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from experiments import trial_command
from experiments.nni_adapter.database import RESUMES, Experiment, error_prefix, settled_trials
from experiments.nni_adapter.manager import is_running, write_config
from experiments.report import results
from experiments.search import FILE_NAME
from judge.common.errors import UserError
from judge.common.schema import matches
from trials.session import without_presets
from trials.session.records import recorded_settings

TUNER = "experiments.tuner.Tpe"
# Taken over from the search's configuration.
COPIED_KEYS = ("experimentWorkingDirectory", "searchSpace", "trialCodeDirectory", "trialConcurrency",
               "trialGpuNumber", "maxExperimentDuration", "maxTrialDuration", "tuner", "assessor",
               "trainingService")  # fmt: skip
CONFIG = {"experimentName": str, "experimentWorkingDirectory": str, "tuner": {"classArgs": {}}}  # form


def write(search: Experiment, trials: int | None = None, *, folder: Path) -> Path:
    """Write the rest of `search` as an experiment file into `folder`, and return the file.

    `trials` is the number of trials in all, those of `search` included; None leaves the number of `search`.
    Raises UserError if the search is running, has as many trials, or is of another tuner, or if the file
    cannot be written.
    """
    if is_running(search):
        raise UserError(f"experiment {search.id} is still running: nnictl stop {search.id} ends it")
    if (search.config.get("tuner") or {}).get("className") != TUNER:
        raise UserError(f"experiment {search.id} is not by {TUNER}, and only that can resume a search; "
                        "to resume a confirmation, repeat the `promote` command")
    rest = config(search, trials)
    if rest.get("maxTrialNumber", 1) < 1:
        ended = len(settled_trials(search.trials()))
        raise UserError(f"experiment {search.id} is complete: {ended} trials; --trials {ended + 8} adds 8")
    return write_config(folder / "resumption.yml", rest)


def config(search: Experiment, trials: int | None = None) -> dict:
    """Return NNI's configuration of the rest of `search`, up to so many trials in all; None: as `search`."""
    old = search.config
    if not matches(old, CONFIG):
        raise UserError(f"experiment {search.id} cannot be resumed: its configuration is not complete")
    module, settings, options = trial_command.parse(old["trialCommand"])
    given = trial_command.given(options) | {
        "python": trial_command.python_of(old["trialCommand"]),
        "earlier": old["experimentWorkingDirectory"],  # where checkpoints of its trials are
    }  # fmt: skip
    rest = {key: old[key] for key in COPIED_KEYS if old.get(key) is not None} | {
        "experimentName": name_in_file(search),
        "tuner": old["tuner"] | {"classArgs": old["tuner"]["classArgs"] | {RESUMES: str(search.folder)}},
        "trialCommand": trial_command.render(module, common_settings(search, module, settings), **given),
    }  # fmt: skip
    if (total := trials or search.max_trials) is not None:
        rest["maxTrialNumber"] = total - len(settled_trials(search.trials()))
    return {key: value for key, value in rest.items() if value is not None}


def common_settings(search: Experiment, module: ModuleType, settings: Any) -> dict:
    """Return the settings that the trials of `search` share; `settings` are those of its command.

    The first record has those that the size and the machine filled in, which another version of Salon or
    another machine may fill in otherwise. The number of reports, which changes no result, is the command's.
    """
    record = results.first_record(results.rows(search))
    if not record.get("settings"):
        return vars(settings)
    varied = {*(search.config.get("searchSpace") or {}), "reports"}
    recorded = recorded_settings(module.Settings, record)
    common = vars(settings) | {name: value for name, value in recorded.items() if name not in varied}
    return without_presets(module.Settings, common)


def name_in_file(search: Experiment) -> str | None:
    """Return the name in the search's experiment file, without the data, size and judge that `run` adds."""
    file = search.folder / FILE_NAME
    if not file.exists():  # NNI was started without `run`
        return search.config["experimentName"]
    with error_prefix(f"{file} cannot be read"):
        return yaml.safe_load(file.read_text()).get("experimentName")
