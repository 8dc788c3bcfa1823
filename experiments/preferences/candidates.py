"""The sheets that a viewer can compare: of the trials' last steps, and of some earlier ones."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.nni_adapter.database import find_experiment
from experiments.preferences.votes import Sheet, has_parts
from judge.common.errors import UserError
from judge.images import SIZES
from judge.score import PARTS
from trials.parts import sheets
from trials.session.records import read_lines, read_record

STEPS_PER_TRIAL = 4  # the last one, and others evenly spaced; not the first, which shows little


@dataclass(frozen=True)
class Candidate:
    """A sheet with its file and what its images are."""

    sheet: Sheet
    file: Path
    pixels: int  # width and height of an image
    photographs: str  # size and hash of the images above: only sheets of the same ones are compared

    def cells(self, lower: bool) -> list[Image.Image]:
        """Return the images that the trial made, or those above, that it was given.

        Raises UserError if the file cannot be read any more.
        """
        images = sheets.cut_images(self.file, lower, self.pixels)
        if not images:
            raise UserError(f"{self.file} cannot be read any more")
        return images


def trials_of(name: str) -> tuple[Path, list[tuple[str, Path]]]:
    """Return the folder of an experiment, or of a trial by hand, and the ids and folders of its trials."""
    if os.path.isfile(Path(name) / "run.json"):
        folder = Path(name).resolve()
        return folder, [(folder.name, folder)]
    experiment = find_experiment(name)
    return experiment.folder, [(trial.id, trial.folder) for trial in experiment.trials()]


def find(names: Sequence[str]) -> tuple[Path, list[Candidate]]:
    """Return the folder for the votes, the one that holds the first experiment, and the candidates of all.

    Raises UserError if there is no experiment of a name, or no two sheets can be compared.
    """
    place, candidates = None, {}  # by key: a resumed experiment also has the trials of the one before
    for name in names:
        folder, trials = trials_of(name)
        place = place or folder.parent
        for id_, trial in trials:
            for candidate in of_trial(trial, folder.name, id_, place):
                candidates[candidate.sheet.key] = candidate
    by_photographs = defaultdict(list)
    for candidate in candidates.values():
        by_photographs[candidate.photographs].append(candidate)
    groups = [group for group in by_photographs.values() if len(group) > 1]
    if not groups:
        raise UserError(f"no two sample sheets to compare in {', '.join(names)}: a sheet needs a report with "
                        f"{', '.join(PARTS)}, and sheets are compared if they have the same photographs")
    return place, [candidate for group in groups for candidate in group]


def of_trial(trial: Path, experiment: str, id_: str, place: Path) -> list[Candidate]:
    """Return the candidates of a trial: readable sheets of reports with all parts. Votes are in `place`."""
    pixels = SIZES.get((read_record(trial).get("settings") or {}).get("size"))
    parts = {line["step"]: line["score"] for line in read_lines(trial / "stats.jsonl")}
    files = {step: file for step, file in sheets.list_sheets(trial).items() if has_parts(parts.get(step, {}))}
    if not files or pixels is None:
        return []
    steps, candidates = list(files), []
    places = np.linspace(len(steps) - 1, 0, STEPS_PER_TRIAL + 1).round().astype(int)[:-1]
    for step in (steps[place] for place in np.unique(places)):
        photographs = sheets.cut_images(files[step], lower=False, pixels=pixels)
        if photographs:
            scores = {name: value for name, value in parts[step].items() if name != "default"}
            sheet = Sheet(experiment, id_, step, os.path.relpath(trial, place), scores)
            digest = sha256(b"".join(image.tobytes() for image in photographs)).hexdigest()
            candidates.append(Candidate(sheet, files[step], pixels, f"{pixels} {digest}"))
    return candidates
