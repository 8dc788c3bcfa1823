"""The networks are the published ones."""

import pytest
import torch
from torch import nn

from trials.networks import PatchDiscriminator, ResnetGenerator


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_generator_has_the_published_number_of_parameters():
    assert parameters(ResnetGenerator(64, 9)) == 11_378_179


def test_the_discriminator_has_the_published_number_of_parameters():
    assert parameters(PatchDiscriminator(64)) == 2_764_737


def test_the_discriminator_sees_70_pixels():
    """One output depends on 70x70 inputs. Normalisation, which sees all, is left out."""
    network = nn.Sequential(*[m for m in PatchDiscriminator(4) if not isinstance(m, nn.InstanceNorm2d)])
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    network(image)[0, 0, 15, 15].backward()
    rows, columns = image.grad[0].abs().sum(0).nonzero().T
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


@pytest.mark.parametrize("height, width", [(64, 64), (128, 96)])
def test_a_translation_has_the_size_of_its_source(height, width):
    assert ResnetGenerator(4, 1)(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)


def test_a_discriminator_scores_30_by_30_patches_at_256_pixels():
    assert PatchDiscriminator(4)(torch.rand(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_outputs_are_in_a_generators_range():
    assert ResnetGenerator(4, 1)(torch.randn(1, 3, 64, 64) * 10).abs().max() <= 1


@pytest.mark.parametrize("network", [ResnetGenerator(64, 2), PatchDiscriminator(64)])
def test_initial_weights_are_normal_with_deviation_0_02_and_biases_0(network):
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert layer.bias.count_nonzero() == 0


def test_instance_normalisation_has_no_parameters_and_padding_is_by_reflection():
    layers = list(ResnetGenerator(4, 1).modules())
    assert all(not m.affine and not m.track_running_stats for m in layers if isinstance(m, nn.InstanceNorm2d))
    assert sum(isinstance(m, nn.ReflectionPad2d) for m in layers) == 4
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in layers) == 2


def test_images_of_a_batch_do_not_meet():
    """What lets real and identity inputs share a call."""
    network, images = ResnetGenerator(4, 1), torch.rand(3, 3, 64, 64)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone)
