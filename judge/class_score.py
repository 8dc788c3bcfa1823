"""Images by class, and what scores images that pretend to belong: a small classifier, trained here.

MNIST, scikit-learn's digits as the built-in sample, or a folder of images for each class. Pretrained
Inception features say little of digits; a classifier of the data at hand gives features, classes and
confidence instead (Salimans et al. 2016, 1606.03498, section 4, with their classifier for ours).
"""

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

REAL_IMAGES = 2000  # test images, about, that distances are measured to
DIVERSITY_IMAGES = 256  # images that diversity is measured over: its unit grows with their number


# ---------------------------------------------------------------------------------------------
# Score


class ClassScorer:
    """Scores images of classes again and again, as a trial does.

    Args:
        network: see `classifier`.
        real: images to measure the distance to, float [M, C, H, W] in [-1, 1].
        names: of the K classes.
    """

    def __init__(self, network: Classifier, real: torch.Tensor, names: tuple[str, ...]):
        self.network, self.names = network, names
        self.real, self.mean = logits_and_features(network, real)[1], real.mean(0)
        self.varied = self._vendi(real)

    def __call__(self, made: torch.Tensor, asked: torch.Tensor | None = None) -> Score:
        """The score of `made`, float [N, C, H, W] in [-1, 1], N at least 4.

        Parts:
            right: with `asked`, int64 [N] with every class in it, the share of images that are put in the
                class asked for.
            confidence: mean probability of the class that an image is put in, in [1 / K, 1].
            inception: Inception Score, exp of the mean KL(p(y|x) || p(y)), as a share of the number
                of classes K, in [1 / K, 1]: 1 where every image is surely of one class and all are
                equally frequent. Salimans et al. 2016 (1606.03498), section 4.
            coverage: share of the classes that some image is put in, at least a tenth as often as if
                all were equally frequent.
            diversity: how many different images there are (`vendi`, of pixels less the mean real image)
                as a share of the real ones', at most 1. The classifier's features, made to tell
                classes apart, hardly see whether the images of one are all alike; this does.
            kid: distance to the real images in the classifier's features, and `kid_error`.

        `default` is right (or else inception) x diversity / (1 + kid), in [0, 1]. `facts` are the share of
        `made` that is put in each class, `class_NAME`, or with `asked` right for each, `right_NAME`.
        """
        logits, features = logits_and_features(self.network, made)
        probabilities = logits.double().softmax(1)
        found = logits.argmax(1)
        shares = torch.bincount(found, minlength=len(self.names)) / len(found)
        facts = {f"class_{name}": share for name, share in zip(self.names, shares.tolist())}
        parts = {
            "confidence": probabilities.amax(1).mean().item(),
            "inception": inception_score(probabilities) / len(shares),
            "coverage": (shares >= 0.1 / len(shares)).double().mean().item(),
        }
        if asked is not None:
            hits = (found == asked).double()
            facts = {f"right_{name}": hits[asked == label].mean().item()
                     for label, name in enumerate(self.names)}
            parts = {"right": hits.mean().item(), **parts}
        parts["diversity"] = min(1.0, self._vendi(made) / self.varied)
        parts["kid"], parts["kid_error"] = kernel_inception_distance(features, self.real)
        quality = parts["inception"] if asked is None else parts["right"]
        return Score(quality * parts["diversity"] / (1 + max(0.0, parts["kid"])), parts, facts)

    def _vendi(self, images: torch.Tensor) -> float:
        return vendi_score((images[:DIVERSITY_IMAGES] - self.mean).flatten(1))


class TranslationScorer:
    """Scores translations of the same images to other domains again and again, as a trial does.

    Args:
        network: see `classifier`.
        sources: the images, float [N, 3, H, W] in [-1, 1], at least 4 of each of the K domains.
        labels: int64 [N], the domain that each is of.
        targets: int64 [N], the domain that each is to become of, with at least 4 for each domain.
        names: of the domains.
    """

    def __init__(self, network: Classifier, sources: torch.Tensor, labels: torch.Tensor,
                 targets: torch.Tensor, names: tuple[str, ...]):
        self.sources, self.targets, self.names = sources, targets, names
        real = [sources[labels == domain] for domain in range(len(names))]
        self.towards = [ClassScorer(network, images, names) for images in real]
        self.patterns = FinePatterns(real)

    def __call__(self, made: torch.Tensor) -> Score:
        """The score of `made`, float [N, 3, H, W] in [-1, 1], in the sources' order.

        Parts, of which domain, diversity and kid are means over the targets, so that each is worth as much
        and the images made to be of one are compared with real ones of it:
            domain: share of the images that are put in the domain they were to become of.
            content: mean structure kept of the source, in [0, 1] (`judge.score.structure`).
            diversity: as `ClassScorer`'s.
            clean: 1 without patterns of a few pixels that no real image has (`judge.score.Patterns`).
            kid: as `ClassScorer`'s, and `kid_error`.

        `default` is `judge.score.combined` with domain for style, domain x content^3 x diversity x clean /
        (1 + kid)^2, in [0, 1] and monotone in each. `facts` are the shares for each domain, `domain_NAME`.
        """
        scores = [scorer(made[self.targets == domain]) for domain, scorer in enumerate(self.towards)]
        shares = {f"domain_{name}": score.extras[f"class_{name}"] for name, score in zip(self.names, scores)}
        mean = {name: fmean(score.parts[name] for score in scores) for name in ("diversity", "kid")}
        error = sum(score.parts["kid_error"] ** 2 for score in scores) ** 0.5 / len(scores)
        parts = {
            "domain": fmean(shares.values()), "content": structure_similarity(made, self.sources).mean().item(),
            "diversity": mean["diversity"], "clean": self.patterns.clean(made),
            "kid": mean["kid"], "kid_error": error,
        }  # fmt: skip
        return Score(combined({**parts, "style": parts["domain"]}), parts, shares)


def class_scorer(data: LabelledImages, device: torch.device) -> tuple[ClassScorer, dict]:
    """What scores images that pretend to be of `data`, and what to record of it."""
    trained = load_or_train(data, device)
    spread = max(1, len(data.test_pixels) // REAL_IMAGES)  # MNIST's first half is the easier one
    real = images.to_float(data.test_pixels[::spread]).to(device)
    return ClassScorer(trained.network, real, data.classes), trained.summary(data)


def inception_score(probabilities: torch.Tensor) -> float:
    """Inception Score of p(y|x), double [N, K], from 1 to K: Salimans et al. 2016, section 4."""
    marginal = torch.special.entr(probabilities.mean(0)).sum()
    return (marginal - torch.special.entr(probabilities).sum(1).mean()).exp().item()
