"""Losses that more than one system uses."""

import torch
from torch.nn.functional import mse_loss


def lsgan(prediction: torch.Tensor, real: bool) -> torch.Tensor:
    """Least-squares GAN loss: mean squared distance to 1 for real, 0 for fake.

    Mao et al. 2017 (1611.04076), equation 2 with a = 0, b = c = 1; CycleGAN, section 4.
    """
    prediction = prediction.float()
    return mse_loss(prediction, torch.full_like(prediction, float(real)))
