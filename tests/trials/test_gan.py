"""The first GAN computes what the paper says, learns, and continues exactly."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from judge.common.errors import UserError
from judge.score import Score
from trials.gan import GAN, PatternScorer, Settings, load_inputs, patterns, train
from trials.session.engine import NoEngine
from trials.session.records import read_json
from trials.session.session import RunOptions, Session

CPU = torch.device("cpu")
BAD = {"optimizer": "sgd", "generator_lr": 0.01, "discriminator_lr": 0.01, "latent": "uniform", "loss": "mse",
       "activation": "sigmoid", "layer_norm": False}  # fmt: skip


def model(**changes) -> GAN:
    settings = replace(Settings(data="digits", latent_size=3, hidden=5), **changes)
    return GAN(settings.complete(CPU), (1, 8, 8), CPU)


def batch(seed: int, count: int = 4) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained(folder, settings: Settings) -> Session:
    """A trial's session after it."""
    session = Session("gan", settings.complete(CPU), RunOptions(out=folder, device="cpu"), NoEngine(), {})
    assert session.run(train) == 0
    return session


def before_and_after(folder, settings: Settings) -> tuple[float, float]:
    """The score without training and with it."""
    settings = settings.complete(CPU)
    data, scorer, _ = load_inputs(settings, CPU)
    untrained = GAN(settings, data.shape, CPU).make(settings.samples)
    trained(folder, settings)
    return scorer(untrained).default, read_json(folder / "run.json")["score"]["default"]


# ---------------------------------------------------------------------------------------------
# Losses and networks


def test_losses_are_the_papers_equations():
    """Equation 1 and, for the generator, section 3; the generator meets the discriminator updated."""
    net, real = model(), batch(0)
    D_before, fake = copy.deepcopy(net.D), net.G(net.noise(4, "step", 0)).detach()
    losses = net.update(real)
    expected = -D_before(real).sigmoid().log().mean() - (1 - D_before(fake).sigmoid()).log().mean()
    torch.testing.assert_close(losses["discriminator"], expected)
    torch.testing.assert_close(losses["generator"], -net.D(fake).sigmoid().log().mean())


def test_the_squared_loss_is_of_the_probability():
    net, real = model(loss="mse"), batch(0)
    D_before, fake = copy.deepcopy(net.D), net.G(net.noise(4, "step", 0)).detach()
    expected = ((D_before(real).sigmoid() - 1) ** 2).mean() + (D_before(fake).sigmoid() ** 2).mean()
    torch.testing.assert_close(net.update(real)["discriminator"], expected)


def test_each_network_learns_from_its_own_loss_only():
    """One step of plain descent, against gradients of a plain transcription."""
    net, real = model(optimizer="sgd", generator_lr=0.1, discriminator_lr=0.1), batch(0)
    G, D = copy.deepcopy(net.G), copy.deepcopy(net.D)
    net.update(real)
    fake = G(net.noise(4, "step", 0))
    (-D(real).sigmoid().log().mean() - (1 - D(fake.detach()).sigmoid()).log().mean()).backward()
    for ours, before in zip(net.D.parameters(), D.parameters()):
        torch.testing.assert_close(ours, before - 0.1 * before.grad)
    (-net.D(fake).sigmoid().log().mean()).backward()
    for ours, before in zip(net.G.parameters(), G.parameters()):
        torch.testing.assert_close(ours, before - 0.1 * before.grad)


@pytest.mark.parametrize("setting", BAD)
def test_each_cure_can_be_taken_back_by_itself(setting):
    """Every option changes what is computed."""
    def after_a_step(net: GAN) -> torch.Tensor:
        net.update(batch(0))
        net.update(batch(1))
        return net.make(4)

    assert not torch.equal(after_a_step(model()), after_a_step(model(**{setting: BAD[setting]})))


def test_networks_have_one_hidden_layer_each():
    net = model()
    assert sum(p.numel() for p in net.G.parameters()) == (3 * 5 + 5) + 2 * 5 + (5 * 64 + 64)
    assert sum(p.numel() for p in net.D.parameters()) == (64 * 5 + 5) + 2 * 5 + (5 + 1)
    bare = model(layer_norm=False, activation="sigmoid")
    assert not any(isinstance(m, nn.LayerNorm | nn.LeakyReLU) for m in bare.D.modules())


@pytest.mark.parametrize("latent, mean, least", [("normal", 0.0, -9), ("uniform", 0.5, 0)])
def test_noise_is_of_its_distribution_and_of_its_place(latent, mean, least):
    net = model(latent=latent, latent_size=50)
    z = net.noise(1000, "step", 3)
    assert z.mean().item() == pytest.approx(mean, abs=0.02) and z.min() >= least
    assert z.equal(net.noise(1000, "step", 3)) and not z.equal(net.noise(1000, "step", 4))


# ---------------------------------------------------------------------------------------------
# The pattern


def test_real_patterns_are_all_right_and_wrong_ones_are_not():
    scorer, real = PatternScorer(), patterns().pixels / 127.5 - 1
    assert scorer(real).default == 1.0
    wrong = torch.tensor([[1.0, -1, 1, -1], [1, -1, 1, 1], [0.5, -1, 1, -1], [0, 0, 0, 0]])
    assert scorer(wrong.view(4, 1, 1, 4)) == Score(0.25, {"distance": pytest.approx((0 + 2 + 0.5 + 4) / 16)})


# ---------------------------------------------------------------------------------------------
# Learning


@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_neurons_learn_the_pattern(tmp_path, seed):
    settings = Settings(data="pattern", seed=seed, steps=800, reports=1)
    before, after = before_and_after(tmp_path, replace(settings, generator_lr=2e-3, discriminator_lr=2e-3))
    assert after >= before + 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_with_the_cures_it_learns_digits_and_without_them_it_collapses(tmp_path, seed):
    settings = Settings(data="digits", seed=seed, steps=1000, reports=1)
    before, after = before_and_after(tmp_path / "good", settings)
    assert after >= before + 0.3
    _, collapsed = before_and_after(tmp_path / "bad", replace(settings, **BAD))
    assert collapsed < 0.05


# ---------------------------------------------------------------------------------------------
# Resume and settings


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_reloaded_model_takes_the_same_next_20_steps_bit_for_bit(tmp_path, optimizer):
    straight, stopped = model(optimizer=optimizer), model(optimizer=optimizer)

    def go(net: GAN, until: int) -> list[dict]:
        return [net.update(batch(net.step)) for _ in range(until - net.step)]

    go(straight, 7), go(stopped, 7)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = model(optimizer=optimizer)
    for parameter in resumed.G.parameters():  # what it starts from must not matter
        nn.init.zeros_(parameter)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for expected, got in zip(go(straight, 27), go(resumed, 27), strict=True):
        assert all(expected[name].equal(got[name]) for name in expected)
    assert straight.make(3).equal(resumed.make(3))


def test_a_trial_continued_with_a_larger_budget_is_the_same_trial(tmp_path):
    settings = Settings(data="pattern", steps=60, reports=6)
    trained(tmp_path / "straight", settings)
    trained(tmp_path / "parted", replace(settings, budget=0.5))
    trained(tmp_path / "parted", settings)
    straight, parted = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
                        for name in ("straight", "parted"))
    torch.testing.assert_close(parted, straight, rtol=0, atol=0)


def test_a_folder_of_images_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="trials.dcgan takes folders"):
        Settings(data=str(tmp_path)).complete(CPU)


def test_a_complete_setting_lacks_nothing_and_what_is_given_wins():
    for data in ("pattern", "digits", "mnist"):
        assert None not in vars(Settings(data=data).complete(CPU)).values()
    assert Settings(data="digits", hidden=7).complete(CPU).hidden == 7
