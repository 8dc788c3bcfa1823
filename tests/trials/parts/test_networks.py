"""The networks are the published ones."""

from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from trials.cyclegan import Settings
from trials.inspection.translation import tile_margin
from trials.parts.networks import (
    UPSAMPLING,
    DcganDiscriminator,
    DcganGenerator,
    GrowingDiscriminator,
    GrowingGenerator,
    InstanceNorm,
    PatchDiscriminator,
    ResnetGenerator,
    StarganDiscriminator,
    StarganGenerator,
)

IMAGE = (3, 64, 64)


@pytest.mark.parametrize("network, published", [
    (ResnetGenerator(64, 9), 11_378_179), (PatchDiscriminator(64), 2_764_737),
    (ResnetGenerator(64, 9, upsampling="resize"), 11_378_179),  # 3x3 convolutions both
    (StarganGenerator(64, 6, 5), 8_430_528), (StarganDiscriminator(64, 6, 5, 128), 44_762_048),
    (DcganGenerator(100, 64, IMAGE), 3_576_704), (DcganDiscriminator(64, IMAGE), 2_765_568),
])
def test_networks_have_the_published_numbers_of_parameters(network, published):
    """Those of the authors' code, DCGAN's of PyTorch's example."""
    assert sum(p.numel() for p in network.parameters()) == published


@pytest.mark.parametrize("network, given, shapes", [
    (ResnetGenerator(4, 1), (2, 3, 128, 96), [(2, 3, 128, 96)]),
    (ResnetGenerator(4, 1, 1, "resize"), (2, 3, 38, 62), [(2, 3, 38, 62)]),
    (ResnetGenerator(4, 1, 3, "resize"), (2, 3, 64, 96), [(2, 3, 64, 96)]),
    (StarganGenerator(4, 2, 4), (2, 3 + 4, 128, 96), [(2, 3, 128, 96)]),
    (DcganGenerator(10, 2, (1, 8, 8)), (3, 10), [(3, 1, 8, 8)]),
    (DcganGenerator(10, 2, (3, 128, 128)), (3, 10), [(3, 3, 128, 128)]),
    (PatchDiscriminator(4), (1, 3, 256, 256), [(1, 1, 30, 30)]),
    (StarganDiscriminator(4, 6, 4, 128), (2, 3, 128, 128), [(2, 1, 2, 2), (2, 4)]),
    (StarganDiscriminator(4, 6, 4, 64), (2, 3, 64, 64), [(2, 1, 1, 1), (2, 4)]),
    (DcganDiscriminator(2, (1, 8, 8)), (3, 1, 8, 8), [(3, 1)]),
    (DcganDiscriminator(2, (3, 128, 128)), (3, 3, 128, 128), [(3, 1)]),
])
def test_generators_make_images_and_discriminators_score_patches_images_and_domains(network, given, shapes):
    outputs = network(torch.randn(given) * 100)
    outputs = outputs if isinstance(outputs, tuple) else [outputs]
    assert [output.shape for output in outputs] == shapes
    if isinstance(network, ResnetGenerator | StarganGenerator | DcganGenerator):
        assert outputs[0].abs().max() <= 1


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


def test_the_discriminator_sees_70_pixels():
    network = PatchDiscriminator(4)  # without normalisation, which sees all
    network = nn.Sequential(*[layer for layer in network if not isinstance(layer, nn.InstanceNorm2d)])
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    network(image)[0, 0, 15, 15].backward()
    rows, columns = image.grad[0].abs().sum(0).nonzero().T
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


def test_cyclegan_pads_by_reflection_and_discriminators_leak_as_published():
    assert sum(isinstance(m, nn.ReflectionPad2d) for m in ResnetGenerator(4, 1).modules()) == 4
    for network, slope in ((PatchDiscriminator(4), 0.2), (StarganDiscriminator(4, 3, 2, 32), 0.01),
                           (DcganDiscriminator(4, IMAGE), 0.2)):
        assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {slope}


@pytest.mark.parametrize("count", [1, 2])
def test_instance_normalisation_has_the_gradient_of_its_definition_in_channels_last(count):
    """For one image torch's own has not (2.15)."""
    layer = InstanceNorm(3, affine=True)
    x, slope = (torch.rand(count, 3, 6, 6).to(memory_format=torch.channels_last) for _ in range(2))
    leaves = [x.requires_grad_(), *map(nn.init.uniform_, layer.parameters())]
    made = layer(x)
    mean, variance = x.mean((2, 3), True), x.var((2, 3), correction=0, keepdim=True)
    scale, shift = (parameter[:, None, None] for parameter in layer.parameters())
    expected = (x - mean) / (variance + layer.eps).sqrt() * scale + shift
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made, expected)
    ours, right = (torch.autograd.grad(output, leaves, slope) for output in (made, expected))
    torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)


SHAPE = (3, 32, 32)


def growing(place: float) -> tuple[GrowingGenerator, GrowingDiscriminator]:
    G, D = GrowingGenerator(10, 8, SHAPE).eval(), GrowingDiscriminator(8, SHAPE).eval()
    G.place = D.place = place
    return G, D


def test_grown_up_they_are_dcgans_layer_by_layer():
    (G, D), z, images = growing(2.0), torch.randn(3, 10), torch.rand(3, *SHAPE) * 2 - 1
    dcgan_G, dcgan_D = DcganGenerator(10, 8, SHAPE).eval(), DcganDiscriminator(8, SHAPE).eval()
    for whole, parts in ((dcgan_G, [G.stem, *G.blocks, G.heads[2]]),
                         (dcgan_D, [D.heads[2], *reversed(D.blocks), D.stem])):
        layers = nn.Sequential(*(layer for part in parts for layer in part))
        assert list(map(type, layers)) == list(map(type, whole))
        whole.load_state_dict(layers.state_dict())
    torch.testing.assert_close(G(z), dcgan_G(z))
    torch.testing.assert_close(D(images), dcgan_D(images))


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


def test_the_setting_names_every_way_to_upsample():
    assert get_args(get_type_hints(Settings)["upsampling"]) == tuple(UPSAMPLING)


@pytest.mark.parametrize("downsamplings", [1, 2, 3])
@pytest.mark.parametrize("upsampling, spread", [("transposed", True), ("resize", False)])
def test_transposed_convolutions_leave_a_grid_and_resized_ones_none(downsamplings, upsampling, spread):
    """Odena et al. 2016: with equal weights one makes a grid of a constant image, the other a constant."""
    network = ResnetGenerator(2, 1, downsamplings, upsampling)
    linear(network)
    image = network(torch.ones(1, 3, 96, 96, dtype=torch.double))[..., 32:64, 32:64]
    assert (image.std().item() > 0.01 * image.mean().item()) == spread


@pytest.mark.parametrize("downsamplings, upsampling, radius", [
    (1, "transposed", 8 + 4), (1, "resize", 9 + 4), (2, "transposed", 12 + 8), (2, "resize", 15 + 8)])
def test_a_generator_sees_so_far_and_translated_tiles_have_a_margin_for_it(downsamplings, upsampling, radius):
    network = ResnetGenerator(2, 1, downsamplings, upsampling)
    linear(network)
    distances = []
    for place in range(48, 48 + network.stride):
        image = torch.zeros(1, 3, 96, 96, dtype=torch.double, requires_grad=True)
        network(image)[0, 0, place, place].backward()
        rows = image.grad.sum((0, 1, 3)).nonzero().flatten().tolist()
        distances += [place - rows[0], rows[-1] - place]
    assert max(distances) == radius <= tile_margin(network)


def linear(network: nn.Module) -> None:
    """Leave the convolutions, all weights 1, and the paddings."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.InstanceNorm2d | nn.ReLU | nn.Tanh):
                setattr(parent, name, nn.Identity())
    for parameter in network.double().parameters():
        nn.init.ones_(parameter)
