"""The first GAN, of fully connected networks (Goodfellow et al. 2014, 1406.2661), and how it fails.

    python -m trials.gan --data pattern       # four numbers that are to become 1 0 1 0, by a few neurons
    python -m trials.gan --data mnist         # digits
    python -m trials.gan --data mnist --optimizer sgd --generator-lr 0.01 --discriminator-lr 0.01 \\
        --latent uniform --loss mse --activation sigmoid --layer-norm false     # nothing but one grey blob

G makes images of noise z, D tells real ones from G's, in turns:

    D    -log D(x) - log(1 - D(G(z)))                                  equation 1
    G    -log D(G(z)), not log(1 - D(G(z))), whose gradient vanishes   section 3

The defaults are the known cures for a G that makes the same image of every z. Each can be taken back by
itself: Adam to SGD, normal to uniform noise, -log to the squared distance, LeakyReLU to sigmoid,
LayerNorm to none (the steps by which Rashid, "Make Your First GAN with PyTorch", 2020, gets from one to
the other).
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import nn

from judge import class_score
from judge.class_score import ClassScorer
from judge.common.cli import Beta, Fraction, LearningRate, PositiveInt
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import to_bytes, to_float
from judge.labelled import (
    DIGITS,
    FOLDER,
    MNIST,
    LabelledImages,
    data_kind,
    describe_data,
    load_labelled,
    resolve_labelled_name,
)
from judge.score import MIN_IMAGES, Score
from trials.parts.batches import epoch_indices
from trials.parts.losses import bce, lsgan
from trials.parts.networks import perceptron
from trials.parts.sheets import sheet, sheet_pixels
from trials.session.records import DiskUse
from trials.session.session import Checkpointed, Scheduled, Session, run

PATTERN = "pattern"  # the data that is no image: 1 0 1 0
NEAR = 0.4  # of each of the four numbers, from -1 to 1: how far it may lie from the pattern


class Preset(NamedTuple):
    """What goes with the data."""

    latent_size: int  # numbers in z
    hidden: int  # neurons of the hidden layers
    steps: int  # the full schedule
    samples: int  # outputs that are scored


PRESETS = {
    #              latent_size  hidden   steps  samples
    PATTERN:         Preset(1,       8,  3_000,     200),
    DIGITS:  Preset(20,    100,  6_000,     400),
    MNIST:   Preset(100,   400, 30_000,   1_000),
}  # fmt: skip


@dataclass(frozen=True)
class Settings(Scheduled):
    """What a trial computes. Defaults are the cures; None is what the data says."""

    data: str = "auto"
    """pattern, digits (8 px, built in), mnist (downloaded on first use), or a folder that holds MNIST/raw;
    auto is mnist where it is in data/ and digits otherwise."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. A trial goes on when started again with more."""
    seed: int = 0
    """Of initial weights, batches and noise."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam (Kingma and Ba 2015, 1412.6980), or plain gradient descent, which wants rates near 0.01."""
    latent: Literal["normal", "uniform"] = "normal"
    """What z is drawn from: N(0, 1), or U(0, 1)."""
    loss: Literal["bce", "mse"] = "bce"
    """bce is the paper's -log; mse the squared distance of D's probability to 1 and 0."""
    activation: Literal["leaky_relu", "sigmoid"] = "leaky_relu"
    """Of the hidden layers."""
    layer_norm: bool = True
    """Whether hidden layers are normalised."""
    generator_lr: LearningRate = 2e-4
    """Learning rate of G (1511.06434, section 4)."""
    discriminator_lr: LearningRate = 2e-4
    """Learning rate of D."""
    beta1: Beta = 0.5
    """Adam's first decay (1511.06434, section 4)."""
    batch_size: PositiveInt = 100
    """Real images a step, and as many of G's (the authors' code)."""
    reports: PositiveInt = 20
    """Reports over the full schedule."""

    latent_size: PositiveInt | None = None
    """Numbers in z."""
    hidden: PositiveInt | None = None
    """Neurons of each network's hidden layer."""
    steps: PositiveInt | None = None
    """The full schedule in steps."""
    samples: PositiveInt | None = None
    """Outputs that are scored at a report."""

    def complete(self, device: torch.device) -> "Settings":
        """These settings with everything filled in that the data decides.

        Raises:
            UserError: data that is no digits, or too few outputs to score.
        """
        data = resolve_labelled_name(self.data)
        if data != PATTERN and data_kind(data) == FOLDER:
            raise UserError(f"--data {data}: pattern, digits, mnist, or a folder that holds MNIST/raw; "
                            "trials.dcgan takes folders of images")
        if self.samples is not None and self.samples < MIN_IMAGES:
            raise UserError(f"--samples {self.samples}: a score takes at least {MIN_IMAGES}")
        preset = PRESETS[PATTERN if data == PATTERN else data_kind(data)]._asdict()
        unset = {name: value for name, value in preset.items() if getattr(self, name) is None}
        return replace(self, data=data, **unset)

    def describe_inputs(self) -> dict[str, str]:
        """What a trial trains on and is scored by, in words."""
        judge = "the pattern itself" if self.data == PATTERN else "a classifier trained on the data"
        return {"data": describe_data(self.data), "judge": judge}


# ---------------------------------------------------------------------------------------------
# Model


class GAN(Checkpointed):
    """Networks, optimisers and step: all that the next step depends on.

    Args:
        settings: complete.
        shape: of an image, [C, H, W].
    """

    parts = ("G", "D", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Settings, shape: tuple[int, int, int], device: torch.device):
        self.settings, self.device, s = settings, device, settings
        leaky = s.activation == "leaky_relu"
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every device
            torch.set_rng_state(rng(s.seed, "networks").get_state())
            G = perceptron(s.latent_size, s.hidden, prod(shape), leaky, s.layer_norm)
            D = perceptron(prod(shape), s.hidden, 1, leaky, s.layer_norm)
        self.G = nn.Sequential(G, nn.Tanh(), nn.Unflatten(1, shape)).to(device)
        self.D = nn.Sequential(nn.Flatten(), D).to(device)
        self.optimizer_G = self._optimizer(self.G, s.generator_lr)
        self.optimizer_D = self._optimizer(self.D, s.discriminator_lr)

    def _optimizer(self, network: nn.Module, rate: float) -> torch.optim.Optimizer:
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(network.parameters(), rate)
        return torch.optim.Adam(network.parameters(), rate, betas=(self.settings.beta1, 0.999))

    def update(self, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of D and one of G on `real`, float [N, C, H, W] in [-1, 1]; returns each loss by name."""
        fake = self.G(self.noise(len(real), "step", self.step))
        on_real, on_fake = self.D(real), self.D(fake.detach())
        losses = {"discriminator": self._against(on_real, True) + self._against(on_fake, False)}
        self.optimizer_D.zero_grad()
        losses["discriminator"].backward()
        self.optimizer_D.step()

        losses["generator"] = self._against(self.D(fake), True)
        self.optimizer_G.zero_grad()  # what this leaves in D is cleared before D's own
        losses["generator"].backward()
        self.optimizer_G.step()
        self.step += 1
        return losses

    def _against(self, logits: torch.Tensor, real: bool) -> torch.Tensor:
        """How far D's word is from `real`."""
        return bce(logits, real) if self.settings.loss == "bce" else lsgan(logits.sigmoid(), real)

    def noise(self, count: int, *place: int | str) -> torch.Tensor:
        """z of `count` images, [count, latent_size], the same at the same place."""
        draw = torch.randn if self.settings.latent == "normal" else torch.rand
        source = rng(self.settings.seed, "noise", *place)
        return draw(count, self.settings.latent_size, generator=source).to(self.device)

    @torch.no_grad()
    def make(self, count: int) -> torch.Tensor:
        """Images of the same z each time, float [count, C, H, W] in [-1, 1]."""
        return self.G(self.noise(count, "fixed"))


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, reporting what the pattern or a classifier says of G's outputs."""
    device = session.device
    data, scorer, judge = load_inputs(settings, device)
    session.record_inputs(data=data.summary(), **judge)
    net = GAN(settings, data.shape, device)
    session.restore(net)
    last, every = settings.last_step(), settings.report_interval()
    print(f"GAN, {describe_data(data.name)}, {last} of {settings.steps} steps")
    pixels, real = data.pixels.to(device), to_float(data.test_pixels).to(device)

    for step in session.steps(net, last):
        chosen = epoch_indices(settings.seed, "real", step, settings.batch_size, len(pixels))
        session.add_losses(net.update(to_float(pixels[chosen])))
        if session.is_report_due(net.step, every, last):
            with session.scoring():
                made = net.make(settings.samples)
                score = scorer(made)
            session.save_paintings(net.step, made)
            session.report(net, score, sheet(real, made))


def check(settings: Settings) -> DiskUse:
    """What a trial of these settings leaves on the disk, once all is there that it needs; trains the
    classifier.

    Raises:
        UserError: as `inputs`.
    """
    cpu = torch.device("cpu")
    data, *_ = load_inputs(settings, cpu)
    net = GAN(settings, data.shape, cpu)
    return net.footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> "tuple[LabelledImages, ClassScorer | PatternScorer, dict]":
    """The data, what scores, and what to record of it.

    Raises:
        UserError: the data cannot be had.
    """
    if settings.data == PATTERN:
        return patterns(), PatternScorer(), {}
    data = load_labelled(settings.data)
    scorer, judge = class_score.class_scorer(data, device)
    return data, scorer, {"judge": judge}


def patterns(count: int = 1000) -> LabelledImages:
    """1 0 1 0, each number up to a fifth of the way to the other: images of 1x4 pixels."""
    draw = rng("patterns")
    away = torch.rand(count, 1, 1, 4, generator=draw) * NEAR
    real = to_bytes(torch.tensor([1.0, -1.0, 1.0, -1.0]) * (1 - away))
    none = torch.zeros(count, dtype=torch.int64)
    return LabelledImages(PATTERN, ("1010",), real, none, real[:20], none[:20])


class PatternScorer:
    """Scores four numbers by whether they are the pattern."""

    def __call__(self, made: torch.Tensor) -> Score:
        """`default` is the share of `made`, float [N, 1, 1, 4] in [-1, 1], of which every number lies
        as near to the pattern as real ones do; `distance` the mean distance to it, of 2 at the most."""
        gap = (made - made.new_tensor([1, -1, 1, -1])).abs()
        share = (gap <= NEAR).flatten(1).all(1).double().mean().item()
        return Score(share, {"distance": gap.mean().item()})


if __name__ == "__main__":
    run(train, Settings)
