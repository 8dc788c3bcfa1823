"""The training of the conditional GAN; `trials/conditional_gan.py` has the losses and the settings."""

from functools import partial

import torch
from torch.nn.functional import one_hot

from judge.common.errors import UserError
from judge.common.rng import seeded
from judge.labelled import LabelledImages, load_labelled
from trials.conditional_gan import Settings
from trials.parts.gan_base import Inputs, NoiseGAN, add_class_scorer, minimise, train_on_images
from trials.parts.losses import bce
from trials.parts.networks import DcganDiscriminator, DcganGenerator, with_planes
from trials.parts.sheets import COLUMNS, ROWS, sheet_pixels
from trials.session import DiskUse, Session


class ConditionalGAN(NoiseGAN):
    """DCGAN's networks for images of a `shape` [C, edge, edge], with inputs for the class, one of `count`."""

    def __init__(self, settings: Settings, shape: tuple[int, int, int], count: int, device: torch.device):
        self.count, s = count, settings
        channels, *size = shape
        with seeded(s.seed, "networks"):
            G = DcganGenerator(s.latent_size + count, s.ngf, shape)
            D = DcganDiscriminator(s.ndf, (channels + count, *size))
        super().__init__(settings, G, D, device)

    def update(self, real: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take one step of D and one of G, on real and generated images of the same classes."""
        z = self.noise(len(real), "step", self.step)
        fake = self.G(self.with_class(z, labels))
        # Two calls of D: in one, batch normalisation would mix real and generated images.
        loss_D = bce(self.D_of(real, labels), True) + bce(self.D_of(fake.detach(), labels), False)
        minimise(loss_D, self.optimizer_D)
        loss_G = bce(self.D_of(fake, labels), True)
        minimise(loss_G, self.optimizer_G)
        self.end_step()
        return {"discriminator": loss_D, "generator": loss_G}

    def with_class(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return z|y, [N, latent_size + count]."""
        return torch.cat([z, one_hot(labels, self.count).float()], 1)

    def D_of(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the logit of D(x|y), [N, 1]."""
        return self.D(with_planes(images, labels, self.count))

    @torch.no_grad()
    def make(self, labels: torch.Tensor) -> torch.Tensor:
        """Return images in [-1, 1] of the classes `labels`, int64 [N], and of the same z each time."""
        return self.generate_in_batches(self.with_class(self.noise(len(labels), "fixed"), labels))


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, and report how many of G's outputs are what was asked for, and how good."""
    data, scorer, facts = load_inputs(settings, session.device)
    session.record.add_inputs(**facts)
    count = len(data.classes)
    net = ConditionalGAN(settings, data.shape, count, session.device)
    asked = torch.arange(settings.samples, device=session.device) % count
    train_on_images(
        session, net, data, partial(scorer, asked=asked), title=f"Conditional GAN, {settings.edge} px",
        samples=asked, shown=one_of_each(data, ROWS * COLUMNS), columns=count * max(1, COLUMNS // count),
    )  # fmt: skip


def check(settings: Settings) -> DiskUse:
    """Return what a trial leaves on the disk. Raises UserError as `load_data` does."""
    data = load_data(settings)
    net = ConditionalGAN(settings, data.shape, len(data.classes), torch.device("cpu"))
    return net.footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> Inputs:
    """Return what the trial is trained on and scored by. Raises UserError as `load_data` does."""
    return add_class_scorer(load_data(settings), device)


def load_data(settings: Settings) -> LabelledImages:
    """Return the training data. Raises UserError if it cannot be loaded or has one class only."""
    data = load_labelled(settings.data, settings.edge)
    if len(data.classes) < 2:
        raise UserError(f"{settings.data} has one class: give a folder with a subfolder for each class")
    return data


def one_of_each(data: LabelledImages, least: int) -> torch.Tensor:
    """Return at least `least` test images, class after class and again from the first: uint8 [N, C, H, W]."""
    by_class = [data.test_pixels[data.test_labels == label] for label in range(len(data.classes))]
    rounds = -(-least // len(by_class))
    return torch.stack([pixels[i % len(pixels)] for i in range(rounds) for pixels in by_class])
