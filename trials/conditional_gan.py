"""A conditional GAN: it makes what it is asked for (Mirza and Osindero 2014, 1411.1784).

    python -m trials.conditional_gan --data mnist                    # the digit asked for
    python -m trials.conditional_gan --data data/fruit --edge 64     # a subfolder for each class

As the DCGAN, but G and D are both told the class y, as one number for each class, 0 or 1: beside the
noise for G, as one plane for each class beside the image for D.

    D    -log D(x|y) - log(1 - D(G(z|y)|y))                 equation 2
    G    -log D(G(z|y)|y)                                   Goodfellow et al. 2014 (1406.2661), section 3
    architecture, initial weights, Adam, batch              DCGAN (1511.06434), sections 3 and 4
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import one_hot

from judge import class_score
from judge.class_score import ClassScorer
from judge.common.cli import Beta, Fraction, LearningRate, PositiveInt
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import to_float
from judge.labelled import LabelledImages, describe_data, load_labelled
from trials.dcgan import completed
from trials.parts.batches import epoch_indices
from trials.parts.losses import bce
from trials.parts.networks import DcganDiscriminator, DcganGenerator, with_planes
from trials.parts.sheets import COLUMNS, ROWS, sheet, sheet_pixels
from trials.session.records import DiskUse
from trials.session.session import Checkpointed, Scheduled, Session, run


@dataclass(frozen=True)
class Settings(Scheduled):
    """What a trial computes. Defaults are DCGAN's; None is what the data says, as for it."""

    data: str = "auto"
    """digits (8 px, built in), mnist (32 px, downloaded on first use), or a folder with a subfolder of
    images for each class; auto is mnist where it is in data/ and digits otherwise."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. A trial goes on when started again with more."""
    seed: int = 0
    """Of initial weights, batches and noise."""

    generator_lr: LearningRate = 2e-4
    """Adam's learning rate for G (1511.06434, section 4)."""
    discriminator_lr: LearningRate = 2e-4
    """Adam's learning rate for D (1511.06434, section 4)."""
    beta1: Beta = 0.5
    """Adam's first decay (1511.06434, section 4)."""
    batch_size: PositiveInt = 128
    """Real images a step, and as many of G's of the same classes (1511.06434, section 4)."""
    latent_size: PositiveInt = 100
    """Numbers in z (section 4.1), uniform between -1 and 1."""
    reports: PositiveInt = 20
    """Reports over the full schedule."""

    edge: PositiveInt | None = None
    """Pixels of a folder's images, a power of two from 8."""
    ngf: PositiveInt | None = None
    """Generator features before its last layer."""
    ndf: PositiveInt | None = None
    """Discriminator features after its first layer."""
    steps: PositiveInt | None = None
    """The full schedule in steps."""
    samples: PositiveInt | None = None
    """Outputs that are scored at a report."""

    def complete(self, device: torch.device) -> "Settings":
        """These settings with everything filled in that the data decides.

        Raises:
            UserError: as `trials.dcgan.completed`.
        """
        return completed(self)

    def describe_inputs(self) -> dict[str, str]:
        """What a trial trains on and is scored by, in words."""
        return {"data": describe_data(self.data), "size": f"{self.edge} px",
                "judge": "a classifier trained on the data"}


# ---------------------------------------------------------------------------------------------
# Model


class ConditionalGAN(Checkpointed):
    """Networks, optimisers and step: all that the next step depends on.

    Args:
        settings: complete.
        shape: of an image, [C, edge, edge].
        count: of classes.
    """

    parts = ("G", "D", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Settings, shape: tuple[int, int, int], count: int, device: torch.device):
        self.settings, self.count, self.device, s = settings, count, device, settings
        colours, *edges = shape
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every device
            torch.set_rng_state(rng(s.seed, "networks").get_state())
            self.G = DcganGenerator(s.latent_size + count, s.ngf, shape).to(device)
            self.D = DcganDiscriminator(s.ndf, (colours + count, *edges)).to(device)
        betas = (s.beta1, 0.999)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), s.generator_lr, betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), s.discriminator_lr, betas, fused=True)

    def update(self, real: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of D and one of G on `real`, float [N, C, edge, edge] in [-1, 1], of the classes
        `labels`, int64 [N]; returns each loss by name."""
        fake = self.generate(self.noise(len(real), "step", self.step), labels)
        # Not in one call: batch normalisation would let real and fake meet.
        on_real, on_fake = self.discriminate(real, labels), self.discriminate(fake.detach(), labels)
        losses = {"discriminator": bce(on_real, True) + bce(on_fake, False)}
        self.optimizer_D.zero_grad()  # of what G's loss left there too
        losses["discriminator"].backward()
        self.optimizer_D.step()

        losses["generator"] = bce(self.discriminate(fake, labels), True)
        self.optimizer_G.zero_grad()
        losses["generator"].backward()
        self.optimizer_G.step()
        self.step += 1
        return losses

    def generate(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """G(z|y), [N, C, edge, edge]."""
        return self.G(torch.cat([z, one_hot(labels, self.count).float()], 1))

    def discriminate(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The logit of D(x|y), [N, 1]."""
        return self.D(with_planes(images, labels, self.count))

    def noise(self, count: int, *place: int | str) -> torch.Tensor:
        """z of `count` images, [count, latent_size] in [-1, 1], the same at the same place."""
        draw = rng(self.settings.seed, "noise", *place)
        return (torch.rand(count, self.settings.latent_size, generator=draw) * 2 - 1).to(self.device)

    @torch.no_grad()
    def make(self, labels: torch.Tensor, batch: int = 250) -> torch.Tensor:
        """Images of the classes `labels`, int64 [N], and of the same z each time, float [N, C, edge, edge]
        in [-1, 1]."""
        self.G.eval()  # an image does not depend on those beside it
        z = self.noise(len(labels), "fixed")
        made = torch.cat([self.generate(*part) for part in zip(z.split(batch), labels.split(batch))])
        self.G.train()
        return made


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, reporting what a classifier or a judge says of G's outputs."""
    device = session.device
    data, scorer, judge = load_inputs(settings, device)
    session.record_inputs(data=data.summary(), judge=judge)
    net = ConditionalGAN(settings, data.shape, len(data.classes), device)
    session.restore(net)
    last, every = settings.last_step(), settings.report_interval()
    notice = describe_data(data.name)
    print(f"Conditional GAN, {settings.edge} px, {notice}, {last} of {settings.steps} steps")
    pixels, labels = data.pixels.to(device), data.labels.to(device)
    asked = torch.arange(settings.samples, device=device) % len(data.classes)
    shown = to_float(one_of_each(data, ROWS * COLUMNS)).to(device)
    columns = len(data.classes) * max(1, COLUMNS // len(data.classes))

    for step in session.steps(net, last):
        chosen = epoch_indices(settings.seed, "real", step, settings.batch_size, len(pixels))
        session.add_losses(net.update(to_float(pixels[chosen]), labels[chosen]))
        if session.is_report_due(net.step, every, last):
            with session.scoring():
                made = net.make(asked)
                score = scorer(made, asked)
            session.save_paintings(net.step, made)
            session.report(net, score, sheet(shown, made, columns))


def check(settings: Settings) -> DiskUse:
    """What a trial of these settings leaves on the disk, once all is there that it needs; trains the
    classifier.

    Raises:
        UserError: as `inputs`.
    """
    cpu = torch.device("cpu")
    data, *_ = load_inputs(settings, cpu)
    net = ConditionalGAN(settings, data.shape, len(data.classes), cpu)
    return net.footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> tuple[LabelledImages, ClassScorer, dict]:
    """The data, what scores, and what to record of that.

    Raises:
        UserError: the data cannot be had, or is of one class.
    """
    data = load_labelled(settings.data, settings.edge)
    if len(data.classes) < 2:
        raise UserError(f"{settings.data} has one class: give a folder with a subfolder for each")
    return data, *class_score.class_scorer(data, device)


def one_of_each(data: LabelledImages, least: int) -> torch.Tensor:
    """Real images, class after class and again from the first, at least so many: uint8 [N, C, H, W]."""
    of_class = [data.test_pixels[data.test_labels == label] for label in range(len(data.classes))]
    rounds = -(-least // len(of_class))
    return torch.stack([found[at % len(found)] for at in range(rounds) for found in of_class])


if __name__ == "__main__":
    run(train, Settings)
