"""What a judge thinks of translations: named parts, and the one number that the tuner sees."""

import warnings
from dataclasses import dataclass

import torch
from torchmetrics.image.kid import KernelInceptionDistance

from judge.command import UserError
from judge.images import LUMA
from judge.model import Judge

WORST = 0.0  # the score of a trial that diverged: no score is lower

FEWEST = 4  # images that can be scored: the distance draws halves of them
KID_SUBSETS = 20  # draws whose mean and spread are the KID's value and error


@dataclass(frozen=True)
class Score:
    """Parts by name and their combination `default`, all finite; a higher `default` is better."""

    default: float
    parts: dict[str, float]

    def named(self) -> dict[str, float]:
        """`default` first, then the parts: the form in which it is reported."""
        return {"default": self.default, **self.parts}


class Scorer:
    """Scores translations of the same photographs again and again, as a trial does.

    Args:
        judge: see `judge.model.load`.
        sources: the photographs, float [N, 3, size, size] in [-1, 1], None when unknown.
        paintings: real paintings to measure the distance to, float [M, 3, size, size].
    """

    def __init__(self, judge: Judge, sources: torch.Tensor | None, paintings: torch.Tensor | None):
        self.judge, self.sources = judge, sources
        self.real = None if paintings is None else features_of(judge, paintings)

    def __call__(self, images: torch.Tensor) -> Score:
        """The score of `images`, float [N, 3, size, size] in [-1, 1], in the sources' order.

        Parts:
            style: mean calibrated P(painting), in [0, 1]: the formula Salon grew from. By itself
                it is easily fooled (see the README), and `default` until a better one is in place.
            luminance: mean correlation of luma with the source, in [-1, 1]; below 0 it is inverted.
            kid: distance to the real paintings in the judge's features, and `kid_error`.
        """
        features = features_of(self.judge, images)
        style = self.judge.painting(features).mean().item()
        parts = {"style": style}
        if self.sources is not None:
            parts["luminance"] = luminance_correlation(images, self.sources).mean().item()
        if self.real is not None:
            parts["kid"], parts["kid_error"] = kernel_distance(features, self.real)
        return Score(default=style, parts=parts)


@torch.no_grad()
def features_of(judge: Judge, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """The judge's features of many images, [N, features], computed in batches."""
    return torch.cat([judge.features(part) for part in images.split(batch)])


def luminance_correlation(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of each image's luma with its source's, [N] in [-1, 1].

    0 where an image is of one luma, which keeps nothing of its source. Both [N, 3, H, W].

    Raises:
        UserError: there are not as many images as sources.
    """
    if images.shape != sources.shape:
        raise UserError(f"{len(images)} images for {len(sources)} sources: one each, in the same order")
    weights = images.new_tensor(LUMA)[:, None, None]
    # In double: float's rounding would leave something of a constant image to correlate.
    centred = [(x.double() * weights).sum(1).flatten(1) for x in (images, sources)]
    centred = [x - x.mean(1, keepdim=True) for x in centred]
    return torch.cosine_similarity(*centred, dim=1)


def kernel_distance(features: torch.Tensor, real: torch.Tensor) -> tuple[float, float]:
    """Kernel Inception Distance between two sets of features, and its error; unbiased, so around
    0 (also below) for equal distributions. Binkowski et al. 2018 (1801.01401), section 4.

    Mean and standard deviation over draws of half the smaller set. The spread over halves is the
    standard error of the whole (delete-half jackknife, Shao and Wu 1989), a little more where the
    sets differ in size. The draws are the same each time: equal images have equal scores.

    Raises:
        UserError: either set has fewer than `FEWEST` rows.
    """
    if min(len(features), len(real)) < FEWEST:
        raise UserError(f"{len(features)} images and {len(real)} paintings are too few to measure a "
                        f"distance between: give at least {FEWEST} of each")
    # torchmetrics warns of the memory that features take: these are a few hundred rows.
    warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
    metric = KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=KID_SUBSETS, subset_size=min(len(features), len(real)) // 2
    ).to(features.device)
    metric.update(real, real=True)
    metric.update(features, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs, for good
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()
