"""Turn the folder of a trial into its trained networks: alone, as a generator, or with its data and judge.

    load_generator(folder, device)                          # CycleGAN: photographs to paintings
    load_generator(folder, device, reverse=True)            # CycleGAN: paintings to photographs
    load_generator(folder, device, domain="monet")          # StarGAN: images to this domain
    net, _ = load_networks(folder, device)                  # GANs: net.G, net.noise(20, "my key"), ...
    load(folder, device)                                    # a `TrainedModel`, for trials.inspect

`BUILDERS` make the networks of each system from its settings and checkpoint, without any data. `ADAPTERS` add
what the trial was trained on and scored by.
"""

import sys
from functools import partial
from math import isqrt
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import one_hot

from judge.class_score import ClassScorer, class_scorer
from judge.classifier import logits_and_features
from judge.common.errors import UserError
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images, to_float
from judge.labelled import LabelledImages, load_labelled
from judge.model import CLASSES, Judge, sha256_of
from judge.score import Scorer, extract_features
from trials.dcgan import DcganSettings
from trials.gan import PATTERN
from trials.inspection.trained import FeatureExtractor, TrainedModel, read_trial, restore, settings_of
from trials.parts.batches import load_held_out
from trials.parts.gan_base import NoiseGAN
from trials.training import conditional_gan, cyclegan, dcgan, gan, stargan

WITH_CLASSES = ("stargan", "conditional_gan")  # systems whose networks are made for the classes of the data
BATCH_SIZE = 100  # images that a generator makes at once


def load_networks(folder: Path, device: torch.device, trained: bool = True) -> tuple[Any, dict]:
    """Return the model of the trial in `folder`, its networks frozen and in eval mode, and its run.json.

    It needs no data. With `trained` False the weights are the initial ones. Raises UserError if there is no
    trial, settings or checkpoint cannot be read, or the system has no networks.
    """
    record, module = read_trial(folder)
    if record["system"] not in BUILDERS:
        raise UserError(f"{folder} is a trial of {record['system']}, which trains no networks: only curves "
                        "and progress work for it")
    if record["system"] in WITH_CLASSES and not classes_of(record):
        raise UserError(f"{folder}: its run.json does not name the classes of the data, whose order the "
                        "networks know: take an undamaged copy of it, or train the trial again")
    build, settings = BUILDERS[record["system"]], settings_of(module.Settings, record, folder)
    net = restore(folder, lambda state: build(settings, state, classes_of(record), device), trained)
    for part in vars(net).values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return net, record


def classes_of(record: dict) -> tuple[str, ...]:
    """Return the names of the classes or domains that a trial was trained on; none if it had none."""
    return tuple((record.get("data") or {}).get("classes") or ())


def load_generator(folder: Path, device: torch.device, *, domain: str | None = None,
                   reverse: bool = False) -> nn.Module:  # fmt: skip
    """Return the generator of the trial in `folder` (`find_generator`), frozen and in eval mode. Raises
    UserError as `load_networks` and `find_generator` do."""
    return find_generator(*load_networks(folder, device), domain=domain, reverse=reverse)


def find_generator(net: Any, record: dict, *, domain: str | None = None, reverse: bool = False) -> nn.Module:
    """Return the generator of the model `net` of a trial with this run.json.

    Of a CycleGAN it paints photographs, float [N, 3, H, W] in [-1, 1] to the same, or with `reverse` turns
    paintings into photographs. Of a StarGAN it translates such images to `domain`. `stride` of these two
    divides H and W. Of the other GANs it makes images of noise: [N, latent] as `net.noise` returns it, of a
    conditional GAN with the class (`net.with_class`). Raises UserError if there is no such domain or reverse.
    """
    system, names = record["system"], classes_of(record)
    if reverse and not isinstance(net, cyclegan.CycleGAN):
        raise UserError(f"--reverse: this is a trial of {system}, only a CycleGAN has a reverse")
    if isinstance(net, stargan.StarGAN):
        if domain not in names:
            wrong = f"--domain {domain}: there is no such domain" if domain else "a StarGAN needs a domain"
            raise UserError(f"{wrong}, give --domain with one of: {', '.join(names)}")
        return ToDomain(net.G, names.index(domain), len(names), net.device)
    if domain is not None:
        raise UserError(f"--domain {domain}: this is a trial of {system}, only a StarGAN has domains")
    return (net.G_AB if reverse else net.G_BA) if isinstance(net, cyclegan.CycleGAN) else net.G


class ToDomain(nn.Module):
    """A StarGAN's generator for one of its `count` domains: [N, 3, H, W] in [-1, 1] to the same."""

    stride = 4  # of `StarganGenerator`: H and W are multiples of it

    def __init__(self, G: nn.Module, domain: int, count: int, device: torch.device):
        super().__init__()
        self.G = G
        self.register_buffer("label", one_hot(torch.tensor([domain], device=device), count)[:, :, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        planes = self.label.to(images).expand(images.shape[0], -1, *images.shape[2:])
        return self.G(torch.cat([images, planes], 1))  # as `with_planes`, of which ONNX fixes the N


def load(folder: Path, device: torch.device, trained: bool = True) -> TrainedModel:
    """Return the networks of the trial in `folder` as `load_networks` does, with its data and its judge.

    Raises UserError as `load_networks` does, or if the data cannot be loaded.
    """
    net, record = load_networks(folder, device, trained)
    model = ADAPTERS[record["system"]](net, device)
    if len(names := classes_of(record)) > 1 and names != model.data.classes:  # the networks know their order
        raise UserError(f"{folder} was trained on {', '.join(names)}; now {model.data.name} has "
                        f"{', '.join(model.data.classes)}")
    judge = record.get("judge") or {}
    if trained and judge.get("sha256") and sha256_of(judge["file"]) != judge["sha256"]:
        print(f"note: {judge['file']} has changed since it scored this trial", file=sys.stderr)
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


def load_cyclegan(net: cyclegan.CycleGAN, device: torch.device) -> TrainedModel:
    """Return G_BA, which paints the held-out photographs, and D_A."""
    settings = net.settings
    data, judge, _ = cyclegan.load_inputs(settings, device)

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


def load_stargan(net: stargan.StarGAN, device: torch.device) -> TrainedModel:
    """Return G, which translates the held-out images, and D."""
    data, _ = stargan.load_inputs(net.settings, device)

    def outputs(count: int) -> torch.Tensor:
        chosen, targets = stargan.held_out(data.test_labels, -(-count // len(data.classes)))
        sources = to_float(data.test_pixels[chosen[:count]]).to(device)
        return net.make(sources, targets[:count].to(device))

    return TrainedModel(net, data, classifier_extractor(*class_scorer(data, device)), net.D, outputs)


def load_noise_gan(module: ModuleType, net: NoiseGAN, device: torch.device) -> TrainedModel:
    """Return the G and the D of a system that makes images of noise; of a conditional GAN, for the classes in
    turn. Raises UserError if the data is the pattern, not images."""
    if net.settings.data == PATTERN:
        raise UserError("the pattern is not an image: only curves and progress work for this trial")
    data, scorer, facts = module.load_inputs(net.settings, device)
    if isinstance(scorer, Scorer):
        extractor = judge_extractor(scorer.judge, facts["judge"]["file"])
    else:
        extractor = classifier_extractor(scorer, facts["judge"])
    conditional, D = module is conditional_gan, net.D
    if conditional:  # the planes of the class that D also takes: every class is equally likely
        D = nn.Sequential(nn.ConstantPad3d((0, 0, 0, 0, 0, net.count), 1 / net.count), D)

    def noise(count: int) -> torch.Tensor:
        z = first_noise(net, count, "fixed")
        return net.with_class(z, torch.arange(count, device=device) % net.count) if conditional else z

    @torch.no_grad()
    def generate(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([net.G(part) for part in z.split(BATCH_SIZE)])

    return TrainedModel(net, data, extractor, D, lambda count: generate(noise(count)), noise, generate)


def first_noise(net: NoiseGAN, count: int, *key: int | str) -> torch.Tensor:
    """Return noise for `count` images, [count, latent]; with the same key a smaller count gives the first
    rows of a larger one."""
    # torch.randn draws the last 16 numbers of a tensor twice: without 16 rows more, the first rows would
    # depend on the count.
    return net.noise(count + 16, *key)[:count]


def build_gan(settings: gan.Settings, state: dict, _: tuple, device: torch.device) -> gan.GAN:
    """Return the networks of a trial of `trials.gan`. The last bias of G has a number for each pixel."""
    pixels = len(list(state["G"].values())[-1])
    edge = isqrt(pixels)
    return gan.GAN(settings, (1, 1, pixels) if settings.data == PATTERN else (1, edge, edge), device)


def dcgan_shape(settings: DcganSettings, state: dict) -> tuple[int, int, int]:
    """Return the shape of a trial's images. The last weights of G are [features, colours, 4, 4]."""
    return list(state["G"].values())[-1].shape[1], settings.edge, settings.edge


BUILDERS = {
    "cyclegan": lambda settings, _, __, device: cyclegan.CycleGAN(settings, 1, device),  # it takes no step
    "stargan": lambda settings, _, domains, device: stargan.StarGAN(settings, len(domains), device),
    "gan": build_gan,
    "dcgan": lambda settings, state, _, device: dcgan.DCGAN(settings, dcgan_shape(settings, state), device),
    "conditional_gan": lambda settings, state, classes, device: conditional_gan.ConditionalGAN(
        settings, dcgan_shape(settings, state), len(classes), device),
}  # fmt: skip
ADAPTERS = {
    "cyclegan": load_cyclegan, "stargan": load_stargan, "gan": partial(load_noise_gan, gan),
    "dcgan": partial(load_noise_gan, dcgan), "conditional_gan": partial(load_noise_gan, conditional_gan),
}  # fmt: skip
