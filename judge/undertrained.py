"""Generators that have barely been trained: their outputs are examples of the class "neither"."""

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss
from torchvision.transforms import v2

from judge.common.rng import rng, seeded
from judge.corruptions import between, choice
from judge.images import to_bytes, to_float

UNDERTRAINED = "undertrained"  # name of these images beside the families of `judge.corruptions`
MAX_GENERATORS, IMAGES_PER_GENERATOR = 24, 32
BATCH_SIZE, CROP_SIZE = 4, 64  # generators leave grids as wide as their kernels at any image size


def undertrained_images(
    photos: torch.Tensor, paintings: torch.Tensor, seed: int, device: torch.device
) -> torch.Tensor:
    """Return translations of some of `photos` by undertrained generators, all uint8 [N, 3, H, W]."""
    count = min(MAX_GENERATORS, math.ceil((len(photos) + len(paintings)) / IMAGES_PER_GENERATOR))
    shape = count, IMAGES_PER_GENERATOR
    sources = photos[torch.randint(len(photos), shape, generator=rng(seed, "sources"))]
    generators = undertrained_generators(photos, paintings, seed, device, count)
    return torch.cat([translate_with(*pair, device) for pair in zip(generators, sources)])


def undertrained_generators(
    photos: torch.Tensor, paintings: torch.Tensor, seed: int, device: torch.device,
    count: int = 24, max_steps: int = 120,
) -> Iterator[nn.Module]:
    """Yield `count` small generators; the i-th was trained for `max_steps` * i // `count` steps.

    Each is an encoder and decoder with transposed convolutions, like CycleGAN's, trained on `photos` and
    `paintings`, uint8 [N, 3, size, size], with the least-squares GAN loss and a weighted L1 loss to its
    input. Outputs are checkerboards, blurred colours, inverted light and streaks, as early in a trial.
    """
    for number in range(count):
        with seeded(seed, "barely trained", number):
            network = _train(photos, paintings, max_steps * number // count, device)
        yield network


@torch.no_grad()
def translate_with(network: nn.Module, photos: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the network's translations of `photos`, both uint8 [N, 3, H, W]."""
    return torch.cat([to_bytes(network(to_float(part).to(device))).cpu() for part in photos.split(64)])


def _train(photos: torch.Tensor, paintings: torch.Tensor, steps: int, device: torch.device) -> nn.Module:
    """Train a generator for `steps` steps, with settings and batches from torch's global generator."""
    G, D = _generator(choice(8, 16)).to(device), _discriminator(16).to(device)
    copy_weight = 10 ** between(-1, 1.3)
    adam_G, adam_D = (torch.optim.Adam(network.parameters(), 10 ** between(-4, -2), betas=(0.5, 0.999))
                      for network in (G, D))
    crop = v2.RandomCrop(min(CROP_SIZE, photos.shape[-1]))
    for _ in range(steps):
        photo, painting = (to_float(crop(images[torch.randint(len(images), (BATCH_SIZE,))])).to(device)
                           for images in (photos, paintings))
        fake = G(photo)
        _step(adam_G, _gan_loss(D(fake), 1.0) + copy_weight * l1_loss(fake, photo))
        _step(adam_D, _gan_loss(D(painting), 1.0) + _gan_loss(D(fake.detach()), 0.0))
    return G.eval()


def _gan_loss(logits: torch.Tensor, target: float) -> torch.Tensor:
    return mse_loss(logits, torch.full_like(logits, target))


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _generator(n: int) -> nn.Module:
    convolutions = [
        nn.Conv2d(3, n, 7, padding=3),
        nn.Conv2d(n, 2 * n, 3, stride=2, padding=1),
        nn.Conv2d(2 * n, 4 * n, 3, stride=2, padding=1),
        nn.ConvTranspose2d(4 * n, 2 * n, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(2 * n, n, 3, stride=2, padding=1, output_padding=1),
    ]
    stages = [nn.Sequential(layer, nn.InstanceNorm2d(layer.out_channels), nn.ReLU(inplace=True))
              for layer in convolutions]
    return nn.Sequential(*stages, nn.Conv2d(n, 3, 7, padding=3), nn.Tanh())


def _discriminator(n: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, n, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(n, 2 * n, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * n, 1, 4, padding=1),
    )
