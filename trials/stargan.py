"""StarGAN: one generator for several domains (Choi et al. 2018, 1711.09020).

    python -m trials.stargan --data data/art --threads 1      # a subfolder of images for each domain
    python -m trials.stargan --data data/monet2photo          # two domains in CycleGAN's layout
    python -m trials.stargan --budget 0.1 --reconstruction-weight 5

G is told the domain c that an image x is to be of, and later its own c', to come back; D tells real
images from G's (D_src, a critic) and of which domain an image is (D_cls).

    D    E D_src(G(x,c)) - E D_src(x) + 10 E(|grad D_src(between)| - 1)^2      equation 8 (WGAN-GP)
         + cross entropy of D_cls(x) with c'                                  equations 2 and 5
    G    -E D_src(G(x,c)) + cross entropy of D_cls(G(x,c)) with c             equations 3 and 6
         + 10 |x - G(G(x,c),c')|                                              equation 4

A step is Gulrajani et al.'s (1704.00028, algorithm 1): `n_critic` updates of D, each on a batch of its
own, then one of G. A classifier trained on the data scores held-out images, each made to be of another
domain than its own.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import cross_entropy, l1_loss

from judge import images
from judge.class_score import TranslationScorer
from judge.classifier import TrainedClassifier, load_or_train
from judge.common.cli import Beta, Fraction, LearningRate, PositiveInt, Weight
from judge.common.device import supports_bf16
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import to_float
from judge.labelled import LabelledImages, load_domains
from judge.score import MIN_IMAGES
from trials.parts.batches import epoch_indices
from trials.parts.losses import gradient_penalty
from trials.parts.networks import StarganDiscriminator, StarganGenerator, with_planes
from trials.parts.schedule import decay_factor, set_lr
from trials.parts.sheets import COLUMNS, sheet, sheet_pixels
from trials.session.records import DiskUse
from trials.session.session import Checkpointed, Scheduled, Session, run


class Preset(NamedTuple):
    """What goes with a size."""

    edge: int  # pixels
    ngf: int  # generator features
    blocks: int  # residual blocks
    ndf: int  # discriminator features
    layers: int  # of the discriminator
    steps: int  # the full schedule
    samples: int  # held-out images of each domain that are translated and scored


# `paper` is the published recipe: 200,000 iterations of D in the authors' code.
PRESETS = {
    #                edge  ngf  blocks  ndf  layers   steps  samples
    "sketch": Preset(64,   16,       3,  16,      5,  1_000,      32),
    "paper":  Preset(128,  64,       6,  64,      6, 40_000,      64),
}  # fmt: skip


@dataclass(frozen=True)
class Settings(Scheduled):
    """What a trial computes. Defaults are the published ones; None is what the size says."""

    data: str = "auto"
    """monet2photo, sample, or a folder: in CycleGAN's layout, of two domains, or with a subfolder of
    images for each domain; auto is data/monet2photo where it is and the built-in sample otherwise."""
    size: Literal[("auto", *PRESETS)] = "auto"
    """Pixels, networks and schedule: sketch 64 px, paper 128 px as published; auto is sketch without a
    GPU and paper with one."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. A trial goes on when started again with more."""
    seed: int = 0
    """Of initial weights, batches, targets and what lies between real and fake."""

    domain_weight: Weight = 1.0
    """Of the domain classification losses of D and G, lambda_cls (equations 5 and 6)."""
    reconstruction_weight: Weight = 10.0
    """Of the reconstruction loss, lambda_rec (equation 6)."""
    penalty_weight: Weight = 10.0
    """Of the gradient penalty, lambda_gp (equation 8)."""
    n_critic: PositiveInt = 5
    """Updates of D for each of G (section 5.3)."""
    generator_lr: LearningRate = 1e-4
    """Adam's learning rate for G (section 5.3)."""
    discriminator_lr: LearningRate = 1e-4
    """Adam's learning rate for D (section 5.3)."""
    beta1: Beta = 0.5
    """Adam's first decay (section 5.3)."""
    beta2: Beta = 0.999
    """Adam's second decay (section 5.3)."""
    batch_size: PositiveInt = 16
    """Images an update of D or G (section 5.3)."""
    decay: Fraction = 0.5
    """Last share of the schedule over which the rates fall linearly to 0 (10 of 20 epochs)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of G's arithmetic in training; auto is bf16 where the device computes in it. D, whose gradient is
    itself differentiated, weights, optimisers and what is scored stay fp32."""
    reports: PositiveInt = 20
    """Reports over the full schedule."""

    edge: PositiveInt | None = None
    """Pixels of the images, a power of two from 32."""
    ngf: PositiveInt | None = None
    """Generator features after the first convolution."""
    blocks: PositiveInt | None = None
    """Residual blocks of the generator."""
    ndf: PositiveInt | None = None
    """Discriminator features after the first convolution."""
    layers: PositiveInt | None = None
    """Convolutions of the discriminator, each of which halves the edge."""
    steps: PositiveInt | None = None
    """The full schedule in steps, updates of G."""
    samples: PositiveInt | None = None
    """Held-out images of each domain that are translated and scored at a report, if there are so many."""

    def complete(self, device: torch.device) -> "Settings":
        """These settings with everything filled in that the size decides.

        Raises:
            UserError: an edge that the networks cannot have, or too few images to score.
        """
        if self.samples is not None and self.samples < MIN_IMAGES:
            raise UserError(f"--samples {self.samples}: a score takes at least {MIN_IMAGES}")
        size = images.default_size(device) if self.size == "auto" else self.size
        preset = PRESETS[size]._asdict()
        unset = {name: value for name, value in preset.items() if getattr(self, name) is None}
        if self.precision == "auto":
            unset["precision"] = "bf16" if supports_bf16(device) else "fp32"
        s = replace(self, size=size, data=images.resolve_name(self.data), **unset)
        if s.edge < 32 or s.edge & (s.edge - 1):
            raise UserError(f"--edge {s.edge}: a power of two from 32")
        if s.edge < 2**s.layers:
            raise UserError(f"--layers {s.layers}: {s.edge} px cannot be halved so often")
        return s

    def describe_inputs(self) -> dict[str, str]:
        """What a trial trains on and is scored by, in words."""
        return {"data": self.data, "size": f"{self.edge} px", "judge": "a classifier trained on the data"}


# ---------------------------------------------------------------------------------------------
# Model


class StarGAN(Checkpointed):
    """Networks, optimisers and step: all that the next step depends on.

    Args:
        settings: complete.
        domains: how many.
    """

    parts = ("G", "D", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Settings, domains: int, device: torch.device):
        self.settings, self.domains, self.device, s = settings, domains, device, settings
        # How images lie in memory follows the weights; a CPU convolves faster so.
        layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=s.precision == "bf16")
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every device
            torch.set_rng_state(rng(s.seed, "networks").get_state())
            self.G = StarganGenerator(s.ngf, s.blocks, domains).to(device, memory_format=layout)
            self.D = StarganDiscriminator(s.ndf, s.layers, domains, s.edge).to(device, memory_format=layout)
        betas = (s.beta1, s.beta2)  # rates are set anew at each step
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), betas=betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), betas=betas, fused=True)

    def update(self, real: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step on `real`, float [n_critic x N, 3, edge, edge] in [-1, 1], of the domains `labels`, int64
        [n_critic x N]: a batch for each update of D, the last also for G's. Returns each loss of the last
        by name, unweighted."""
        s = self.settings
        factor = decay_factor(self.step, s.steps, s.decay)
        set_lr(self.optimizer_G, s.generator_lr * factor)
        set_lr(self.optimizer_D, s.discriminator_lr * factor)
        draw = rng(s.seed, "update", self.step)
        self.D.requires_grad_(True)
        for x, own in zip(real.chunk(s.n_critic), labels.chunk(s.n_critic), strict=True):
            # The batch's own domains in another order, as in the authors' code: G's images are of each
            # domain as often as real ones, so that this tells D nothing.
            asked = own[torch.randperm(len(own), generator=draw).to(own.device)]
            share = torch.rand(len(x), 1, 1, 1, generator=draw).to(x.device)
            losses = self._update_discriminator(x, own, asked, share)
        self.D.requires_grad_(False)  # gradients pass through, none are kept
        losses |= self._update_generator(x, own, asked)
        self.step += 1
        return losses

    def _update_discriminator(self, x, own, asked, share) -> dict[str, torch.Tensor]:
        s = self.settings
        with torch.no_grad():
            fake = self.translate(x, asked)
        on_real, domain = self.D(x)
        on_fake, _ = self.D(fake)
        losses = {
            "critic": on_fake.mean() - on_real.mean(),
            "penalty": gradient_penalty(lambda between: self.D(between)[0], x, fake, share),
            "domain_real": cross_entropy(domain, own),
        }
        self.optimizer_D.zero_grad()
        (losses["critic"] + s.penalty_weight * losses["penalty"]
         + s.domain_weight * losses["domain_real"]).backward()  # fmt: skip
        self.optimizer_D.step()
        return losses

    def _update_generator(self, x, own, asked) -> dict[str, torch.Tensor]:
        s = self.settings
        fake = self.translate(x, asked)
        on_fake, domain = self.D(fake)
        losses = {
            "adversarial": -on_fake.mean(),
            "domain_fake": cross_entropy(domain, asked),
            "reconstruction": l1_loss(self.translate(fake, own), x),
        }
        self.optimizer_G.zero_grad()
        (losses["adversarial"] + s.domain_weight * losses["domain_fake"]
         + s.reconstruction_weight * losses["reconstruction"]).backward()  # fmt: skip
        self.optimizer_G.step()
        return losses

    def translate(self, x: torch.Tensor, domains: torch.Tensor) -> torch.Tensor:
        """G(x, c): images as of the domains c, int64 [N], float [N, 3, edge, edge] in [-1, 1] both."""
        with self.autocast:
            return self.G(with_planes(x, domains, self.domains)).float()

    @torch.no_grad()
    def make(self, sources: torch.Tensor, targets: torch.Tensor, batch: int = 16) -> torch.Tensor:
        """As `translate`, of many images and in fp32."""
        parts = zip(sources.split(batch), targets.split(batch))
        return torch.cat([self.G(with_planes(*part, self.domains)) for part in parts])


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, reporting what a classifier says of held-out images translated."""
    device = session.device
    data, trained = load_inputs(settings, device)
    session.record_inputs(data=data.summary(), judge=trained.summary(data))
    count = len(data.classes)
    net = StarGAN(settings, count, device)
    session.restore(net)
    last, every = settings.last_step(), settings.report_interval()
    named = f"{data.name}: {', '.join(data.classes)}"
    print(f"StarGAN, {settings.edge} px, {named}, {last} of {settings.steps} steps")
    pixels, labels = data.pixels.to(device), data.labels.to(device)
    chosen, targets = held_out(data.test_labels, settings.samples)
    sources, targets = to_float(data.test_pixels[chosen]).to(device), targets.to(device)
    scorer = TranslationScorer(
        trained.network, sources, data.test_labels[chosen].to(device), targets, data.classes)
    pairs = count * (count - 1)

    for step in session.steps(net, last):
        views = settings.n_critic * settings.batch_size
        at = epoch_indices(settings.seed, "real", step, views, len(pixels))
        session.add_losses(net.update(flipped(to_float(pixels[at]), settings.seed, step), labels[at]))
        if session.is_report_due(net.step, every, last):
            with session.scoring():
                made = net.make(sources, targets)
                score = scorer(made)
            session.save_paintings(net.step, made)
            session.report(
                net, score, sheet(sources, made, pairs * max(1, COLUMNS // pairs)),
                lr_factor=decay_factor(step, settings.steps, settings.decay),
            )  # fmt: skip


def check(settings: Settings) -> DiskUse:
    """What a trial of these settings leaves on the disk, once all is there that it needs; trains the
    classifier.

    Raises:
        UserError: as `inputs`.
    """
    cpu = torch.device("cpu")
    data, _ = load_inputs(settings, cpu)
    net = StarGAN(settings, len(data.classes), cpu)
    return net.footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> tuple[LabelledImages, TrainedClassifier]:
    """The data, and what tells its domains apart.

    Raises:
        UserError: the data cannot be had, or is of one domain.
    """
    data = load_domains(settings.data, settings.edge)
    return data, load_or_train(data, device)


def held_out(labels: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which images of `labels`, int64 [M], are translated, and to what: two of int64 [K x N].

    As many of each of the K domains, up to `most`, spread evenly; domain after domain and again from the
    first, so that pairs of domains come back every K x (K - 1) images.
    """
    of_domain = [(labels == domain).nonzero()[:, 0] for domain in labels.unique()]
    count = min(most, *map(len, of_domain))
    chosen = torch.stack([found[torch.arange(count) * len(found) // count] for found in of_domain], 1)
    own, turn = torch.arange(len(of_domain)), torch.arange(count)[:, None] % (len(of_domain) - 1)
    return chosen.flatten(), ((own + 1 + turn) % len(of_domain)).flatten()


def flipped(batch: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Each image of `batch`, [N, C, H, W], mirrored with probability 0.5 (section 5.3)."""
    mirrored = torch.rand(len(batch), 1, 1, 1, generator=rng(seed, "flips", step)) < 0.5
    return torch.where(mirrored.to(batch.device), batch.flip(-1), batch)


if __name__ == "__main__":
    run(train, Settings)
