"""Scores, by a classifier of the data, of generated images of classes and of translations between domains."""

from statistics import fmean

import torch

from judge import images
from judge.classifier import Classifier, load_or_train, logits_and_features
from judge.labelled import LabelledImages
from judge.score import (
    FinePatterns,
    Score,
    combined,
    kernel_inception_distance,
    structure_similarity,
    vendi_score,
)

REAL_IMAGES = 2000  # approximate number of test images that distances are measured to
DIVERSITY_IMAGES = 256  # images that diversity is measured over: a Vendi score grows with their number


class ClassScorer:
    """Scores generated images of the K classes `names` repeatedly, as a trial does.

    `real` are images to measure the distance to, float [M, C, H, W] in [-1, 1].
    """

    def __init__(self, network: Classifier, real: torch.Tensor, names: tuple[str, ...]):
        self.network, self.names = network, names
        self.real_features, self.mean_image = logits_and_features(network, real)[1], real.mean(0)
        self.real_diversity = self._vendi(real)

    def __call__(self, made: torch.Tensor, asked: torch.Tensor | None = None) -> Score:
        """Return the score of generated images.

        Args:
            made: float [N, C, H, W] in [-1, 1], N at least 4.
            asked: the class that each was to be of, int64 [N] with every class in it.

        Parts:
            right: share of images that are classified as the class asked for; only with `asked`.
            confidence: mean probability of the predicted class, in [1 / K, 1].
            inception: `inception_score` divided by K, in [1 / K, 1].
            coverage: share of the classes predicted at least a tenth as often as in equal shares.
            diversity: Vendi score of the pixels minus the mean real image, divided by that of the real
                images, at most 1. The classifier's features hardly change between images of one class.
            kid: distance to the real images in the classifier's features, and `kid_error`.

        `default` is right (or else inception) x diversity / (1 + kid), in [0, 1]. `extras` are the share of
        each predicted class, `class_NAME`, or with `asked` the part right of each class, `right_NAME`.
        """
        logits, features = logits_and_features(self.network, made)
        probabilities = logits.double().softmax(1)
        predicted = logits.argmax(1)
        shares = torch.bincount(predicted, minlength=len(self.names)) / len(predicted)
        extras = {f"class_{name}": share for name, share in zip(self.names, shares.tolist())}
        parts = {
            "confidence": probabilities.amax(1).mean().item(),
            "inception": inception_score(probabilities) / len(shares),
            "coverage": (shares >= 0.1 / len(shares)).double().mean().item(),
        }
        if asked is not None:
            hits = (predicted == asked).double()
            extras = {f"right_{name}": hits[asked == label].mean().item()
                      for label, name in enumerate(self.names)}
            parts = {"right": hits.mean().item(), **parts}
        parts["diversity"] = min(1.0, self._vendi(made) / self.real_diversity)
        parts["kid"], parts["kid_error"] = kernel_inception_distance(features, self.real_features)
        quality = parts["inception"] if asked is None else parts["right"]
        return Score(quality * parts["diversity"] / (1 + max(0.0, parts["kid"])), parts, extras)

    def _vendi(self, images: torch.Tensor) -> float:
        return vendi_score((images[:DIVERSITY_IMAGES] - self.mean_image).flatten(1))


class TranslationScorer:
    """Scores translations of the same images to other domains repeatedly, as a trial does.

    Args:
        sources: the images, float [N, 3, H, W] in [-1, 1], at least 4 of each of the K domains.
        labels, targets: domain of each, and the one that it is translated to, int64 [N], at least 4 of each.
    """

    def __init__(self, network: Classifier, sources: torch.Tensor, labels: torch.Tensor,
                 targets: torch.Tensor, names: tuple[str, ...]):
        self.sources, self.targets, self.names = sources, targets, names
        real = [sources[labels == domain] for domain in range(len(names))]
        self.scorers = [ClassScorer(network, images, names) for images in real]
        self.patterns = FinePatterns(real, sources.device)

    def __call__(self, made: torch.Tensor) -> Score:
        """Return the score of `made`, float [N, 3, H, W] in [-1, 1], in the order of the sources.

        Parts; domain, diversity and kid are means over the target domains, compared with their real images:
            domain: share of the images that are classified as their target domain.
            content, clean: as in `judge.score.Scorer`.
            diversity, kid, kid_error: as in `ClassScorer`.

        `default` is `judge.score.combined` with domain in the place of style. `extras` are the domain's
        share for each target, `domain_NAME`.
        """
        scores = [scorer(made[self.targets == domain]) for domain, scorer in enumerate(self.scorers)]
        shares = {f"domain_{name}": score.extras[f"class_{name}"] for name, score in zip(self.names, scores)}
        parts = {
            "domain": fmean(shares.values()),
            "content": structure_similarity(made, self.sources).mean().item(),
            "diversity": fmean(score.parts["diversity"] for score in scores),
            "clean": self.patterns.clean(made),
            "kid": fmean(score.parts["kid"] for score in scores),
            "kid_error": sum(score.parts["kid_error"] ** 2 for score in scores) ** 0.5 / len(scores),
        }
        return Score(combined({**parts, "style": parts["domain"]}), parts, shares)

    def count_given(self, made: torch.Tensor) -> dict[str, dict[str, int]]:
        """Return how many of `made` (as for a call) are classified as each domain, by the one asked for."""
        given = logits_and_features(self.scorers[0].network, made)[0].argmax(1)
        counts = torch.zeros(len(self.names), len(self.names), dtype=torch.int64, device=given.device)
        counts.index_put_((self.targets, given), torch.ones_like(given), accumulate=True)
        return {asked: dict(zip(self.names, row)) for asked, row in zip(self.names, counts.tolist())}


def class_scorer(data: LabelledImages, device: torch.device) -> tuple[ClassScorer, dict]:
    """Return a scorer of images that are to look like `data`, and its classifier's summary for records."""
    classifier = load_or_train(data, device)
    step = max(1, len(data.test_pixels) // REAL_IMAGES)  # evenly: MNIST's first half is the easier one
    real = images.to_float(data.test_pixels[::step]).to(device)
    return ClassScorer(classifier.network, real, data.classes), classifier.summary(data)


def inception_score(probabilities: torch.Tensor) -> float:
    """Return the Inception Score of p(y|x), double [N, K]: exp of the mean KL(p(y|x) || p(y)), in [1, K].

    K if every class is certain and all are equally frequent. Salimans et al. 2016 (1606.03498), section 4.
    """
    marginal = torch.special.entr(probabilities.mean(0)).sum()
    return (marginal - torch.special.entr(probabilities).sum(1).mean()).exp().item()
