"""DCGAN: a GAN of convolutions that trains (Radford et al. 2016, 1511.06434).

    python -m trials.dcgan --data mnist                                   # digits, 32 px
    python -m trials.dcgan --data data/faces --judge models/faces.pt      # a folder of images, 64 px
    python -m trials.dcgan --data data/monet2photo --judge models/judge.pt --discriminator-lr 4e-4
    python -m trials.dcgan --data mnist --discriminator-threshold 0.5     # lets G catch up

G makes images of noise z, D tells real ones from G's, in turns:

    D    -log D(x) - log(1 - D(G(z)))                       Goodfellow et al. 2014 (1406.2661), equation 1
    G    -log D(G(z))                                       the same, section 3
    architecture, initial weights, Adam, batch              1511.06434, figure 1, sections 3 and 4
    two rates, that of D the higher one (TTUR)              Heusel et al. 2017 (1706.08500), section 2
    --growing: the resolution grows from 8 px               Karras et al. 2018 (1710.10196), section 2

Digits, and images in a folder for each class, are scored by a classifier trained on them. Where all are
of one class, faces or paintings, a judge scores them that was trained to tell them from something else
(python -m judge train --paintings DIR --photos DIR).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from judge import class_score, model
from judge.class_score import ClassScorer
from judge.common.cli import Beta, Fraction, LearningRate, PositiveInt, UnitInterval, Weight
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import to_float
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
from judge.score import MIN_IMAGES, Scorer
from trials.parts.batches import epoch_indices
from trials.parts.losses import bce
from trials.parts.networks import DcganDiscriminator, DcganGenerator, GrowingDiscriminator, GrowingGenerator
from trials.parts.sheets import sheet, sheet_pixels
from trials.session.records import DiskUse
from trials.session.session import Checkpointed, Scheduled, Session, run


class Preset(NamedTuple):
    """What goes with the data."""

    edge: int  # pixels
    ngf: int  # generator features
    ndf: int  # discriminator features
    steps: int  # the full schedule
    samples: int  # outputs that are scored


# Folders have the published networks: figure 1 for G, the authors' code for D.
PRESETS = {
    #                    edge  ngf  ndf   steps  samples
    DIGITS: Preset(8,   64,  32,  2_000,   400),
    MNIST:  Preset(32,  32,  32,  8_000, 1_000),
    FOLDER: Preset(64, 128,  64, 25_000,   256),
}  # fmt: skip


PUBLISHED = (DcganGenerator, DcganDiscriminator)
GROWING = (GrowingGenerator, GrowingDiscriminator)


@dataclass(frozen=True)
class Settings(Scheduled):
    """What a trial computes. Defaults are the published ones; None is what the data says."""

    data: str = "auto"
    """digits (8 px, built in), mnist (32 px, downloaded on first use), or a folder: of images, with a
    subfolder for each class, or in CycleGAN's layout, whose paintings are taken; auto is mnist where it
    is in data/ and digits otherwise."""
    judge: str = model.DEFAULT_FILE
    """File of the judge that scores images that are all of one class."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. A trial goes on when started again with more."""
    seed: int = 0
    """Of initial weights, batches and noise."""

    generator_lr: LearningRate = 2e-4
    """Adam's learning rate for G (section 4)."""
    discriminator_lr: LearningRate = 2e-4
    """Adam's learning rate for D (section 4)."""
    beta1: Beta = 0.5
    """Adam's first decay (section 4)."""
    batch_size: PositiveInt = 128
    """Real images a step, and as many of G's (section 4)."""
    latent_size: PositiveInt = 100
    """Numbers in z, uniform between -1 and 1 (figure 1)."""
    discriminator_threshold: Weight = 0.0
    """A discriminator whose loss is under this is not updated in that step. 0 never skips."""
    growing: UnitInterval = 0.0
    """First share of the schedule over which the resolution grows from 8 px (Karras et al. 2018, 1710.10196,
    section 2): by turns a size is trained and the next one faded in. 0 has them all from the start."""
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
            UserError: as `completed`, or nothing to grow.
        """
        complete = completed(self)
        if complete.growing and complete.edge == 8:
            raise UserError(f"--growing {complete.growing}: images of 8 px have nothing to grow from")
        return complete

    def describe_inputs(self) -> dict[str, str]:
        """What a trial trains on and is scored by, in words."""
        folder = data_kind(self.data) == FOLDER
        return {"data": describe_data(self.data), "size": f"{self.edge} px",
                "judge": self.judge if folder else "a classifier trained on the data"}


def completed(settings: Settings) -> Settings:
    """`settings` with what the data decides.

    Raises:
        UserError: an edge that the networks or the data cannot have, or too few outputs to score.
    """
    s, data = settings, resolve_labelled_name(settings.data)
    kind, preset = data_kind(data), PRESETS[data_kind(data)]
    if s.samples is not None and s.samples < MIN_IMAGES:
        raise UserError(f"--samples {s.samples}: a score takes at least {MIN_IMAGES}")
    if s.edge and (s.edge < 8 or s.edge & (s.edge - 1)):
        raise UserError(f"--edge {s.edge}: a power of two from 8")
    if s.edge and kind != FOLDER and s.edge != preset.edge:
        raise UserError(f"--edge {s.edge}: images of {data} have {preset.edge} px")
    unset = {name: value for name, value in preset._asdict().items() if getattr(s, name) is None}
    return replace(s, data=data, **unset)


# ---------------------------------------------------------------------------------------------
# Model


class DCGAN(Checkpointed):
    """Networks, optimisers and step: all that the next step depends on.

    Args:
        settings: complete.
        shape: of an image, [C, edge, edge].
    """

    parts = ("G", "D", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Settings, shape: tuple[int, int, int], device: torch.device):
        self.settings, self.device, s = settings, device, settings
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every device
            torch.set_rng_state(rng(s.seed, "networks").get_state())
            generator_of, discriminator_of = GROWING if s.growing else PUBLISHED
            self.G = generator_of(s.latent_size, s.ngf, shape).to(device)
            self.D = discriminator_of(s.ndf, shape).to(device)
        betas = (s.beta1, 0.999)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), s.generator_lr, betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), s.discriminator_lr, betas, fused=True)
        self._grow()

    def update(self, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of D and one of G on `real`, float [N, C, edge, edge] in [-1, 1]; returns each loss by
        name."""
        fake = self.G(self.noise(len(real), "step", self.step))
        # Not in one call: batch normalisation would let real and fake meet.
        losses = {"discriminator": bce(self.D(real), True) + bce(self.D(fake.detach()), False)}
        threshold = self.settings.discriminator_threshold
        if not threshold or losses["discriminator"].item() >= threshold:
            self.optimizer_D.zero_grad()  # of what G's loss left there too
            losses["discriminator"].backward()
            self.optimizer_D.step()

        losses["generator"] = bce(self.D(fake), True)
        self.optimizer_G.zero_grad()
        losses["generator"].backward()
        self.optimizer_G.step()
        self.step += 1
        self._grow()
        return losses

    def _grow(self) -> None:
        """Bring the networks to the resolution of the step."""
        if self.settings.growing:
            s, levels = self.settings, len(self.G.blocks)
            self.G.place = self.D.place = place(self.step / (s.steps * s.growing), levels)

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        self._grow()

    def noise(self, count: int, *place: int | str) -> torch.Tensor:
        """z of `count` images, [count, latent_size] in [-1, 1], the same at the same place."""
        draw = rng(self.settings.seed, "noise", *place)
        return (torch.rand(count, self.settings.latent_size, generator=draw) * 2 - 1).to(self.device)

    @torch.no_grad()
    def make(self, count: int, batch: int = 250) -> torch.Tensor:
        """Images of the same z each time, float [count, C, edge, edge] in [-1, 1]."""
        self.G.eval()  # an image does not depend on those beside it
        made = torch.cat([self.G(z) for z in self.noise(count, "fixed").split(batch)])
        self.G.train()
        return made


def place(share: float, levels: int) -> float:
    """How many of `levels` doublings are made after a share of the time for them: each size is trained for
    as long as it takes to fade the next one in, but for the last, which has the time that follows."""
    level, part = divmod(2 * levels * min(share, 1), 2)
    return min(levels, level + max(0.0, part - 1))


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, reporting what a classifier or a judge says of G's outputs."""
    device = session.device
    data, scorer, judge = load_inputs(settings, device)
    session.record_inputs(data=data.summary(), judge=judge)
    net = DCGAN(settings, data.shape, device)
    session.restore(net)
    last, every = settings.last_step(), settings.report_interval()
    print(f"DCGAN, {settings.edge} px, {describe_data(data.name)}, {last} of {settings.steps} steps")
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
    net = DCGAN(settings, data.shape, cpu)
    return net.footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> tuple[LabelledImages, ClassScorer | Scorer, dict]:
    """The data, what scores, and what to record of that.

    Raises:
        UserError: the data cannot be had; of one class, and no judge, or one of another size.
    """
    data = load_labelled(settings.data, settings.edge)
    if len(data.classes) > 1:
        return data, *class_score.class_scorer(data, device)
    judge, card = model.load_judge(settings.judge, device, settings.edge)
    return data, Scorer(judge, None, to_float(data.test_pixels).to(device)), card.summary(settings.judge)


if __name__ == "__main__":
    run(train, Settings)
