"""The networks of a finished trial with its data and a feature extractor; reading a trial's folder."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from judge.common.cli import parse_values
from judge.common.errors import UserError, is_out_of_memory, one_line
from judge.common.tensors import read_tensors
from judge.images import to_float
from judge.labelled import LabelledImages
from trials.session.records import read_record, settings_here


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that classifies images: the trial's classifier, its judge, or a pretrained Inception."""

    name: str
    classes: tuple[str, ...]
    """Names of its K classes; empty if they are not classes of the data."""
    extract: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    """Images, float [N, C, H, W] in [-1, 1], to probabilities [N, K] and features [N, F]."""


@dataclass(frozen=True)
class TrainedModel:
    """The networks of a trial, its data and its feature extractor."""

    net: Any
    """The system's model: networks as attributes, `state_dict`, `load_state_dict`."""
    data: LabelledImages
    """Real images that the outputs should look like."""
    extractor: FeatureExtractor
    discriminator: nn.Module
    """Takes images of the data."""
    outputs: Callable[[int], torch.Tensor]
    """Number of images to outputs, float [N, C, H, W] in [-1, 1], the same at each call; fewer if the
    generator's inputs are fewer."""
    noise: Callable[[int], torch.Tensor] | None = None
    """Number of images to noise, [N, latent], which starts the same for each number; None if the generator
    takes images."""
    generate: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Noise to outputs; None if the generator takes images."""
    labelled: Callable[[], LabelledImages] | None = None
    """Loads images of several classes; None if `data` has several."""

    def real(self, count: int, held_out: bool) -> torch.Tensor:
        """Return up to `count` evenly spaced images of the data, float [N, C, H, W] in [-1, 1]."""
        pixels = self.data.test_pixels if held_out else self.data.pixels
        device = next(self.discriminator.parameters()).device
        return to_float(pixels[evenly_spaced(len(pixels), count)]).to(device)


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return up to `count` of the indices below `total`, evenly spaced."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def read_trial(folder: Path) -> tuple[dict, ModuleType]:
    """Return a trial's record and the module of its system. Raises UserError if there is no trial."""
    record = read_record(folder)
    system = str(record.get("system"))
    # Only a program of this folder is imported, whatever the record says.
    if not (record.get("settings") and system.isidentifier()
            and (Path(__file__).parents[1] / f"{system}.py").is_file()):
        raise UserError(f"{folder} is not the folder of a trial: it has no run.json that names a system")
    return record, import_module(f"trials.{system}")


def settings_of(Settings: type, record: dict, folder: Path) -> Any:
    """Return the settings in a trial's record. Raises UserError if another version of Salon wrote them."""
    try:
        settings = Settings(**parse_values(Settings, settings_here(Settings, record)))
        complete = settings.complete(torch.device("cpu"))
        missing = [name for name, value in vars(complete).items()
                   if value is not None and getattr(settings, name) is None]
        if missing:
            raise UserError(f"its run.json lacks {', '.join(missing)}")
    except UserError as error:
        raise UserError(f"{folder} was trained by another version: {one_line(error)}") from None
    return settings


def restore(folder: Path, build: Callable[[dict], Any], trained: bool = True) -> Any:
    """Return `build(state)`, the model of the trial in `folder`, with the state of the trial's checkpoint and
    the averages of --ema as its generators; with its initial state if not `trained`. Raises UserError if the
    checkpoint cannot be read."""
    try:
        state = read_tensors(folder / "checkpoint.pt")
        net = build(state)
        if trained:
            net.load_state_dict(state)
            net.use_averages()
        return net
    except FileNotFoundError:
        raise UserError(f"{folder} has no checkpoint: the trial has not reported yet, or the search "
                        "has kept only those of the best trials (--keep)") from None
    except Exception as error:  # a damaged file fails in many ways
        if is_out_of_memory(error):
            raise
        raise UserError(f"{folder / 'checkpoint.pt'} cannot be read ({one_line(error)})") from None
