"""The training of CycleGAN; `trials/cyclegan.py` has the losses and the settings."""

import torch
from torch.nn.functional import l1_loss
from torch.optim import Adam

from judge import images, model
from judge.common.errors import is_out_of_memory, one_line
from judge.common.rng import rng, seeded
from judge.images import DataSet
from judge.score import Scorer, check_test_images
from trials.cyclegan import Settings
from trials.parts import graphs
from trials.parts.batches import load_held_out, load_unpaired
from trials.parts.ema import Averaged
from trials.parts.losses import lsgan
from trials.parts.networks import PatchDiscriminator, ResnetGenerator
from trials.parts.pool import HistoryPool
from trials.parts.schedule import decay_factor, set_lr
from trials.parts.sheets import sheet
from trials.session import DiskUse, Session

SHEET_PHOTOS = 8  # photographs on the sample sheet


# ---------------------------------------------------------------------------------------------
# Model


class CycleGAN(Averaged):
    """Two generators, two discriminators, their optimizers and pools, and the training step.

    `settings` are complete; `schedule` is the number of steps of the full schedule. `average_AB` and
    `average_BA` paint: the generators themselves, or with --ema their moving averages.
    """

    parts = ("G_AB", "G_BA", "D_A", "D_B", "optimizer_G", "optimizer_D")
    averages = {"average_AB": "G_AB", "average_BA": "G_BA"}

    def __init__(self, settings: Settings, schedule: int, device: torch.device):
        self.settings, self.schedule, self.device = settings, schedule, device
        # Memory format of the images, which layers keep. A CPU and compiled layers are faster in this one.
        last = device.type == "cpu" or settings.compile == "on"
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
        with seeded(settings.seed, "networks"):  # drawn on the CPU: the same weights on every device
            generator = (settings.ngf, settings.blocks, settings.downsamplings, settings.upsampling)
            self.G_AB = ResnetGenerator(*generator).to(device)
            self.G_BA = ResnetGenerator(*generator).to(device)
            self.D_A = PatchDiscriminator(settings.ndf).to(device)
            self.D_B = PatchDiscriminator(settings.ndf).to(device)
        self.start_averages()
        options = {"betas": (settings.beta1, settings.beta2), "fused": True}  # `update` sets the rates
        self.optimizer_G = Adam([*self.G_AB.parameters(), *self.G_BA.parameters()], **options)
        self.optimizer_D = Adam([*self.D_A.parameters(), *self.D_B.parameters()], **options)
        self.pool_A, self.pool_B = HistoryPool(settings.pool_size), HistoryPool(settings.pool_size)
        self._release()

    def prepare(self, a: torch.Tensor, b: torch.Tensor) -> str | None:
        """Make the following steps faster, as `graphs` and `compile` allow; they compute the same.

        Args:
            a, b: a batch as for `update`, of the size that all steps will have. It changes no weights.

        Returns:
            Why steps are not CUDA graphs although they were to be; None if they are, or were not to be.
        """
        if self.settings.compile == "on":
            for network in (self.G_AB, self.G_BA, self.D_A, self.D_B):
                network.compile(dynamic=False)
        if self.settings.graphs == "off" or not graphs.are_supported(self.device):
            return None
        if self.settings.discriminator_threshold:
            return "--discriminator-threshold needs the losses at each step"
        try:
            self.record(a, b)
        except RuntimeError as error:
            self._release()
            if is_out_of_memory(error):
                raise
            return one_line(error)
        return None

    def record(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Record the two halves of a step as CUDA graphs. The pools between them draw on the CPU.

        Raises RuntimeError if CUDA cannot record them.
        """
        optimizers = [self.optimizer_G, self.optimizer_D]
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
            group["capturable"] = self.device.type == "cuda"
        a, b = a.contiguous(memory_format=self.layout), b.contiguous(memory_format=self.layout)
        with graphs.state_restored([self.G_AB, self.G_BA, self.D_A, self.D_B], optimizers):
            self._halves = (graphs.Graph(self._update_generators, a, b),
                            graphs.Graph(self._update_discriminators, a, b, a, b))  # fmt: skip

    def _release(self) -> None:
        """Make steps eager: graphs use weights and states that are about to be replaced."""
        self._halves = self._update_generators, self._update_discriminators
        for optimizer in (self.optimizer_G, self.optimizer_D):
            for group in optimizer.param_groups:
                group |= {"lr": float(group["lr"]), "capturable": False}

    @property
    def is_recorded(self) -> bool:
        """Whether steps are CUDA graphs."""
        return isinstance(self._halves[0], graphs.Graph)

    def update(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take one training step, and return the unweighted losses by name.

        Args:
            a, b: paintings and photographs, float [N, 3, H, W] in [-1, 1].
        """
        factor = decay_factor(self.step, self.schedule, self.settings.decay)
        set_lr(self.optimizer_G, self.settings.generator_lr * factor)
        set_lr(self.optimizer_D, self.settings.discriminator_lr * factor)
        a, b = a.contiguous(memory_format=self.layout), b.contiguous(memory_format=self.layout)
        update_generators, update_discriminators = self._halves
        losses, fake_a, fake_b = update_generators(a, b)
        draw = rng(self.settings.seed, "pool", self.step)
        shown_a, shown_b = self.pool_A.swap(fake_a, draw), self.pool_B.swap(fake_b, draw)
        losses = losses | update_discriminators(a, b, shown_a, shown_b)  # a graph keeps its dict of losses
        self.end_step()
        return losses

    def _update_generators(self, a: torch.Tensor, b: torch.Tensor) -> tuple[dict, torch.Tensor, torch.Tensor]:
        """Take a step of both generators; return the losses and the fp32 generated images, all detached."""
        s = self.settings
        for D in (self.D_A, self.D_B):  # gradients pass through, but none are computed for it
            D.requires_grad_(False)
        with self.autocast:
            if s.identity_weight:  # one call for two images: InstanceNorm is per image
                fake_a, identity_a = self.G_BA(torch.cat([b, a])).chunk(2)
                fake_b, identity_b = self.G_AB(torch.cat([a, b])).chunk(2)
            else:
                fake_a, fake_b = self.G_BA(b), self.G_AB(a)
            cycled_a, cycled_b = self.G_BA(fake_b), self.G_AB(fake_a)
            prediction_a, prediction_b = self.D_A(fake_a), self.D_B(fake_b)
        losses = {
            "adversarial_A": lsgan(prediction_a, real=True),
            "adversarial_B": lsgan(prediction_b, real=True),
            "cycle_A": l1_loss(cycled_a, a),
            "cycle_B": l1_loss(cycled_b, b),
        }
        total = s.adversarial_weight * (losses["adversarial_A"] + losses["adversarial_B"])
        total += s.cycle_weight * (losses["cycle_A"] + losses["cycle_B"])
        if s.identity_weight:
            losses |= {"identity_A": l1_loss(identity_a, a), "identity_B": l1_loss(identity_b, b)}
            total += s.identity_weight * (losses["identity_A"] + losses["identity_B"])
        self.optimizer_G.zero_grad()
        total.backward()
        self.optimizer_G.step()
        return detached(losses), fake_a.detach().float(), fake_b.detach().float()

    def _update_discriminators(self, a, b, shown_a, shown_b) -> dict[str, torch.Tensor]:
        """Take a step of both discriminators with the fakes `shown_a`, `shown_b`; return the losses."""
        losses, threshold = {}, self.settings.discriminator_threshold
        self.optimizer_D.zero_grad()
        for name, D, real, fake in (("A", self.D_A, a, shown_a), ("B", self.D_B, b, shown_b)):
            D.requires_grad_(True)
            with self.autocast:
                on_real, on_fake = D(torch.cat([real, fake])).chunk(2)
            loss = (lsgan(on_real, real=True) + lsgan(on_fake, real=False)) / 2
            losses[f"discriminator_{name}"] = loss
            if not threshold or loss.item() >= threshold:
                loss.backward()
        self.optimizer_D.step()
        return detached(losses)

    @torch.no_grad()
    def paint(self, photos: torch.Tensor, batch: int = 16) -> torch.Tensor:
        """Return photographs as paintings, both float [N, 3, H, W] in [-1, 1]."""
        photos = photos.contiguous(memory_format=self.layout)
        paint = self.average_BA.forward  # not compiled: this batch has another size
        return torch.cat([paint(part) for part in photos.split(batch)]).contiguous()

    def state_dict(self) -> dict:
        return super().state_dict() | {"pool_A": self.pool_A.fakes, "pool_B": self.pool_B.fakes}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self._release()
        for pool, fakes in ((self.pool_A, state["pool_A"]), (self.pool_B, state["pool_B"])):
            pool.fakes = [fake.to(self.device) for fake in fakes]

    def footprint(self, reports: int, pixels: int) -> DiskUse:
        """Return the disk space of a trial, with that of the pools in its checkpoint."""
        checkpoint, sheets = super().footprint(reports, pixels)
        pools = 2 * self.settings.pool_size * 3 * self.settings.pixels**2 * 4  # fp32
        return DiskUse(checkpoint + pools, sheets)


def detached(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the losses without what their gradients were computed from, which a graph would keep."""
    return {name: loss.detach() for name, loss in losses.items()}


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, and at each report score paintings of held-out photographs."""
    device = session.device
    data, judge, card = load_inputs(settings, device)
    paintings, photos = load_unpaired(data, settings.pixels, device)
    test = load_held_out(data, settings.pixels, settings.photos, device)
    scorer = Scorer(judge, test.photos, test.paintings, settings.score)

    larger = max(len(paintings.pixels), len(photos.pixels))
    schedule, last = settings.schedule(larger), settings.last_step(larger)
    session.record.add_inputs(
        data={"name": data.name, "stand_in": data.stand_in, "test": test.counts,
              "train": {"paintings": paintings.counts, "photos": photos.counts}},
        judge=card.summary(settings.judge), **scorer.formula.record(),
    )  # fmt: skip

    def batches(step: int) -> list[torch.Tensor]:
        return [domain.batch(settings.seed, step, settings.batch_size) for domain in (paintings, photos)]

    net = CycleGAN(settings, schedule, device)
    session.restore(net)
    fallback = net.prepare(*batches(net.step))
    session.record.update(schedule={"steps": schedule, "until": last},
                          step="graphs" if net.is_recorded else "eager", graphs_fallback=fallback)
    print(f"CycleGAN, {model.describe_size(settings.pixels)}, {data.description}, {last} of {schedule} steps")
    if card.training["data"] != data.name:
        print(f"warning: the judge was trained on {card.training['data']}, not on {data.name}")
    if fallback:
        print(f"warning: steps are not CUDA graphs, so they are slower: {fallback}")

    for step in session.steps(net, last, settings.report_interval(larger)):
        session.add_losses(net.update(*batches(step)))
        if session.report_due(net):
            with session.scoring():
                painted = net.paint(test.photos)
                score = scorer(painted)
            session.report(
                net, score, painted, sheet(test.photos[:SHEET_PHOTOS], painted[:SHEET_PHOTOS]),
                images=net.step * settings.batch_size, lr_factor=decay_factor(step, schedule, settings.decay),
            )  # fmt: skip


def check(settings: Settings) -> DiskUse:
    """Check that the inputs exist and fit, and return the disk space that a trial takes."""
    cpu = torch.device("cpu")
    load_inputs(settings, cpu)
    net = CycleGAN(settings, settings.steps or 1, cpu)
    return net.footprint(settings.report_count(), 2 * SHEET_PHOTOS * settings.pixels**2)


def load_inputs(settings: Settings, device: torch.device) -> tuple[DataSet, model.Judge, model.ModelCard]:
    """Return the data set, the judge and the judge's card. Opens no image."""
    judge = model.load_judge(settings.judge, device, settings.pixels)  # first: the data may be made anew
    data = images.find_dataset(settings.data)
    check_test_images(data)
    return data, *judge
