"""The smallest data for a GAN: four numbers, 1 0 1 0, and the score of numbers that are to become them."""

import torch

from judge.common.rng import rng
from judge.images import to_bytes
from judge.labelled import LabelledImages
from judge.score import Score

PATTERN = "pattern"  # the name of the data
TOLERANCE = 0.4  # largest distance of a number in [-1, 1] from the pattern that counts as right


def patterns(count: int = 1000) -> LabelledImages:
    """Return images of 1x4 pixels: 1 0 1 0, each up to a fifth of the way to the other number."""
    noise = torch.rand(count, 1, 1, 4, generator=rng("patterns")) * TOLERANCE
    pixels = to_bytes(torch.tensor([1.0, -1.0, 1.0, -1.0]) * (1 - noise))
    labels = torch.zeros(count, dtype=torch.int64)
    return LabelledImages(PATTERN, ("1010",), pixels, labels, pixels[:20], labels[:20])


class PatternScorer:
    """Scores four numbers by their distance from the pattern."""

    def __call__(self, made: torch.Tensor) -> Score:
        """Return the score of `made`, float [N, 1, 1, 4] in [-1, 1].

        `default` is the share of `made` whose four numbers all lie as near to the pattern as real ones;
        `distance` is the mean distance from it, at most 2.
        """
        distance = (made - made.new_tensor([1, -1, 1, -1])).abs()
        share = (distance <= TOLERANCE).flatten(1).all(1).double().mean().item()
        return Score(share, {"distance": distance.mean().item()})
