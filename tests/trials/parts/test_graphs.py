"""Claims about steps that are recorded as CUDA graphs: they compute what eager steps compute."""

import copy
from functools import partialmethod

import pytest
import torch
from torch import nn

from trials.cyclegan import Settings
from trials.parts import graphs
from trials.training.cyclegan import CycleGAN

# A graph reads the rates as float32, in which a power of two is exact. Other rates are rounded, and a GAN's
# steps enlarge that, on some processors to 1e-3 within ten steps.
SMALL = {"size": "sketch", "ngf": 4, "blocks": 1, "ndf": 4, "precision": "fp32", "steps": 100,
         "generator_lr": 2**-12, "discriminator_lr": 2**-12}
NETWORKS = ("G_AB", "G_BA", "D_A", "D_B")
CPU = torch.device("cpu")


def call_again(function):
    """Stand for `graphs.record` where there is no GPU: warm up, and replay by calling the function again."""
    for _ in range(graphs.WARM_UP_CALLS):
        function()
    outputs = function()

    def replay():
        for old, new in zip(tensors(outputs), tensors(function())):
            old.detach().copy_(new.detach())

    return replay, outputs


def tensors(outputs) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [x for part in (outputs.values() if isinstance(outputs, dict) else outputs) for x in tensors(part)]


def cyclegan(device: torch.device, **settings) -> CycleGAN:
    return CycleGAN(Settings(**SMALL | settings).complete(device), 100, device)


def batch(step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    a, b = (torch.rand(1, 3, 64, 64, generator=draw) * 2 - 1 for _ in range(2))
    return a.to(device), b.to(device)


def train(net: CycleGAN, steps: range) -> list[float]:
    """Take the steps and return the last one's losses."""
    for step in steps:
        losses = net.update(*batch(step, net.device))
    return [loss.item() for loss in losses.values()]


def check_same(recorded: CycleGAN, eager: CycleGAN, steps: range, tolerance: float = 0) -> None:
    """Check that both have the same losses after `steps`, and images and weights up to 100 times as much."""
    assert train(recorded, steps) == pytest.approx(train(eager, steps), abs=tolerance)
    x, _ = batch(0, eager.device)
    for name in NETWORKS:
        ours, theirs = getattr(recorded, name), getattr(eager, name)
        torch.testing.assert_close(ours(x), theirs(x), atol=100 * tolerance, rtol=0)
        for weight, expected in zip(ours.parameters(), theirs.parameters()):
            if weight.ndim > 1:  # a bias before a normalisation has no effect, and drifts
                torch.testing.assert_close(weight, expected, atol=100 * tolerance, rtol=0)


def check_recorded_steps(device: torch.device, tolerance: float) -> None:
    recorded, eager = cyclegan(device), cyclegan(device, graphs="off")
    assert recorded.prepare(*batch(0, device)) is None  # before the first step, when Adam has no state
    check_same(recorded, eager, range(20), tolerance)
    recorded.load_state_dict(copy.deepcopy(eager.state_dict()))
    assert not recorded.is_recorded  # the graphs were of tensors that a checkpoint replaces
    assert recorded.prepare(*batch(0, device)) is None and recorded.is_recorded
    check_same(recorded, eager, range(20, 30), tolerance)


@pytest.fixture
def on_a_cpu(monkeypatch):
    """Let a CPU record steps, by calling them again."""
    monkeypatch.setattr(graphs, "record", call_again)
    monkeypatch.setattr(graphs, "are_supported", lambda device: True)


def test_recorded_steps_equal_eager_ones_from_the_first_step_and_after_a_resume(on_a_cpu):
    check_recorded_steps(CPU, 1e-5)


def test_recording_changes_neither_weights_nor_optimizers(on_a_cpu):
    net = cyclegan(CPU)
    train(net, range(3))
    before = copy.deepcopy(net.state_dict())
    net.prepare(*batch(0, CPU))
    after = net.state_dict()
    for name in NETWORKS:
        torch.testing.assert_close(after[name], before[name], atol=0, rtol=0)
    for name in ("optimizer_G", "optimizer_D"):
        torch.testing.assert_close(after[name]["state"], before[name]["state"], atol=0, rtol=0)


def test_a_checkpoint_of_recorded_steps_continues_eagerly_on_a_cpu(on_a_cpu):
    recorded, eager = cyclegan(CPU), cyclegan(CPU, graphs="off")
    recorded.prepare(*batch(0, CPU))
    train(recorded, range(5))
    train(eager, range(5))
    continued = cyclegan(CPU, graphs="off")
    continued.load_state_dict(copy.deepcopy(recorded.state_dict()))
    check_same(continued, eager, range(5, 10), 1e-5)


@pytest.mark.parametrize("settings, error, reason", [
    ({"discriminator_threshold": 0.1}, None, "--discriminator-threshold"),
    ({}, RuntimeError("operation not permitted when stream is capturing"), "not permitted"),
])
def test_steps_that_cannot_be_recorded_are_eager_for_a_reason(
        on_a_cpu, monkeypatch, settings, error, reason):
    def fail(function):
        function()
        raise error

    if error:
        monkeypatch.setattr(graphs, "record", fail)
    net, eager = cyclegan(CPU, **settings), cyclegan(CPU, **settings, graphs="off")
    assert reason in net.prepare(*batch(0, CPU))
    assert not net.is_recorded
    check_same(net, eager, range(3))


def test_out_of_memory_while_recording_is_no_reason_to_stay_eager(on_a_cpu, monkeypatch):
    def fail(function):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graphs, "record", fail)
    with pytest.raises(torch.OutOfMemoryError):
        cyclegan(CPU).prepare(*batch(0, CPU))


@pytest.mark.parametrize("settings", [{"graphs": "off"}, {}])
def test_steps_are_eager_where_they_were_asked_to_be_and_on_a_cpu(settings):
    net = cyclegan(CPU, **settings)
    assert net.prepare(*batch(0, CPU)) is None and not net.is_recorded


def test_compiled_networks_compute_the_same_and_keep_their_names_in_checkpoints(monkeypatch):
    fast = partialmethod(nn.Module.compile, backend="eager")  # inductor, the default, takes minutes
    monkeypatch.setattr(nn.Module, "compile", fast)
    compiled, eager = cyclegan(CPU, compile="on"), cyclegan(CPU)
    assert compiled.prepare(*batch(0, CPU)) is None
    check_same(compiled, eager, range(3), 1e-5)
    assert compiled.G_BA.state_dict().keys() == eager.G_BA.state_dict().keys()
    a, _ = batch(0, CPU)
    torch.testing.assert_close(compiled.paint(a), eager.paint(a), atol=1e-3, rtol=0)


@pytest.mark.cuda
def test_cuda_graphs_compute_what_eager_steps_compute(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    check_recorded_steps(torch.device("cuda"), 1e-4)


@pytest.mark.cuda
def test_a_trial_records_its_steps_in_bf16_and_learns():
    device = torch.device("cuda")
    net = cyclegan(device, precision="bf16")
    assert net.prepare(*batch(0, device)) is None and net.is_recorded
    first = train(net, range(1))
    assert train(net, range(1, 200))[2] < first[2]  # cycle_A
