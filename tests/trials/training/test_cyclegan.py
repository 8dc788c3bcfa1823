"""The CycleGAN trial computes what the paper says, with the published settings by default."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from judge.common.errors import UserError
from trials.cyclegan import PRESETS, Settings
from trials.parts import graphs
from trials.parts.pool import HistoryPool
from trials.parts.schedule import decay_factor
from trials.session import with_parameters
from trials.training.cyclegan import CycleGAN, check

CPU = torch.device("cpu")
TINY = Settings(data="sample", size="sketch", precision="fp32", ngf=4, blocks=1, ndf=4, steps=100)


def model(**changes) -> CycleGAN:
    return CycleGAN(replace(TINY, **changes).complete(CPU), schedule=100, device=CPU)


def batch(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_losses_are_the_papers_equations_and_each_network_learns_from_its_own():
    """Against a plain transcription: one call for each term, none shared."""
    net, a, b = model(), batch(0), batch(1)
    G, F, D_A, D_B = copy.deepcopy((net.G_BA, net.G_AB, net.D_A, net.D_B))
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
        "discriminator_A": (((D_A(a) - 1) ** 2).mean() + (D_A(fake_a.detach()) ** 2).mean()) / 2,
        "discriminator_B": (((D_B(b) - 1) ** 2).mean() + (D_B(fake_b.detach()) ** 2).mean()) / 2,
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    for trained, copied, name in ((net.D_A, D_A, "discriminator_A"), (net.D_B, D_B, "discriminator_B")):
        gradients = torch.autograd.grad(expected[name], list(copied.parameters()))
        for parameter, gradient in zip(trained.parameters(), gradients):  # no generator's loss is in it
            torch.testing.assert_close(parameter.grad, gradient)
    for trained, before in ((net.G_BA, G), (net.G_AB, F), (net.D_A, D_A), (net.D_B, D_B)):
        assert not all(map(torch.equal, trained.parameters(), before.parameters()))


def test_weights_multiply_the_losses_they_are_named_after():
    """The gradient of the whole is the weighted sum of the parts' gradients."""
    names = ("identity_weight", "cycle_weight", "adversarial_weight")

    def gradient(*weights: float) -> torch.Tensor:
        net = model(**dict(zip(names, weights)))
        losses = net.update(batch(0), batch(1))
        assert ("identity_A" in losses) == (weights[0] > 0)
        return torch.cat([p.grad.flatten() for p in net.G_BA.parameters()])

    expected = 3 * gradient(1, 0, 0) + 5 * gradient(0, 1, 0) + 2 * gradient(0, 0, 1)
    torch.testing.assert_close(gradient(3, 5, 2), expected, rtol=1e-3, atol=1e-5)


def test_a_discriminator_under_the_threshold_is_not_updated():
    net = model(discriminator_threshold=1e6)
    before = copy.deepcopy(net.D_A.state_dict())
    net.update(batch(0), batch(1))
    assert all(value.equal(before[key]) for key, value in net.D_A.state_dict().items())


def test_bf16_computes_the_same_losses_up_to_its_rounding():
    exact, rounded = model(), model(precision="bf16")
    for seed in range(3):
        a, b = batch(2 * seed), batch(2 * seed + 1)
        torch.testing.assert_close(rounded.update(a, b), exact.update(a, b), rtol=0.05, atol=0.01)
    assert {p.dtype for p in rounded.G_BA.parameters()} == {torch.float32}
    assert rounded.paint(batch(0)).dtype == torch.float32


def test_the_pool_shows_new_fakes_until_it_is_full_and_then_swaps_every_second():
    pool, draw = HistoryPool(50), torch.Generator().manual_seed(0)
    numbers = torch.arange(1050.0)
    shown = torch.cat([pool.swap(fake.reshape(1, 1, 1, 1), draw) for fake in numbers]).flatten()
    assert shown[:50].equal(numbers[:50])
    assert 440 < (shown != numbers).sum() < 560  # of 1000, within four standard deviations of a half
    assert len(pool.fakes) == 50
    everything = [fake.item() for fake in pool.fakes] + shown.tolist()
    assert set(everything) == set(numbers.tolist())  # none is lost
    assert HistoryPool(0).swap(batch(0), draw).equal(batch(0))  # without a pool, new ones only


def test_rates_are_constant_and_then_fall_linearly_to_zero():
    factors = [decay_factor(step, schedule=100, decay=0.5) for step in (0, 49, 50, 75, 99)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.02])
    net = model(generator_lr=1e-3, discriminator_lr=1e-5)
    net.step = 75
    net.update(batch(0), batch(1))
    assert net.optimizer_G.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert net.optimizer_D.param_groups[0]["lr"] == pytest.approx(5e-6)


def test_equal_seeds_give_equal_weights_and_leave_torchs_generator_alone():
    before = torch.get_rng_state()
    weights = [net.G_AB[1].weight for net in (model(), model(), model(seed=1))] + [model().G_BA[1].weight]
    assert torch.get_rng_state().equal(before)
    assert [weight.equal(weights[0]) for weight in weights] == [True, True, False, False]


def test_defaults_are_the_published_setting():
    s = Settings(size="paper").complete(CPU)
    assert (s.identity_weight, s.cycle_weight, s.adversarial_weight) == (5, 10, 1)
    assert (s.generator_lr, s.discriminator_lr, s.beta1, s.beta2) == (2e-4, 2e-4, 0.5, 0.999)
    assert (s.batch_size, s.pool_size, s.decay) == (1, 50, 0.5)
    assert (s.pixels, s.ngf, s.blocks, s.ndf, s.epochs) == (256, 64, 9, 64, 200)
    assert s.schedule(larger=6287) == 200 * 6287


@pytest.mark.parametrize("size", PRESETS)
def test_a_size_sets_everything_that_is_not_given(size, sample_data):
    s = Settings(data=str(sample_data), size=size, budget=0.2).complete(CPU)
    assert None not in (s.ngf, s.blocks, s.ndf, s.photos) and (s.steps is None) != (s.epochs is None)
    assert s.report_count() == 20  # over the budget, at every size and with any data
    s = Settings(size=size, ngf=8, steps=70).complete(CPU)
    assert (s.ngf, s.steps, s.epochs, s.blocks) == (8, 70, None, PRESETS[size]["blocks"])


@pytest.mark.parametrize("native", [True, False])
def test_size_and_precision_depend_on_the_device_unless_they_are_given(monkeypatch, native):
    monkeypatch.setattr("judge.common.device.supports_bf16", lambda device: native)
    for device, size in (("cpu", "sketch"), ("cuda", "draft")):
        s = Settings(data="sample").complete(torch.device(device))
        assert (s.size, s.precision) == (size, "bf16" if native else "fp32")
    assert Settings(data="sample", precision="fp32").complete(CPU).precision == "fp32"


def test_the_budget_is_a_share_of_the_schedule_given_in_steps_or_epochs():
    assert Settings(size="sketch", budget=0.1).complete(CPU).last_step(larger=100) == 200
    assert Settings(steps=3, budget=0.1).complete(CPU).last_step(larger=9) == 1
    with pytest.raises(UserError, match="give one"):
        Settings(steps=5, epochs=5).complete(CPU)


@pytest.mark.parametrize("parameters", [
    {"identiy_weight": 1.0}, {"identity_weight": "5"}, {"cycle_weight": -1.0}, {"cycle_weight": float("nan")},
    {"cycle_weight": True}, {"cycle_weight": {"_name": "nested"}}, {"cycle_weight": None},
    {"generator_lr": 0.0}, {"batch_size": 1.5}, {"beta1": 1.0},
])  # fmt: skip
def test_a_wrong_parameter_is_named_in_one_line_and_right_ones_take_their_fields(parameters):
    with pytest.raises(UserError) as error:
        with_parameters(Settings(), parameters)
    assert next(iter(parameters)) in str(error.value) and "\n" not in str(error.value)
    s = with_parameters(Settings(), {"identity_weight": 2, "batch_size": 4})
    assert (s.identity_weight, s.batch_size, s.cycle_weight) == (2.0, 4, 10.0)


def test_a_judge_of_another_size_is_refused(sample_data, judge_file):
    settings = Settings(data=str(sample_data), judge=str(judge_file), size="draft").complete(CPU)
    with pytest.raises(UserError, match="trained at sketch .64 px., and this is draft .128 px."):
        check(settings)


def test_a_trial_says_why_its_steps_are_not_graphs_and_records_how_they_run(
        tmp_path, sample_data, judge_file, command, monkeypatch):
    def fail(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "are_supported", lambda device: True)
    monkeypatch.setattr(graphs, "record", fail)
    options = f"--data {sample_data} --judge {judge_file} --size sketch --ngf 4 --blocks 1 --ndf 4 --photos 8"
    for choice, reason in (("auto", "operation not permitted when stream is capturing"), ("off", None)):
        folder = tmp_path / choice
        done = command("trials.cyclegan", *options.split(), "--steps", 2, "--graphs", choice, "--out", folder)
        record = json.loads((folder / "run.json").read_text())
        assert (record["step"], record["graphs_fallback"]) == ("eager", reason)
        assert (f"not CUDA graphs, so they are slower: {reason}" in done.stdout) == (choice == "auto")
