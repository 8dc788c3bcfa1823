"""StarGAN: one generator for several domains (Choi et al. 2018, 1711.09020).

    python -m trials.stargan --data data/art --threads 1      # a subfolder of images for each domain
    python -m trials.stargan --data data/monet2photo          # two domains in CycleGAN's layout
    python -m trials.stargan --budget 0.1 --reconstruction-weight 5

G translates an image x to a domain c that it is given, and back to the image's own domain c'. D tells real
images from G's (D_src, a critic) and classifies the domain of an image (D_cls).

    D    E D_src(G(x,c)) - E D_src(x) + 10 E(|grad D_src(between)| - 1)^2      equation 8 (WGAN-GP)
         + cross entropy of D_cls(x) with c'                                  equations 2 and 5
    G    -E D_src(G(x,c)) + cross entropy of D_cls(G(x,c)) with c             equations 3 and 6
         + 10 |x - G(G(x,c),c')|                                              equation 4

domains.png in the trial's folder shows held-out images in each domain: a row an image, a column a domain. How
many images the classifier calls what, by the domain asked for, is printed at the end and in run.json.

A step is `n_critic` updates of D, each on another batch, then one of G (1704.00028, algorithm 1). A
classifier trained on the data scores test images, each translated to another domain than its own.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from judge.common.cli import Beta, Fraction, LearningRate, PositiveInt, Weight
from judge.common.errors import UserError
from judge.folders import resolve_name
from trials.parts.gan_settings import GanSettings
from trials.session import run

if TYPE_CHECKING:
    import torch

# `paper` is the published recipe: 200,000 iterations of D in the authors' code.
PRESETS = {
    "sketch": {"edge": 64,  "ngf": 16, "blocks": 3, "ndf": 16, "layers": 5, "steps": 1_000,  "samples": 32},
    "paper":  {"edge": 128, "ngf": 64, "blocks": 6, "ndf": 64, "layers": 6, "steps": 40_000, "samples": 64},
}  # fmt: skip


@dataclass(frozen=True)
class Settings(GanSettings):
    """Settings of a trial. The defaults are the published ones; the size decides what is None."""

    data: str = "auto"
    """monet2photo, sample, or a folder: in CycleGAN's layout, of two domains, or with a subfolder of
    images for each domain; auto is data/monet2photo if it is there, else the built-in sample."""
    size: Literal[("auto", *PRESETS)] = "auto"
    """Resolution, networks and schedule: sketch is 64 px, paper is 128 px as published; auto is paper with a
    GPU, else sketch."""
    domain_weight: Weight = 1.0
    """Weight of the domain classification losses of D and G, lambda_cls (equations 5 and 6)."""
    reconstruction_weight: Weight = 10.0
    """Weight of the reconstruction loss, lambda_rec (equation 6)."""
    penalty_weight: Weight = 10.0
    """Weight of the gradient penalty, lambda_gp (equation 8)."""
    n_critic: PositiveInt = 5
    """Updates of D in a step, which ends with one of G (section 5.3)."""
    generator_lr: LearningRate = 1e-4
    """Adam's learning rate for G (section 5.3)."""
    discriminator_lr: LearningRate = 1e-4
    """Adam's learning rate for D (section 5.3)."""
    beta2: Beta = 0.999
    """Adam's second decay rate; both as in section 5.3."""
    batch_size: PositiveInt = 16
    """Images in an update of D or G (section 5.3)."""
    decay: Fraction = 0.5
    """Last share of the schedule over which the rates fall linearly to 0 (10 of 20 epochs)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of G in training; auto is bf16 if the device computes in it. D, whose gradient is itself
    differentiated, the weights, the optimisers and the scored images stay fp32."""
    edge: PositiveInt | None = None
    """Side of the images in pixels, a power of two from 32."""
    ngf: PositiveInt | None = None
    """Generator features after the first convolution."""
    blocks: PositiveInt | None = None
    """Residual blocks of the generator."""
    ndf: PositiveInt | None = None
    """Discriminator features after the first convolution."""
    layers: PositiveInt | None = None
    """Convolutions of the discriminator, each of which halves the resolution."""
    samples: PositiveInt | None = None
    """Test images of each domain that are translated and scored at a report, or all if there are fewer."""

    def complete(self, device: "torch.device") -> "Settings":
        """Fill in what size and device decide. Raises UserError if the networks cannot have this edge."""
        from judge.common.device import supports_bf16

        default = "paper" if device.type == "cuda" else "sketch"
        size = default if self.size == "auto" else self.size
        s = self.with_preset(PRESETS[size], size=size, data=resolve_name(self.data))
        if s.precision == "auto":
            s = replace(s, precision="bf16" if supports_bf16(device) else "fp32")
        if s.edge < 32 or s.edge & (s.edge - 1):
            raise UserError(f"--edge {s.edge}: give a power of two from 32")
        if s.edge < 2**s.layers:
            raise UserError(f"--layers {s.layers}: {s.edge} px cannot be halved so often")
        return s

    def describe_inputs(self) -> dict[str, str]:
        return {"data": self.data, "size": f"{self.edge} px", "judge": "a classifier trained on the data"}


if __name__ == "__main__":
    run(Settings)
