"""Losses that more than one system uses."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def lsgan(prediction: torch.Tensor, real: bool) -> torch.Tensor:
    """Least-squares GAN loss: mean squared distance to 1 for real, 0 for fake.

    Mao et al. 2017 (1611.04076), equation 2 with a = 0, b = c = 1; CycleGAN, section 4.
    """
    prediction = prediction.float()
    return mse_loss(prediction, torch.full_like(prediction, float(real)))


def bce(logits: torch.Tensor, real: bool) -> torch.Tensor:
    """Mean -log P(real) or -log(1 - P(real)), P the sigmoid of `logits`.

    Goodfellow et al. 2014 (1406.2661), equation 1 for the discriminator; as the generator's loss on its
    fakes with `real` the one of section 3 whose gradient does not vanish while they are rejected.
    """
    logits = logits.float()
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
