"""What a search takes of the disk: how much that will be, and which checkpoints are given up."""

import shutil
from pathlib import Path
from types import ModuleType

from experiments.nni_adapter.database import Trial
from experiments.report import results
from judge.common.errors import UserError
from trials.session import DiskUse

CHECKPOINTS_KEPT = 10  # trials whose checkpoints stay, unless told otherwise
ENDED_WELL = ("SUCCEEDED", "EARLY_STOPPED")  # NNI's states of trials that nothing went wrong in


def disk_needed(footprint: DiskUse, trials: int, at_once: int, kept: int) -> int:
    """Bytes that a search takes at its fullest: sheets of all trials, checkpoints of those kept and of the
    published setting, and of those that train now, twice while one is being written."""
    checkpoints = min(trials, kept + 1) + 2 * at_once
    return trials * footprint.sheets + checkpoints * footprint.checkpoint


def check(folder: Path, bytes_: int) -> str:
    """What to say of `bytes_` that are to be left in `folder`, which need not exist yet.

    Raises:
        UserError: there is not so much room.
    """
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if bytes_ > free:
        raise UserError(f"the search will take about {gigabytes(bytes_)} and {place} has {gigabytes(free)} "
                        "free: make room, choose another experimentWorkingDirectory, or --keep fewer")
    return f"disk: about {gigabytes(bytes_)} of {gigabytes(free)} free"


def gigabytes(bytes_: int) -> str:
    """For reading, 10^9 bytes."""
    return f"{bytes_ / 1e9:.2g} GB" if bytes_ < 1e11 else f"{bytes_ / 1e9:.0f} GB"


def prune(trials: list[Trial], module: ModuleType, kept: int) -> None:
    """Remove the checkpoints of trials that ended well or were stopped early, but for the published
    setting's and those of the best `kept`. Everything else that they wrote stays, and the command that
    repeats one makes its checkpoint again."""
    over = [trial for trial in trials if trial.state in ENDED_WELL and not results.is_published(trial, module)]
    over.sort(key=lambda trial: trial.latest["default"] if trial.latest else -1, reverse=True)
    for trial in over[kept:]:
        (trial.folder / "checkpoint.pt").unlink(missing_ok=True)
