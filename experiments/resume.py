"""Resume a search that was interrupted: by Ctrl-C, a crash, or a restart of the machine.

NNI's own resume starts interrupted trials beside their still running processes, counts them twice and may
leave some undone. Here the rest is a new experiment: its tuner knows the results so far and proposes the
unfinished trials first, which continue from copies of their checkpoints.
"""

from pathlib import Path

import yaml

from experiments import trial_command
from experiments.nni_adapter.database import RESUMES, Experiment, settled_trials
from experiments.nni_adapter.manager import is_running, write_config
from experiments.search import FILE_NAME
from judge.common.errors import UserError
from judge.common.schema import matches
from trials.session.session import RunOptions

TUNER = "experiments.tuner.Tpe"
# Taken over from the search's configuration.
COPIED_KEYS = ("experimentWorkingDirectory", "searchSpace", "trialCodeDirectory", "trialConcurrency",
               "trialGpuNumber", "maxExperimentDuration", "maxTrialDuration", "tuner", "assessor",
               "trainingService")  # fmt: skip
CONFIG = {"experimentName": str, "experimentWorkingDirectory": str, "tuner": {"classArgs": {}}}  # form


def write(search: Experiment) -> Path:
    """Write the rest of `search` as an experiment file into its folder, and return the file.

    Raises:
        UserError: the search is running, complete or of another tuner; or the file cannot be written.
    """
    if is_running(search):
        raise UserError(f"experiment {search.id} is still running: nnictl stop {search.id} ends it")
    if (search.config.get("tuner") or {}).get("className") != TUNER:
        raise UserError(f"experiment {search.id} is not by {TUNER}, and only that can resume a search; "
                        "to resume a promotion, repeat the `promote` command")
    if remaining_trials(search) == 0:
        raise UserError(f"experiment {search.id} is complete: {search.max_trials} trials")
    return write_config(search.folder / "resumption.yml", config(search))


def config(search: Experiment) -> dict:
    """Return NNI's configuration of the rest of `search`.

    Raises:
        UserError: its own configuration lacks something.
    """
    if not matches(search.config, CONFIG):
        raise UserError(f"experiment {search.id} cannot be resumed: its configuration is not complete")
    copied = {key: search.config[key] for key in COPIED_KEYS if search.config.get(key) is not None}
    arguments = copied["tuner"]["classArgs"] | {RESUMES: str(search.folder)}
    limit = {} if search.max_trials is None else {"maxTrialNumber": remaining_trials(search)}
    return {"experimentName": plain_name(search), **copied, **limit,
            "tuner": copied["tuner"] | {"classArgs": arguments}, "trialCommand": command(search)}


def plain_name(search: Experiment) -> str:
    """Return the search's name as its user wrote it, without the data, size and judge that `run` adds."""
    file = search.folder / FILE_NAME
    try:
        written = yaml.safe_load(file.read_text()) if file.exists() else {}
    except (OSError, ValueError, yaml.YAMLError):
        raise UserError(f"{file} cannot be read as YAML") from None
    written = written if matches(written, {"experimentName?": str}) else {}
    return written.get("experimentName") or search.config["experimentName"]


def command(search: Experiment) -> str:
    """Return the search's trial command with the option that looks for checkpoints of its trials."""
    old = search.config["trialCommand"]
    module, settings, options = trial_command.parse(old)
    given = {name: value for name, value in vars(options).items() if value != getattr(RunOptions(), name)}
    given["earlier"] = search.config["experimentWorkingDirectory"]
    return trial_command.render(module, vars(settings), python=trial_command.python_of(old), **given)


def remaining_trials(search: Experiment) -> int | None:
    """Return how many of the search's trials have not ended by themselves; None means no limit."""
    return search.max_trials and search.max_trials - len(settled_trials(search.trials()))
