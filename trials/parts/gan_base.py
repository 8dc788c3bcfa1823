"""What the GANs share: the model's state, and the training loop of those that start from noise."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from judge.class_score import class_scorer
from judge.common.rng import rng
from judge.images import to_float
from judge.labelled import LabelledImages, describe_data
from judge.score import Score
from trials.parts.batches import epoch_indices, place, send
from trials.parts.ema import Averaged
from trials.parts.sheets import COLUMNS, ROWS, sheet
from trials.session import Session

# Training data, a scorer of generated images, and the facts of both for run.json, by name
Inputs = tuple[LabelledImages, Callable[..., Score], dict[str, dict]]


def add_class_scorer(data: LabelledImages, device: torch.device) -> Inputs:
    """Return `data`, and a scorer of images of its classes, by a classifier trained on it."""
    scorer, judge = class_scorer(data, device)
    return data, scorer, {"data": data.summary(), "judge": judge}


def minimise(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take one step of `optimizer` down the gradient of `loss` alone, whatever an earlier loss has left."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class NoiseGAN(Averaged):
    """A generator of images from noise, a discriminator, their optimisers and the step.

    `G_average` makes the images that are scored: G itself, or with --ema its moving average.

    A subclass makes the networks and adds `update(real, labels)`, which takes one step on real images, float
    [N, C, H, W] in [-1, 1], of the classes `labels`, int64 [N], and returns each loss by name. G makes such
    images of z, [N, latent_size], and D returns logits of being real, [N, 1]; both may see the class too.
    """

    parts = ("G", "D", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Any, G: nn.Module, D: nn.Module, device: torch.device):
        self.settings, self.device = settings, device
        self.G, self.D = G.to(device), D.to(device)
        self.start_averages()
        self.optimizer_G = self.optimizer(self.G, settings.generator_lr)
        self.optimizer_D = self.optimizer(self.D, settings.discriminator_lr)

    def optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Return Adam for the weights of `network`."""
        return torch.optim.Adam(network.parameters(), lr, (self.settings.beta1, 0.999), fused=True)

    def noise(self, count: int, *key: int | str) -> torch.Tensor:
        """Return z of `count` images, uniform in [-1, 1], [count, latent_size]; the same for the same key."""
        source = rng(self.settings.seed, "noise", *key)
        return (torch.rand(count, self.settings.latent_size, generator=source) * 2 - 1).to(self.device)

    @torch.no_grad()
    def make(self, count: int) -> torch.Tensor:
        """Return images of the same z each time, float [count, C, H, W] in [-1, 1]."""
        return self.generate_in_batches(self.noise(count, "fixed"))

    def generate_in_batches(self, inputs: torch.Tensor, batch: int = 250) -> torch.Tensor:
        """Return G_average(inputs), [N, C, H, W], none of which depends on the others."""
        G, was_training = self.G_average, self.G_average.training
        G.eval()  # batch normalisation by its running means
        images = torch.cat([G(part) for part in inputs.split(batch)])
        G.train(was_training)
        return images


def train_on_images(
    session: Session, net: NoiseGAN, data: LabelledImages, scorer: Callable[[torch.Tensor], Score], *,
    title: str, samples: Any, shown: torch.Tensor | None = None, columns: int = COLUMNS,
) -> None:
    """Train `net` on `data` to the end of its budget; at each report score `net.make(samples)`, and show real
    images above them: `shown`, uint8 [N, C, H, W], or else the first test images."""
    settings, device = net.settings, session.device
    session.restore(net)
    last = settings.last_step()
    print(f"{title}, {describe_data(data.name)}, {last} of {settings.steps} steps")
    [pixels], labels = place([data.pixels], device), data.labels.to(device)
    shown = to_float(data.test_pixels[: ROWS * COLUMNS] if shown is None else shown).to(device)

    for step in session.steps(net, last, settings.report_interval()):
        batch = epoch_indices(settings.seed, "real", step, settings.batch_size, len(pixels))
        session.add_losses(net.update(to_float(send(pixels[batch], device)), labels[batch]))
        if session.report_due(net):
            with session.scoring():
                made = net.make(samples)
                score = scorer(made)
            session.report(net, score, made, sheet(shown, made, columns))
