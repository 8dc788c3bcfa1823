"""Final quality, by something that no trial is scored with: a second judge, of another architecture,
trained on other images (`python -m judge halves`, `python -m judge train --arch resnet34`)."""

import pandas as pd
import torch

from judge import images, model
from judge.score import Scorer, edge_correlation
from trials.parts.batches import HeldOut

STYLE_WEIGHT = 0.4  # weight of style against content in final quality, fixed by looking: judge/README.md


class IndependentJudge:
    """Measures finished trials, all by the translations of the same photographs.

    Args:
        judge: file of the second judge.
        data: data set whose test paintings distances are measured to.
        test: what the trials paint.

    Raises:
        UserError: no such judge or data set, or the judge is of another size.
    """

    def __init__(self, judge: str, data: str, test: HeldOut):
        others = images.load_images(images.find_dataset(data).test[images.PAINTINGS], test.photos.shape[-1])
        self.photos = test.photos
        self.score = Scorer(model.load_judge(judge)[0], test.photos, images.to_float(others.pixels))

    def __call__(self, painted: torch.Tensor) -> dict[str, float]:
        """`final_style`, `final_kid`: the second judge's mean P(painting) and distance;
        `final_content`: mean correlation of edges with the photographs."""
        parts = self.score(painted).parts
        content = edge_correlation(painted, self.photos).mean().item()
        return {"final_style": parts["style"], "final_kid": parts["kid"], "final_content": content}


def final_quality(ends: pd.DataFrame, style: float = STYLE_WEIGHT) -> pd.Series:
    """Final quality among the trials in `ends`, in (0, 1]: a mean of ranks, `style` the weight of
    style and distance together, the rest that of content. Raw values have no common unit."""
    ranks = ends.assign(close=-ends["final_kid"]).rank(pct=True)
    return style * (ranks["final_style"] + ranks["close"]) / 2 + (1 - style) * ranks["final_content"]
