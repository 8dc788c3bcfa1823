"""Controls of the score: corrupted images scored as if they were translations."""

from collections.abc import Iterator

import pandas as pd
import torch

from judge.common.progress import progress
from judge.corruptions import HELD_OUT_CORRUPTIONS, KINDS, corrupt_all
from judge.images import to_bytes, to_float
from judge.model import Judge
from judge.score import Scorer


def controls_table(judge: Judge, photos: torch.Tensor, paintings: torch.Tensor) -> pd.DataFrame:
    """Return the scores of corrupted test images, uint8 [N, 3, size, size], one row for each control.

    Columns: `shown` in training or not; `default` and the parts of the corrupted photographs; `default` of
    the corrupted `painting`s, and as a share `kept` of the uncorrupted ones' score. The distance is measured
    to one half of `paintings`; controls are made from the other half.
    """
    real = paintings[1::2]
    photos, paintings = (to_float(x).to(judge.mean.device) for x in (photos, paintings[::2]))
    score_photos, score_paintings = Scorer(judge, photos, real), Scorer(judge, paintings, real)
    shown = KINDS.keys() - HELD_OUT_CORRUPTIONS.keys()
    controls = progress(_controls(photos, paintings), "controls", len(KINDS) + 2)
    table = pd.DataFrame([
        {"control": name, "shown": name in shown, **score_photos(from_photos).as_dict(),
         "painting": score_paintings(from_paintings).default}
        for name, from_photos, from_paintings in controls
    ]).set_index("control")
    return table.assign(kept=table["painting"] / table.loc["copy", "painting"])


def _controls(photos: torch.Tensor, paintings: torch.Tensor) -> Iterator[tuple]:
    """Yield a control's name, and the images made from photographs and from paintings, one at a time."""
    yield "copy", photos, paintings
    yield "the same painting", *(paintings[:1].expand_as(images) for images in (photos, paintings))
    pixels = [to_bytes(images).cpu() for images in (photos, paintings)]
    for name in KINDS:
        yield name, *(to_float(corrupt_all(name, images)).to(photos.device) for images in pixels)
