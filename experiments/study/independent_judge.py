"""Final quality, measured by an independent judge: one that no trial is scored with.

It has another architecture and was trained on other images (`python -m judge halves`, then
`python -m judge train --arch resnet34`).
"""

import pandas as pd
import torch

from experiments.study.options import STYLE_WEIGHT
from judge import images, model
from judge.score import Scorer, edge_correlation
from trials.parts.batches import HeldOut


class IndependentJudge:
    """Measures the translations that finished trials make of the photographs of `test`, on their device.

    `judge` is its file, and `data` the data set to whose test paintings distances are measured.

    Raises UserError if there is no such judge or data set, or the judge has another image size.
    """

    def __init__(self, judge: str, data: str, test: HeldOut):
        files = images.find_dataset(data).test[images.PAINTINGS]
        self.photos, device = test.photos, test.photos.device
        paintings = images.to_float(images.load_images(files, test.photos.shape[-1]).pixels).to(device)
        self.scorer = Scorer(model.load_judge(judge, device)[0], test.photos, paintings)

    def __call__(self, painted: torch.Tensor) -> dict[str, float]:
        """Return measures of the translations, float [N, 3, size, size] in [-1, 1].

        `final_style` is the judge's mean P(painting), `final_kid` the distance to the paintings, and
        `final_content` the mean correlation of edges with the photographs.
        """
        parts = self.scorer(painted).parts
        content = edge_correlation(painted, self.photos).mean().item()
        return {"final_style": parts["style"], "final_kid": parts["kid"], "final_content": content}


def final_quality(ends: pd.DataFrame, style: float = STYLE_WEIGHT) -> pd.Series:
    """Return the final quality of each trial among those in `ends`: a weighted mean of ranks, in (0, 1].

    `style` is the weight of style and distance together, the rest is the weight of content. Ranks are used
    because the measures have no common unit. It is nan for a trial without measures.
    """
    measures = {"style": ends["final_style"], "close": -ends["final_kid"], "content": ends["final_content"]}
    ranks = pd.DataFrame(measures).rank(pct=True)
    return style * (ranks["style"] + ranks["close"]) / 2 + (1 - style) * ranks["content"]
