"""A small convolutional classifier, trained on the labelled images at hand and kept in the cache.

Inception features pretrained on ImageNet say little about digits. A classifier of the data itself gives
features, classes and confidence instead (Salimans et al. 2016, 1606.03498, section 4).
"""

import hashlib
import sys
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from judge import images
from judge.common import cache
from judge.common.rng import rng, seeded
from judge.labelled import LabelledImages
from judge.score import device_of

TRAINING_IMAGES = 180_000  # three passes over MNIST
BATCH_SIZE = 128
PEAK_LR = 3e-3
CLASSIFIER_VERSION = 2  # part of the cache's key: raise it when training or the network changes


class Classifier(nn.Module):
    """Convolutions down to 4 px, then two linear layers, for float images [N, C, size, size] in [-1, 1].

    `shape` is an image's channels, height and width; the size is a power of two from 8 px.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, size, _ = shape
        layers, width = [], 16
        while size > 4:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
                       nn.ReLU(inplace=True), nn.MaxPool2d(2)]  # fmt: skip
            channels, width, size = width, min(2 * width, 256), size // 2
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, [N, classes]."""
        return self.head(self.features(x))


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, its accuracy on the test images, and its file's name in the cache."""

    network: Classifier
    accuracy: float
    file: str

    def summary(self, data: LabelledImages) -> dict:
        """Return file, data and accuracy, for records, with the keys of `ModelCard.summary`."""
        return {"file": self.file, "data": data.name, "accuracy": self.accuracy}


def load_or_train(data: LabelledImages, device: torch.device) -> TrainedClassifier:
    """Return the classifier of `data` from the cache. On first use one process trains it on its `device`, and
    others wait (minutes on a CPU for MNIST)."""
    key = hashlib.sha256(repr((CLASSIFIER_VERSION, data.classes, data.shape)).encode())
    for tensor in (data.pixels, data.labels, data.test_pixels, data.test_labels):
        key.update(tensor.contiguous().numpy())
    name = f"classifier-{data.name}-{key.hexdigest()[:16]}.pt"
    with seeded(0, "classifier"):
        network = Classifier(data.shape, len(data.classes)).to(device)

    def train() -> dict:
        print(f"training a classifier of {data.name}", file=sys.stderr)
        return {"accuracy": _train(network, data, device), **network.state_dict()}

    content = cache.get_or_make(name, train)
    accuracy = content.pop("accuracy")
    network.load_state_dict(content)
    return TrainedClassifier(network.eval().requires_grad_(False), accuracy, name)


def _train(network: Classifier, data: LabelledImages, device: torch.device) -> float:
    """Train with Adam under a one-cycle schedule and return the accuracy on the test images."""
    steps = min(TRAINING_IMAGES, 30 * len(data.pixels)) // BATCH_SIZE
    optimizer = torch.optim.Adam(network.parameters(), PEAK_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps)
    for step in range(steps):
        batch = torch.randint(len(data.pixels), (BATCH_SIZE,), generator=rng(0, "classifier", step))
        x, labels = images.to_float(data.pixels[batch]).to(device), data.labels[batch].to(device)
        optimizer.zero_grad()
        cross_entropy(network(x), labels).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    logits, _ = logits_and_features(network, data.test_pixels)
    return (logits.argmax(1).cpu() == data.test_labels).float().mean().item()


@torch.no_grad()
def logits_and_features(network: Classifier, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [N, classes] and features [N, 128] of images [N, C, H, W], on the network's device.

    The images are uint8 or float in [-1, 1], on any device; they are moved a batch at a time.
    Features are scaled to a mean square of 1 each, the scale that KID's kernel (x y / d + 1)^3 is made for.
    """
    parts = images.float_batches(x, device_of(network, x), 500)
    features = torch.cat([network.features(part) for part in parts])
    return network.head(features), normalize(features) * features.shape[1] ** 0.5
