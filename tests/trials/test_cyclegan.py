"""The CycleGAN trial computes what the paper says, and continues exactly."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from judge.common.errors import UserError
from trials.cyclegan import PRESETS, CycleGAN, Settings, check
from trials.parts.pool import HistoryPool
from trials.parts.schedule import decay_factor
from trials.session.session import with_parameters

CPU = torch.device("cpu")
TINY = Settings(data="sample", size="sketch", precision="fp32", ngf=4, blocks=1, ndf=4, steps=100)


def model(**changes) -> CycleGAN:
    return CycleGAN(replace(TINY, **changes).complete(CPU), schedule=100, device=CPU)


def batch(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---------------------------------------------------------------------------------------------
# Losses


def test_losses_are_the_papers_equations():
    """Against a plain transcription: one call for each term, none shared."""
    net, a, b = model(), batch(0), batch(1)
    G, F, D_A, D_B = (copy.deepcopy(n) for n in (net.G_BA, net.G_AB, net.D_A, net.D_B))
    losses = net.update(a, b)

    def l1(x, y):
        return (x - y).abs().mean()

    fake_a, fake_b = G(b), F(a)
    expected = {
        "adversarial_A": ((D_A(fake_a) - 1) ** 2).mean(),
        "adversarial_B": ((D_B(fake_b) - 1) ** 2).mean(),
        "cycle_A": l1(G(fake_b), a),
        "cycle_B": l1(F(fake_a), b),
        "identity_A": l1(G(a), a),
        "identity_B": l1(F(b), b),
        "discriminator_A": (((D_A(a) - 1) ** 2).mean() + (D_A(fake_a) ** 2).mean()) / 2,
        "discriminator_B": (((D_B(b) - 1) ** 2).mean() + (D_B(fake_b) ** 2).mean()) / 2,
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_weights_multiply_the_losses_they_are_named_after():
    """The gradient of the whole is the weighted sum of the parts' gradients."""
    a, b = batch(0), batch(1)

    def gradient(**weights) -> torch.Tensor:
        none = {"identity_weight": 0, "cycle_weight": 0, "adversarial_weight": 0}
        net = model(**(none | weights))
        net.update(a, b)
        return torch.cat([p.grad.flatten() for p in net.G_BA.parameters()])

    whole = gradient(identity_weight=3, cycle_weight=5, adversarial_weight=2)
    names = ("identity_weight", "cycle_weight", "adversarial_weight")
    identity, cycle, adversarial = (gradient(**{name: 1}) for name in names)
    torch.testing.assert_close(whole, 3 * identity + 5 * cycle + 2 * adversarial, rtol=1e-3, atol=1e-5)


def test_no_identity_weight_leaves_the_identity_loss_out():
    assert not any("identity" in name for name in model(identity_weight=0).update(batch(0), batch(1)))


def test_each_network_learns_from_its_own_loss_only():
    net = model()
    before = {name: copy.deepcopy(getattr(net, name).state_dict()) for name in ("G_AB", "G_BA", "D_A", "D_B")}
    net.update(batch(0), batch(1))
    for name, state in before.items():
        after = getattr(net, name).state_dict()
        assert any(not after[key].equal(value) for key, value in state.items()), name
    # A generator's step leaves no gradient in the discriminators: theirs is of their own loss.
    again = model()
    again.update(batch(0), batch(1))
    for D, real, fake in ((again.D_A, batch(0), "pool_A"), (again.D_B, batch(1), "pool_B")):
        D_before = copy.deepcopy(D)
        D_before.load_state_dict(before["D_A" if fake == "pool_A" else "D_B"])
        shown = torch.stack(getattr(again, fake).fakes)
        loss = ((D_before(real) - 1) ** 2).mean() + (D_before(shown) ** 2).mean()
        (loss / 2).backward()
        for mine, theirs in zip(D.parameters(), D_before.parameters()):
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_discriminator_under_the_threshold_is_not_updated():
    net = model(discriminator_threshold=1e6)
    before = copy.deepcopy(net.D_A.state_dict())
    net.update(batch(0), batch(1))
    assert all(value.equal(before[key]) for key, value in net.D_A.state_dict().items())


def test_bf16_computes_the_same_losses_but_for_its_rounding():
    exact, rounded = model(), model(precision="bf16")
    for seed in range(3):
        a, b = batch(2 * seed), batch(2 * seed + 1)
        ours, theirs = rounded.update(a, b), exact.update(a, b)
        for name, loss in theirs.items():
            assert ours[name].dtype == torch.float32
            torch.testing.assert_close(ours[name], loss, rtol=0.05, atol=0.01, msg=name)
    assert {p.dtype for p in rounded.G_BA.parameters()} == {torch.float32}
    assert rounded.paint(batch(0)).dtype == torch.float32


@pytest.mark.parametrize(("computes", "precision"), [(True, "bf16"), (False, "fp32")])
def test_precision_is_bf16_only_where_the_device_computes_in_it(monkeypatch, computes, precision):
    monkeypatch.setattr("trials.cyclegan.supports_bf16", lambda device: computes)
    assert Settings(data="sample", size="sketch").complete(CPU).precision == precision
    asked = Settings(data="sample", size="sketch", precision="fp32")
    assert asked.complete(CPU).precision == "fp32"


# ---------------------------------------------------------------------------------------------
# Pool and schedule


def test_the_pool_shows_new_fakes_until_it_is_full():
    pool, draw = HistoryPool(3), torch.Generator().manual_seed(0)
    fakes = torch.arange(3.0)[:, None, None, None]
    assert pool.swap(fakes, draw).equal(fakes)
    assert len(pool.fakes) == 3


def test_a_full_pool_swaps_half_of_the_time_and_loses_nothing():
    pool, draw = HistoryPool(50), torch.Generator().manual_seed(0)
    swapped, shown = 0, []
    for number in range(1050):
        (fake,) = pool.swap(torch.full((1, 1, 1, 1), float(number)), draw)
        shown.append(fake.item())
        swapped += number >= 50 and fake.item() != number
    assert 440 < swapped < 560  # of 1000, within four deviations of a half
    assert len(pool.fakes) == 50
    held = {fake.item() for fake in pool.fakes}
    assert held <= set(map(float, range(1050)))


def test_an_empty_pool_shows_the_newest_fakes_only():
    fakes = batch(0)
    assert HistoryPool(0).swap(fakes, torch.Generator()).equal(fakes)


def test_rates_are_constant_and_then_fall_linearly_to_zero():
    factors = [decay_factor(step, schedule=100, decay=0.5) for step in (0, 49, 50, 75, 99)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.02])


def test_each_pair_of_networks_has_its_own_rate():
    net = model(generator_lr=1e-3, discriminator_lr=1e-5)
    net.step = 75
    net.update(batch(0), batch(1))
    assert net.optimizer_G.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert net.optimizer_D.param_groups[0]["lr"] == pytest.approx(5e-6)


# ---------------------------------------------------------------------------------------------
# Resume


def test_a_reloaded_model_takes_the_same_next_20_steps_bit_for_bit(tmp_path):
    straight, stopped = model(pool_size=5), model(pool_size=5)

    def go(net: CycleGAN, until: int) -> list[dict]:
        return [net.update(batch(net.step), batch(1000 + net.step)) for _ in range(until - net.step)]

    go(straight, 7), go(stopped, 7)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = model(pool_size=5, seed=0)
    for parameter in resumed.G_BA.parameters():  # what it starts from must not matter
        nn.init.zeros_(parameter)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for expected, got in zip(go(straight, 27), go(resumed, 27), strict=True):
        assert all(expected[name].equal(got[name]) for name in expected)
    for expected, got in zip(straight.G_BA.parameters(), resumed.G_BA.parameters()):
        assert expected.equal(got)


def test_equal_seeds_start_from_equal_weights_and_leave_torchs_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second, other = model(), model(), model(seed=1)
    assert torch.get_rng_state().equal(before)
    assert first.G_AB[1].weight.equal(second.G_AB[1].weight)
    assert not first.G_AB[1].weight.equal(other.G_AB[1].weight)
    assert not first.G_AB[1].weight.equal(first.G_BA[1].weight)


# ---------------------------------------------------------------------------------------------
# Settings


def test_defaults_are_the_published_setting():
    s = Settings(size="paper").complete(CPU)
    assert (s.identity_weight, s.cycle_weight, s.adversarial_weight) == (5, 10, 1)
    assert (s.generator_lr, s.discriminator_lr, s.beta1, s.beta2) == (2e-4, 2e-4, 0.5, 0.999)
    assert (s.batch_size, s.pool_size, s.decay) == (1, 50, 0.5)
    assert (s.pixels, s.ngf, s.blocks, s.ndf, s.epochs) == (256, 64, 9, 64, 200)
    assert s.schedule(larger=6287) == 200 * 6287


def test_auto_is_a_sketch_without_a_gpu_and_the_paper_with_one():
    assert Settings().complete(CPU).size == "sketch"
    assert Settings().complete(torch.device("cuda")).size == "paper"


@pytest.mark.parametrize("size", PRESETS)
def test_a_complete_setting_lacks_nothing(size):
    s = Settings(size=size).complete(CPU)
    assert None not in (s.ngf, s.blocks, s.ndf, s.photos)
    assert (s.steps is None) != (s.epochs is None)


def test_what_is_given_wins_over_the_size():
    s = Settings(size="paper", ngf=8, steps=70).complete(CPU)
    assert (s.ngf, s.steps, s.epochs, s.blocks) == (8, 70, None, 9)


def test_steps_and_epochs_together_are_refused():
    with pytest.raises(UserError, match="give one"):
        Settings(steps=5, epochs=5).complete(CPU)


def test_too_few_photographs_to_score_are_refused_before_training():
    with pytest.raises(UserError, match="at least 4"):
        Settings(photos=3).complete(CPU)


@pytest.mark.parametrize("size", PRESETS)
def test_a_share_of_the_schedule_has_the_same_reports_at_every_size(size, sample_data):
    s = Settings(data=str(sample_data), size=size, budget=0.2).complete(CPU)
    assert s.report_count() == 10


def test_the_budget_is_a_share_of_the_schedule():
    s = Settings(size="sketch", budget=0.1).complete(CPU)
    assert s.last_step(larger=100) == 500
    assert Settings(steps=3, budget=0.1).complete(CPU).last_step(larger=9) == 1


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"identiy_weight": 1.0}, "identiy_weight"),
        ({"identity_weight": "5"}, "identity_weight is '5', expected a number"),
        ({"identity_weight": "five"}, "identity_weight"),
        ({"cycle_weight": -1.0}, "cycle_weight"),
        ({"cycle_weight": float("nan")}, "cycle_weight"),
        ({"cycle_weight": float("inf")}, "cycle_weight"),
        ({"cycle_weight": True}, "cycle_weight"),
        ({"generator_lr": 0.0}, "generator_lr"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"cycle_weight": {"_name": "nested"}}, "cycle_weight"),
        ({"cycle_weight": None}, "cycle_weight"),
        ({"beta1": 1.0}, "beta1"),
    ],
)
def test_a_wrong_parameter_is_named_in_one_line(parameters, said):
    with pytest.raises(UserError) as error:
        with_parameters(Settings(), parameters)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_right_parameters_take_their_fields():
    s = with_parameters(Settings(), {"identity_weight": 2, "batch_size": 4})
    assert (s.identity_weight, s.batch_size, s.cycle_weight) == (2.0, 4, 10.0)


def test_a_judge_of_another_size_is_refused(sample_data, judge_file):
    settings = Settings(data=str(sample_data), judge=str(judge_file), size="draft").complete(CPU)
    with pytest.raises(UserError, match="trained at sketch .64 px., and this is draft .128 px."):
        check(settings)
