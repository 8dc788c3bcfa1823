"""Disk space of a search: how much it needs, and which checkpoints are deleted."""

import shutil
from pathlib import Path
from types import ModuleType

from experiments.nni_adapter.database import Trial
from experiments.report import results
from judge.common.errors import UserError
from trials.session import DiskUse

ENDED_WELL = ("SUCCEEDED", "EARLY_STOPPED")  # NNI's states of trials without an error


def disk_needed(footprint: DiskUse, trials: int, at_once: int, kept: int) -> int:
    """Return the bytes that the image sheets of all trials and the checkpoints need at most."""
    # Of the `kept` best, the published setting, and those in training, which write a new one beside the old.
    checkpoints = min(trials, kept + 1) + 2 * at_once
    return trials * footprint.sheets + checkpoints * footprint.checkpoint


def check(folder: Path, needed: int) -> str:
    """Return a line on the `needed` and the free bytes in `folder`, which need not exist yet."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"the search needs about {gigabytes(needed)}, but {place} has {gigabytes(free)} free: "
            "make room, choose another experimentWorkingDirectory, or a smaller --keep")
    return f"disk: about {gigabytes(needed)} of {gigabytes(free)} free"


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count < 1e11 else f"{count / 1e9:.0f} GB"


def prune(trials: list[Trial], module: ModuleType, kept: int) -> None:
    """Delete checkpoints of trials that ended well, except those of the published setting and the best
    `kept`; the command that repeats a trial makes its checkpoint again."""
    ended = [trial for trial in trials
             if trial.state in ENDED_WELL and not results.is_published(trial, module)]
    ended.sort(key=lambda trial: trial.latest["default"] if trial.latest else -1, reverse=True)
    for trial in ended[kept:]:
        (trial.folder / "checkpoint.pt").unlink(missing_ok=True)
