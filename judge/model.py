"""The judge: a torchvision ResNet with its preprocessing, its calibration, and its file."""

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, linear

from judge.common.constants import DEFAULT_JUDGE, SIZES
from judge.common.errors import UserError
from judge.common.files import FileLock, as_user_error, atomic_write
from judge.common.schema import matches
from judge.common.tensors import read_tensors
from judge.folders import check_judge
from judge.images import luma

CLASSES = ("photo", "painting", "neither")
NEITHER = 2
FORMAT = "salon-judge-3"
DEFAULT_FILE = DEFAULT_JUDGE
CARD_FORM = {"arch": str, "size": int, "training": dict, "metrics": dict}

MIN_LOG_PROBABILITY = -30.0  # keeps the calibration of a very certain network finite

# Mean and deviation of ImageNet's RGB channels in [0, 1], which torchvision's pretrained weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelCard:
    """The description of a judge that its file holds beside the weights; every field is plain data."""

    arch: str  # name of the torchvision model
    size: int  # side in pixels of the images that it was trained on, the only ones it accepts
    classes: tuple[str, ...]  # in the order of its outputs
    training: dict  # data set and counts, initial weights, seed, epochs, versions
    metrics: dict  # on the test images, of `judge.evaluation`

    def summary(self, file: str) -> dict:
        """Return which judge this is, for the records of trials."""
        return {"file": file, "sha256": sha256_of(file),
                "data": self.training.get("data"), "auc": self.metrics.get("auc")}


class Judge(nn.Module):
    """A ResNet with calibrated probabilities, for images float [N, 3, size, size] in [-1, 1]."""

    def __init__(self, arch: str, size: int, classes: tuple[str, ...] = CLASSES):
        from torchvision import models  # takes seconds to import

        super().__init__()
        self.arch, self.size, self.classes = arch, size, classes
        self.backbone = models.get_model(arch)
        self.head = nn.Linear(self.backbone.fc.in_features, len(classes))
        self.backbone.fc = nn.Identity()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])
        self.register_buffer("calibration", torch.eye(len(classes), len(classes) + 1))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the last layer, [N, features] (512 for resnet18).

        In eval mode it is the mean over an image and its mirror image, so that both get the same score.
        Images of another size are a UserError: resizing changes just the textures that the judge looks at.
        """
        height, width = images.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise UserError(f"the judge was trained at {self.size} px, these images have {height}x"
                            f"{width}: train one at that size (python -m judge train --size ...)")
        views = (images,) if self.training else (images, images.flip(-1))
        return sum(self.backbone(((subsample_chroma(view) + 1) / 2 - self.mean) / self.std)
                   for view in views) / len(views)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits before calibration, [N, classes]."""
        return self.head(self.features(images))

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Return calibrated probabilities from `features`, [N, classes].

        Dirichlet calibration, Kull et al. 2019 (1910.12656), equation 5: `calibration` holds a linear map of
        log-probabilities and, in its last column, the bias.
        """
        evidence = log_probabilities(self.head(features).float())
        return torch.softmax(linear(evidence, self.calibration[:, :-1], self.calibration[:, -1]), dim=1)

    def painting_probability(self, features: torch.Tensor) -> torch.Tensor:
        """Return P(painting) from `features`, [N] in [0, 1]."""
        return self.probabilities(features)[:, self.classes.index("painting")]

    def painting_probability_against_photo(self, features: torch.Tensor) -> torch.Tensor:
        """Return P(painting | photograph or painting) from `features`, [N] in [0, 1]."""
        both = self.probabilities(features)[:, [CLASSES.index("photo"), CLASSES.index("painting")]]
        return both[:, 1] / both.sum(1).clamp(min=1e-30)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return uncalibrated log-probabilities, [N, classes] in [`MIN_LOG_PROBABILITY`, 0]."""
    return torch.log_softmax(logits, dim=1).clamp(min=MIN_LOG_PROBABILITY)


def subsample_chroma(images: torch.Tensor) -> torch.Tensor:
    """Return [N, 3, H, W] with colour at half the resolution and unchanged luma, as JPEG files store it.

    Photographs usually come with subsampled chroma, scans of paintings without; a judge would learn that.
    """
    light = luma(images)
    chroma = avg_pool2d(images - light, 2)
    return light + interpolate(chroma, size=images.shape[-2:], mode="bilinear")


def describe_size(size: int) -> str:
    """Return `sketch (64 px)` for 64, `96 px` for a size without a preset."""
    return next((f"{name} ({size} px)" for name, pixels in SIZES.items() if pixels == size), f"{size} px")


def lock_output(file: Path) -> FileLock:
    """Keep other processes from making `file` until the lock is closed, which leaves nothing.

    Raises UserError, before training, if it cannot be written.
    """
    if file.is_dir():
        raise UserError(f"cannot write to {file}: it is a folder")
    return FileLock(file.with_name(f".{file.name}.lock"), f"training {file}")


def save_judge(judge: Judge, card: ModelCard, file: Path) -> None:
    """Write the judge to `file`, which is complete or unchanged; raise UserError if that fails."""
    content = {"format": FORMAT, "card": asdict(card), "weights": judge.state_dict()}
    with as_user_error(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, partial(torch.save, content))


def load_judge(
    file: Path | str, device: torch.device | str = "cpu", size: int | None = None
) -> tuple[Judge, ModelCard]:
    """Load the judge in `file`, in eval mode with frozen weights, and its card.

    Raises UserError if the file does not exist, is not a judge's, or holds one of another size than `size`
    pixels; None allows any.
    """
    check_judge(file)
    try:
        content = read_tensors(file)
        card = ModelCard(**content["card"])
        if content["format"] != FORMAT or not matches(vars(card), CARD_FORM):
            raise ValueError
        if not set(CLASSES[:NEITHER]) <= set(card.classes) <= set(CLASSES):
            raise ValueError
        with torch.device("meta"):  # the initial weights are replaced, so they need not be drawn
            judge = Judge(card.arch, card.size, tuple(card.classes))
        judge.load_state_dict(content["weights"], assign=True)
    except Exception:  # other files fail in many ways
        raise UserError(
            f"{file} is not a judge's file (no {FORMAT}): python -m judge train makes one") from None
    if size and card.size != size:
        raise UserError(f"{file} was trained at {describe_size(card.size)}, and this is "
                        f"{describe_size(size)}: give another --judge (python -m judge train makes one)")
    return judge.float().eval().requires_grad_(False).to(device, memory_format=torch.channels_last), card


def sha256_of(file: Path | str) -> str:
    """Return the SHA-256 of a file, which identifies a judge in records."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
