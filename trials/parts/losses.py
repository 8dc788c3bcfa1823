"""Losses of GANs, each a function of a discriminator's outputs."""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def lsgan(prediction: torch.Tensor, real: bool) -> torch.Tensor:
    """Return the least-squares GAN loss: the mean squared distance to 1 for real, to 0 for fake (Mao et al.
    2017, 1611.04076, equation 2 with a = 0, b = c = 1; CycleGAN, section 4)."""
    prediction = prediction.float()
    return mse_loss(prediction, torch.full_like(prediction, float(real)))


def bce(logits: torch.Tensor, real: bool) -> torch.Tensor:
    """Return the mean of -log P if `real`, else of -log(1 - P), where P is the sigmoid of `logits`: equation
    1 of Goodfellow et al. 2014 (1406.2661) for D, and with `real` for G's images the loss of section 3."""
    logits = logits.float()
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor, fake: torch.Tensor, share: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient penalty: the mean of (|gradient| - 1)^2 of a critic between real and fake images.

    Gulrajani et al. 2017 (1704.00028), equation 3; StarGAN, equation 8. `share`, [N, 1, 1, 1] in [0, 1], is
    that of the real images. The outputs of `critic` for an image depend on it alone; those for its patches
    are summed, as in StarGAN's code.
    """
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
