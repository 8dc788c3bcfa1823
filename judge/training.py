"""Trains a judge, calibrates it, and measures it on images it never saw."""

import copy
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from jsonargparse.typing import PositiveInt
from PIL import Image
from scipy.optimize import minimize
from sklearn import metrics as sk
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from tqdm import tqdm

from judge.command import Rate, UserError, Weight
from judge.controls import barely_trained, between, choice, damaged, painted_by
from judge.images import PAINTINGS, PHOTOS, DataSet, load, to_float
from judge.model import CLASSES, NEITHER, Card, Judge, computes_bf16, log_probabilities
from judge.score import features_of
from judge.seeds import generator

HELD_OUT = 0.1  # share of the training images kept for early stopping and calibration
CALIBRATION_BINS = 15  # Guo et al. 2017, section 5
GENERATED = 0.2  # share of the third class that barely trained generators paint; the rest is damage
GENERATORS, BY_EACH = 24, 32  # so many of them at the most, and pictures by each
MARGIN = 1.25  # images are kept this much larger than the judge's size, for crops to cut from


@dataclass(frozen=True)
class Recipe:
    """How a judge is trained."""

    arch: str = "resnet18"
    """Name of a torchvision ResNet or RegNet."""
    weights: str = "imagenet"
    """Where training starts: `imagenet` (torchvision's pretrained), `none`, or a state-dict file."""
    epochs: PositiveInt = 60
    """At the most; one has as many views as there are training images, a third of each class."""
    patience: PositiveInt = 30
    """Epochs without a better held-out loss after which training stops; the best is kept."""
    batch_size: PositiveInt = 32
    """Images a step."""
    lr: Rate = 1e-3
    """Peak learning rate of AdamW under a one-cycle schedule (Smith 2018, 1803.09820)."""
    weight_decay: Weight = 0.05
    """Of AdamW (Loshchilov and Hutter 2019, 1711.05101)."""
    neither: bool = True
    """Whether there is a third class of what is neither photograph nor painting (`judge.controls`).
    A judge of two classes calls mush a painting."""
    seed: int = 0
    """Same seed, same machine: same judge, on a CPU. A GPU adds up in an order of its own."""


# ---------------------------------------------------------------------------------------------
# Data


def augmentation(size: int) -> v2.Transform:
    """Random views, uint8 [3, *, *] -> uint8 [3, size, size], alike for every class.

    The two domains reach us compressed differently (photographs at JPEG quality 75 with halved
    chroma, Monets often better), and a network learns that rather than style. So every image of
    both is resized by a random factor and re-encoded at a random quality, with its chroma halved or
    not. Blur and colour shifts move a CNN from texture to shape (Geirhos et al. 2019, 1811.12231).
    """
    return v2.Compose([
        v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(0.9, 1.1), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02),
        v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 1.0))], p=0.2),
        v2.Lambda(lambda image: reencoded(image, int(between(50, 101)), choice("4:4:4", "4:2:0"))),
    ])


def reencoded(image: torch.Tensor, quality: int = 75, chroma: str = "4:2:0") -> torch.Tensor:
    """uint8 [3, H, W] through JPEG. By Pillow, because torchvision gives its own codecs up."""
    encoded = io.BytesIO()
    to_pil_image(image).save(encoded, "JPEG", quality=quality, subsampling=chroma)
    return pil_to_tensor(Image.open(encoded))


class Views(Dataset):
    """Random views, as many of one class as of the next, an epoch of them as long as there are
    images of the first two.

    A view depends on (seed, epoch, index) alone, so that the number of worker processes does not
    change the judge.

    Args:
        classes: images of each, uint8 [N, 3, *, *]. A third class gets them in the share
            `GENERATED`, and otherwise damaged views of the first two.
    """

    def __init__(self, classes: Sequence[torch.Tensor], size: int, seed: int = 0):
        self.classes, self.seed, self.epoch = classes, seed, 0
        self.view = augmentation(size)

    def __len__(self) -> int:
        return sum(map(len, self.classes[:NEITHER]))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = index % len(self.classes)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator(self.seed, "augment", self.epoch, index).get_state())
            if label == NEITHER and between(0, 1) > GENERATED:
                return damaged(self._any(choice(*self.classes[:NEITHER]))), label
            return self._any(self.classes[label]), label

    def _any(self, images: torch.Tensor) -> torch.Tensor:
        return self.view(images[int(torch.randint(len(images), ()))])


def labelled(domains: dict[str, list[Path]], size: int) -> tuple[torch.Tensor, torch.Tensor, dict, list[str]]:
    """Pixels [N, 3, size, size] of both domains, labels [N] in the order of `CLASSES`, counts, paths."""
    photos, paintings = load(domains[PHOTOS], size), load(domains[PAINTINGS], size)
    labels = torch.tensor([0.0] * len(photos.paths) + [1.0] * len(paintings.paths)).long()
    counts = {"photos": photos.counts(), "paintings": paintings.counts()}
    return torch.cat([photos.pixels, paintings.pixels]), labels, counts, photos.paths + paintings.paths


def split(labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices to train on and to hold out; each class gives the same share.

    Raises:
        UserError: a class has only one image, or none.
    """
    counts = torch.bincount(labels, minlength=2)
    if counts.min() < 2:
        raise UserError("one image of a kind cannot be both trained on and held out: give at least 2")
    order = torch.randperm(len(labels), generator=generator(seed, "split"))
    held = []
    for label in range(len(counts)):
        of_class = order[labels[order] == label]
        held.append(of_class[: max(1, round(len(of_class) * HELD_OUT))])
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[torch.cat(held)] = True
    return order[~mask[order]], torch.cat(held)


# ---------------------------------------------------------------------------------------------
# Training


def train(data: DataSet, size: int, recipe: Recipe, device: torch.device) -> tuple[Judge, Card]:
    """A calibrated judge for images of `size` pixels, and its card.

    Raises:
        UserError: no such architecture, weights that do not fit, or no images.
    """
    started = time.perf_counter()
    judge, origin = start(recipe, size, device)
    pixels, labels, counts, paths = labelled(data.train, round(size * MARGIN))
    fit_at, held_at = split(labels, recipe.seed)
    # Decoded anew: resized from the above they would be softer than what a trial shows, and the
    # judge calibrated for that.
    unseen = load([Path(paths[index]) for index in held_at], size).pixels
    views = Views(shown(pixels[fit_at], labels[fit_at], recipe, device), size, recipe.seed)
    held = held_out(unseen, labels[held_at], recipe, device)

    epochs = fit(judge, views, held, recipe, device)
    calibrate(judge, *held)
    report = {
        "data": data.name, "stand_in": data.stand_in, "counts": counts,
        **vars(recipe), "weights": origin, "epochs": epochs,
        "seconds": round(time.perf_counter() - started, 1), "device": str(device),
        "versions": {"torch": str(torch.__version__), "torchvision": torchvision.__version__},
    }
    measured, _ = evaluate(judge, data, device)
    return judge, Card(recipe.arch, size, judge.classes, report, measured)


def shown(pixels: torch.Tensor, labels: torch.Tensor, recipe: Recipe, device) -> list[torch.Tensor]:
    """Images of each class to learn from, uint8 [N, 3, *, *]: photographs, paintings, and if
    `recipe` has a third what generators paint that have barely been trained."""
    classes = [pixels[labels == label] for label in (0, 1)]
    if recipe.neither:
        count = min(GENERATORS, math.ceil(len(pixels) / BY_EACH))
        draw = generator(recipe.seed, "sources")
        chosen = torch.randint(len(classes[0]), (count, BY_EACH), generator=draw)
        networks = barely_trained(*classes, recipe.seed, device, count)
        classes.append(torch.cat([
            painted_by(network, classes[0][own], device) for network, own in zip(networks, chosen)]))
    return classes


def held_out(pixels: torch.Tensor, labels: torch.Tensor, recipe: Recipe, device) -> tuple:
    """Images to stop and to calibrate by, float [-1, 1] [N, 3, size, size], and labels [N]: the
    real ones as they are, and half as many damaged ones if `recipe` has a third class."""
    if recipe.neither:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator(recipe.seed, "held out").get_state())
            chosen = torch.randint(len(pixels), (math.ceil(len(pixels) / 2),))
            pixels = torch.stack([*pixels, *(damaged(image) for image in pixels[chosen])])
        labels = torch.cat([labels, torch.full_like(chosen, NEITHER)])
    return to_float(pixels).to(device), labels.to(device)


def balanced(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """A weight for each class, so that each counts the same however many images it has, [classes].

    Without it a judge expects as many paintings as it was calibrated on, and says so in every P.
    """
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return counts.sum() / (classes * counts)


def start(recipe: Recipe, size: int, device: torch.device) -> tuple[Judge, str]:
    """An untrained judge and where its weights came from.

    Pretrained weights that cannot be had are said to be missing, never passed over in silence.
    """
    if not recipe.arch.startswith(("resnet", "wide_resnet", "resnext", "regnet")):
        raise UserError(f"--arch {recipe.arch} is neither a ResNet nor a RegNet: for example resnet18")
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(recipe.seed, "init").get_state())
        try:
            judge = Judge(recipe.arch, size, CLASSES if recipe.neither else CLASSES[:NEITHER])
        except ValueError as error:
            raise UserError(f"--arch {recipe.arch}: {error}") from None
    origin = recipe.weights
    if recipe.weights == "imagenet":
        try:
            state = models.get_model_weights(recipe.arch)["DEFAULT"].get_state_dict(progress=True)
            judge.backbone.load_state_dict(_without_head(state))
        except (URLError, OSError, RuntimeError) as error:
            origin = "none (imagenet could not be had)"
            print(f"pretrained weights could not be had ({error}): training from scratch")
    elif recipe.weights != "none":
        _load_file(recipe.weights, judge)
    return judge.to(device), origin


def _without_head(state: dict) -> dict:
    """ImageNet's 1000 classes are not ours; everything below them is."""
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def _load_file(file: str, judge: Judge) -> None:
    """Take a torchvision state dict from the user's own file."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        judge.backbone.load_state_dict(_without_head(state))
    except FileNotFoundError:
        raise UserError(f"no weights at {file}: give imagenet, none or a file") from None
    except Exception:  # foreign bytes fail in many ways, all of which mean one thing
        raise UserError(f"{file} does not hold the weights of a torchvision {judge.arch}") from None


def fit(judge: Judge, views: Views, held: tuple, recipe: Recipe, device: torch.device) -> int:
    """Train `judge` in place; the weights of the best epoch remain. Returns the epochs run."""
    optimizer = torch.optim.AdamW(judge.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    held_loss_of = nn.CrossEntropyLoss(balanced(held[1], len(judge.classes)))
    steps = math.ceil(len(views) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps * recipe.epochs)
    best, best_loss, best_epoch = None, math.inf, -1
    judge.to(memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16(device))
    bar = tqdm(total=steps * recipe.epochs, desc="judge", unit="step", disable=None)
    for epoch in range(recipe.epochs):
        judge.train()
        for images, labels in batches(views, epoch, recipe, device):
            with autocast:
                logits = judge(to_float(images.to(device)))
            loss = nn.functional.cross_entropy(logits.float(), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
        held_loss = held_loss_of(logits_of(judge.eval(), held[0]), held[1]).item()
        bar.set_postfix(held_out_loss=f"{held_loss:.3f}")
        if held_loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(judge.state_dict()), held_loss, epoch
        elif epoch - best_epoch >= recipe.patience:
            break
    bar.close()
    if best is None:
        raise UserError(f"the judge's training diverged: lower --lr {recipe.lr}")
    judge.load_state_dict(best)
    return epoch + 1


def batches(views: Views, epoch: int, recipe: Recipe, device: torch.device) -> DataLoader:
    """An epoch's views, by (seed, epoch) alone."""
    views.epoch = epoch
    # Decoded images and two cores: worker processes only pay where a GPU waits for them.
    workers = min(8, torch.get_num_threads()) if device.type == "cuda" else 0
    return DataLoader(views, recipe.batch_size, num_workers=workers)


@torch.no_grad()
def logits_of(judge: Judge, images: torch.Tensor) -> torch.Tensor:
    """The judge's logits of many images, computed in batches."""
    return judge.head(features_of(judge, images))


def calibrate(judge: Judge, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Set the calibration that fits held-out images best: Dirichlet calibration (Kull et al. 2019,
    1910.12656, section 3).

    It is drawn to the identity, where they draw it to the diagonal, by a normal prior of variance
    1/2 on every entry: a few images, or images all told apart, change little of what the network says.
    """
    evidence = log_probabilities(logits_of(judge.eval(), images).double())
    weights = balanced(labels, evidence.shape[1]).double()
    identity = torch.eye(*judge.calibration.shape).to(evidence)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(x.reshape(identity.shape), device=evidence.device, requires_grad=True)
        value = nn.functional.cross_entropy(evidence @ x[:, :-1].T + x[:, -1], labels, weights)
        value = value + (x - identity).square().sum() / len(labels)
        return value.item(), torch.autograd.grad(value, x)[0].cpu().numpy().ravel()

    found = minimize(loss, identity.cpu().numpy().ravel(), jac=True, method="L-BFGS-B").x
    judge.calibration.copy_(torch.from_numpy(found).reshape(identity.shape))


# ---------------------------------------------------------------------------------------------
# Measuring


@dataclass(frozen=True)
class Verdicts:
    """What a judge says of each test image, to look at its mistakes."""

    paths: Sequence[str]
    labels: np.ndarray
    """1 for a painting, 0 for a photograph, [N]."""
    painting: np.ndarray
    """P(painting), [N] in [0, 1]."""


def evaluate(judge: Judge, data: DataSet, device: torch.device) -> tuple[dict, Verdicts]:
    """Measures on the test images: auc, auc_reencoded, accuracy, brier, calibration_error,
    painting_calibration_error, confusion, counts.

    All but the confusion count photographs and paintings the same, however many there are of each.
    They are of photo against painting, P(neither) left aside: `judge.controls` measures the rest.
    `auc_reencoded` is the AUC that changes most when one domain alone goes through JPEG of quality
    75 with halved chroma: far from `auc`, the judge looks at compression, not at style.
    `confusion` has rows by truth and columns by verdict;
    `calibration_error` is the expected calibration error of the likelier class's probability (Guo et
    al. 2017, equation 3), `painting_calibration_error` that of P(painting), which is stricter: where
    too many are called paintings, too many photographs elsewhere do not make up for it.
    """
    photos, paintings = (load(data.test[domain], judge.size) for domain in (PHOTOS, PAINTINGS))
    pixels = torch.cat([photos.pixels, paintings.pixels])
    labels = np.repeat([0, 1], [len(photos.paths), len(paintings.paths)])
    painting, through_jpeg = (painting_against_photo(judge, x, device)
                              for x in (pixels, torch.stack([reencoded(x) for x in pixels])))
    auc = float(sk.roc_auc_score(labels, painting))
    one_sided = [float(sk.roc_auc_score(labels, np.where(labels == label, through_jpeg, painting)))
                 for label in (0, 1)]
    weights = balanced(torch.from_numpy(labels), 2).numpy()[labels]
    measured = {
        "auc": auc,
        "auc_reencoded": max(one_sided, key=lambda other: abs(other - auc)),
        "accuracy": float(sk.accuracy_score(labels, painting > 0.5, sample_weight=weights)),
        "brier": float(sk.brier_score_loss(labels, painting, sample_weight=weights)),
        "calibration_error": calibration_error(
            (painting > 0.5) == labels, np.maximum(painting, 1 - painting), weights),
        "painting_calibration_error": calibration_error(labels, painting, weights),
        "confusion": sk.confusion_matrix(labels, painting > 0.5).tolist(),
        "counts": {"photos": photos.counts(), "paintings": paintings.counts()},
    }
    return measured, Verdicts(photos.paths + paintings.paths, labels, painting)


@torch.no_grad()
def painting_against_photo(judge: Judge, pixels: torch.Tensor, device: torch.device) -> np.ndarray:
    """P(painting) against photo, [N], of uint8 [N, 3, size, size]."""
    features = torch.cat([features_of(judge, to_float(part).to(device)) for part in pixels.split(256)])
    return judge.against_photo(features).double().cpu().numpy()


def calibration_error(happened: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    """Mean gap between `probabilities`, [N], and how often what they foretell `happened`, bool [N], over
    bins of equal width, in [0, 1]; each image of a weight. Guo et al. 2017 (1706.04599), equation 3."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, weights * (probabilities - happened))).sum() / weights.sum())
