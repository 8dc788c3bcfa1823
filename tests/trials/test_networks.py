"""The networks are the published ones."""

import pytest
import torch
from torch import nn

from trials.networks import (
    DcganDiscriminator,
    DcganGenerator,
    PatchDiscriminator,
    ResnetGenerator,
    perceptron,
)


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


# ---------------------------------------------------------------------------------------------
# DCGAN


def test_dcgans_have_the_published_numbers_of_parameters():
    """Those of PyTorch's own DCGAN example, ngf and ndf 64 at 64 px."""
    assert parameters(DcganGenerator(100, 64, (3, 64, 64))) == 3_576_704
    assert parameters(DcganDiscriminator(64, (3, 64, 64))) == 2_765_568


def test_a_dcgan_generator_has_the_features_of_figure_1():
    layers = [m for m in DcganGenerator(100, 128, (3, 64, 64)) if isinstance(m, nn.ConvTranspose2d)]
    assert [m.in_channels for m in layers] == [100, 1024, 512, 256, 128]
    x, edges = torch.rand(1, 100, 1, 1), []
    for layer in layers:
        x = layer(x)
        edges.append(x.shape[-1])
    assert edges == [4, 8, 16, 32, 64]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 32, 32), (3, 64, 64), (3, 128, 128)])
def test_dcgans_make_and_take_images_of_any_edge(shape):
    made = DcganGenerator(10, 2, shape)(torch.randn(3, 10) * 100)
    assert made.shape == (3, *shape) and made.abs().max() <= 1
    assert DcganDiscriminator(2, shape)(made).shape == (3, 1)


def test_the_dcgan_discriminator_normalises_all_but_its_first_and_last_layer_and_leaks():
    layers = list(DcganDiscriminator(64, (3, 64, 64)))
    assert isinstance(layers[1], nn.LeakyReLU) and isinstance(layers[-2], nn.Conv2d)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in layers) == 3
    assert {m.negative_slope for m in layers if isinstance(m, nn.LeakyReLU)} == {0.2}


@pytest.mark.parametrize(
    "network", [DcganGenerator(100, 32, (3, 64, 64)), DcganDiscriminator(32, (3, 64, 64))])
def test_dcgans_begin_with_weights_of_deviation_0_02(network):
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.mean().item() == pytest.approx(0, abs=2e-3)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02) and not layer.bias.any()


def test_a_perceptron_has_one_hidden_layer_of_what_is_asked_for():
    network = perceptron(100, 200, 784, leaky=True, normalise=True)
    assert parameters(network) == 100 * 200 + 200 + 2 * 200 + 200 * 784 + 784
    kinds = [type(m) for m in perceptron(2, 3, 4, leaky=False, normalise=False)]
    assert kinds == [nn.Linear, nn.Sigmoid, nn.Linear]
