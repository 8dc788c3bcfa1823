"""Controls of the score: corrupted images scored as if they were translations."""

import pandas as pd
import torch

from judge.common.rng import seeded
from judge.corruptions import HELD_OUT_CORRUPTIONS, TRAINING_CORRUPTIONS, Corruption
from judge.images import to_bytes, to_float
from judge.model import Judge
from judge.score import Scorer


def controls_table(
    judge: Judge, photos: torch.Tensor, paintings: torch.Tensor, seed: int = 0
) -> pd.DataFrame:
    """Return the scores of corrupted images, one row for each control, with the uncorrupted images first.

    Columns:
        shown: whether the judge was trained with this corruption.
        default, and a column for each part: the score of the corrupted photographs, as a trial computes it.
        painting: `default` of the corrupted paintings, with the uncorrupted ones as sources.
        kept: `painting` as a share of the uncorrupted paintings' score.

    The distance is measured to one half of `paintings`; controls are made from the other half.

    Args:
        photos, paintings: test images, uint8 [N, 3, size, size].
    """
    device = judge.mean.device
    photos, paintings, real = (to_float(x).to(device) for x in (photos, paintings[::2], paintings[1::2]))
    score_photos, score_paintings = Scorer(judge, photos, real), Scorer(judge, paintings, real)
    controls = {"copy": (photos, paintings),
                "the same painting": [paintings[:1].expand_as(images) for images in (photos, paintings)]}
    for name, corruption in {**HELD_OUT_CORRUPTIONS, **TRAINING_CORRUPTIONS}.items():
        controls[name] = [_corrupt_all(images, corruption, name, seed) for images in (photos, paintings)]
    table = pd.DataFrame([
        {"control": name, "shown": name in TRAINING_CORRUPTIONS, **score_photos(from_photos).as_dict(),
         "painting": score_paintings(from_paintings).default}
        for name, (from_photos, from_paintings) in controls.items()
    ]).set_index("control")
    return table.assign(kept=table["painting"] / table.loc["copy", "painting"])


def _corrupt_all(images: torch.Tensor, corruption: Corruption, name: str, seed: int) -> torch.Tensor:
    """Apply `corruption` to float images [N, 3, size, size]; equal names and seeds draw equal numbers."""
    with seeded(seed, "controls", name):
        corrupted = torch.stack([corruption(image) for image in to_bytes(images).cpu()])
    return to_float(corrupted).to(images.device)
