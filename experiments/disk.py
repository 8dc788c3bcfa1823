"""Disk space of a search: how much it needs, and which checkpoints are deleted."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.nni_adapter.database import Trial
from experiments.report import results
from judge import images
from judge.common.errors import UserError
from trials.parts import batches
from trials.session import DiskUse

ENDED_WELL = ("SUCCEEDED", "EARLY_STOPPED")  # NNI's states of trials without an error


def disk_needed(footprint: DiskUse, trials: int, at_once: int, kept: int, paintings: int = 0) -> int:
    """Return the bytes that a search writes at most: image sheets, `paintings` of a trial, checkpoints."""
    # Of the `kept` best, the published setting, and those in training, which write a new one beside the old.
    checkpoints = min(trials, kept + 1) + 2 * at_once
    return trials * (footprint.sheets + paintings) + checkpoints * footprint.checkpoint


def paintings(settings: Any) -> int:
    """Return the bytes that a trial writes with --keep; 0 if it paints no photographs."""
    side = getattr(settings, "pixels", None) or getattr(settings, "edge", None)
    reports = settings.report_count() + 1  # an early look comes before the first report
    return reports * settings.photos * 3 * side**2 if side and hasattr(settings, "photos") else 0


def cache_needed(settings: Any) -> int:
    """Return the bytes of decoded images that the first trial adds to the cache; 0 if it paints no photos."""
    if not hasattr(settings, "pixels"):
        return 0
    data, size = images.find_dataset(settings.data), settings.pixels
    chosen = batches.held_out_photos(data, settings.photos)
    loaded = [(paths, batches.load_size(size)) for paths in data.train.values()]
    loaded += [(data.test[images.PAINTINGS], size), (chosen, size)]
    return sum(images.bytes_to_cache(paths, pixels) for paths, pixels in loaded)


def check(needed: dict[Path, int]) -> str:
    """Return a line on the needed and the free bytes of each disk.

    Raises UserError if a disk is too small. The folders in `needed` need not exist yet.
    """
    disks = {}
    for folder, count in needed.items():
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        first, total = disks.get(place.stat().st_dev, (place, 0))
        disks[place.stat().st_dev] = first, total + count
    lines = []
    for place, count in disks.values():
        free = shutil.disk_usage(place).free
        if count > free:
            raise UserError(
                f"the search needs about {gigabytes(count)}, but {place} has {gigabytes(free)} free: make "
                "room, choose another experimentWorkingDirectory or XDG_CACHE_HOME, or a smaller --keep")
        if count or not lines:
            lines.append(f"about {gigabytes(count)} of {gigabytes(free)} free in {place}")
    return f"disk: {', '.join(lines)}"


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
