"""Losses of GANs, each a function of what a discriminator says."""

from collections.abc import Callable

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


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor, fake: torch.Tensor, share: torch.Tensor,
) -> torch.Tensor:
    """How far the norm of a critic's gradient is from 1 between real and fake, squared, on average.

    Gulrajani et al. 2017 (1704.00028), equation 3; StarGAN, equation 8. What a critic says of the patches
    of one image is added up, as in StarGAN's code.

    Args:
        critic: from images to what it says of each, [N, ...], of each image by itself.
        real, fake: float [N, C, H, W].
        share: of `real` in the images between, [N, 1, 1, 1] in [0, 1], drawn at random.
    """
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
