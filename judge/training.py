"""Training of a judge: augmentation, fine-tuning, early stopping and calibration."""

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from scipy.optimize import minimize
from torch import nn
from torchvision import models
from tqdm import tqdm

from judge.common.device import supports_bf16
from judge.common.errors import UserError
from judge.common.progress import duration
from judge.common.rng import rng, seeded
from judge.corruptions import FAMILIES, corrupt
from judge.evaluation import class_weights, evaluate, load_both_domains
from judge.folders import check_disjoint, list_images
from judge.images import DataSet, load_images, to_float
from judge.model import CLASSES, NEITHER, Judge, ModelCard, log_probabilities
from judge.score import extract_features
from judge.training_options import TrainingOptions
from judge.undertrained import UNDERTRAINED, undertrained_images
from judge.views import AugmentedViews, load_batches, loader_workers

HELD_OUT_FRACTION = 0.1  # share of the training images kept for early stopping and calibration
CROP_MARGIN = 1.25  # images are kept this much larger than the judge's size, for random crops
UNDERTRAINED_FRACTION = 0.2  # share of the third class's views from undertrained generators ...
EARLIER_FRACTION = 0.2  # ... and from folders of earlier searches' images, if given; the rest is corrupted
ESTIMATE_STEPS = 8  # training steps after which the time of the rest is estimated


def split_held_out(labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices of the images to train on and of those to hold out, the same share of each class."""
    if torch.bincount(labels, minlength=2).min() < 2:
        raise UserError("one image of a kind cannot be both trained on and held out: give at least 2")
    order = torch.randperm(len(labels), generator=rng(seed, "split"))
    of_class = [order[labels[order] == label] for label in (0, 1)]
    held_out = torch.cat([indices[: max(1, round(len(indices) * HELD_OUT_FRACTION))] for indices in of_class])
    return order[~torch.isin(order, held_out)], held_out


def train(
    data: DataSet, size: int, options: TrainingOptions, device: torch.device,
    neither: Sequence[Path] = (), leave_out: str = "", announce: Callable[[float], None] | None = None,
) -> tuple[Judge, ModelCard]:
    """Return a calibrated judge for images of `size` pixels, and its card.

    Args:
        neither: folders of more images of the third class, for example of earlier searches' first reports.
        leave_out: a family of `FAMILIES`, or `UNDERTRAINED`, that the judge is not shown.
        announce: gets the seconds that all epochs are expected to take, after `ESTIMATE_STEPS` steps.
    """
    started = time.perf_counter()
    neither_files = list_images(neither)  # first, because a missing folder is an error
    real = {f"train{domain}": paths for domain, paths in data.train.items()}
    check_disjoint(real | {"--neither": neither_files})
    judge, initial_weights = initial_judge(options, size, device)
    families = () if options.two_classes else tuple(name for name in FAMILIES if name != leave_out)
    pixels, labels, counts, paths = load_both_domains(data.train, round(size * CROP_MARGIN))
    trained_on, held_out = split_held_out(labels, options.seed)
    real = [pixels[trained_on[labels[trained_on] == label]] for label in (0, 1)]
    more = []
    if families and leave_out != UNDERTRAINED:
        more.append((UNDERTRAINED_FRACTION, undertrained_images(*real, options.seed, device)))
    if neither_files:
        more.append((EARLIER_FRACTION, load_images(neither_files, size).pixels))
    views = AugmentedViews(real, size, options.batch_size, options.seed, families, more)
    # Decoded again at the judge's size: resizing the larger ones would give softer images than a trial's,
    # and a calibration for those.
    held_out_pixels = load_images([Path(paths[index]) for index in held_out], size).pixels
    shown = held_out_images(held_out_pixels, labels[held_out], families, options.seed)
    epochs = fit(judge, views, shown, options, device, announce)
    calibrate(judge, *shown)
    record = {
        "data": data.name, "stand_in": data.stand_in, "counts": counts, **vars(options),
        "neither": [str(folder) for folder in neither], "weights": initial_weights, "epochs": epochs,
        "seconds": round(time.perf_counter() - started, 1), "device": str(device),
        "versions": {"torch": str(torch.__version__), "torchvision": torchvision.__version__},
    }
    metrics, _ = evaluate(judge, data)
    return judge, ModelCard(options.arch, size, judge.classes, record, metrics)


def held_out_images(
    pixels: torch.Tensor, labels: torch.Tensor, families: Sequence[str], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images for early stopping and calibration, uint8 [N, 3, size, size], and their labels, [N].

    Half as many images, corrupted by `families` if there are any, are added to the real ones.
    """
    if families:
        with seeded(seed, "held out"):
            indices = torch.randint(len(pixels), (math.ceil(len(pixels) / 2),))
            pixels = torch.stack([*pixels, *(corrupt(image, pixels, families) for image in pixels[indices])])
        labels = torch.cat([labels, torch.full_like(indices, NEITHER)])
    return pixels, labels


def initial_judge(options: TrainingOptions, size: int, device: torch.device) -> tuple[Judge, str]:
    """Return an untrained judge and the source of its weights: random, if none can be downloaded.

    Raises UserError if the architecture is unknown, or a file's weights do not fit.
    """
    if not options.arch.startswith(("resnet", "wide_resnet", "resnext", "regnet")):
        raise UserError(f"--arch {options.arch} is neither a ResNet nor a RegNet: for example resnet18")
    source = options.weights
    try:
        with seeded(options.seed, "init"):
            judge = Judge(options.arch, size, CLASSES[:NEITHER] if options.two_classes else CLASSES)
    except ValueError as error:
        raise UserError(f"--arch {options.arch}: {error}") from None
    if source == "imagenet":
        try:
            state = models.get_model_weights(options.arch)["DEFAULT"].get_state_dict(progress=True)
            _load_backbone(state, judge)
        except (URLError, OSError, RuntimeError) as error:
            source = "none (imagenet could not be downloaded)"
            print(f"pretrained weights could not be downloaded ({error}): training from scratch",
                  file=sys.stderr)
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
    options: TrainingOptions, device: torch.device, announce: Callable[[float], None] | None = None,
) -> int:
    """Train `judge` in place, restore the weights of the best epoch, and return the number of epochs.

    Where there is no terminal for a progress bar, a line is printed after each epoch.
    """
    images_held_out, labels_held_out = held_out[0], held_out[1].to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), options.lr, weight_decay=options.weight_decay,
                                  fused=True)
    held_out_loss = nn.CrossEntropyLoss(class_weights(labels_held_out, len(judge.classes)))
    steps = len(views) * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, steps)
    batches = iter(load_batches(views, options.epochs, device, loader_workers(views, device)))
    best_weights, best_loss, best_epoch = None, math.inf, -1
    judge.to(memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=supports_bf16(device))
    started, step = time.perf_counter(), 0
    with tqdm(total=steps, desc="judge", unit="step", disable=None) as bar:
        for epoch in range(options.epochs):
            judge.train()
            for images, labels in islice(batches, len(views)):
                with autocast:
                    logits = judge(to_float(images.to(device, non_blocking=True)))
                loss = nn.functional.cross_entropy(logits.float(), labels.to(device, non_blocking=True))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
                step += 1
                if announce and step == min(ESTIMATE_STEPS, len(views)):
                    announce((time.perf_counter() - started) / step * steps)
            with autocast:
                logits = judge.head(extract_features(judge.eval(), images_held_out))
            loss = held_out_loss(logits.float(), labels_held_out).item()
            bar.set_postfix(held_out_loss=f"{loss:.3f}")
            if bar.disable:
                left = (time.perf_counter() - started) * (options.epochs / (epoch + 1) - 1)
                print(f"epoch {epoch + 1} of {options.epochs}: held-out loss {loss:.3f}, at most "
                      f"{duration(left)} left", file=sys.stderr)
            if loss < best_loss:
                best_weights, best_loss, best_epoch = copy.deepcopy(judge.state_dict()), loss, epoch
            elif epoch - best_epoch >= options.patience:
                break
    if best_weights is None:
        raise UserError(f"the judge's training diverged: lower --lr {options.lr}")
    judge.load_state_dict(best_weights)
    return epoch + 1


def calibrate(judge: Judge, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Fit `judge.calibration` to held-out images: Kull et al. 2019 (1910.12656), section 3.

    Every entry is regularised towards the identity with a normal prior of variance 1/2, where the paper
    regularises towards a diagonal: a few images then change the probabilities little.
    """
    logits = judge.head(extract_features(judge.eval(), images)).detach()
    labels = labels.to(logits.device)
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
