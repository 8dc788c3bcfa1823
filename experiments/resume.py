"""The rest of a search that was broken off: by Ctrl-C, a crash, or the end of the machine's day.

NNI's own resume runs interrupted trials beside their orphans, counts them twice and may leave some
undone. Here the rest is an experiment of its own: its tuner knows the results that there are and
proposes the unfinished trials first, which go on from copies of their checkpoints.
"""

from pathlib import Path

from experiments.nni_adapter import database
from experiments.nni_adapter.database import Experiment
from experiments.nni_adapter.manager import is_running, write_config
from experiments.report import results
from judge.common.errors import UserError
from judge.common.schema import matches

TUNER = "experiments.tuner.Tpe"
# Of the search's configuration.
KEPT = ("experimentWorkingDirectory", "searchSpace", "trialCodeDirectory", "trialConcurrency",
        "trialGpuNumber", "maxExperimentDuration", "maxTrialDuration", "tuner", "assessor",
        "trainingService")  # fmt: skip
NEEDED = {"experimentName": str, "experimentWorkingDirectory": str, "tuner": {"classArgs": {}}}


def write(search: Experiment) -> Path:
    """What is left of `search`, as an experiment file in its folder.

    Raises:
        UserError: it is still running, complete, or not by a tuner of ours; the file cannot be written.
    """
    if is_running(search):
        raise UserError(f"experiment {search.id} is still running: nnictl stop {search.id} ends it")
    if (search.config.get("tuner") or {}).get("className") != TUNER:
        raise UserError(f"experiment {search.id} is not by {TUNER}, which alone takes over results; "
                        "a promotion goes on when `promote` is repeated")
    if left(search) == 0:
        raise UserError(f"experiment {search.id} is complete: {search.max_trials} trials")
    return write_config(search.folder / "resumption.yml", config(search))


def config(search: Experiment) -> dict:
    """NNI's configuration of the rest of `search`.

    Raises:
        UserError: its own lacks what it takes.
    """
    if not matches(search.config, NEEDED):
        raise UserError(f"experiment {search.id} has no configuration that could go on")
    kept = {key: search.config[key] for key in KEPT if search.config.get(key) is not None}
    tuner = kept["tuner"] | {"classArgs": kept["tuner"]["classArgs"] | {database.RESUMES: str(search.folder)}}
    earlier = {"earlier": search.config["experimentWorkingDirectory"]}
    most = {} if search.max_trials is None else {"maxTrialNumber": left(search)}
    name = search.config["experimentName"].split(" | ")[0]  # what `run` adds to it, it adds again
    command = results.command_with(search, {}, earlier)
    return {"experimentName": name, **kept, **most, "tuner": tuner, "trialCommand": command}


def left(search: Experiment) -> int | None:
    """How many of its trials did not come to an end of their own; None where nobody said how many."""
    return search.max_trials and search.max_trials - len(database.settled_trials(search.trials()))
