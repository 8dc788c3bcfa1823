"""What the three GANs of noise have in common: their step and their noise."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from trials.parts.gan_base import NoiseGAN
from trials.training import conditional_gan, dcgan, gan

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
Y = torch.eye(3)[LABELS]  # the classes as numbers beside z,
PLANES = Y[:, :, None, None].expand(6, 3, 16, 16)  # and as planes beside an image


def first_gan(**changes) -> gan.GAN:
    return gan.GAN(replace(gan.Settings(data="digits", latent_size=3, hidden=5), **changes), (1, 16, 16), CPU)


def deep_gan() -> dcgan.DCGAN:
    return dcgan.DCGAN(dcgan.Settings(latent_size=3, ngf=4, ndf=4, edge=16), (1, 16, 16), CPU)


def conditional() -> conditional_gan.ConditionalGAN:
    settings = conditional_gan.Settings(latent_size=3, ngf=4, ndf=4, edge=16)
    return conditional_gan.ConditionalGAN(settings, (1, 16, 16), 3, CPU)


@pytest.mark.parametrize("net", [first_gan(), first_gan(loss="mse"), deep_gan(), conditional()])
def test_two_steps_are_those_of_a_plain_transcription(net: NoiseGAN):
    """Equation 1 for D and section 3 for G (1406.2661), each with its own gradient alone, G after D; with the
    class written out (1411.1784). By plain gradient descent."""
    G, D = copy.deepcopy(net.G), copy.deepcopy(net.D)
    sees_class = isinstance(net, conditional_gan.ConditionalGAN)
    net.optimizer_G, net.optimizer_D = (torch.optim.SGD(part.parameters(), 0.1) for part in (net.G, net.D))

    def probability(images: torch.Tensor) -> torch.Tensor:
        return D(torch.cat([images, PLANES], 1) if sees_class else images).sigmoid()

    def loss(probability: torch.Tensor, real: bool) -> torch.Tensor:
        if getattr(net.settings, "loss", "bce") == "mse":
            return ((probability - float(real)) ** 2).mean()
        return -(probability if real else 1 - probability).log().mean()

    def descend(network: nn.Module, loss: torch.Tensor) -> torch.Tensor:
        weights = list(network.parameters())
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights)):
            weight.data -= 0.1 * slope
        return loss

    for step in range(2):
        real = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(step)) * 2 - 1
        losses = net.update(real, LABELS)
        z = net.noise(6, "step", step)
        fake = G(torch.cat([z, Y], 1) if sees_class else z)
        loss_D = descend(D, loss(probability(real), True) + loss(probability(fake.detach()), False))
        loss_G = descend(G, loss(probability(fake), True))
        expected = {"discriminator": loss_D, "generator": loss_G}
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in ((net.G, G), (net.D, D)):
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("net, mean, low, high", [
    (first_gan(latent_size=50), 0.0, -9, 9), (first_gan(latent_size=50, latent="uniform"), 0.5, 0, 1),
    (deep_gan(), 0.0, -1, 1),
])
def test_noise_has_its_distribution_and_depends_on_its_key_alone(net: NoiseGAN, mean, low, high):
    z = net.noise(10_000, "step", 3)
    assert z.mean().item() == pytest.approx(mean, abs=0.02) and low <= z.min() and z.max() <= high
    assert z.max() - z.min() > 0.9 * min(2, high - low)
    assert z.equal(net.noise(10_000, "step", 3)) and not z.equal(net.noise(10_000, "step", 4))


def test_an_image_does_not_depend_on_those_beside_it():
    net = deep_gan()
    net.update(torch.rand(6, 1, 16, 16))  # batch normalisation has seen something
    together = net.make(300)
    torch.testing.assert_close(net.make(5), together[:5])
    assert net.G.training
