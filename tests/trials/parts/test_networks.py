"""The networks are the published ones."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from trials.parts.networks import (
    DcganDiscriminator,
    DcganGenerator,
    GrowingDiscriminator,
    GrowingGenerator,
    InstanceNorm,
    PatchDiscriminator,
    ResnetGenerator,
    StarganDiscriminator,
    StarganGenerator,
    perceptron,
    with_planes,
)

IMAGE = (3, 64, 64)


@pytest.mark.parametrize("network, published", [
    (ResnetGenerator(64, 9), 11_378_179), (PatchDiscriminator(64), 2_764_737),
    (StarganGenerator(64, 6, 5), 8_430_528), (StarganDiscriminator(64, 6, 5, 128), 44_762_048),
    (DcganGenerator(100, 64, IMAGE), 3_576_704), (DcganDiscriminator(64, IMAGE), 2_765_568),
    (perceptron(100, 200, 784, True, True), 100 * 200 + 200 + 2 * 200 + 200 * 784 + 784),
])
def test_networks_have_the_published_numbers_of_parameters(network, published):
    """Those of the authors' code, DCGAN's of PyTorch's example."""
    assert sum(p.numel() for p in network.parameters()) == published


@pytest.mark.parametrize("network, given, made", [
    (ResnetGenerator(4, 1), (2, 3, 64, 64), (2, 3, 64, 64)),
    (ResnetGenerator(4, 1), (2, 3, 128, 96), (2, 3, 128, 96)),
    (StarganGenerator(4, 2, 4), (2, 3 + 4, 128, 96), (2, 3, 128, 96)),
    *[(DcganGenerator(10, 2, shape), (3, 10), (3, *shape))
      for shape in ((1, 8, 8), (1, 32, 32), (3, 64, 64), (3, 128, 128))],
])
def test_generators_make_images_in_their_range(network, given, made):
    images = network(torch.randn(given) * 100)
    assert images.shape == made and images.abs().max() <= 1


@pytest.mark.parametrize("network, given, scored", [
    (PatchDiscriminator(4), (1, 3, 256, 256), [(1, 1, 30, 30)]),
    (StarganDiscriminator(4, 6, 4, 128), (2, 3, 128, 128), [(2, 1, 2, 2), (2, 4)]),
    (StarganDiscriminator(4, 5, 4, 64), (2, 3, 64, 64), [(2, 1, 2, 2), (2, 4)]),
    (StarganDiscriminator(4, 6, 4, 64), (2, 3, 64, 64), [(2, 1, 1, 1), (2, 4)]),
    *[(DcganDiscriminator(2, shape), (3, *shape), [(3, 1)])
      for shape in ((1, 8, 8), (1, 32, 32), (3, 64, 64), (3, 128, 128))],
])
def test_discriminators_score_patches_images_and_domains(network, given, scored):
    scores = network(torch.rand(given))
    assert [score.shape for score in (scores if isinstance(scores, tuple) else [scores])] == scored


@pytest.mark.parametrize("network", [
    ResnetGenerator(64, 2), PatchDiscriminator(64), DcganGenerator(100, 32, IMAGE),
    DcganDiscriminator(32, IMAGE),
])
def test_initial_weights_are_normal_with_deviation_0_02_and_biases_0(network):
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            mean, error = (1, 0.02) if isinstance(layer, nn.BatchNorm2d) else (0, 2e-3)
            assert layer.weight.mean().item() == pytest.approx(mean, abs=error)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.5 if mean else 0.1)
            assert layer.bias is None or layer.bias.count_nonzero() == 0


# ---------------------------------------------------------------------------------------------
# CycleGAN


def test_the_discriminator_sees_70_pixels():
    """One output depends on 70x70 inputs. Normalisation, which sees all, is left out."""
    network = nn.Sequential(*[m for m in PatchDiscriminator(4) if not isinstance(m, nn.InstanceNorm2d)])
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    network(image)[0, 0, 15, 15].backward()
    rows, columns = image.grad[0].abs().sum(0).nonzero().T
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


def test_instance_normalisation_has_no_parameters_and_padding_is_by_reflection():
    layers = list(ResnetGenerator(4, 1).modules())
    assert all(not m.affine and not m.track_running_stats for m in layers if isinstance(m, nn.InstanceNorm2d))
    assert sum(isinstance(m, nn.ReflectionPad2d) for m in layers) == 4
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in layers) == 2


def test_images_of_a_batch_do_not_meet():
    """So real and identity inputs can share a call."""
    network, images = ResnetGenerator(4, 1), torch.rand(3, 3, 64, 64)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_instance_normalisation_has_the_gradient_of_its_definition_in_channels_last(count, affine):
    """For one image torch's own has not (2.15)."""
    layer = InstanceNorm(3, affine=affine)
    x, slope = (torch.rand(count, 3, 6, 6).to(memory_format=torch.channels_last) for _ in range(2))
    leaves = [x.requires_grad_(), *layer.parameters()]
    for parameter in layer.parameters():
        nn.init.uniform_(parameter)
    made = layer(x)
    mean, variance = x.mean((2, 3), True), x.var((2, 3), correction=0, keepdim=True)
    expected = (x - mean) / (variance + layer.eps).sqrt()
    if affine:
        expected = expected * layer.weight[:, None, None] + layer.bias[:, None, None]
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made, expected)
    ours, right = (torch.autograd.grad(output, leaves, slope) for output in (made, expected))
    torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# StarGAN


def test_planes_are_1_for_the_class_of_the_image_and_else_0():
    images = torch.rand(2, 3, 4, 5)
    stacked = with_planes(images, torch.tensor([0, 2]), 3)
    assert stacked[:, :3].equal(images) and stacked.shape == (2, 6, 4, 5)
    assert stacked[:, 3:].flatten(2).unique(dim=2).flatten(1).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_stargan_generator_has_table_ivs_layers_and_its_discriminator_no_normalisation():
    G, D = StarganGenerator(64, 6, 5), StarganDiscriminator(64, 6, 5, 128)
    convolutions = [m for m in G.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions] == [
        (64, 7, 1), (128, 4, 2), (256, 4, 2), *[(256, 3, 1)] * 12, (128, 4, 2), (64, 4, 2), (3, 7, 1)]
    assert all(m.affine for m in G.modules() if isinstance(m, nn.InstanceNorm2d))
    assert not [m for m in D.modules() if isinstance(m, nn.InstanceNorm2d | nn.BatchNorm2d)]
    assert {m.negative_slope for m in D.modules() if isinstance(m, nn.LeakyReLU)} == {0.01}
    widths = [m.out_channels for m in D.body if isinstance(m, nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 1024, 2048]


# ---------------------------------------------------------------------------------------------
# DCGAN


def test_a_dcgan_generator_has_the_features_of_figure_1():
    layers = [m for m in DcganGenerator(100, 128, (3, 64, 64)) if isinstance(m, nn.ConvTranspose2d)]
    assert [m.in_channels for m in layers] == [100, 1024, 512, 256, 128]
    x, edges = torch.rand(1, 100, 1, 1), []
    for layer in layers:
        x = layer(x)
        edges.append(x.shape[-1])
    assert edges == [4, 8, 16, 32, 64]


def test_the_dcgan_discriminator_normalises_all_but_its_first_and_last_layer_and_leaks():
    layers = list(DcganDiscriminator(64, (3, 64, 64)))
    assert isinstance(layers[1], nn.LeakyReLU) and isinstance(layers[-2], nn.Conv2d)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in layers) == 3
    assert {m.negative_slope for m in layers if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_a_perceptrons_cures_can_be_left_out():
    layers = perceptron(2, 3, 4, leaky=False, normalise=False)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Sigmoid, nn.Linear]


# ---------------------------------------------------------------------------------------------
# Progressive growing

SHAPE = (3, 32, 32)


def growing(place: float) -> tuple[GrowingGenerator, GrowingDiscriminator]:
    G, D = GrowingGenerator(10, 8, SHAPE).eval(), GrowingDiscriminator(8, SHAPE).eval()
    G.place = D.place = place
    return G, D


def test_grown_up_they_are_dcgans_layer_by_layer():
    (G, D), z, images = growing(2.0), torch.randn(3, 10), torch.rand(3, *SHAPE) * 2 - 1
    whole_G, whole_D = DcganGenerator(10, 8, SHAPE).eval(), DcganDiscriminator(8, SHAPE).eval()
    for whole, parts in ((whole_G, [G.stem, *G.blocks, G.heads[2]]),
                         (whole_D, [D.heads[2], *reversed(D.blocks), D.stem])):
        layers = [layer for part in parts for layer in part]
        assert list(map(type, layers)) == list(map(type, whole))
        for ours, theirs in zip(layers, whole):
            theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(G(z), whole_G(z))
    torch.testing.assert_close(D(images), whole_D(images))


def test_images_have_the_full_edge_and_at_first_the_detail_of_8_px():
    (G, D), z = growing(0.0), torch.randn(3, 10)
    made = G(z)
    assert made.shape == (3, *SHAPE)
    assert made.equal(made[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))
    noise = torch.rand(3, *SHAPE) * 2 - 1
    fine = noise - avg_pool2d(noise, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(D(made + fine), D(made))  # which it does not see


@pytest.mark.parametrize("before, after", [(1e-6, 0.0), (1 - 1e-6, 1.0), (1 + 1e-6, 1.0), (2 - 1e-6, 2.0)])
def test_a_resolution_is_faded_in_without_a_jump(before, after):
    (G, D), z, images = growing(before), torch.randn(3, 10), torch.rand(3, *SHAPE) * 2 - 1
    made, said = G(z), D(images)
    G.place = D.place = after
    torch.testing.assert_close(made, G(z), atol=1e-4, rtol=0)
    torch.testing.assert_close(said, D(images), atol=1e-4, rtol=0)
