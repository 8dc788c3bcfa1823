"""The first GAN has one hidden layer, learns, and fails without its cures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trials.test_systems import trained
from trials import gan
from trials.gan import GAN, Settings, load_inputs

CPU = torch.device("cpu")
BAD = {"optimizer": "sgd", "generator_lr": 0.01, "discriminator_lr": 0.01, "latent": "uniform", "loss": "mse",
       "activation": "sigmoid", "layer_norm": False}  # fmt: skip


def model(**changes) -> GAN:
    return GAN(replace(Settings(data="digits", latent_size=3, hidden=5), **changes), (1, 8, 8), CPU)


@pytest.mark.parametrize("setting", BAD)
def test_each_cure_can_be_taken_back_by_itself(setting):
    """Every option changes what is computed."""
    def images_after_two_steps(net: GAN) -> torch.Tensor:
        for seed in range(2):
            net.update(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1)
        return net.make(4)

    assert not images_after_two_steps(model()).equal(images_after_two_steps(model(**{setting: BAD[setting]})))


def test_networks_have_one_hidden_layer_each():
    net = model()
    assert sum(p.numel() for p in net.G.parameters()) == (3 * 5 + 5) + 2 * 5 + (5 * 64 + 64)
    assert sum(p.numel() for p in net.D.parameters()) == (64 * 5 + 5) + 2 * 5 + (5 + 1)
    bare = model(layer_norm=False, activation="sigmoid")
    assert not any(isinstance(m, nn.LayerNorm | nn.LeakyReLU) for m in bare.D.modules())


def scores_before_and_after(folder: Path, settings: Settings) -> tuple[float, float]:
    settings = settings.complete(CPU)
    data, scorer, _ = load_inputs(settings, CPU)
    untrained = GAN(settings, data.shape, CPU).make(settings.samples)
    return scorer(untrained).default, trained(gan, folder, settings)["score"]["default"]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_neurons_learn_the_pattern(tmp_path, seed):
    settings = Settings(data="pattern", seed=seed, steps=800, reports=1, generator_lr=2e-3,
                        discriminator_lr=2e-3)
    before, after = scores_before_and_after(tmp_path, settings)
    assert after >= before + 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_with_the_cures_it_learns_digits_and_without_them_it_collapses(tmp_path, seed):
    settings = Settings(data="digits", seed=seed, steps=1000, reports=1)
    before, after = scores_before_and_after(tmp_path / "good", settings)
    assert after >= before + 0.3
    _, collapsed = scores_before_and_after(tmp_path / "bad", replace(settings, **BAD))
    assert collapsed < 0.05
