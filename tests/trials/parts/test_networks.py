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
# StarGAN


def test_stargans_have_the_published_numbers_of_parameters():
    """Those of the authors' code, five domains at 128 px."""
    assert parameters(StarganGenerator(64, 6, 5)) == 8_430_528
    assert parameters(StarganDiscriminator(64, 6, 5, 128)) == 44_762_048


@pytest.mark.parametrize("edge, layers, patches", [(128, 6, 2), (64, 5, 2), (64, 6, 1)])
def test_stargans_translate_images_and_judge_patches_and_domains(edge, layers, patches):
    images = with_planes(torch.rand(2, 3, edge, edge), torch.tensor([0, 3]), 4)
    made = StarganGenerator(4, 2, 4)(images * 10)
    assert made.shape == (2, 3, edge, edge) and made.abs().max() <= 1
    source, domain = StarganDiscriminator(4, layers, 4, edge)(made)
    assert source.shape == (2, 1, patches, patches) and domain.shape == (2, 4)


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


def test_affine_instance_normalisation_trains_as_torchs_own():
    ours, theirs = InstanceNorm(3, affine=True), nn.InstanceNorm2d(3, affine=True)
    nn.init.uniform_(ours.weight), nn.init.uniform_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    images, weights = torch.rand(2, 3, 5, 5), torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(ours(images), theirs(images))
    for layer in (ours, theirs):
        (layer(images) * weights).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


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
