"""The training of the first GAN; `trials/gan.py` has the losses and the settings."""

from math import prod

import torch
from torch import nn

from judge import labelled
from judge.common.rng import rng, seeded
from judge.images import to_bytes
from judge.labelled import LabelledImages
from judge.score import Score
from trials.gan import PATTERN, Settings
from trials.parts.gan_base import Inputs, NoiseGAN, add_class_scorer, minimise, train_on_images
from trials.parts.losses import bce, lsgan
from trials.parts.networks import perceptron
from trials.parts.sheets import sheet_pixels
from trials.session import DiskUse, Session

TOLERANCE = 0.4  # largest distance of a number in [-1, 1] from the pattern that counts as right

class GAN(NoiseGAN):
    """Generator and discriminator of images of a `shape` [C, H, W], with one hidden layer each."""

    def __init__(self, settings: Settings, shape: tuple[int, int, int], device: torch.device):
        s, leaky = settings, settings.activation == "leaky_relu"
        with seeded(s.seed, "networks"):
            G = perceptron(s.latent_size, s.hidden, prod(shape), leaky, s.layer_norm)
            D = perceptron(prod(shape), s.hidden, 1, leaky, s.layer_norm)
        images = nn.Tanh(), nn.Unflatten(1, shape)
        super().__init__(s, nn.Sequential(G, *images), nn.Sequential(nn.Flatten(), D), device)

    def update(self, real: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Take one step of D and one of G. `labels` are not used."""
        fake = self.G(self.noise(len(real), "step", self.step))
        loss_D = self._loss(self.D(real), True) + self._loss(self.D(fake.detach()), False)  # equation 1
        minimise(loss_D, self.optimizer_D)
        loss_G = self._loss(self.D(fake), True)  # section 3
        minimise(loss_G, self.optimizer_G)
        self.end_step()
        return {"discriminator": loss_D, "generator": loss_G}

    def _loss(self, logits: torch.Tensor, real: bool) -> torch.Tensor:
        return bce(logits, real) if self.settings.loss == "bce" else lsgan(logits.sigmoid(), real)

    def optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Return the optimiser of the settings for the weights of `network`."""
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(network.parameters(), lr)
        return torch.optim.Adam(network.parameters(), lr, betas=(self.settings.beta1, 0.999))

    def noise(self, count: int, *key: int | str) -> torch.Tensor:
        """Return z of `count` images, [count, latent_size]; the same for the same key."""
        draw = torch.randn if self.settings.latent == "normal" else torch.rand
        source = rng(self.settings.seed, "noise", *key)
        return draw(count, self.settings.latent_size, generator=source).to(self.device)

    @torch.no_grad()
    def make(self, count: int) -> torch.Tensor:
        """Return images of the same z each time, float [count, C, H, W] in [-1, 1]."""
        return self.G_average(self.noise(count, "fixed"))


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, and report how good G's outputs are."""
    data, scorer, facts = load_inputs(settings, session.device)
    session.record.add_inputs(**facts)
    net = GAN(settings, data.shape, session.device)
    train_on_images(session, net, data, scorer, title="GAN", samples=settings.samples)


def check(settings: Settings) -> DiskUse:
    """Return what a trial leaves on the disk. Raises UserError if the data cannot be loaded."""
    data, cpu = load_data(settings), torch.device("cpu")
    return GAN(settings, data.shape, cpu).footprint(settings.report_count(), sheet_pixels(data.shape))


def load_data(settings: Settings) -> LabelledImages:
    """Return what the trial is trained on. Raises UserError if it cannot be loaded."""
    return patterns() if settings.data == PATTERN else labelled.load_labelled(settings.data)


def load_inputs(settings: Settings, device: torch.device) -> Inputs:
    """Return what the trial is trained on and scored by. Raises UserError if the data cannot be loaded."""
    data = load_data(settings)
    if settings.data == PATTERN:
        return data, score_patterns, {"data": data.summary()}
    return add_class_scorer(data, device)


def patterns(count: int = 1000) -> LabelledImages:
    """Return images of 1x4 pixels: 1 0 1 0, each up to a fifth of the way to the other number."""
    noise = torch.rand(count, 1, 1, 4, generator=rng("patterns")) * TOLERANCE
    pixels = to_bytes(torch.tensor([1.0, -1.0, 1.0, -1.0]) * (1 - noise))
    labels = torch.zeros(count, dtype=torch.int64)
    return LabelledImages(PATTERN, ("1010",), pixels, labels, pixels[:20], labels[:20])


def score_patterns(made: torch.Tensor) -> Score:
    """Return the score of `made`, float [N, 1, 1, 4] in [-1, 1], by its `distance` from the pattern, up to 2:
    the share of `made` whose four numbers are all as near to it as in real images."""
    distance = (made - made.new_tensor([1, -1, 1, -1])).abs()
    share = (distance <= TOLERANCE).flatten(1).all(1).double().mean().item()
    return Score(share, {"distance": distance.mean().item()})
