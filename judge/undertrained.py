"""TODO"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss
from torchvision.transforms import v2

from judge.common.rng import rng
from judge.corruptions import between, choice
from judge.images import to_bytes, to_float


def undertrained_generators(
    photos: torch.Tensor, paintings: torch.Tensor, seed: int, device: torch.device,
    count: int = 24, longest: int = 120,
) -> Iterator[nn.Module]:
    """`count` small generators after 0 to `longest` steps of training.

    Each is an encoder and decoder with transposed convolutions, as CycleGAN's, trained on the
    least-squares GAN loss with a weight on copying its input and rates that differ by a factor of
    100 from one to the next: they paint checkerboards, colour mush, inverted light and streaks, as
    the first hundred steps of a search bring them.

    Args:
        photos, paintings: uint8 [N, 3, size, size].
    """
    for number in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(rng(seed, "barely trained", number).get_state())
            network = _train_briefly(photos, paintings, longest * number // count, device)
        yield network


@torch.no_grad()
def translate_with(network: nn.Module, photos: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Translations of uint8 [N, 3, H, W], the same."""
    return torch.cat([to_bytes(network(to_float(part).to(device))).cpu() for part in photos.split(64)])


def _train_briefly(
    photos: torch.Tensor, paintings: torch.Tensor, steps: int, device: torch.device,
    batch: int = 4, edge: int = 64,
) -> nn.Module:
    """A generator after `steps` steps, its settings and batches drawn from the global generator."""
    G, D = _generator(choice(8, 16)).to(device), _discriminator(16).to(device)
    copying = 10 ** between(-1, 1.3)
    adam_G, adam_D = (
        torch.optim.Adam(network.parameters(), 10 ** between(-4, -2), betas=(0.5, 0.999))
        for network in (G, D)
    )
    crop = v2.RandomCrop(min(edge, photos.shape[-1]))  # grids are as wide as kernels at any size
    for _ in range(steps):
        b, a = (
            to_float(crop(domain[torch.randint(len(domain), (batch,))])).to(device)
            for domain in (photos, paintings)
        )
        fake = G(b)
        on_fake = D(fake)
        loss = mse_loss(on_fake, torch.ones_like(on_fake)) + copying * l1_loss(fake, b)
        adam_G.zero_grad()
        loss.backward()
        adam_G.step()
        on_real, on_fake = D(a), D(fake.detach())
        loss = mse_loss(on_real, torch.ones_like(on_real)) + mse_loss(on_fake, torch.zeros_like(on_fake))
        adam_D.zero_grad()
        loss.backward()
        adam_D.step()
    return G.eval()


def _generator(n: int) -> nn.Module:
    def stage(convolution: nn.Module, features: int) -> list[nn.Module]:
        return [convolution, nn.InstanceNorm2d(features), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *stage(nn.Conv2d(3, n, 7, padding=3), n),
        *stage(nn.Conv2d(n, 2 * n, 3, stride=2, padding=1), 2 * n),
        *stage(nn.Conv2d(2 * n, 4 * n, 3, stride=2, padding=1), 4 * n),
        *stage(nn.ConvTranspose2d(4 * n, 2 * n, 3, stride=2, padding=1, output_padding=1), 2 * n),
        *stage(nn.ConvTranspose2d(2 * n, n, 3, stride=2, padding=1, output_padding=1), n),
        nn.Conv2d(n, 3, 7, padding=3), nn.Tanh(),
    )  # fmt: skip


def _discriminator(n: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, n, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(n, 2 * n, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * n, 1, 4, padding=1),
    )  # fmt: skip
