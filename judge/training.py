"""Trains a judge, calibrates it, and measures it on images it never saw."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from scipy.optimize import minimize
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.transforms import v2
from tqdm import tqdm

from judge.common.cli import LearningRate, PositiveInt, Weight
from judge.common.device import supports_bf16
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.corruptions import between, choice, corrupt, reencode_jpeg
from judge.evaluation import class_weights, evaluate
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images, to_float
from judge.model import CLASSES, NEITHER, Judge, ModelCard, log_probabilities
from judge.score import extract_features
from judge.undertrained import translate_with, undertrained_generators

HELD_OUT_FRACTION = 0.1  # share of the training images kept for early stopping and calibration
GENERATED = 0.2  # share of the third class that barely trained generators paint; the rest is damage
GENERATORS, BY_EACH = 24, 32  # so many of them at the most, and pictures by each
CROP_MARGIN = 1.25  # images are kept this much larger than the judge's size, for crops to cut from


@dataclass(frozen=True)
class TrainingOptions:
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
    lr: LearningRate = 1e-3
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
        v2.Lambda(lambda image: reencode_jpeg(image, int(between(50, 101)), choice("4:4:4", "4:2:0"))),
    ])


class AugmentedViews(Dataset):
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
            torch.set_rng_state(rng(self.seed, "augment", self.epoch, index).get_state())
            if label == NEITHER and between(0, 1) > GENERATED:
                return corrupt(self._any(choice(*self.classes[:NEITHER]))), label
            return self._any(self.classes[label]), label

    def _any(self, images: torch.Tensor) -> torch.Tensor:
        return self.view(images[int(torch.randint(len(images), ()))])


def load_domains(domains: dict[str, list[Path]], size: int) -> tuple[torch.Tensor, torch.Tensor, dict, list[str]]:
    """Pixels [N, 3, size, size] of both domains, labels [N] in the order of `CLASSES`, counts, paths."""
    photos, paintings = load_images(domains[PHOTOS], size), load_images(domains[PAINTINGS], size)
    labels = torch.tensor([0.0] * len(photos.paths) + [1.0] * len(paintings.paths)).long()
    counts = {"photos": photos.counts(), "paintings": paintings.counts()}
    return torch.cat([photos.pixels, paintings.pixels]), labels, counts, photos.paths + paintings.paths


def split_held_out(labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices to train on and to hold out; each class gives the same share.

    Raises:
        UserError: a class has only one image, or none.
    """
    counts = torch.bincount(labels, minlength=2)
    if counts.min() < 2:
        raise UserError("one image of a kind cannot be both trained on and held out: give at least 2")
    order = torch.randperm(len(labels), generator=rng(seed, "split"))
    held = []
    for label in range(len(counts)):
        of_class = order[labels[order] == label]
        held.append(of_class[: max(1, round(len(of_class) * HELD_OUT_FRACTION))])
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[torch.cat(held)] = True
    return order[~mask[order]], torch.cat(held)


# ---------------------------------------------------------------------------------------------
# Training


def train(data: DataSet, size: int, recipe: TrainingOptions, device: torch.device) -> tuple[Judge, ModelCard]:
    """A calibrated judge for images of `size` pixels, and its card.

    Raises:
        UserError: no such architecture, weights that do not fit, or no images.
    """
    started = time.perf_counter()
    judge, origin = initial_judge(recipe, size, device)
    pixels, labels, counts, paths = load_domains(data.train, round(size * CROP_MARGIN))
    fit_at, held_at = split_held_out(labels, recipe.seed)
    # Decoded anew: resized from the above they would be softer than what a trial shows, and the
    # judge calibrated for that.
    unseen = load_images([Path(paths[index]) for index in held_at], size).pixels
    views = AugmentedViews(class_images(pixels[fit_at], labels[fit_at], recipe, device), size, recipe.seed)
    held = held_out_images(unseen, labels[held_at], recipe, device)

    epochs = fit(judge, views, held, recipe, device)
    calibrate(judge, *held)
    report = {
        "data": data.name, "stand_in": data.stand_in, "counts": counts,
        **vars(recipe), "weights": origin, "epochs": epochs,
        "seconds": round(time.perf_counter() - started, 1), "device": str(device),
        "versions": {"torch": str(torch.__version__), "torchvision": torchvision.__version__},
    }
    measured, _ = evaluate(judge, data, device)
    return judge, ModelCard(recipe.arch, size, judge.classes, report, measured)


def class_images(pixels: torch.Tensor, labels: torch.Tensor, recipe: TrainingOptions, device) -> list[torch.Tensor]:
    """Images of each class to learn from, uint8 [N, 3, *, *]: photographs, paintings, and if
    `recipe` has a third what generators paint that have barely been trained."""
    classes = [pixels[labels == label] for label in (0, 1)]
    if recipe.neither:
        count = min(GENERATORS, math.ceil(len(pixels) / BY_EACH))
        draw = rng(recipe.seed, "sources")
        chosen = torch.randint(len(classes[0]), (count, BY_EACH), generator=draw)
        networks = undertrained_generators(*classes, recipe.seed, device, count)
        classes.append(torch.cat([
            translate_with(network, classes[0][own], device) for network, own in zip(networks, chosen)]))
    return classes


def held_out_images(pixels: torch.Tensor, labels: torch.Tensor, recipe: TrainingOptions, device) -> tuple:
    """Images to stop and to calibrate by, float [-1, 1] [N, 3, size, size], and labels [N]: the
    real ones as they are, and half as many damaged ones if `recipe` has a third class."""
    if recipe.neither:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(rng(recipe.seed, "held out").get_state())
            chosen = torch.randint(len(pixels), (math.ceil(len(pixels) / 2),))
            pixels = torch.stack([*pixels, *(corrupt(image) for image in pixels[chosen])])
        labels = torch.cat([labels, torch.full_like(chosen, NEITHER)])
    return to_float(pixels).to(device), labels.to(device)


def initial_judge(recipe: TrainingOptions, size: int, device: torch.device) -> tuple[Judge, str]:
    """An untrained judge and where its weights came from.

    Pretrained weights that cannot be had are said to be missing, never passed over in silence.
    """
    if not recipe.arch.startswith(("resnet", "wide_resnet", "resnext", "regnet")):
        raise UserError(f"--arch {recipe.arch} is neither a ResNet nor a RegNet: for example resnet18")
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng(recipe.seed, "init").get_state())
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


def fit(judge: Judge, views: AugmentedViews, held: tuple, recipe: TrainingOptions, device: torch.device) -> int:
    """Train `judge` in place; the weights of the best epoch remain. Returns the epochs run."""
    optimizer = torch.optim.AdamW(judge.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    held_loss_of = nn.CrossEntropyLoss(class_weights(held[1], len(judge.classes)))
    steps = math.ceil(len(views) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps * recipe.epochs)
    best, best_loss, best_epoch = None, math.inf, -1
    judge.to(memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=supports_bf16(device))
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
        held_loss = held_loss_of(extract_logits(judge.eval(), held[0]), held[1]).item()
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


def batches(views: AugmentedViews, epoch: int, recipe: TrainingOptions, device: torch.device) -> DataLoader:
    """An epoch's views, by (seed, epoch) alone."""
    views.epoch = epoch
    # Decoded images and two cores: worker processes only pay where a GPU waits for them.
    workers = min(8, torch.get_num_threads()) if device.type == "cuda" else 0
    return DataLoader(views, recipe.batch_size, num_workers=workers)


@torch.no_grad()
def extract_logits(judge: Judge, images: torch.Tensor) -> torch.Tensor:
    """The judge's logits of many images, computed in batches."""
    return judge.head(extract_features(judge, images))


def calibrate(judge: Judge, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Set the calibration that fits held-out images best: Dirichlet calibration (Kull et al. 2019,
    1910.12656, section 3).

    It is drawn to the identity, where they draw it to the diagonal, by a normal prior of variance
    1/2 on every entry: a few images, or images all told apart, change little of what the network says.
    """
    evidence = log_probabilities(extract_logits(judge.eval(), images).double())
    weights = class_weights(labels, evidence.shape[1]).double()
    identity = torch.eye(*judge.calibration.shape).to(evidence)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(x.reshape(identity.shape), device=evidence.device, requires_grad=True)
        value = nn.functional.cross_entropy(evidence @ x[:, :-1].T + x[:, -1], labels, weights)
        value = value + (x - identity).square().sum() / len(labels)
        return value.item(), torch.autograd.grad(value, x)[0].cpu().numpy().ravel()

    found = minimize(loss, identity.cpu().numpy().ravel(), jac=True, method="L-BFGS-B").x
    judge.calibration.copy_(torch.from_numpy(found).reshape(identity.shape))
