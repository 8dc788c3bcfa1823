"""Training of a judge: augmentation, fine-tuning, early stopping and calibration."""

import copy
import math
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
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
from judge.common.rng import rng, seeded
from judge.corruptions import between, choice, corrupt, reencode_jpeg
from judge.evaluation import class_weights, evaluate, load_both_domains
from judge.images import DataSet, load_images, to_float
from judge.model import CLASSES, NEITHER, Judge, ModelCard, log_probabilities
from judge.score import extract_features
from judge.undertrained import translate_with, undertrained_generators

HELD_OUT_FRACTION = 0.1  # share of the training images kept for early stopping and calibration
GENERATED_FRACTION = 0.2  # share of the class "neither" from undertrained generators; the rest is corrupted
MAX_GENERATORS, IMAGES_PER_GENERATOR = 24, 32
CROP_MARGIN = 1.25  # images are kept this much larger than the judge's size, for random crops
SHARED_MEMORY = "/dev/shm"  # loader processes send batches through it; Docker gives a container 64 MB of it
BATCHES_PER_WORKER = 4  # in shared memory at once: two prefetched, one being made, one being read


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a judge's training."""

    arch: str = "resnet18"
    """Name of a torchvision ResNet or RegNet."""
    weights: str = "imagenet"
    """Initial weights: `imagenet` (torchvision's pretrained), `none`, or a state-dict file."""
    epochs: PositiveInt = 60
    """Maximum number; an epoch has a view for each training image, equally many of each class."""
    patience: PositiveInt = 30
    """Stop after this many epochs without a lower held-out loss; the best epoch's weights are kept."""
    batch_size: PositiveInt = 32
    """Images per step."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW under a one-cycle schedule (Smith 2018, 1803.09820)."""
    weight_decay: Weight = 0.05
    """Weight decay of AdamW (Loshchilov and Hutter 2019, 1711.05101)."""
    neither: bool = True
    """Learn a third class: images that are neither photographs nor paintings (`judge.corruptions`).
    A judge with two classes calls meaningless images paintings."""
    seed: int = 0
    """Random seed. On a CPU, equal seeds give equal judges; on a GPU, sums vary from run to run."""


def augmentation(size: int) -> v2.Transform:
    """Return a random transform, uint8 [3, H, W] to uint8 [3, size, size], the same for every class.

    Photographs and paintings come with different compression, which a network would learn instead of style:
    so every image is resized by a random factor and re-encoded at a random quality, with or without halved
    chroma. Blur and colour shifts move a CNN from texture towards shape (Geirhos et al. 2019, 1811.12231).
    """
    return v2.Compose([
        v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(0.9, 1.1), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02),
        v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 1.0))], p=0.2),
        v2.Lambda(reencode_at_random),  # a function with a name: loader processes may get it by pickle
    ])


def reencode_at_random(image: torch.Tensor) -> torch.Tensor:
    """Return an image, uint8 [3, H, W], after JPEG of random quality, with or without halved chroma."""
    return reencode_jpeg(image, int(between(50, 101)), choice("4:4:4", "4:2:0"))


class AugmentedViews(Dataset):
    """Random views of the images of each class, uint8 [N, 3, H, W], with equal numbers of each class.

    An epoch has as many views as there are photographs and paintings (`len`); they are numbered on from epoch
    to epoch. A view is a function of seed and number, so that the number of worker processes does not change
    the judge. Of the third class's views, a share of `GENERATED_FRACTION` are of its images, the others
    corrupted views of the first two classes.
    """

    def __init__(self, classes: Sequence[torch.Tensor], size: int, seed: int = 0):
        self.classes, self.size, self.seed = classes, size, seed
        self.augment = augmentation(size)

    def __len__(self) -> int:
        return sum(map(len, self.classes[:NEITHER]))

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        epoch, index = divmod(number, len(self))
        label = index % len(self.classes)
        with seeded(self.seed, "augment", epoch, index):
            if label == NEITHER and between(0, 1) > GENERATED_FRACTION:
                return corrupt(self._random_view(choice(*self.classes[:NEITHER]))), label
            return self._random_view(self.classes[label]), label

    def _random_view(self, images: torch.Tensor) -> torch.Tensor:
        return self.augment(images[int(torch.randint(len(images), ()))])


def split_held_out(labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices of the images to train on and of those to hold out, the same share of each class."""
    if torch.bincount(labels, minlength=2).min() < 2:
        raise UserError("one image of a kind cannot be both trained on and held out: give at least 2")
    order = torch.randperm(len(labels), generator=rng(seed, "split"))
    of_class = [order[labels[order] == label] for label in (0, 1)]
    held_out = torch.cat([indices[: max(1, round(len(indices) * HELD_OUT_FRACTION))] for indices in of_class])
    return order[~torch.isin(order, held_out)], held_out


def train(
    data: DataSet, size: int, options: TrainingOptions, device: torch.device
) -> tuple[Judge, ModelCard]:
    """Return a calibrated judge for images of `size` pixels, and its card."""
    started = time.perf_counter()
    judge, initial_weights = initial_judge(options, size, device)
    classes, held_out, counts = load_training_images(data, size, options, device)
    epochs = fit(judge, AugmentedViews(classes, size, options.seed), held_out, options, device)
    calibrate(judge, *held_out)
    record = {
        "data": data.name, "stand_in": data.stand_in, "counts": counts, **vars(options),
        "weights": initial_weights, "epochs": epochs,
        "seconds": round(time.perf_counter() - started, 1), "device": str(device),
        "versions": {"torch": str(torch.__version__), "torchvision": torchvision.__version__},
    }
    metrics, _ = evaluate(judge, data)
    return judge, ModelCard(options.arch, size, judge.classes, record, metrics)


def load_training_images(
    data: DataSet, size: int, options: TrainingOptions, device: torch.device
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, torch.Tensor], dict]:
    """Return what `class_images` and `held_out_images` return, and counts of the files read, by domain."""
    pixels, labels, counts, paths = load_both_domains(data.train, round(size * CROP_MARGIN))
    train, held_out = split_held_out(labels, options.seed)
    # Decoded again at the judge's size: resizing the larger ones would give softer images than a trial's,
    # and a calibration for those.
    held_out_pixels = load_images([Path(paths[index]) for index in held_out], size).pixels
    photos, paintings = (pixels[train[labels[train] == label]] for label in (0, 1))
    return (class_images(photos, paintings, options, device),
            held_out_images(held_out_pixels, labels[held_out], options, device), counts)


def class_images(
    photos: torch.Tensor, paintings: torch.Tensor, options: TrainingOptions, device: torch.device
) -> list[torch.Tensor]:
    """Return the training images of each class, uint8 [N, 3, H, W]: photographs, paintings and, with
    `options.neither`, the outputs of undertrained generators."""
    if not options.neither:
        return [photos, paintings]
    count = min(MAX_GENERATORS, math.ceil((len(photos) + len(paintings)) / IMAGES_PER_GENERATOR))
    shape = count, IMAGES_PER_GENERATOR
    sources = photos[torch.randint(len(photos), shape, generator=rng(options.seed, "sources"))]
    generators = undertrained_generators(photos, paintings, options.seed, device, count)
    generated = [translate_with(*pair, device) for pair in zip(generators, sources)]
    return [photos, paintings, torch.cat(generated)]


def held_out_images(
    pixels: torch.Tensor, labels: torch.Tensor, options: TrainingOptions, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images for early stopping and calibration, uint8 [N, 3, size, size] on the CPU, and their labels
    [N] on `device`.

    With `options.neither`, half as many corrupted images are added to the real ones.
    """
    if options.neither:
        with seeded(options.seed, "held out"):
            indices = torch.randint(len(pixels), (math.ceil(len(pixels) / 2),))
            pixels = torch.stack([*pixels, *(corrupt(image) for image in pixels[indices])])
        labels = torch.cat([labels, torch.full_like(indices, NEITHER)])
    return pixels, labels.to(device)


def initial_judge(options: TrainingOptions, size: int, device: torch.device) -> tuple[Judge, str]:
    """Return an untrained judge and the source of its weights: random, if none can be downloaded.

    Raises UserError if the architecture is unknown, or a file's weights do not fit.
    """
    if not options.arch.startswith(("resnet", "wide_resnet", "resnext", "regnet")):
        raise UserError(f"--arch {options.arch} is neither a ResNet nor a RegNet: for example resnet18")
    source = options.weights
    try:
        with seeded(options.seed, "init"):
            judge = Judge(options.arch, size, CLASSES if options.neither else CLASSES[:NEITHER])
    except ValueError as error:
        raise UserError(f"--arch {options.arch}: {error}") from None
    if source == "imagenet":
        try:
            state = models.get_model_weights(options.arch)["DEFAULT"].get_state_dict(progress=True)
            _load_backbone(state, judge)
        except (URLError, OSError, RuntimeError) as error:
            source = "none (imagenet could not be downloaded)"
            print(f"pretrained weights could not be downloaded ({error}): training from scratch")
    elif source != "none":
        try:
            _load_backbone(torch.load(source, map_location="cpu", weights_only=True), judge)
        except FileNotFoundError:
            raise UserError(f"no weights at {source}: give imagenet, none or a file") from None
        except Exception:  # other files raise many types of errors, which all mean the same
            raise UserError(f"{source} does not hold the weights of a torchvision {judge.arch}") from None
    return judge.to(device), source


def _load_backbone(state: dict, judge: Judge) -> None:
    """Load a torchvision state dict except the last layer, which is for ImageNet's 1000 classes."""
    judge.backbone.load_state_dict({name: x for name, x in state.items() if not name.startswith("fc.")})


def fit(
    judge: Judge, views: AugmentedViews, held_out: tuple[torch.Tensor, torch.Tensor],
    options: TrainingOptions, device: torch.device,
) -> int:
    """Train `judge` in place, restore the weights of the best epoch, and return the number of epochs."""
    images_held_out, labels_held_out = held_out
    optimizer = torch.optim.AdamW(judge.parameters(), options.lr, weight_decay=options.weight_decay)
    held_out_loss = nn.CrossEntropyLoss(class_weights(labels_held_out, len(judge.classes)))
    epoch_steps = math.ceil(len(views) / options.batch_size)
    steps = epoch_steps * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, steps)
    batches = iter(load_batches(views, options, device, loader_workers(views, options, device)))
    best_weights, best_loss, best_epoch = None, math.inf, -1
    judge.to(memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=supports_bf16(device))
    with tqdm(total=steps, desc="judge", unit="step", disable=None) as bar:
        for epoch in range(options.epochs):
            judge.train()
            for images, labels in islice(batches, epoch_steps):
                with autocast:
                    logits = judge(to_float(images.to(device, non_blocking=True)))
                loss = nn.functional.cross_entropy(logits.float(), labels.to(device, non_blocking=True))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
            logits = judge.head(extract_features(judge.eval(), images_held_out))
            loss = held_out_loss(logits, labels_held_out).item()
            bar.set_postfix(held_out_loss=f"{loss:.3f}")
            if loss < best_loss:
                best_weights, best_loss, best_epoch = copy.deepcopy(judge.state_dict()), loss, epoch
            elif epoch - best_epoch >= options.patience:
                break
    if best_weights is None:
        raise UserError(f"the judge's training diverged: lower --lr {options.lr}")
    judge.load_state_dict(best_weights)
    return epoch + 1


def load_batches(
    views: AugmentedViews, options: TrainingOptions, device: torch.device, workers: int
) -> DataLoader:
    """Return the batches of all epochs, made by so many processes; none has views of two epochs."""
    count, size = len(views), options.batch_size
    numbers = [range(start + first, start + min(first + size, count))
               for start in range(0, count * options.epochs, count) for first in range(0, count, size)]
    return DataLoader(views, batch_sampler=numbers, num_workers=workers, pin_memory=device.type == "cuda")


def loader_workers(views: AugmentedViews, options: TrainingOptions, device: torch.device) -> int:
    """Return the number of processes that make batches: for a GPU up to 8, as shared memory has room."""
    if device.type != "cuda":
        return 0  # the images are in memory: processes only help where a GPU waits for the augmentation
    wanted, free = min(8, torch.get_num_threads()), shutil.disk_usage(SHARED_MEMORY).free
    # Processes that are not forked get the images through shared memory, too.
    images = 0 if multiprocessing.get_start_method() == "fork" else sum(x.nbytes for x in views.classes)
    batch = options.batch_size * 3 * views.size**2
    workers = max(0, min(wanted, (free - images) // (BATCHES_PER_WORKER * batch)))
    if workers < wanted:
        print(f"{workers} processes prepare images instead of {wanted}: {SHARED_MEMORY} has only "
              f"{free / 1e6:.0f} MB free (docker run --shm-size gives more)")
    return workers


def calibrate(judge: Judge, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Fit `judge.calibration` to held-out images: Kull et al. 2019 (1910.12656), section 3.

    Every entry is regularised towards the identity with a normal prior of variance 1/2, where the paper
    regularises towards a diagonal: a few images then change the probabilities little.
    """
    logits = judge.head(extract_features(judge.eval(), images)).detach()
    x = log_probabilities(logits.double())
    weights = class_weights(labels, x.shape[1]).double()
    identity = torch.eye(*judge.calibration.shape).to(x)

    def loss_and_gradient(entries: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.tensor(entries.reshape(identity.shape), device=x.device, requires_grad=True)
        loss = nn.functional.cross_entropy(x @ w[:, :-1].T + w[:, -1], labels, weights)
        loss = loss + (w - identity).square().sum() / len(labels)
        return loss.item(), torch.autograd.grad(loss, w)[0].cpu().numpy().ravel()

    fitted = minimize(loss_and_gradient, identity.cpu().numpy().ravel(), jac=True, method="L-BFGS-B").x
    judge.calibration.copy_(torch.from_numpy(fitted).reshape(identity.shape))
