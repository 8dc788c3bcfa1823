"""What the outputs of a trained network are like, in figures: distances, diversity, copies, features."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom, mannwhitneyu
from torch import nn
from torch.nn.functional import adaptive_max_pool2d

from judge.class_score import DIVERSITY_IMAGES, inception_score
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import to_bytes, to_float
from judge.labelled import LabelledImages
from judge.score import kernel_inception_distance, vendi_score
from trials.inspection.trained import FeatureExtractor, TrainedModel, spread

FID_MIN_IMAGES = 10_000  # images that FID's authors ask for at the least (the README of their code)
MISSING_SHARE = 0.1  # of its share among real images: a class that is painted less often is missing
ALARM_PROBABILITY = 1e-3  # how seldom chance may ring an alarm
MIN_VENDI_SHARE = 0.5  # of real images' Vendi score: a generator under it has collapsed
COPYING_Z = -3.0  # the Z_U from which Meehan et al. speak of copying: three standard deviations
POOLED_EDGE = 4  # pixels that a layer is max-pooled to (1511.06434, section 5.1)

# ---------------------------------------------------------------------------------------------
# Distances


class PrecomputedFeatures(nn.Identity):
    """What torchmetrics takes for a network, where features are already there."""

    def __init__(self, count: int):
        super().__init__()
        self.num_features = count


def frechet_distance(features: torch.Tensor, real: torch.Tensor) -> float:
    """Frechet Inception Distance of [N, F] to [M, F]: 0 for equal mean and covariance. Heusel et al. 2017
    (1706.08500), section 1."""
    from torchmetrics.image.fid import FrechetInceptionDistance  # not above: takes a second

    metric = FrechetInceptionDistance(feature=PrecomputedFeatures(features.shape[1])).to(features.device)
    metric.update(real, real=True)
    metric.update(features, real=False)
    return max(0.0, metric.compute().item())  # rounding may leave less than none


def frechet_distance_at_infinity(features: torch.Tensor, real: torch.Tensor, points: int = 5) -> float:
    """What FID would be with images without end: it is linear in 1 / N, N the number of both sets, and
    this is the line's end over N from half of the smaller set up. Chong and Forsyth 2020 (1911.07023),
    section 3, with as many of the real images, whose number biases it too."""
    most = min(len(features), len(real))
    sizes = np.linspace(most / 2, most, points).round().astype(int).tolist()
    draw = rng("frechet")
    found = [frechet_distance(*(x[torch.randperm(len(x), generator=draw)[:size].to(x.device)]
                       for x in (features, real))) for size in sizes]
    return float(np.polyfit([1 / size for size in sizes], found, 1)[1])


def pretrained_inception() -> FeatureExtractor:
    """The Inception of published figures, in torch-fidelity's conversion.

    Raises:
        UserError: package or weights cannot be had.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            URL_INCEPTION_V3,
            FeatureExtractorInceptionV3,
        )
    except ImportError:
        raise UserError("--features inception takes a package that is not here: "
                        "pip install torch-fidelity") from None
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["logits_unbiased", "2048"])
    except OSError as error:  # no network
        raise UserError(f"Inception's weights cannot be had ({error}): put {URL_INCEPTION_V3} into "
                        f"{torch.hub.get_dir()}/checkpoints") from None

    def extract(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colour = to_bytes(x).expand(-1, 3, -1, -1).cpu()
        logits, features = (torch.cat(part) for part in zip(*map(network, colour.split(50))))
        return logits.softmax(1), features

    return FeatureExtractor("Inception v3 (torch-fidelity's weights, 2048 features)", (), extract)


def distances(extractor: FeatureExtractor, made: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Inception Score, FID and KID of `made`, [N, C, H, W], to `real`, in what the extractor sees.

    Raises:
        UserError: either has too few images.
    """
    probabilities, features = extractor.extract(made)
    _, of_real = extractor.extract(real)
    kid, error = kernel_inception_distance(features, of_real)
    return {"images": len(made), "inception_score": inception_score(probabilities.double()),
            "fid": frechet_distance(features, of_real), "fid_infinity": frechet_distance_at_infinity(features, of_real),
            "kid": kid, "kid_error": error}


def metrics(subject: TrainedModel, extractor: FeatureExtractor, count: int) -> dict:
    """`distances` of up to `count` outputs to as many held-out real images, and those of as many training
    images, which no generator can be expected to beat; with what to beware of."""
    made = subject.outputs(min(count, len(subject.data.test_pixels)))
    real, training = (subject.real(len(made), held_out=held_out) for held_out in (True, False))
    table = {"outputs": distances(extractor, made, real), "training images": distances(extractor, training, real)}
    wide, fewest = extractor.extract(real[:1])[1].shape[1], min(len(made), len(training))
    warned = []
    if fewest < count:
        warned += [f"{fewest} images rather than {count}: more are not there to paint or to compare with"]
    if fewest < FID_MIN_IMAGES:
        warned += [f"FID of {fewest} images is biased upwards, more so for some generators than for others "
                   "(Binkowski et al. 2018, 1801.01401; Chong and Forsyth 2020, 1911.07023): KID is not, and "
                   f"fid_infinity less; FID's authors ask for {FID_MIN_IMAGES}"]
    if fewest <= wide:
        warned += [f"{fewest} images for {wide} features: FID's covariances are singular, go by KID"]
    if "Inception" not in extractor.name:
        warned += ["these features are not Inception's: figures compare with others of the same "
                   "features, data and number of images only"]
    return {"features": extractor.name, "real": len(real), "table": table, "warnings": warned}


# ---------------------------------------------------------------------------------------------
# Diversity


@dataclass(frozen=True)
class Diversity:
    """Outputs by class and confidence, beside real images; alarms of a collapse."""

    names: tuple[str, ...]
    shares: dict[str, list[float]]
    """`outputs` and `real`: the share that is put in each class."""
    confidence: dict[str, list[float]]
    """`outputs` and `real`: the probability of the class an image is put in."""
    vendi: dict[str, float]
    """`outputs` and `real`: how many different images there are in effect, of as many."""
    closest: dict[str, float]
    """`outputs` and `real`: RMS difference of the two most alike, of as many."""
    alarms: list[str]


def measure_diversity(extractor: FeatureExtractor, made: torch.Tensor, real: torch.Tensor) -> Diversity:
    """How various `made`, [N, C, H, W], is against held-out `real`, and whether it has collapsed.

    Two alarms. A class is missing: modes are counted as in Metz et al. 2017 (1611.02163), section 3.3.1,
    by a classifier; missing is a class painted less than `MISSING` times as often as among real images,
    if chance does that less than once in 1 / `CHANCE`. Images are alike: the Vendi score (Friedman and
    Dieng 2023, 2210.02410) of pixels less the mean real image is under `VARIETY` of that of as many real
    images; the share is Salon's own.
    """
    seen = {"outputs": extractor.extract(made)[0], "real": extractor.extract(real)[0]}
    counts = {name: torch.bincount(p.argmax(1), minlength=len(extractor.classes)).cpu().numpy()
              for name, p in seen.items()}
    shares = {name: count / count.sum() for name, count in counts.items()}
    few = (shares["outputs"] < MISSING_SHARE * shares["real"]) & (
        binom.cdf(counts["outputs"], len(made), shares["real"]) < ALARM_PROBABILITY)
    number = min(len(made), len(real))
    sets = {"outputs": made[:number], "real": real[spread(len(real), number)]}
    mean = real.mean(0)
    effective = {name: vendi_score((x[spread(number, DIVERSITY_IMAGES)] - mean).flatten(1)) for name, x in sets.items()}
    alarms = [f"class {name} is missing: {ours:.1%} of outputs, {theirs:.1%} of real images"
              for name, ours, theirs, rings in zip(extractor.classes, *shares.values(), few) if rings]
    if effective["outputs"] < MIN_VENDI_SHARE * effective["real"]:
        alarms += [f"outputs are alike: {effective['outputs']:.1f} different in effect of "
                   f"{min(number, DIVERSITY_IMAGES)}, real images {effective['real']:.1f}"]
    closest = {name: closest_pairs(x, 1)[0][2] for name, x in sets.items()}
    return Diversity(
        extractor.classes, {name: share.tolist() for name, share in shares.items()},
        {name: p.amax(1).tolist() for name, p in seen.items()}, effective, closest, alarms)


def closest_pairs(images: torch.Tensor, count: int) -> list[tuple[int, int, float]]:
    """The pairs of [N, C, H, W] that are most alike, with their RMS difference, each image in one pair at
    most. Whether they are the same image is for the eye: if so among s images, the generator has some
    s^2 images in all (the birthday paradox; Arora and Zhang 2017, 1706.08224, section 3)."""
    flat = images.flatten(1).double()
    gaps = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / flat.shape[1] ** 0.5
    gaps.fill_diagonal_(torch.inf)
    pairs = []
    for _ in range(min(count, len(images) // 2)):
        a, b = divmod(int(gaps.argmin()), len(gaps))
        pairs.append((a, b, gaps[a, b].item()))
        gaps[[a, b]], gaps[:, [a, b]] = torch.inf, torch.inf
    return pairs


# ---------------------------------------------------------------------------------------------
# Copies


def nearest_neighbours(points: torch.Tensor, among: torch.Tensor, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """RMS distances to, and numbers of, the `count` nearest of [M, F] to each of [N, F]: [N, count] both."""
    rows = []
    for part in points.split(100):
        found = torch.cdist(part, among).topk(min(count, len(among)), largest=False).indices
        rows.append((found, (part[:, None] - among[found]).square().mean(2).sqrt()))  # cdist rounds near 0
    found, gaps = (torch.cat(column) for column in zip(*rows))
    return gaps, found


def copying_test(made: torch.Tensor, held_out: torch.Tensor, training: torch.Tensor) -> dict[str, float]:
    """Whether outputs lie nearer to the training set than held-out images do, of features [N, F] each.

    Returns:
        further: share of pairs of an output and a held-out image in which the output is further from its
            nearest training image, in [0, 1]; 0.5 for images of the data's own distribution.
        z: the same in standard deviations of chance (Mann-Whitney), under -3 where training images are
            copied, above 3 where outputs are far from the data. Meehan et al. 2020 (2004.05675), section
            3, Z_U over all of space in one cell.
    """
    ours, theirs = (nearest_neighbours(x, training)[0][:, 0].cpu().numpy() for x in (made, held_out))
    n, m = len(ours), len(theirs)
    u = mannwhitneyu(ours, theirs).statistic
    deviation = (n * m * (n + m + 1) / 12) ** 0.5
    return {"further": float(u / (n * m)), "z": float((u - n * m / 2) / deviation)}


# ---------------------------------------------------------------------------------------------
# Features


@torch.no_grad()
def layer_activations(network: nn.Module, images: torch.Tensor, batch: int = 100) -> np.ndarray:
    """What every activation in `network` gives of [N, C, H, W], each map max-pooled to `GRID` pixels at
    most, flattened and joined: [N, F]. 1511.06434, section 5.1."""
    seen: list[torch.Tensor] = []

    def keep(_module, _inputs, output: torch.Tensor) -> None:
        maps = output if output.dim() == 2 else adaptive_max_pool2d(
            output, [min(POOLED_EDGE, edge) for edge in output.shape[2:]])
        seen.append(maps.flatten(1).float())

    hooks = [part.register_forward_hook(keep) for part in network.modules()
             if isinstance(part, nn.LeakyReLU | nn.ReLU | nn.Sigmoid)]
    rows = []
    for part in images.split(batch):
        seen.clear()
        network(part)
        rows.append(torch.cat(seen, 1).cpu())
    for hook in hooks:
        hook.remove()
    return torch.cat(rows).numpy()


def probe_accuracy(features: tuple[np.ndarray, np.ndarray], labels: tuple[np.ndarray, np.ndarray]) -> float:
    """Accuracy on the second of `features`, [M, F], of a linear classifier of the first, [N, F]:
    logistic regression of standardised features, its strength chosen by cross-validation."""
    from sklearn.exceptions import ConvergenceWarning  # not above: takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(linear, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 0.1, 1.0]}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps are enough to compare
        return search.fit(features[0], labels[0]).score(features[1], labels[1])


def probe_accuracies(trained: nn.Module, untrained: nn.Module, data: LabelledImages, count: int) -> dict[str, float]:
    """Accuracies of `probe` on held-out images, in the features of `trained` and `untrained`
    discriminators and in pixels, learnt from up to `count` training images.

    Raises:
        UserError: the data has one class, or some class too few images.
    """
    if len(data.classes) < 2:
        raise UserError(f"{data.name} has one class, features are told by several: give --data, a folder "
                        "with a subfolder for each")
    device = next(trained.parameters()).device
    draw = rng("probe")
    chosen, tested = (torch.randperm(len(x), generator=draw)[:most]
                      for x, most in ((data.labels, count), (data.test_labels, max(count, 1000))))
    labels = data.labels[chosen].numpy(), data.test_labels[tested].numpy()
    if np.bincount(labels[0], minlength=len(data.classes)).min() < 3:
        raise UserError(f"{len(chosen)} images are too few: each class takes at least 3, give more --images")
    images = [to_float(x).to(device) for x in (data.pixels[chosen], data.test_pixels[tested])]
    seen = {
        "discriminator": [layer_activations(trained, x) for x in images],
        "untrained discriminator": [layer_activations(untrained, x) for x in images],
        "pixels": [x.flatten(1).cpu().numpy() for x in images],
    }
    accuracies = {name: probe_accuracy(features, labels) for name, features in seen.items()}
    return {"training_images": len(chosen), "test_images": len(tested), **accuracies}
