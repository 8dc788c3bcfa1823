"""TODO"""

import hashlib
import sys
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from judge import images
from judge.common import cache
from judge.common.rng import rng
from judge.labelled import LabelledImages

TRAINING_IMAGES = 180_000  # images by the classifier in training: three passes over MNIST
BATCH_SIZE = 128
PEAK_LR = 3e-3
CLASSIFIER_VERSION = 2  # of the classifier: raise it when it is trained, or kept, in another way


# ---------------------------------------------------------------------------------------------
# Classifier


class Classifier(nn.Module):
    """Convolutions down to 4 px, then two layers; images are float [N, C, size, size] in [-1, 1].

    Args:
        shape: channels, height and width of an image; the edge a power of two, 8 px and up.
        classes: how many.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, edge, _ = shape
        layers, width = [], 16
        while edge > 4:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
                       nn.ReLU(inplace=True), nn.MaxPool2d(2)]  # fmt: skip
            channels, width, edge = width, min(2 * width, 256), edge // 2
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, [N, classes]."""
        return self.head(self.features(x))


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and how good it is."""

    network: Classifier
    accuracy: float
    """On the test images."""
    file: str
    """Its name in the cache."""

    def summary(self, data: LabelledImages) -> dict:
        """For records, in the form of a judge's."""
        return {"file": self.file, "data": data.name, "accuracy": self.accuracy}


def load_or_train(data: LabelledImages, device: torch.device) -> TrainedClassifier:
    """The classifier of `data`, trained on first use (some minutes on a CPU for MNIST) and then kept
    in the cache, by what it learnt from."""
    seen = hashlib.sha256(repr((CLASSIFIER_VERSION, data.classes, data.shape)).encode())
    for part in (data.pixels, data.labels, data.test_pixels, data.test_labels):
        seen.update(part.numpy().tobytes())
    name = f"classifier-{data.name}-{seen.hexdigest()[:16]}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng(0, "classifier").get_state())
        network = Classifier(data.shape, len(data.classes)).to(device)
    found = cache.get(name)
    if not found:
        print(f"training a classifier of {data.name}", file=sys.stderr)
        found = {"accuracy": _train(network, data, device), **network.state_dict()}
        cache.put(name, found)
    accuracy = found.pop("accuracy")
    network.load_state_dict(found)
    return TrainedClassifier(network.eval().requires_grad_(False), accuracy, name)


def _train(network: Classifier, data: LabelledImages, device: torch.device) -> float:
    """Train by Adam under a one-cycle schedule; returns the accuracy on the test images."""
    steps = min(TRAINING_IMAGES, 30 * len(data.pixels)) // BATCH_SIZE
    optimizer = torch.optim.Adam(network.parameters(), PEAK_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps)
    for step in range(steps):
        chosen = torch.randint(len(data.pixels), (BATCH_SIZE,), generator=rng(0, "classifier", step))
        x, labels = images.to_float(data.pixels[chosen]).to(device), data.labels[chosen].to(device)
        optimizer.zero_grad()
        cross_entropy(network(x), labels).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    logits, _ = logits_and_features(network, images.to_float(data.test_pixels).to(device))
    return (logits.argmax(1).cpu() == data.test_labels).float().mean().item()


@torch.no_grad()
def logits_and_features(network: Classifier, x: torch.Tensor, batch: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, classes] and features [N, 128] of many images, computed in batches.

    Features are scaled to a mean square of 1 each: KID's kernel, (x y / d + 1)^3, is made for that scale.
    """
    features = torch.cat([network.features(part) for part in x.split(batch)])
    return network.head(features), normalize(features) * features.shape[1] ** 0.5
