"""Searches with sample sheets to compare."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.utils import save_image

from tests.experiments.preferences.viewers import random_parts
from trials.parts.sheets import sheet

COMMAND = "python -m trials.cyclegan --budget 0.2"


@pytest.fixture
def searched(recorded) -> Callable[..., Path]:
    """Return a function that writes a search with sheets of 64 px at every 100 steps, and returns its folder.

    `photographs` is the seed of the images that all trials paint.
    """

    def write(id_: str, trials: int = 3, reports: int = 6, photographs: int = 0) -> Path:
        rng = torch.Generator().manual_seed(photographs)
        photos = 2 * torch.rand(8, 3, 64, 64, generator=rng) - 1
        parts = [random_parts(np.random.default_rng([photographs, number]), reports)
                 for number in range(trials)]
        folder = recorded(id_, {"trialCommand": COMMAND, "experimentName": "A search"}, [
            (f"t{number}", {"cycle_weight": 1.0 + number}, "SUCCEEDED", [0.1], 0.2)
            for number in range(trials)])
        for number in range(trials):
            trial = folder / f"trials/t{number}"
            (trial / "samples").mkdir(parents=True)
            (trial / "run.json").write_text(json.dumps({
                "status": "finished", "data": {"name": "monets", "stand_in": False},
                "settings": {"size": "sketch", "data": "monets"}}))
            lines = [{"step": 100 * (at + 1), "score": {"default": 0.5, **scores}}
                     for at, scores in enumerate(parts[number])]
            (trial / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            for line in lines:
                painted = 2 * torch.rand(8, 3, 64, 64, generator=rng) - 1
                save_image(sheet(photos, painted), trial / f"samples/step_{line['step']:06d}.png")
        return folder

    return write
