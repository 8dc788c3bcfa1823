"""Turn the folder of a finished trial into a `TrainedModel`, with one adapter for each system.

An adapter takes a trial's complete settings and a device, and returns the untrained networks; `load` puts the
weights of the checkpoint into them.
"""

import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from judge.class_score import ClassScorer, class_scorer
from judge.classifier import logits_and_features
from judge.common.errors import UserError
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images, to_float
from judge.labelled import LabelledImages, load_labelled
from judge.model import CLASSES, Judge, sha256_of
from judge.score import Scorer, extract_features
from trials import conditional_gan, cyclegan, dcgan, gan, stargan
from trials.inspection.trained import FeatureExtractor, TrainedModel, read_trial, restore, settings_of
from trials.parts.batches import load_held_out

BATCH_SIZE = 100  # images that a generator makes at once


def load(folder: Path, device: torch.device, trained: bool = True) -> TrainedModel:
    """Return the networks of the trial in `folder`, frozen and in eval mode, or with their initial weights.

    Raises UserError if there is no trial, checkpoint or data, or the system has no networks.
    """
    record, module = read_trial(folder)
    if record["system"] not in ADAPTERS:
        raise UserError(f"{folder} is a trial of {record['system']}, which trains no networks: only curves "
                        "and progress work for it")
    model = ADAPTERS[record["system"]](settings_of(module.Settings, record, folder), device)
    if trained:
        restore(model.net, folder)
        judge = record.get("judge") or {}
        if judge.get("sha256") and sha256_of(judge["file"]) != judge["sha256"]:
            print(f"note: {judge['file']} has changed since it scored this trial", file=sys.stderr)
    for part in vars(model.net).values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return model


def classifier_extractor(scorer: ClassScorer, record: dict) -> FeatureExtractor:
    """Return the scorer's classifier; `record` is what a trial records of it."""

    def extract(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, features = logits_and_features(scorer.network, x)
        return logits.softmax(1), features

    name = f"a classifier of {record['data']} (accuracy {record['accuracy']:.3f})"
    return FeatureExtractor(name, scorer.names, extract)


def judge_extractor(judge: Judge, file: str) -> FeatureExtractor:
    """Return the judge in `file`."""

    def extract(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = extract_features(judge, x)
        return judge.probabilities(features), features

    return FeatureExtractor(f"the judge {file}", CLASSES, extract)


def load_cyclegan(settings: cyclegan.Settings, device: torch.device) -> TrainedModel:
    """Return G_BA, which paints the held-out photographs, and D_A."""
    data, judge, _ = cyclegan.load_inputs(settings, device)
    net = cyclegan.CycleGAN(settings, 1, device)  # the schedule does not matter: no step is taken

    def outputs(count: int) -> torch.Tensor:
        return net.paint(load_held_out(data, settings.pixels, count, device).photos)

    paintings = load_labelled(settings.data, settings.pixels)
    return TrainedModel(net, paintings, judge_extractor(judge, settings.judge), net.D_A, outputs,
                        labelled=lambda: load_photos_and_paintings(data, settings.pixels))


def load_photos_and_paintings(data: DataSet, size: int) -> LabelledImages:
    """Return photographs and paintings of `size` pixels as two classes."""
    splits = []
    for files in (data.train, data.test):
        domains = [load_images(files[domain], size).pixels for domain in (PHOTOS, PAINTINGS)]
        splits += [torch.cat(domains), torch.tensor([label for label, x in enumerate(domains) for _ in x])]
    return LabelledImages(data.name, CLASSES[:2], *splits, data.stand_in)


def load_stargan(settings: stargan.Settings, device: torch.device) -> TrainedModel:
    """Return G, which translates the held-out images, and D."""
    data, _ = stargan.load_inputs(settings, device)
    net = stargan.StarGAN(settings, len(data.classes), device)

    def outputs(count: int) -> torch.Tensor:
        chosen, targets = stargan.held_out(data.test_labels, -(-count // len(data.classes)))
        sources = to_float(data.test_pixels[chosen[:count]]).to(device)
        return net.make(sources, targets[:count].to(device))

    return TrainedModel(net, data, classifier_extractor(*class_scorer(data, device)), net.D, outputs)


def load_noise_gan(module: ModuleType, settings: Any, device: torch.device) -> TrainedModel:
    """Return the G and the D of a system that makes images of noise; of a conditional GAN, for the classes in
    turn. Raises UserError if the data is the pattern, not images."""
    if settings.data == gan.PATTERN:
        raise UserError("the pattern is not an image: only curves and progress work for this trial")
    data, scorer, facts = module.load_inputs(settings, device)
    if isinstance(scorer, Scorer):
        extractor = judge_extractor(scorer.judge, facts["judge"]["file"])
    else:
        extractor = classifier_extractor(scorer, facts["judge"])
    if module is conditional_gan:
        net = conditional_gan.ConditionalGAN(settings, data.shape, len(data.classes), device)
        # The planes of the class that D also takes: every class is equally likely.
        D = nn.Sequential(nn.ConstantPad3d((0, 0, 0, 0, 0, net.count), 1 / net.count), net.D)
    else:
        net = (gan.GAN if module is gan else dcgan.DCGAN)(settings, data.shape, device)
        D = net.D

    def noise(count: int) -> torch.Tensor:
        # torch.randn draws the last 16 numbers of a tensor twice: without 16 rows more, the first rows would
        # depend on the count.
        z = net.noise(count + 16, "fixed")[:count]
        return net.with_class(z, torch.arange(count, device=device) % net.count) if D is not net.D else z

    @torch.no_grad()
    def generate(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([net.G(part) for part in z.split(BATCH_SIZE)])

    return TrainedModel(net, data, extractor, D, lambda count: generate(noise(count)), noise, generate)


ADAPTERS = {
    "cyclegan": load_cyclegan, "stargan": load_stargan, "gan": partial(load_noise_gan, gan),
    "dcgan": partial(load_noise_gan, dcgan), "conditional_gan": partial(load_noise_gan, conditional_gan),
}  # fmt: skip
