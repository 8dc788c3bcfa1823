"""The networks of a finished trial, with its data and what extracts features of images."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from judge import images
from judge.class_score import ClassScorer
from judge.classifier import logits_and_features
from judge.common.cli import parse_values
from judge.common.errors import UserError, one_line
from judge.common.tensors import read_tensors
from judge.labelled import LabelledImages
from judge.model import CLASSES, Judge
from judge.score import Scorer, extract_features
from trials.session.records import read_record


@dataclass(frozen=True)
class FeatureExtractor:
    """What sees more in images than pixels: the trial's classifier, its judge, or a pretrained Inception."""

    name: str
    classes: tuple[str, ...]
    """Names of its K classes; empty where they say nothing of the data."""
    extract: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    """Images, float [N, C, H, W] in [-1, 1], to probabilities [N, K] and features [N, F]."""


@dataclass(frozen=True)
class TrainedModel:
    """A system's networks, and what they are looked at with."""

    net: Any
    """The model: networks as attributes, `state_dict`, `load_state_dict`."""
    data: LabelledImages
    """What outputs are to be like."""
    extractor: FeatureExtractor
    discriminator: nn.Module
    """Takes images of the data; what it computes on the way are its features."""
    outputs: Callable[[int], torch.Tensor]
    """So many outputs, the same each time, float [N, C, H, W] in [-1, 1]; fewer where there are no more."""
    noise: Callable[[int], torch.Tensor] | None = None
    """What the generator gets for each of so many outputs, [N, latent], whose first are those of fewer;
    None where it gets images."""
    generate: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Noise to outputs."""
    labelled: Callable[[], LabelledImages] | None = None
    """Images with more than one class, where `data` has one."""

    def real(self, count: int, held_out: bool) -> torch.Tensor:
        """Up to `count` images of the data, evenly spread, float [N, C, H, W] in [-1, 1]."""
        pixels = self.data.test_pixels if held_out else self.data.pixels
        device = next(self.discriminator.parameters()).device
        return images.to_float(pixels[spread(len(pixels), count)]).to(device)


def spread(total: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `total`, evenly."""
    count = min(count, total)
    return [at * total // count for at in range(count)]


def system_of(folder: Path) -> tuple[dict, Any]:
    """The record of the trial in `folder` and the module of its system.

    Raises:
        UserError: there is no trial.
    """
    record = read_record(folder)
    system = str(record.get("system"))
    # By file: a record may be a stranger's, and to import is to run.
    if not (record.get("settings") and system.isidentifier()
            and (Path(__file__).parents[1] / f"{system}.py").is_file()):
        raise UserError(f"{folder} is not the folder of a trial: it has no run.json that names a system")
    return record, import_module(f"trials.{system}")


def settings_of(Settings: type, record: dict, folder: Path) -> Any:
    """The settings in a trial's record.

    Raises:
        UserError: they are not of this version.
    """
    try:
        return Settings(**parse_values(Settings, record["settings"]))
    except UserError as error:
        raise UserError(f"{folder} was trained by another version: {one_line(error)}") from None


def restore(net: Any, folder: Path, device: torch.device) -> None:
    """Give `net` the state in the folder's checkpoint.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        net.load_state_dict(read_tensors(folder / "checkpoint.pt", device))
    except FileNotFoundError:
        raise UserError(f"{folder} has no checkpoint yet: it is written at the first report") from None
    except Exception as error:  # foreign bytes fail in many ways
        raise UserError(f"{folder / 'checkpoint.pt'} cannot be read ({one_line(error)})") from None


# ---------------------------------------------------------------------------------------------
# What systems build theirs of


def noise_model(net: Any, data: LabelledImages, extractor: FeatureExtractor, discriminator: nn.Module,
             noise: Callable[[int], torch.Tensor]) -> TrainedModel:
    """Of a system whose `net.G` makes images of `noise`."""
    generate = in_batches(net.G)

    def same(count: int) -> torch.Tensor:
        # torch draws the last 16 normal numbers of a tensor anew: with more, the first are the same.
        return noise(count + 16)[:count]

    return TrainedModel(net, data, extractor, discriminator, lambda count: generate(same(count)), same, generate)


def extractor_of_scorer(scorer: ClassScorer | Scorer, facts: dict) -> FeatureExtractor:
    """What a trial is scored by, with what it records of that."""
    if isinstance(scorer, Scorer):
        return extractor_of_judge(scorer.judge, facts["file"])

    def extract(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, features = logits_and_features(scorer.network, x)
        return logits.softmax(1), features

    name = f"a classifier of {facts['data']} (accuracy {facts['accuracy']:.3f})"
    return FeatureExtractor(name, scorer.names, extract)


def extractor_of_judge(judge: Judge, file: str) -> FeatureExtractor:
    """The judge in `file`."""

    def extract(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = extract_features(judge, x)
        return judge.probabilities(features), features

    return FeatureExtractor(f"the judge {file}", CLASSES, extract)


def in_batches(network: Callable[[torch.Tensor], torch.Tensor], batch: int = 100) -> Callable:
    """`network` for inputs of any number."""

    @torch.no_grad()
    def of_many(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(part) for part in x.split(batch)])

    return of_many


def domains(data: images.DataSet, size: int) -> LabelledImages:
    """Paintings and photographs as two classes, of `size` pixels.

    Raises:
        UserError: a domain's images cannot be read.
    """
    order = (images.PHOTOS, images.PAINTINGS)
    loaded = [[images.load_images(split[domain], size).pixels for domain in order]
              for split in (data.train, data.test)]
    (pixels, labels), (test_pixels, test_labels) = (
        (torch.cat(parts), torch.tensor([label for label, part in enumerate(parts) for _ in part]))
        for parts in loaded)
    return LabelledImages(data.name, CLASSES[:2], pixels, labels, test_pixels, test_labels, data.stand_in)
