"""CycleGAN, photographs to paintings and back (Zhu et al. 2017, 1703.10593).

    python -m trials.cyclegan --data data/monet2photo --judge models/judge.pt
    python -m trials.cyclegan --budget 0.1 --identity-weight 2    # the first tenth of the schedule

A is the paintings, B the photographs, as in `monet2photo`. G_BA paints: B -> A (the paper's F), G_AB
goes back (the paper's G); D_A tells paintings from painted photographs, D_B the other way round.

    adversarial   LSGAN: D_A(G_BA(b)) -> 1, D_B(G_AB(a)) -> 1          equation 1, section 4
    cycle         |G_AB(G_BA(b)) - b| and |G_BA(G_AB(a)) - a|          equation 2
    identity      |G_BA(a) - a| and |G_AB(b) - b|                      section 5.2, L_identity
    D             half of (D_A(a) - 1)^2 + D_A(earlier fakes)^2        section 4; pool: section 4
"""

from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.functional import l1_loss
from torchvision.utils import make_grid

from judge import images, model
from judge.common.cli import Beta, Fraction, LearningRate, NonNegativeInt, PositiveInt, Weight
from judge.common.device import supports_bf16
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.score import DEFAULT_FORMULA, FORMULAS, MIN_IMAGES, Scorer, check_test_images
from trials.parts.batches import HeldOut, load_held_out, load_unpaired
from trials.parts.losses import lsgan
from trials.parts.networks import PatchDiscriminator, ResnetGenerator
from trials.parts.pool import HistoryPool
from trials.parts.schedule import decay_factor, set_lr
from trials.session.records import DiskUse
from trials.session.session import Checkpointed, Session, run


class Preset(NamedTuple):
    """What goes with a size: networks, length of the full schedule, and how many photographs are scored."""

    ngf: int  # generator features
    blocks: int  # residual blocks
    ndf: int  # discriminator features
    steps: int | None  # the full schedule in steps,
    epochs: int | None  # or in passes over the larger domain
    photos: int  # held-out photographs that are painted and scored


# `paper` is the published recipe; the others are smaller all over, and fixed in steps so that a
# trial costs the same on any data. Pixels: judge.images.SIZES.
PRESETS = {
    #                ngf  blocks  ndf    steps  epochs  photos
    "sketch": Preset(16,       3,  16,   5_000,   None,     64),
    "draft":  Preset(32,       6,  32,  50_000,   None,    128),
    "paper":  Preset(64,       9,  64,    None,    200,    256),
}  # fmt: skip

SHEET = 8  # photographs on the sample sheet


@dataclass(frozen=True)
class Settings:
    """What a trial computes. Defaults are the published ones; None is what the size says."""

    data: str = "auto"
    """monet2photo, sample, or a folder with trainA testA (paintings) and trainB testB (photographs);
    auto is data/monet2photo where it is and the built-in sample otherwise."""
    judge: str = model.DEFAULT_FILE
    """File of the judge that scores the paintings (python -m judge train)."""
    score: Literal[tuple(FORMULAS)] = DEFAULT_FORMULA
    """What is maximised: combined is style, content, diversity, cleanness and distance; plain is the
    judge's mean P(painting) alone."""
    size: Literal[("auto", *images.SIZES)] = "auto"
    """Pixels, networks and schedule: sketch 64 px, draft 128 px, paper 256 px as published; auto is
    sketch without a GPU and paper with one."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. A trial goes on when started again with more."""
    seed: int = 0
    """Of initial weights, batches, crops and pools."""

    identity_weight: Weight = 5.0
    """Of the identity loss: 0.5 x cycle weight in section 5.2. 0 leaves it out."""
    cycle_weight: Weight = 10.0
    """Of the cycle consistency loss, both ways (section 4)."""
    adversarial_weight: Weight = 1.0
    """Of the generators' adversarial loss (equation 3)."""
    generator_lr: LearningRate = 2e-4
    """Adam's learning rate for both generators (section 4)."""
    discriminator_lr: LearningRate = 2e-4
    """Adam's learning rate for both discriminators (section 4)."""
    beta1: Beta = 0.5
    """Adam's first decay (the authors' code)."""
    beta2: Beta = 0.999
    """Adam's second decay (the authors' code)."""
    batch_size: PositiveInt = 1
    """Images of each domain a step (section 4)."""
    pool_size: NonNegativeInt = 50
    """Earlier fakes kept for each discriminator (section 4). 0 shows it the newest only."""
    discriminator_threshold: Weight = 0.0
    """A discriminator whose loss is under this is not updated in that step. 0 never skips."""
    decay: Fraction = 0.5
    """Last share of the schedule over which the rates fall linearly to 0 (100 of 200 epochs)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the networks' arithmetic in training; auto is bf16 where the device computes in it, and
    weights, optimisers and what is painted stay fp32."""
    reports: PositiveInt = 50
    """Reports over the full schedule, so that an assessor's count means the same share at any size."""

    ngf: PositiveInt | None = None
    """Generator features after the first convolution."""
    blocks: PositiveInt | None = None
    """Residual blocks of a generator."""
    ndf: PositiveInt | None = None
    """Discriminator features after the first convolution."""
    steps: PositiveInt | None = None
    """The full schedule in steps."""
    epochs: PositiveInt | None = None
    """The full schedule in passes over the larger domain, instead of steps."""
    photos: PositiveInt | None = None
    """Held-out photographs that are painted and scored at a report."""

    def complete(self, device: torch.device) -> "Settings":
        """These settings with everything filled in that the size decides.

        Raises:
            UserError: both steps and epochs are given, or too few photographs to score.
        """
        if self.steps and self.epochs:
            raise UserError("--steps and --epochs both give the length of the schedule: give one")
        if self.photos is not None and self.photos < MIN_IMAGES:
            raise UserError(f"--photos {self.photos}: a score takes at least {MIN_IMAGES}")
        size = images.default_size(device) if self.size == "auto" else self.size
        preset = PRESETS[size]._asdict()
        if self.steps or self.epochs:
            preset |= {"steps": None, "epochs": None}
        unset = {name: value for name, value in preset.items() if getattr(self, name) is None}
        if self.precision == "auto":
            unset["precision"] = "bf16" if supports_bf16(device) else "fp32"
        return replace(self, size=size, data=images.resolve_name(self.data), **unset)

    @property
    def pixels(self) -> int:
        """Edge of the images, in pixels."""
        return images.SIZES[self.size]

    def schedule(self, larger: int) -> int:
        """Steps of the full schedule, for `larger` images in the larger domain."""
        return self.steps or self.epochs * -(-larger // self.batch_size)

    def last_step(self, larger: int) -> int:
        """The step that the budget ends at."""
        return max(1, round(self.schedule(larger) * self.budget))

    def report_interval(self, larger: int) -> int:
        """Steps between reports."""
        return max(1, self.schedule(larger) // self.reports)

    def describe_inputs(self) -> dict[str, str]:
        """What a trial trains on and is scored by, in words."""
        return {"data": images.find_dataset(self.data).description, "size": self.size, "judge": self.judge}

    def report_count(self) -> int:
        """How many reports a trial of this budget makes. Opens no image."""
        larger = max(map(len, images.find_dataset(self.data).train.values()))
        return -(-self.last_step(larger) // self.report_interval(larger))


class CycleGAN(Checkpointed):
    """Networks, optimisers, pools and step: all that the next step depends on.

    Args:
        settings: complete.
        schedule: steps of the full schedule.
    """

    parts = ("G_AB", "G_BA", "D_A", "D_B", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Settings, schedule: int, device: torch.device):
        self.settings, self.schedule = settings, schedule
        # How the images lie in memory; the layers keep to it. A CPU convolves and pads faster so.
        self.layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every device
            torch.set_rng_state(rng(settings.seed, "networks").get_state())
            self.G_AB = ResnetGenerator(settings.ngf, settings.blocks).to(device)
            self.G_BA = ResnetGenerator(settings.ngf, settings.blocks).to(device)
            self.D_A = PatchDiscriminator(settings.ndf).to(device)
            self.D_B = PatchDiscriminator(settings.ndf).to(device)
        self.optimizer_G = self._adam(self.G_AB, self.G_BA)
        self.optimizer_D = self._adam(self.D_A, self.D_B)
        self.pool_A, self.pool_B = HistoryPool(settings.pool_size), HistoryPool(settings.pool_size)

    def _adam(self, *networks: nn.Module) -> torch.optim.Adam:
        """One optimiser for a pair; its rate is set anew at each step."""
        parameters = chain(*(network.parameters() for network in networks))
        betas = (self.settings.beta1, self.settings.beta2)
        return torch.optim.Adam(parameters, betas=betas, fused=True)

    def update(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step on paintings `a` and photographs `b`, float [N, 3, H, W] in [-1, 1]; returns
        each loss by name, unweighted."""
        factor = decay_factor(self.step, self.schedule, self.settings.decay)
        set_lr(self.optimizer_G, self.settings.generator_lr * factor)
        set_lr(self.optimizer_D, self.settings.discriminator_lr * factor)
        a, b = (images.contiguous(memory_format=self.layout) for images in (a, b))
        losses, fake_a, fake_b = self._update_generators(a, b)
        draw = rng(self.settings.seed, "pool", self.step)
        shown_a, shown_b = (pool.swap(fake, draw)
                            for pool, fake in ((self.pool_A, fake_a), (self.pool_B, fake_b)))
        losses |= self._update_discriminators(a, b, shown_a, shown_b)
        self.step += 1
        return losses

    def _update_generators(self, a: torch.Tensor, b: torch.Tensor) -> tuple[dict, torch.Tensor, torch.Tensor]:
        s = self.settings
        for discriminator in (self.D_A, self.D_B):  # gradients pass through, none are kept
            discriminator.requires_grad_(False)
        with self.autocast:
            # InstanceNorm is per image, so a fake and an identity share a call without meeting.
            fake_a, same_a = self._translate(self.G_BA, b, a)
            fake_b, same_b = self._translate(self.G_AB, a, b)
            again_a, again_b = self.G_BA(fake_b), self.G_AB(fake_a)
            on_a, on_b = self.D_A(fake_a), self.D_B(fake_b)
        losses = {
            "adversarial_A": lsgan(on_a, real=True),
            "adversarial_B": lsgan(on_b, real=True),
            "cycle_A": l1_loss(again_a, a),
            "cycle_B": l1_loss(again_b, b),
        }
        total = s.adversarial_weight * (losses["adversarial_A"] + losses["adversarial_B"])
        total += s.cycle_weight * (losses["cycle_A"] + losses["cycle_B"])
        if s.identity_weight:
            losses |= {"identity_A": l1_loss(same_a, a), "identity_B": l1_loss(same_b, b)}
            total += s.identity_weight * (losses["identity_A"] + losses["identity_B"])
        self.optimizer_G.zero_grad()
        total.backward()
        self.optimizer_G.step()
        return losses, fake_a.detach().float(), fake_b.detach().float()

    def _translate(self, G: nn.Module, source: torch.Tensor, target: torch.Tensor) -> tuple:
        """`source` translated, and `target` as it comes out if the identity loss wants it."""
        if not self.settings.identity_weight:
            return G(source), None
        return G(torch.cat([source, target])).chunk(2)

    def _update_discriminators(self, a, b, shown_a, shown_b) -> dict[str, torch.Tensor]:
        losses = {}
        self.optimizer_D.zero_grad()
        for name, D, real, fake in (("A", self.D_A, a, shown_a), ("B", self.D_B, b, shown_b)):
            D.requires_grad_(True)
            with self.autocast:
                on_real, on_fake = D(torch.cat([real, fake])).chunk(2)
            loss = (lsgan(on_real, True) + lsgan(on_fake, False)) / 2
            losses[f"discriminator_{name}"] = loss
            threshold = self.settings.discriminator_threshold
            if not threshold or loss.item() >= threshold:
                loss.backward()
        self.optimizer_D.step()
        return losses

    @torch.no_grad()
    def paint(self, photos: torch.Tensor, batch: int = 16) -> torch.Tensor:
        """Photographs as paintings, float [N, 3, H, W] in [-1, 1] both."""
        photos = photos.contiguous(memory_format=self.layout)
        return torch.cat([self.G_BA(part) for part in photos.split(batch)]).contiguous()

    def state_dict(self) -> dict:
        """All that the next step depends on, as tensors and plain data."""
        return super().state_dict() | {"pool_A": self.pool_A.fakes, "pool_B": self.pool_B.fakes}

    def footprint(self, reports: int, pixels: int) -> DiskUse:
        """As every model's, and the pools."""
        checkpoint, sheets = super().footprint(reports, pixels)
        pools = 2 * self.settings.pool_size * 3 * self.settings.pixels**2 * 4  # floats
        return DiskUse(checkpoint + pools, sheets)

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        self.pool_A.fakes, self.pool_B.fakes = state["pool_A"], state["pool_B"]


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, reporting what the judge says of held-out photographs."""
    device = session.device
    data, judge, card = load_inputs(settings, device)
    paintings, photos = load_unpaired(data, settings.pixels, device)
    test = load_held_out(data, settings.pixels, settings.photos, device)
    scorer = Scorer(judge, test.photos, test.paintings, settings.score)

    larger = max(len(paintings.pixels), len(photos.pixels))
    schedule, last, every = settings.schedule(larger), settings.last_step(larger), settings.report_interval(larger)
    session.record_inputs(
        data={"name": data.name, "stand_in": data.stand_in, "test": test.counts,
              "train": {"paintings": paintings.counts, "photos": photos.counts}},
        judge=card.summary(settings.judge),
    )
    net = CycleGAN(settings, schedule, device)
    session.restore(net)
    session.update_record(schedule={"steps": schedule, "until": last})
    print(f"CycleGAN, {model.describe_size(settings.pixels)}, {data.description}, {last} of {schedule} steps")
    warn([paintings.counts, photos.counts, *test.counts.values()], data, card)

    for step in session.steps(net, last):
        a, b = (domain.batch(settings.seed, step, settings.batch_size) for domain in (paintings, photos))
        session.add_losses(net.update(a, b))
        if session.is_report_due(net.step, every, last):
            with session.scoring():
                painted = net.paint(test.photos)
                score = scorer(painted)
            session.save_paintings(net.step, painted)
            session.report(
                net, score, sheet(test, painted),
                images=net.step * settings.batch_size, lr_factor=decay_factor(step, schedule, settings.decay),
            )  # fmt: skip


def check(settings: Settings) -> DiskUse:
    """What a trial of these settings leaves on the disk, once all is there that it needs.

    Raises:
        UserError: as `inputs`.
    """
    cpu = torch.device("cpu")
    load_inputs(settings, cpu)
    net = CycleGAN(settings, settings.steps or 1, cpu)
    return net.footprint(settings.report_count(), 2 * SHEET * settings.pixels**2)


def load_inputs(settings: Settings, device: torch.device) -> tuple[images.DataSet, model.Judge, model.ModelCard]:
    """The data set and the judge that the settings name. Opens no image.

    Raises:
        UserError: no data, too few test images to score, no judge, or one of another size.
    """
    data = images.find_dataset(settings.data)
    check_test_images(data)
    return data, *model.load_judge(settings.judge, device, settings.pixels)


def warn(counts: list[dict], data: images.DataSet, card: model.ModelCard) -> None:
    """Say what makes the score mean less than it seems."""
    for name in chain.from_iterable(count["skipped"] for count in counts):
        print(f"warning: left out, cannot be read: {name}")
    if card.training["data"] != data.name:
        print(f"warning: the judge learnt from {card.training['data']}, not from {data.name}")


def sheet(test: HeldOut, painted: torch.Tensor) -> torch.Tensor:
    """The same photographs each time, sources above translations: float [3, H, W] in [0, 1]."""
    rows = torch.cat([test.photos[:SHEET], painted[:SHEET]])
    return make_grid(rows, nrow=min(SHEET, len(painted)), normalize=True, value_range=(-1, 1))


if __name__ == "__main__":
    run(train, Settings)
