"""DCGAN: a GAN of convolutions that trains (Radford et al. 2016, 1511.06434).

    python -m trials.dcgan --data mnist                                   # digits, 32 px
    python -m trials.dcgan --data data/faces --judge models/faces.pt \\
        --generator-lr 1e-3 --discriminator-lr 1e-3 --discriminator-threshold 0.6   # a folder, 64 px
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

from dataclasses import dataclass

import torch

from judge import labelled, model
from judge.common.cli import PositiveInt, UnitInterval, Weight
from judge.common.errors import UserError
from judge.common.rng import seeded
from judge.score import Scorer
from trials.parts.gan_base import GanSettings, Inputs, NoiseGAN, add_class_scorer, minimise, train_on_images
from trials.parts.losses import bce
from trials.parts.networks import DcganDiscriminator, DcganGenerator, GrowingDiscriminator, GrowingGenerator
from trials.parts.sheets import sheet_pixels
from trials.session import DiskUse, Session, run

# Folders have the published networks: figure 1 for G, the authors' code for D.
PRESETS = {
    labelled.DIGITS: {"edge": 8,  "ngf": 64,  "ndf": 32, "steps": 2_000,  "samples": 400},
    labelled.MNIST:  {"edge": 32, "ngf": 32,  "ndf": 32, "steps": 8_000,  "samples": 1_000},
    labelled.FOLDER: {"edge": 64, "ngf": 128, "ndf": 64, "steps": 25_000, "samples": 256},
}  # fmt: skip


@dataclass(frozen=True)
class DcganSettings(GanSettings):
    """Settings of DCGAN's networks, which the conditional GAN has too."""

    latent_size: PositiveInt = 100
    """Numbers in z, uniform between -1 and 1 (figure 1)."""
    edge: PositiveInt | None = None
    """Side of a folder's images in pixels, a power of two from 8."""
    ngf: PositiveInt | None = None
    """Generator features before its last layer."""
    ndf: PositiveInt | None = None
    """Discriminator features after its first layer."""

    def complete(self, device: torch.device) -> "DcganSettings":
        """Fill in what the data decides. Raises UserError if networks or data cannot have this edge."""
        edge, data = self.edge, labelled.resolve_labelled_name(self.data)
        kind = labelled.data_kind(data)
        if edge and (edge < 8 or edge & (edge - 1)):
            raise UserError(f"--edge {edge}: give a power of two from 8")
        if edge and kind != labelled.FOLDER and edge != PRESETS[kind]["edge"]:
            raise UserError(f"--edge {edge}: images of {data} have {PRESETS[kind]['edge']} px")
        return self.with_preset(PRESETS[kind], data=data)

    def describe_inputs(self) -> dict[str, str]:
        inputs = super().describe_inputs()
        return {"data": inputs["data"], "size": f"{self.edge} px", "judge": inputs["judge"]}


@dataclass(frozen=True)
class Settings(DcganSettings):
    """Settings of a trial. The defaults are the published ones; the data decides what is None."""

    data: str = "auto"
    """digits (8 px, built in), mnist (32 px, downloaded on first use), or a folder: of images, with a
    subfolder for each class, or in CycleGAN's layout, of which the paintings are used; auto is mnist if it is
    in data/, else digits."""
    judge: str = model.DEFAULT_FILE
    """File of the judge that scores images if all are of one class."""
    discriminator_threshold: Weight = 0.0
    """D is not updated in a step in which its loss is below this. 0, as published, always updates it. 0.6
    with rates of 1e-3 makes faces (of 400) in 400 steps, where the published rates make fog."""
    growing: UnitInterval = 0.0
    """First share of the schedule over which the resolution grows from 8 px (Karras et al. 2018, 1710.10196,
    section 2): each resolution is trained for a while, then the next one is faded in. 0 starts at full
    resolution."""

    def complete(self, device: torch.device) -> "Settings":
        """As the base class, and refuse to grow images of 8 px."""
        complete = super().complete(device)
        if complete.growing and complete.edge == 8:
            raise UserError(f"--growing {complete.growing}: images of 8 px cannot grow; leave it out")
        return complete

    def describe_inputs(self) -> dict[str, str]:
        judge = {"judge": self.judge} if labelled.data_kind(self.data) == labelled.FOLDER else {}
        return super().describe_inputs() | judge


class DCGAN(NoiseGAN):
    """Generator and discriminator of images of a `shape` [C, edge, edge], of convolutions; they may grow."""

    def __init__(self, settings: Settings, shape: tuple[int, int, int], device: torch.device):
        s = settings
        with seeded(s.seed, "networks"):
            G = (GrowingGenerator if s.growing else DcganGenerator)(s.latent_size, s.ngf, shape)
            D = (GrowingDiscriminator if s.growing else DcganDiscriminator)(s.ndf, shape)
        super().__init__(s, G, D, device)
        self._grow()

    def update(self, real: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Take one step of D, unless its loss is below the threshold, and one of G. `labels` are not used."""
        fake = self.G(self.noise(len(real), "step", self.step))
        # Two calls of D: in one, batch normalisation would mix real and generated images.
        loss_D = bce(self.D(real), True) + bce(self.D(fake.detach()), False)
        threshold = self.settings.discriminator_threshold
        if not threshold or loss_D.item() >= threshold:
            minimise(loss_D, self.optimizer_D)
        loss_G = bce(self.D(fake), True)
        minimise(loss_G, self.optimizer_G)
        self.end_step()
        self._grow()
        return {"discriminator": loss_D, "generator": loss_G}

    def _grow(self) -> None:
        """Set the networks to the resolution of the step."""
        s = self.settings
        if s.growing:
            place = growth(self.step / (s.steps * s.growing), len(self.G.blocks))
            self.G.place = self.G_average.place = self.D.place = place

    def load_state_dict(self, state: dict) -> None:
        """Load a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._grow()


def growth(share: float, levels: int) -> float:
    """Return how many of `levels` doublings of the resolution are done after a `share` of the growing phase:
    a resolution is trained for as long as the next one is faded in, the last one after the phase."""
    level, part = divmod(2 * levels * min(share, 1), 2)
    return min(levels, level + max(0.0, part - 1))


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, and report how good G's outputs are."""
    data, scorer, facts = load_inputs(settings, session.device)
    session.record.add_inputs(**facts)
    if warning := warn_of_judge(data.name, facts["judge"]["data"]):
        print(f"warning: {warning}")
        session.record.update(warning=warning)
    net = DCGAN(settings, data.shape, session.device)
    title = f"DCGAN, {settings.edge} px"
    train_on_images(session, net, data, scorer, title=title, samples=settings.samples)


def warn_of_judge(data: str, judged: str | None) -> str | None:
    """Return what is wrong if a judge of the data `judged` scores images like those of `data`, else None."""
    if judged and data in judged.split(" + "):  # how the data of loose folders are named
        return None
    return (f"the judge was trained on {judged}, not on {data}: style, diversity and kid mean little; "
            "train one (python -m judge train --paintings DIR --photos OTHER_IMAGES)")


def check(settings: Settings) -> DiskUse:
    """Return what a trial leaves on the disk. Raises what `load_inputs` raises, and trains nothing."""
    data, cpu = labelled.load_labelled(settings.data, settings.edge), torch.device("cpu")
    if len(data.classes) == 1:
        model.load_judge(settings.judge, cpu, settings.edge)
    return DCGAN(settings, data.shape, cpu).footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> Inputs:
    """Return what the trial is trained on and scored by.

    Raises UserError if the data cannot be loaded, or if all images are of one class and the judge is missing
    or of another size.
    """
    data = labelled.load_labelled(settings.data, settings.edge)
    if len(data.classes) > 1:
        return add_class_scorer(data, device)
    judge, card = model.load_judge(settings.judge, device, settings.edge)
    scorer = Scorer(judge, None, data.test_pixels)
    return data, scorer, {"data": data.summary(), "judge": card.summary(settings.judge)}


if __name__ == "__main__":
    run(train, Settings)
