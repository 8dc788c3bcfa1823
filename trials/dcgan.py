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
from typing import TYPE_CHECKING

from judge.common.cli import PositiveInt, UnitInterval, Weight
from judge.common.constants import DEFAULT_JUDGE, DIGITS, FOLDER, MNIST
from judge.common.errors import UserError
from trials.parts.gan_settings import GanSettings
from trials.session import run

if TYPE_CHECKING:
    import torch

# Folders have the published networks: figure 1 for G, the authors' code for D.
PRESETS = {
    DIGITS: {"edge": 8,  "ngf": 64,  "ndf": 32, "steps": 2_000,  "samples": 400},
    MNIST:  {"edge": 32, "ngf": 32,  "ndf": 32, "steps": 8_000,  "samples": 1_000},
    FOLDER: {"edge": 64, "ngf": 128, "ndf": 64, "steps": 25_000, "samples": 256},
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

    def complete(self, device: "torch.device") -> "DcganSettings":
        """Fill in what the data decides. Raises UserError if networks or data cannot have this edge."""
        from judge import labelled

        edge, data = self.edge, labelled.resolve_labelled_name(self.data)
        kind = labelled.data_kind(data)
        if edge and (edge < 8 or edge & (edge - 1)):
            raise UserError(f"--edge {edge}: give a power of two from 8")
        if edge and kind != FOLDER and edge != PRESETS[kind]["edge"]:
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
    judge: str = DEFAULT_JUDGE
    """File of the judge that scores images if all are of one class."""
    discriminator_threshold: Weight = 0.0
    """D is not updated in a step in which its loss is below this. 0, as published, always updates it. 0.6
    with rates of 1e-3 makes faces (of 400) in 400 steps, where the published rates make fog."""
    growing: UnitInterval = 0.0
    """First share of the schedule over which the resolution grows from 8 px (Karras et al. 2018, 1710.10196,
    section 2): each resolution is trained for a while, then the next one is faded in. 0 starts at full
    resolution."""

    def complete(self, device: "torch.device") -> "Settings":
        """As the base class, and refuse to grow images of 8 px."""
        complete = super().complete(device)
        if complete.growing and complete.edge == 8:
            raise UserError(f"--growing {complete.growing}: images of 8 px cannot grow; leave it out")
        return complete

    def describe_inputs(self) -> dict[str, str]:
        from judge import labelled

        judge = {"judge": self.judge} if labelled.data_kind(self.data) == FOLDER else {}
        return super().describe_inputs() | judge


if __name__ == "__main__":
    run(Settings)
