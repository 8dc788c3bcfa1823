"""How each system's finished trial becomes a model to inspect: one function per system.

An adapter takes a trial's complete settings and a device, and returns the networks as new; `load` gives them the
weights of the checkpoint.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import one_hot

from judge import class_score
from judge.common.errors import UserError
from judge.images import to_float
from judge.labelled import load_labelled
from judge.model import sha256_of
from trials import conditional_gan, cyclegan, dcgan, gan, stargan
from trials.inspection.trained import (
    TrainedModel,
    domains,
    extractor_of_judge,
    extractor_of_scorer,
    noise_model,
    restore,
    settings_of,
    system_of,
)
from trials.parts.batches import load_held_out


def load(folder: Path, device: torch.device, trained: bool = True) -> TrainedModel:
    """What the trial in `folder` has trained, frozen.

    Args:
        trained: otherwise the same networks as they were before the first step.

    Raises:
        UserError: there is no trial, no checkpoint, its system does not take part, or its data is gone.
    """
    record, module = system_of(folder)
    if record["system"] not in ADAPTERS:
        raise UserError(f"{folder} is a trial of {record['system']}, which has no networks to look into: "
                        "curves and progress work")
    if not (folder / "checkpoint.pt").exists():
        raise UserError(f"{folder} has no checkpoint yet: it is written at the first report")
    model = ADAPTERS[record["system"]](settings_of(module.Settings, record, folder), device)
    judge = record.get("judge") or {}
    if trained and judge.get("sha256") and sha256_of(judge["file"]) != judge["sha256"]:
        print(f"note: {judge['file']} is another judge than scored this trial", file=sys.stderr)
    if trained:
        restore(model.net, folder, device)
    for part in vars(model.net).values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return model


def of_cyclegan(settings: cyclegan.Settings, device: torch.device) -> TrainedModel:
    """Paintings of the held-out photographs, and D_A."""
    found, judge, _ = cyclegan.load_inputs(settings, device)
    net = cyclegan.CycleGAN(settings, 1, device)  # it takes no step

    def outputs(count: int) -> torch.Tensor:
        return net.paint(load_held_out(found, settings.pixels, count, device).photos)

    return TrainedModel(net, load_labelled(settings.data, settings.pixels), extractor_of_judge(judge, settings.judge),
                   net.D_A, outputs, labelled=lambda: domains(found, settings.pixels))


def of_gan(settings: gan.Settings, device: torch.device) -> TrainedModel:
    """Digits made of noise.

    Raises:
        UserError: the data is the pattern.
    """
    if settings.data == gan.PATTERN:
        raise UserError("the pattern is no image: of this trial there are curves and progress")
    data, scorer, facts = gan.load_inputs(settings, device)
    net = gan.GAN(settings, data.shape, device)
    return noise_model(net, data, extractor_of_scorer(scorer, facts["judge"]), net.D, lambda count: net.noise(count, "fixed"))


def of_dcgan(settings: dcgan.Settings, device: torch.device) -> TrainedModel:
    """Images made of noise."""
    data, scorer, facts = dcgan.load_inputs(settings, device)
    net = dcgan.DCGAN(settings, data.shape, device)
    return noise_model(net, data, extractor_of_scorer(scorer, facts), net.D, lambda count: net.noise(count, "fixed"))


def of_conditional_gan(settings: conditional_gan.Settings, device: torch.device) -> TrainedModel:
    """Images made of noise and a class; classes are asked for in turn, and belong to what G is given."""
    data, scorer, facts = conditional_gan.load_inputs(settings, device)
    net = conditional_gan.ConditionalGAN(settings, data.shape, len(data.classes), device)

    def noise(count: int) -> torch.Tensor:
        asked = torch.arange(count, device=device) % net.count
        return torch.cat([net.noise(count, "fixed"), one_hot(asked, net.count).float()], 1)

    return noise_model(net, data, extractor_of_scorer(scorer, facts), nn.Sequential(AnyClass(net.count), net.D), noise)


class AnyClass(nn.Module):
    """Planes beside images that tell D nothing of the class: each is as likely as the other."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        planes = images.new_full((len(images), self.count, height, width), 1 / self.count)
        return torch.cat([images, planes], 1)


def of_stargan(settings: stargan.Settings, device: torch.device) -> TrainedModel:
    """Held-out images translated."""
    data, _ = stargan.load_inputs(settings, device)
    net = stargan.StarGAN(settings, len(data.classes), device)

    def outputs(count: int) -> torch.Tensor:
        chosen, targets = stargan.held_out(data.test_labels, -(-count // len(data.classes)))
        sources = to_float(data.test_pixels[chosen[:count]]).to(device)
        return net.make(sources, targets[:count].to(device))

    return TrainedModel(net, data, extractor_of_scorer(*class_score.class_scorer(data, device)), net.D, outputs)


ADAPTERS = {"cyclegan": of_cyclegan, "gan": of_gan, "dcgan": of_dcgan,
            "conditional_gan": of_conditional_gan, "stargan": of_stargan}  # fmt: skip
