"""The first GAN has one hidden layer each, and fails without its cures."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from judge.score import Score
from tests.trials.test_systems import trained
from trials.session.records import read_lines
from trials.session.steady import steady
from trials.training import gan
from trials.training.gan import GAN, Settings, patterns, score_patterns

CPU = torch.device("cpu")
BAD = {"optimizer": "sgd", "generator_lr": 0.01, "discriminator_lr": 0.01, "latent": "uniform", "loss": "mse",
       "activation": "sigmoid", "layer_norm": False}  # fmt: skip


def model(**changes) -> GAN:
    return GAN(replace(Settings(data="digits", latent_size=3, hidden=5), **changes), (1, 8, 8), CPU)


def test_networks_have_one_hidden_layer_each_and_cures_can_be_taken_back():
    net = model()
    assert sum(p.numel() for p in net.G.parameters()) == (3 * 5 + 5) + 2 * 5 + (5 * 64 + 64)
    assert sum(p.numel() for p in net.D.parameters()) == (64 * 5 + 5) + 2 * 5 + (5 + 1)
    bare = model(layer_norm=False, activation="sigmoid", optimizer="sgd")
    assert not any(isinstance(m, nn.LayerNorm | nn.LeakyReLU) for m in bare.D.modules())
    assert isinstance(bare.optimizer_G, torch.optim.SGD)


@pytest.mark.parametrize("seed", [0, 1])
def test_without_the_cures_it_collapses(tmp_path, seed):
    settings = Settings(data="digits", seed=seed, steps=1000, reports=1, **BAD)
    assert trained(gan, tmp_path, settings)["score"]["default"] < 0.05


def test_the_last_report_does_not_decide_and_an_average_of_the_generator_holds(tmp_path):
    """Seed 1 has every pattern right from step 1,800 to 2,700, and none at step 3,000."""
    settings = Settings(data="pattern", seed=1)
    score = trained(gan, tmp_path / "last", settings)["score"]
    reports = [line["score"] for line in read_lines(tmp_path / "last/stats.jsonl")]
    assert score == steady(reports) and max(report["default"] for report in reports) == 1
    averaged = trained(gan, tmp_path / "average", replace(settings, ema=100))["score"]
    assert averaged["default"] > 0.8 and averaged["default"] > score["default"]  # 0.93 and 0.07 here


def test_real_patterns_are_all_right_and_wrong_ones_are_not():
    assert score_patterns(patterns().pixels / 127.5 - 1).default == 1.0
    wrong = torch.tensor([[1.0, -1, 1, -1], [1, -1, 1, 1], [0.5, -1, 1, -1], [0, 0, 0, 0]]).view(4, 1, 1, 4)
    assert score_patterns(wrong) == Score(0.25, {"distance": pytest.approx((0 + 2 + 0.5 + 4) / 16)})
