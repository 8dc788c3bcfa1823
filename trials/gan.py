"""The first GAN, of fully connected networks (Goodfellow et al. 2014, 1406.2661), and how it fails.

    python -m trials.gan --data pattern       # four numbers that are to become 1 0 1 0, by a few neurons
    python -m trials.gan --data mnist         # digits
    python -m trials.gan --data mnist --optimizer sgd --generator-lr 0.01 --discriminator-lr 0.01 \\
        --latent uniform --loss mse --activation sigmoid --layer-norm false     # nothing but one grey blob

G makes images of noise z, D tells real ones from G's, in turns:

    D    -log D(x) - log(1 - D(G(z)))                                  equation 1
    G    -log D(G(z)), not log(1 - D(G(z))), whose gradient vanishes   section 3

The defaults are the known cures for a G that makes the same image of every z (Rashid, "Make Your First GAN
with PyTorch", 2020). Each can be taken back by itself, as in the third command.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from judge.common.cli import PositiveInt
from judge.common.constants import DIGITS, FOLDER, MNIST
from judge.common.errors import UserError
from trials.parts.gan_settings import GanSettings
from trials.session import run

if TYPE_CHECKING:
    import torch

PATTERN = "pattern"  # the name of the data that are four numbers, 1 0 1 0

PRESETS = {
    PATTERN: {"latent_size": 1,   "hidden": 8,   "steps": 3_000,  "samples": 200},
    DIGITS:  {"latent_size": 20,  "hidden": 100, "steps": 6_000,  "samples": 400},
    MNIST:   {"latent_size": 100, "hidden": 400, "steps": 30_000, "samples": 1_000},
}  # fmt: skip


@dataclass(frozen=True)
class Settings(GanSettings):
    """Settings of a trial. The defaults are the cures; the data decides what is None."""

    data: str = "auto"
    """pattern, digits (8 px, built in), mnist (downloaded on first use), or a folder that holds MNIST/raw;
    auto is mnist if it is in data/, else digits."""
    batch_size: PositiveInt = 100
    """Real images a step, and as many generated ones (the authors' code)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam (Kingma and Ba 2015, 1412.6980), or plain gradient descent, which needs rates near 0.01."""
    latent: Literal["normal", "uniform"] = "normal"
    """Distribution of z: N(0, 1), or U(0, 1)."""
    loss: Literal["bce", "mse"] = "bce"
    """bce is the paper's -log; mse is the squared distance of D's probability from 1 and 0."""
    activation: Literal["leaky_relu", "sigmoid"] = "leaky_relu"
    """Activation of the hidden layers."""
    layer_norm: bool = True
    """Normalise the hidden layers."""
    latent_size: PositiveInt | None = None
    """Numbers in z."""
    hidden: PositiveInt | None = None
    """Neurons of each network's hidden layer."""

    def complete(self, device: "torch.device") -> "Settings":
        """Fill in what the data decides. Raises UserError if the data is a folder of images."""
        from judge import labelled

        data = labelled.resolve_labelled_name(self.data)
        kind = PATTERN if data == PATTERN else labelled.data_kind(data)
        if kind == FOLDER:
            raise UserError(f"--data {data}: give pattern, digits, mnist, or a folder that holds MNIST/raw; "
                            "trials.dcgan takes folders of images")
        return self.with_preset(PRESETS[kind], data=data)

    def describe_inputs(self) -> dict[str, str]:
        judge = {"judge": "the pattern itself"} if self.data == PATTERN else {}
        return super().describe_inputs() | judge


if __name__ == "__main__":
    run(Settings)
