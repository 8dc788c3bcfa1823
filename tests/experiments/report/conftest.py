"""Searches with records, reports and sample sheets, as trials write them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image

from experiments.nni_adapter.database import Experiment, find_experiment
from trials.cyclegan import Settings
from trials.parts.sheets import sheet

NAMES = ("identity_weight", "cycle_weight", "adversarial_weight")
PUBLISHED = {name: getattr(Settings(), name) for name in NAMES}
COMMAND = "python -m trials.cyclegan --budget 0.2"
STEPS = 1500  # of the schedule, of which trials train a fifth
SETTINGS = {"size": "sketch", "budget": 0.2, "data": "monets", "judge": "j.pt", "steps": STEPS, "reports": 3,
            "score": "style-and-scene", "batch_size": 4}  # fmt: skip


@pytest.fixture
def search(recorded) -> Callable[..., Experiment]:
    """Return a function that makes a search of `count` trials, with a report and a sheet every 100 steps.

    Trial 0 is the published setting, 1 diverged, 2 crashed when it had reported. `ends` are NNI's states of
    other trials by number; None is one that runs.
    """

    def make(count: int, reports: int = 3, ends: dict[int, str | None] | None = None) -> Experiment:
        ends, trials = {2: "FAILED"} | (ends or {}), []
        for number in range(count):
            end = ends.get(number, "SUCCEEDED")
            scale = 1 + 0.1 * ((7 * number) % 10)
            parameters = {name: value * (scale if name != "cycle_weight" else 1 + number / count)
                          for name, value in PUBLISHED.items()} if number else PUBLISHED  # fmt: skip
            final = 0.0 if number == 1 else round(0.3 + 0.5 * number / count, 4)
            trials.append((f"t{number:03}", parameters, end, [0.1] * reports,
                           final if end == "SUCCEEDED" else None))
        folder = recorded("ssssssss", {
            "trialCommand": COMMAND, "experimentName": "A search", "maxTrialNumber": count,
            "trialConcurrency": 2, "searchSpace": {
                name: {"_type": "loguniform", "_value": [value / 10, value * 10]}
                for name, value in PUBLISHED.items()}}, trials)
        rng = torch.Generator().manual_seed(1)
        photos, paintings = (2 * torch.rand(2, 8, 3, 64, 64, generator=rng) - 1)
        for number, (id_, _, end, *_) in enumerate(trials):
            record = {"status": "finished" if end else "running", "reason": None, "seconds": 12.0}
            if number in (1, 2):
                record |= {"status": ("diverged", "failed")[number - 1],
                           "reason": ("cycle_A loss is nan <b>", "no room")[number - 1]}
            if end == "EARLY_STOPPED":
                record |= {"status": "stopped", "reason": "SIGTERM at step 301"}
            write_trial(folder / "trials" / id_, record, photos, paintings.roll(number, 0), reports)
        return find_experiment(str(folder))

    return make


def write_trial(folder: Path, record: dict, photos: torch.Tensor, paintings: torch.Tensor,
                reports: int) -> None:  # fmt: skip
    """Write the files of a trial."""
    (folder / "samples").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({
        "data": {"name": "monets", "stand_in": False},
        "judge": {"file": "j.pt", "data": "monets", "auc": 0.98},
        "settings": SETTINGS, "schedule": {"steps": STEPS, "until": STEPS // 5}, **record}))  # fmt: skip
    lines = []
    for step in range(100, 100 * reports + 1, 100):
        save_image(sheet(photos, paintings), folder / f"samples/step_{step:06}.png")
        scores = {"default": 0.001 * step, "style": 0.2, "content": 0.3, "kid": 0.4, "kid_error": 0.1}
        lines.append(json.dumps({"step": step, "seconds": step / 10, "scoring_seconds": step / 50,
                                 "score": scores}) + "\n")  # fmt: skip
    (folder / "stats.jsonl").write_text("".join(lines))
