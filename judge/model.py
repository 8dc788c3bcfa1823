"""The judge: a torchvision ResNet, its preprocessing and calibration, and its file."""

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, linear
from torchvision import models

from judge.common.errors import UserError
from judge.common.tensors import read_tensors
from judge.images import SIZES, luma

CLASSES = ("photo", "painting", "neither")
NEITHER = 2
FORMAT = "salon-judge-3"
DEFAULT_FILE = "models/judge.pt"

MIN_LOG_PROBABILITY = -30.0  # log-probability below which nothing is told apart

# Statistics of ImageNet's RGB channels in [0, 1]: what torchvision's pretrained weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelCard:
    """What a judge's file says about the judge beside its weights; every field is plain data."""

    arch: str
    """The torchvision model's name, for example `resnet18`."""
    size: int
    """Edge in pixels of the images it was trained on, and the only one it judges."""
    classes: tuple[str, ...]
    """In the order of its outputs."""
    training: dict
    """Data set and counts, weights it started from, seed, epochs, versions."""
    metrics: dict
    """On the test images: AUC, accuracy, Brier score, calibration errors (see `judge.training`)."""

    def summary(self, file: str) -> dict:
        """For records of trials: which judge it was, in what file."""
        return {"file": file, "sha256": sha256_of(file),
                "data": self.training.get("data"), "auc": self.metrics.get("auc")}


class Judge(nn.Module):
    """A ResNet with calibrated probabilities, over images in a generator's own range.

    Shapes: images are float [N, 3, size, size] in [-1, 1].
    """

    def __init__(self, arch: str, size: int, classes: tuple[str, ...] = CLASSES):
        super().__init__()
        self.arch, self.size, self.classes = arch, size, classes
        self.backbone = models.get_model(arch)
        self.head = nn.Linear(self.backbone.fc.in_features, len(classes))
        self.backbone.fc = nn.Identity()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])
        self.register_buffer("calibration", torch.eye(len(classes), len(classes) + 1))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, [N, features] (512 for resnet18); once trained, the mean of what
        it sees in an image and in its mirror image, which are judged alike.

        Raises:
            UserError: the images have another size than the judge was trained on. They are not
                resized in silence: it would hide or invent just the textures that it looks at.
        """
        if tuple(images.shape[-2:]) != (self.size, self.size):
            height, width = images.shape[-2:]
            raise UserError(f"the judge was trained at {self.size} px, these images have {height}x"
                            f"{width}: train one at that size (python -m judge train --size ...)")
        views = (images,) if self.training else (images, images.flip(-1))
        return sum(self.backbone(((subsample_chroma(view) + 1) / 2 - self.mean) / self.std)
                   for view in views) / len(views)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits before calibration, [N, classes]."""
        return self.head(self.features(images))

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Calibrated probabilities from `features`, [N, classes], rows summing to 1.

        Dirichlet calibration, Kull et al. 2019 (1910.12656), equation 5: `calibration` holds a linear
        map of log-probabilities and, in its last column, what it adds, [classes, classes + 1].
        """
        evidence = log_probabilities(self.head(features).float())
        return torch.softmax(linear(evidence, self.calibration[:, :-1], self.calibration[:, -1]), dim=1)

    def painting(self, features: torch.Tensor) -> torch.Tensor:
        """P(painting) from `features`, [N] in [0, 1]."""
        return self.probabilities(features)[:, self.classes.index("painting")]

    def against_photo(self, features: torch.Tensor) -> torch.Tensor:
        """P(painting), given that it is a photograph or a painting, from `features`, [N] in [0, 1]."""
        of_both = self.probabilities(features)[:, [CLASSES.index("photo"), CLASSES.index("painting")]]
        return of_both[:, 1] / of_both.sum(1).clamp(min=1e-30)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Uncalibrated log-probabilities, [N, classes] in [`LEAST`, 0]: finite however sure a network is."""
    return torch.log_softmax(logits, dim=1).clamp(min=MIN_LOG_PROBABILITY)


def subsample_chroma(images: torch.Tensor) -> torch.Tensor:
    """Colour at half the resolution, light as it is, [N, 3, H, W]: what JPEG keeps of an image.

    Photographs come with halved chroma and scans of paintings without. A judge that saw the
    difference would learn it, and one that learnt from images all halved would take the others for
    something else.
    """
    light = luma(images)
    chroma = avg_pool2d(images - light, 2)
    return light + interpolate(chroma, size=images.shape[-2:], mode="bilinear")


def describe_size(size: int) -> str:
    """64 as `sketch (64 px)`, a size no preset has as `96 px`."""
    name = next((name for name, pixels in SIZES.items() if pixels == size), None)
    return f"{name} ({size} px)" if name else f"{size} px"


def check_writable(file: Path) -> None:
    """Find out before training whether a judge can be written to `file`.

    Raises:
        UserError: it cannot.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise UserError(f"a judge cannot be written to {file}: {error.strerror}") from None
    if file.is_dir():
        raise UserError(f"a judge cannot be written to {file}: it is a folder")


def save_judge(judge: Judge, card: ModelCard, file: Path) -> None:
    """Write the judge to `file`, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"format": FORMAT, "card": asdict(card), "weights": judge.state_dict()}, part)
        part.replace(file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            part.unlink()
        raise UserError(f"the judge could not be written to {file}: {error}") from error


def load_judge(
    file: Path | str, device: torch.device | str = "cpu", size: int | None = None
) -> tuple[Judge, ModelCard]:
    """The judge in `file`, in eval mode with frozen weights, and its card.

    Args:
        size: edge in pixels of the images that it is to judge.

    Raises:
        UserError: there is no such file, it is not a judge, or one of another size.
    """
    try:
        content = read_tensors(file)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError
        card = ModelCard(**content["card"])
        if type(card.size) is not int or not set(CLASSES[:NEITHER]) <= set(card.classes) <= set(CLASSES):
            raise ValueError
        if not isinstance(card.training, dict) or not isinstance(card.metrics, dict):
            raise ValueError
        with torch.device("meta"):  # weights about to be replaced need not be drawn
            judge = Judge(card.arch, card.size, tuple(card.classes))
        expected = judge.state_dict()
        judge.load_state_dict(content["weights"], assign=True)
        if any(value.is_floating_point() != expected[name].is_floating_point()
               for name, value in content["weights"].items()):
            raise ValueError
        judge.float()
    except FileNotFoundError:
        raise UserError(f"no judge at {file}: python -m judge train --out {file}") from None
    except Exception:  # foreign bytes fail in many ways, all of which mean one thing
        raise UserError(
            f"{file} is not a judge's file (no {FORMAT}): python -m judge train makes one") from None
    if size and card.size != size:
        raise UserError(f"{file} was trained at {describe_size(card.size)}, and this is "
                        f"{describe_size(size)}: give another --judge (python -m judge train makes one)")
    return judge.eval().requires_grad_(False).to(device, memory_format=torch.channels_last), card


def sha256_of(file: Path | str) -> str:
    """SHA-256 of a file, for records: which judge it was."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
