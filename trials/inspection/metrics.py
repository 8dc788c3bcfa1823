"""Metrics of a trained network: distances, diversity, copied training images, discriminator features."""

import warnings

import numpy as np
import torch
from scipy.stats import binom
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, pad

from judge.class_score import DIVERSITY_IMAGES, inception_score
from judge.common.errors import UserError
from judge.common.progress import progress
from judge.common.rng import rng
from judge.images import to_bytes, to_float
from judge.labelled import LabelledImages
from judge.score import kernel_inception_distance, vendi_score
from trials.inspection.trained import FeatureExtractor, TrainedModel, evenly_spaced

FID_MIN_IMAGES = 10_000  # the smallest number that FID's authors recommend (README of their code)
ALARM_PROBABILITY = 1e-3  # an alarm is raised for what chance does with a smaller probability
MISSING_SHARE = 0.1  # a class is missing if its share is less than this fraction of its share of real images
RECOGNISED = 0.9  # an output is recognised if as near to a real image as this share of real ones to another
MIN_RECOGNISED_SHARE = 0.25  # of fewer recognised outputs the classes are not counted
MIN_VENDI_SHARE = 0.5  # outputs are alike if their Vendi score is less than this share of real images'
VENDI_PIXELS = 8  # images are compared at this size, where blurred ones differ as much as sharp ones
FAINT = 0.1  # differences of a smaller root mean square, in [-1, 1], hardly count
COPY_RATIO = 0.5  # a copy is less than so much as far from a training image as from any held-out one
POOLED_PIXELS = 4  # a layer's maps are max-pooled to this size (1511.06434, section 5.1)


def frechet_distance(features: torch.Tensor, real: torch.Tensor) -> float:
    """Return the Frechet Inception Distance of features [N, F] to [M, F]: 0 for equal mean and covariance
    (Heusel et al. 2017, 1706.08500, section 1)."""
    from torchmetrics.image.fid import FrechetInceptionDistance  # here because the import takes a second

    network = nn.Identity()  # torchmetrics takes the features as images
    network.num_features = features.shape[1]
    metric = FrechetInceptionDistance(feature=network).to(features.device)
    metric.update(real, real=True)
    metric.update(features, real=False)
    return max(0.0, metric.compute().item())  # rounding errors may make it negative


def frechet_distance_at_infinity(features: torch.Tensor, real: torch.Tensor, points: int = 5) -> float:
    """Return the FID of infinitely many images (Chong and Forsyth 2020, 1911.07023, section 3).

    FID is linear in 1 / N. The line is fitted to N from half of the smaller set to all of it, with N of the
    real images too, because their number also biases FID.
    """
    most = min(len(features), len(real))
    sizes = np.linspace(most / 2, most, points).round().astype(int).tolist()
    draw = rng("frechet")

    def subset(x: torch.Tensor, size: int) -> torch.Tensor:
        return x[torch.randperm(len(x), generator=draw)[:size].to(x.device)]

    fids = [frechet_distance(subset(features, size), subset(real, size)) for size in sizes]
    return float(np.polyfit([1 / size for size in sizes], fids, 1)[1])


def pretrained_inception() -> FeatureExtractor:
    """Return the Inception network of published figures, in torch-fidelity's conversion. Raises UserError if
    the package is not installed, or the weights cannot be downloaded."""
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as inception
    except ImportError:
        raise UserError("--features inception needs a package that is not installed: "
                        "pip install torch-fidelity") from None
    try:
        network = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["logits_unbiased", "2048"])
    except OSError as error:  # no internet
        raise UserError(f"the weights of Inception cannot be downloaded ({error}): put "
                        f"{inception.URL_INCEPTION_V3} into {torch.hub.get_dir()}/checkpoints") from None

    def extract(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colour = to_bytes(x).expand(-1, 3, -1, -1).cpu()
        logits, features = (torch.cat(part) for part in zip(*map(network, colour.split(50))))
        return logits.softmax(1), features

    return FeatureExtractor("Inception v3 (torch-fidelity's weights, 2048 features)", (), extract)


def measure_distances(model: TrainedModel, extractor: FeatureExtractor, count: int) -> dict:
    """Return Inception Score, FID and KID of up to `count` outputs against as many held-out images, and of as
    many training images: no generator can be expected to do better. Return warnings about them too."""
    outputs, table, notes = model.outputs(min(count, len(model.data.test_pixels))), {}, []
    real, training = (model.real(len(outputs), held_out=held_out) for held_out in (True, False))
    _, real_features = extractor.extract(real)
    for name, images in (("outputs", outputs), ("training images", training)):
        probabilities, features = extractor.extract(images)
        kid, error = kernel_inception_distance(features, real_features)
        table[name] = {
            "images": len(images), "inception_score": inception_score(probabilities.double()),
            "fid": frechet_distance(features, real_features),
            "fid_infinity": frechet_distance_at_infinity(features, real_features),
            "kid": kid, "kid_error": error,
        }  # fmt: skip
    feature_count, fewest = real_features.shape[1], min(len(outputs), len(training))
    if fewest < count:
        notes += [f"{fewest} images rather than {count}: more are not there to translate or to compare with"]
    if fewest < FID_MIN_IMAGES:
        notes += [f"FID of {fewest} images is biased upwards, more so for some generators than for others "
                  "(Binkowski et al. 2018, 1801.01401; Chong and Forsyth 2020, 1911.07023): KID is not, and "
                  f"fid_infinity less; FID's authors ask for {FID_MIN_IMAGES}"]
    if fewest <= feature_count:
        notes += [f"{fewest} images for {feature_count} features: FID's covariances are singular, go by KID"]
    if "Inception" not in extractor.name:
        notes += ["these features are not Inception's: figures compare with others of the same "
                  "features, data and number of images only"]
    return {"features": extractor.name, "real": len(real), "table": table, "warnings": notes}


def measure_diversity(extractor: FeatureExtractor, outputs: torch.Tensor, real: torch.Tensor,
                      has_modes: bool) -> dict:  # fmt: skip
    """Compare the diversity of `outputs`, [N, C, H, W], with that of held-out `real` images.

    There are two alarms. Outputs are alike: the Vendi score of their `differences` is less than
    `MIN_VENDI_SHARE` times that of as many real images; this share is Salon's choice. A class is missing: a
    classifier counts the modes as in Metz et al. 2017 (1611.02163), section 3.3.1, and a class is missing if
    its share is less than `MISSING_SHARE` times that of real images and chance does that with less than
    `ALARM_PROBABILITY`. Classes are counted only with `has_modes`, which says that the extractor's are those
    of the data (a judge's are not), and if enough outputs are recognised: a classifier puts noise into some
    class too. trials/README.md has the alarms that real, blurred, copied and collapsed images raise.

    Returns:
        For `outputs` and `real`, the `shares` of images that are classified as each class; the `confidence`,
        for each image, which is the probability of its class; and of equally many images `vendi`, the
        effective number of different ones, and `closest`, the RMS difference of the two most similar ones.
        `recognised`, the share of outputs as near to a real image in features as most real ones are to
        another. Also the `alarms` and the `notes`, as text.
    """
    classes, sets = extractor.classes, {"outputs": outputs, "real": real}
    extracted = {name: extractor.extract(x) for name, x in sets.items()}
    probabilities, features = ({name: part[i] for name, part in extracted.items()} for i in (0, 1))
    counts = {name: torch.bincount(p.argmax(1), minlength=len(classes)).cpu().numpy()
              for name, p in probabilities.items()}
    shares = {name: count / count.sum() for name, count in counts.items()}
    usual = nearest_neighbours(features["real"], features["real"], 2)[0][:, -1].quantile(RECOGNISED)
    nearest = nearest_neighbours(features["outputs"], features["real"])[0][:, 0]
    recognised = (nearest <= usual).double().mean().item()

    count = min(len(outputs), len(real))
    sets = {"outputs": outputs[:count], "real": real[evenly_spaced(len(real), count)]}
    subset = evenly_spaced(count, DIVERSITY_IMAGES)
    vendi = {name: vendi_score(differences(x[subset])) for name, x in sets.items()}
    alarms, notes = [], []
    if vendi["outputs"] < MIN_VENDI_SHARE * vendi["real"]:
        alarms += [f"outputs are alike: {vendi['outputs']:.1f} different in effect of {len(subset)}, "
                   f"real images {vendi['real']:.1f}"]
    if not has_modes:
        notes += ["missing classes are not looked for: these are not the classes of the data"]
    elif recognised < MIN_RECOGNISED_SHARE:
        notes += [f"missing classes are not looked for: {recognised:.0%} of outputs resemble real images"]
    else:
        missing = (shares["outputs"] < MISSING_SHARE * shares["real"]) & (
            binom.cdf(counts["outputs"], len(outputs), shares["real"]) < ALARM_PROBABILITY)
        alarms += [f"class {name} is missing: {share:.1%} of outputs, {of_real:.1%} of real images"
                   for name, share, of_real, gone in zip(classes, *shares.values(), missing) if gone]
    return {"shares": {name: dict(zip(classes, share.tolist())) for name, share in shares.items()},
            "confidence": {name: p.amax(1).tolist() for name, p in probabilities.items()}, "vendi": vendi,
            "closest": {name: closest_pairs(x, 1)[0][2] for name, x in sets.items()},
            "recognised": recognised, "alarms": alarms, "notes": notes}


def differences(images: torch.Tensor) -> torch.Tensor:
    """Return how each of [N, C, H, W] differs from their mean, for a Vendi score: [N, F].

    Neither blur, weak contrast nor a common cast makes images alike: they are compared at `VENDI_PIXELS`, and
    without their mean. A constant number beside the differences makes those alike that are `FAINT`.
    """
    small = adaptive_avg_pool2d(images - images.mean(0), VENDI_PIXELS).flatten(1)
    return pad(small, (0, 1), value=FAINT * small.shape[1] ** 0.5)


def closest_pairs(images: torch.Tensor, count: int) -> list[tuple[int, int, float]]:
    """Return the `count` most similar pairs of [N, C, H, W] as (index, index, RMS difference).

    An image is in one pair at most. If a person finds duplicates among s images, the generator makes about
    s^2 different images (birthday paradox; Arora and Zhang 2017, 1706.08224, section 3).
    """
    flat = images.flatten(1).double()
    gaps = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / flat.shape[1] ** 0.5
    gaps.fill_diagonal_(torch.inf)
    pairs = []
    for _ in range(min(count, len(images) // 2)):
        a, b = divmod(int(gaps.argmin()), len(gaps))
        pairs.append((a, b, gaps[a, b].item()))
        gaps[[a, b]], gaps[:, [a, b]] = torch.inf, torch.inf
    return pairs


def nearest_neighbours(
    points: torch.Tensor, among: torch.Tensor, count: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return RMS distances and indices of the `count` rows of `among` [M, F] that are nearest to each of
    `points` [N, F]: [N, count] each."""
    rows = []
    for part in progress(points.split(100), "nearest"):
        indices = torch.cdist(part, among).topk(min(count, len(among)), largest=False).indices
        # cdist is imprecise near 0, so the distances are computed again.
        rows.append(((part[:, None] - among[indices]).square().mean(2).sqrt(), indices))
    distances, indices = (torch.cat(column) for column in zip(*rows))
    return distances, indices


def find_copies(spaces: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> dict:
    """Find outputs that are copies of training images.

    A copy is less than `COPY_RATIO` times as far from its nearest training image as from its nearest held-out
    image, in each of the `spaces`. Whatever is not copied, even fog, is about as far from both. As many
    held-out images as there are outputs, each compared with the other ones, show how often that happens by
    chance: there is an alarm if that rate gives as many copies with less than `ALARM_PROBABILITY`.

    Args:
        spaces: for each space, such as pixels, the features [N, F] of outputs, held-out and training images.

    Returns:
        copies: the numbers of the outputs that are copies.
        held_out_copies, checked: how many held-out images are, and of how many.
        ratios: of each output, the larger of the ratios of its distances; `held_out_ratio`, their median.
        alarm: whether there are more copies than chance makes.
    """
    ratios, ratios_held_out = [], []
    for outputs, held_out, training in spaces.values():
        checked = held_out[evenly_spaced(len(held_out), len(outputs))]
        others = nearest_neighbours(checked, held_out, 2)[0][:, 1]  # the first is the image itself
        ratios.append(nearest_neighbours(outputs, training)[0][:, 0]
                      / nearest_neighbours(outputs, held_out)[0][:, 0])
        ratios_held_out.append(nearest_neighbours(checked, training)[0][:, 0] / others)
    ratio, held_out_ratio = (torch.stack(x).nan_to_num(1.0).amax(0) for x in (ratios, ratios_held_out))
    copies = (ratio < COPY_RATIO).nonzero()[:, 0].tolist()
    by_chance = int((held_out_ratio < COPY_RATIO).sum())
    rate = (by_chance + 1) / (len(held_out_ratio) + 2)  # rule of succession: it is never 0
    return {"copies": copies, "held_out_copies": by_chance, "checked": len(held_out_ratio),
            "ratios": ratio.tolist(), "held_out_ratio": held_out_ratio.median().item(),
            "alarm": bool(binom.sf(len(copies) - 1, len(ratio), rate) < ALARM_PROBABILITY)}


@torch.no_grad()
def layer_activations(network: nn.Module, images: torch.Tensor, batch: int = 100) -> np.ndarray:
    """Return the outputs of all activations in `network` for [N, C, H, W], max-pooled to `POOLED_PIXELS` and
    concatenated to [N, F] (1511.06434, section 5.1)."""
    layers: list[torch.Tensor] = []

    def append(_module, _inputs, output: torch.Tensor) -> None:
        if output.dim() > 2:
            output = adaptive_max_pool2d(output, [min(POOLED_PIXELS, edge) for edge in output.shape[2:]])
        layers.append(output.flatten(1).float())

    hooks = [module.register_forward_hook(append) for module in network.modules()
             if isinstance(module, nn.LeakyReLU | nn.ReLU | nn.Sigmoid)]
    rows = []
    for part in images.split(batch):
        layers.clear()
        network(part)
        rows.append(torch.cat(layers, 1).cpu())
    for hook in hooks:
        hook.remove()
    return torch.cat(rows).numpy()


def probe_accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy on features `test`, [M, F], of a logistic regression trained on `train`, [N, F],
    standardised, with regularisation chosen by cross-validation."""
    from sklearn.exceptions import ConvergenceWarning  # here because the import takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(linear, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 0.1, 1.0]}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps are enough for a comparison
        return search.fit(train, labels).score(test, test_labels)


def probe_accuracies(
    trained: nn.Module, untrained: nn.Module, data: LabelledImages, count: int,
) -> dict[str, float]:
    """Return `probe_accuracy` in the features of a trained and an untrained discriminator, and in pixels.

    The probes learn from up to `count` training images and are tested on held-out images. Raises UserError if
    the data has one class only, or a class has too few images.
    """
    if len(data.classes) < 2:
        raise UserError(f"{data.name} has one class, and a probe needs several: give --data, a folder with a "
                        "subfolder for each class")
    device = next(trained.parameters()).device
    draw = rng("probe")
    chosen, tested = (torch.randperm(len(labels), generator=draw)[:most]
                      for labels, most in ((data.labels, count), (data.test_labels, max(count, 1000))))
    labels, test_labels = data.labels[chosen].numpy(), data.test_labels[tested].numpy()
    if np.bincount(labels, minlength=len(data.classes)).min() < 3:
        raise UserError(f"{len(chosen)} images are too few: each class needs at least 3, give more --images")
    images = [to_float(pixels).to(device) for pixels in (data.pixels[chosen], data.test_pixels[tested])]
    result = {"training_images": len(chosen), "test_images": len(tested)}
    for name, features in progress({
        "discriminator": lambda x: layer_activations(trained, x),
        "untrained discriminator": lambda x: layer_activations(untrained, x),
        "pixels": lambda x: x.flatten(1).cpu().numpy(),
    }.items(), "probe"):
        train, test = map(features, images)
        result[name] = probe_accuracy(train, labels, test, test_labels)
    return result
