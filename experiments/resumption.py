"""The rest of a search that was broken off: by Ctrl-C, a crash, or the end of the machine's day.

NNI's own resume runs interrupted trials beside their orphans, counts them twice and may leave some
undone. Here the rest is an experiment of its own: its tuner knows the results that there are and
proposes the unfinished trials first, which go on from copies of their checkpoints.
"""

from pathlib import Path

import yaml

from experiments import engine, report
from experiments.engine import Experiment
from judge.command import UserError

TUNER = "experiments.tuner.Tpe"
# Of the search's configuration.
KEPT = ("experimentWorkingDirectory", "searchSpace", "trialCodeDirectory", "trialConcurrency",
        "trialGpuNumber", "maxExperimentDuration", "maxTrialDuration", "tuner", "assessor",
        "trainingService")  # fmt: skip


def write(search: Experiment) -> Path:
    """What is left of `search`, as an experiment file in its folder.

    Raises:
        UserError: it is still running, complete, or not by a tuner of ours; the file cannot be written.
    """
    if engine.is_running(search):
        raise UserError(f"experiment {search.id} is still running: nnictl stop {search.id} ends it")
    if (search.config.get("tuner") or {}).get("className") != TUNER:
        raise UserError(f"experiment {search.id} is not by {TUNER}, which alone takes over results; "
                        "a promotion goes on when `promote` is repeated")
    if search.most is not None and len(search.settled()) >= search.most:
        raise UserError(f"experiment {search.id} is complete: {search.most} trials")
    file = search.folder / "resumption.yml"
    try:
        file.write_text(yaml.safe_dump(config(search), sort_keys=False))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    return file


def config(search: Experiment) -> dict:
    """NNI's configuration of the rest of `search`."""
    kept = {key: search.config[key] for key in KEPT if search.config.get(key) is not None}
    tuner = kept["tuner"] | {"classArgs": kept["tuner"]["classArgs"] | {engine.RESUMES: str(search.folder)}}
    earlier = {"earlier": search.config["experimentWorkingDirectory"]}
    left = {} if search.most is None else {"maxTrialNumber": search.most - len(search.settled())}
    name = search.config["experimentName"].split(" | ")[0]  # what `run` adds to it, it adds again
    command = report.command_with(search, {}, earlier)
    return {"experimentName": name, **kept, **left, "tuner": tuner, "trialCommand": command}
