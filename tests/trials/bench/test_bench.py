"""The benchmark's figures agree with each other, and our step computes the same as the plain loop."""

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from trials.bench import speed
from trials.bench.__main__ import Options
from trials.bench.peer import AuthorsCycleGAN, PlainCycleGAN
from trials.bench.speed import MATRIX_SIZE, TRIAL_REPORTS, matmul, split_seconds
from trials.cyclegan import Settings
from trials.training.cyclegan import CycleGAN

CPU = torch.device("cpu")
TINY = Settings(data="sample", size="sketch", precision="fp32", ngf=4, blocks=1, ndf=4, steps=100)
NETWORKS = ("G_AB", "G_BA", "D_A", "D_B")


def batch(seed: int, count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("changes", [{}, {"identity_weight": 0.0}, {"batch_size": 2}])
@pytest.mark.parametrize("precision, steps, tolerance, gradient_tolerance", [
    # Adam magnifies the rounding errors of fp32 until they could hide a mistake: more steps, which swap
    # images of the pools, in double precision.
    (torch.float64, 4, 1e-9, 1e-9),
    # A ReLU whose input is 0 up to rounding has slope 0 in one and 1 in the other: in 18 of 120 such steps
    # the gradients differed by more than 1e-4, at most by 0.009.
    (torch.float32, 1, 1e-4, 0.05),
])
def test_our_step_is_that_of_the_plain_loop(
    changes, precision, steps, tolerance, gradient_tolerance, monkeypatch,
):
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x.to(precision))
    settings = replace(TINY, pool_size=2, **changes).complete(CPU)
    ours, plain = CycleGAN(settings, 100, CPU), PlainCycleGAN(CycleGAN(settings, 100, CPU))
    networks = [(getattr(ours, name).to(precision), getattr(plain, name).to(precision)) for name in NETWORKS]
    for step in range(steps):
        a, b = (batch(2 * step + i, settings.batch_size).to(precision) for i in range(2))
        losses, expected = ours.update(a, b), plain.update(a, b)
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=tolerance)
        for pair in networks:
            x, y = (torch.cat([p.grad.flatten() for p in network.parameters()]) for network in pair)
            assert (x - y).norm() / y.norm() < gradient_tolerance, step
    if precision == torch.float64:
        for pair in networks:
            for x, y in zip(*(network.parameters() for network in pair)):
                torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_reference_is_a_matrix_product_of_the_precision(precision, dtype, monkeypatch):
    monkeypatch.setitem(MATRIX_SIZE, "cpu", 256)
    multiply, flop = matmul(CPU, precision)
    assert multiply().shape == (256, 256) and multiply().dtype == dtype and flop == 2 * 256**3


OPTIONS = ["--size", "sketch", "--ngf", 4, "--blocks", 1, "--ndf", 4, "--photos", 4, "--threads", 1,
           "--seconds", 0.2, "--rounds", 2]


def test_the_figures_are_finite_and_agree_with_each_other(sample_data, judge_file, command):
    done = command("trials.bench", *OPTIONS, "--batch-size", 2, "--json", "--data", sample_data,
                   "--judge", judge_file)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rate = result["steps_per_second"]
    assert result["images_per_second"] == pytest.approx(2 * rate)
    assert result["flop_per_second"] == pytest.approx(rate * result["flop_per_step"])
    assert result["threads"] == 1 and result["settings"]["batch_size"] == 2
    for name in ("flop_per_step", "matmul_flop_per_second", "share_of_matmul", "peak_memory"):
        assert 0 < result[name] < math.inf, name
    shares = [*result["operators"].values()]
    assert shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1
    assert any("convolution" in name for name in result["operators"])
    assert set(result["split"]) == {"start_up", "steps", "scoring", "reporting"}
    assert all(seconds >= 0 for seconds in result["split"].values())
    assert result["split_steps"] % TRIAL_REPORTS == 0
    assert 0 < result["first_step_after"] <= sum(result["split"].values())


def test_without_a_judge_there_is_no_short_trial_and_the_reason_is_one_line(sample_data, command):
    done = command("trials.bench", *OPTIONS, "--data", sample_data, "--judge", "/nowhere.pt")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and "steps/s" in lines[1] and lines[1].endswith("eager")
    assert "no judge at /nowhere.pt" in lines[-1]


def test_operations_are_counted_before_a_graph_hides_them(monkeypatch):
    monkeypatch.setitem(MATRIX_SIZE, "cpu", 64)
    monkeypatch.setattr(CycleGAN, "prepare",
                        lambda net, a, b: setattr(net, "update", lambda a, b: None), raising=False)
    result = speed.measure_steps(TINY.complete(CPU), Options(rounds=1, seconds=0.01), CPU)
    assert result["flop_per_step"] > 1e6 and any("convolution" in name for name in result["operators"])


CHECKOUT = {  # the part of it that is used
    "models/__init__.py": "",
    "models/networks.py": """
        from torch import nn
        class ResnetGenerator(nn.Module):
            def __init__(self, width, n_blocks=6):
                super(ResnetGenerator, self).__init__()
                self.body = nn.Sequential(*[nn.Conv2d(3, 3, width, padding="same") for _ in range(n_blocks)])
    """,
    "models/cycle_gan_model.py": """
        from . import networks
        class CycleGANModel:
            @staticmethod
            def modify_commandline_options(parser, is_train):
                for name in ("lambda_A", "lambda_B", "lambda_identity"):
                    parser.add_argument("--" + name)
            def __init__(self, opt):
                print("initialize network")
                assert opt.isTrain and opt.lambda_identity == "0.5" and opt.ngf == "4"
                self.criterionGAN = networks.nn.Identity()
                self.model_names, self.netG_A = ["G_A"], networks.ResnetGenerator(3, n_blocks=9)
                assert len(self.netG_A.body) == 1
            def set_input(self, input):
                self.photos = input["B"].to(self.device)
            def optimize_parameters(self):
                self.netG_A.body(self.photos).mean().backward()
    """,
    "options/train_options.py": """
        class TrainOptions:
            def initialize(self, parser):
                for name in ("dataroot", "netG", "ngf", "ndf", "pool_size", "batch_size", "beta1"):
                    parser.add_argument("--" + name)
                return parser
    """,
}


@pytest.fixture
def checkout(tmp_path) -> Iterator[Path]:
    """Writes the checkout; its packages are forgotten after the test."""
    for name, text in CHECKOUT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("models", "options")]:
        del sys.modules[name]


def test_the_plain_loop_and_the_authors_code_are_compared_with_ours(checkout, command):
    published = (*OPTIONS, "--downsamplings", 2, "--peer-path", checkout)
    done = command("trials.bench", *OPTIONS, "--peer-path", checkout)
    assert done.returncode == 2 and "--downsamplings 2" in done.stderr
    result = json.loads(command("trials.bench", *published, "--json").stdout)
    assert list(result["peers"]) == ["plain loop", "authors' code"]
    assert result["rounds"] == 2 and result["steps_per_second"] > 0
    for peer in result["peers"].values():
        low, high = peer["ratio_quartiles"]
        assert 0 < low <= peer["ratio"] <= high and peer["steps_per_second"] > 0
    printed = command("trials.bench", *OPTIONS, "--peer").stdout.splitlines()
    assert printed[1].endswith("steps/s, eager") and "times as fast (median of 2 pairs" in printed[2]


def test_each_variant_is_a_row_and_one_that_cannot_run_says_why(command, monkeypatch):
    def prepare(net, a, b):
        assert a.shape == b.shape == (net.settings.batch_size, 3, 64, 64) and net.step == 0
        if net.settings.identity_weight == 0:
            raise RuntimeError("CUDA error:\noperation not permitted " + "x" * 1000)
        return "its discriminators have a threshold" if net.settings.discriminator_threshold else None

    monkeypatch.setattr(CycleGAN, "prepare", prepare, raising=False)
    words = ["--against", "batch_size=4,ngf=6", "identity-weight=0",
             "--against", "discriminator-threshold=0.1"]
    done = command("trials.bench", *OPTIONS, *words, "--batch-size", 2)
    _, ours, larger, refused, eager = done.stdout.splitlines()
    assert ours.endswith("steps/s, eager") and eager.endswith("eager: its discriminators have a threshold")
    assert larger.startswith("batch_size=4,ngf=6 ") and "times as fast (median of 2 pairs" in larger
    assert refused.startswith("identity-weight=0 cannot run: RuntimeError: CUDA error: operation not")
    assert len(refused) < 400


def test_on_a_gpu_each_row_has_the_kind_of_its_step_and_its_memory(monkeypatch):
    """The GPU is pretended: networks and times are a CPU's."""
    held = iter([1, 3, 3, 7])  # GiB: before and at the peak of two networks
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: next(held) * 2**30)
    monkeypatch.setattr(Settings, "graphs", "auto", raising=False)
    monkeypatch.setattr(speed, "random_batches",
                        lambda settings, device: lambda step: [batch(0, 1), batch(1, 1)])
    monkeypatch.setattr(speed, "time_in_turns", lambda functions, options, device: np.array([[0.1, 0.4]] * 2))
    settings = TINY.complete(CPU)

    class Ours(CycleGAN):
        is_recorded = True

        def __init__(self, settings, schedule, device):
            super().__init__(settings, schedule, CPU)

    monkeypatch.setattr(speed, "CycleGAN", Ours)
    result = speed.compare(settings, {}, Options(peer=True), torch.device("cuda"))
    ours, plain = speed.describe({"settings": asdict(settings), "device": "a GPU", "threads": 1, **result}
                                 ).splitlines()[1:]
    assert ours == "ours 10 steps/s, as CUDA graphs, 2.00 GiB of GPU memory at the peak"
    assert plain.startswith("plain loop 2.5: ours is 4.00 times") and plain.endswith("eager, 4.00 GiB of GPU "
                                                                                     "memory at the peak")


@pytest.mark.cuda
def test_our_step_runs_as_cuda_graphs_unless_told_otherwise(command):
    done = command("trials.bench", *OPTIONS, "--peer", "--against", "graphs=off", "--json")
    result = json.loads(done.stdout)
    assert result["step"] == "as CUDA graphs" and 0 < result["peak_memory"] < 2**30
    assert [result["peers"][name]["step"] for name in ("plain loop", "graphs=off")] == ["eager", "eager"]


@pytest.mark.parametrize("word, said", [
    ("cycle_weight", "expected one argument"), ("colour=red", "--colour"), ("cycle_weight=much", "'much'"),
    ("seconds=3", "--seconds"),
])
def test_a_wrong_variant_is_one_line(word, said, command):
    done = command("trials.bench", *OPTIONS, "--against", word)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"--against {word}: " in done.stderr and said in done.stderr


def test_a_wrong_checkout_is_one_line(checkout, command):
    (checkout / "models/networks.py").write_text("import visdom_of_2017")
    for path, reason in ((checkout, "No module named 'visdom_of_2017'"), ("/nowhere", "is not a checkout")):
        done = command("trials.bench", *OPTIONS, "--downsamplings", 2, "--peer-path", path)
        assert done.returncode == 2 and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1 and str(path) in done.stderr and reason in done.stderr


@pytest.mark.skipif("CYCLEGAN_CHECKOUT" not in os.environ, reason="CYCLEGAN_CHECKOUT names no checkout")
def test_our_losses_are_those_of_the_authors_code(monkeypatch):
    """In double precision, over several steps; without pools, because theirs draw other images."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ours = CycleGAN(replace(TINY, pool_size=0, downsamplings=2).complete(CPU), 10**9, CPU)
    theirs = AuthorsCycleGAN(ours, Path(os.environ["CYCLEGAN_CHECKOUT"])).model
    for our_name, name in (("G_AB", "G_A"), ("G_BA", "G_B"), ("D_B", "D_A"), ("D_A", "D_B")):
        networks = [getattr(ours, our_name).double(), getattr(theirs, f"net{name}").double()]
        for parameter, copied in zip(*(network.parameters() for network in networks), strict=True):
            copied.data.copy_(parameter.data)
    theirs.criterionGAN.double()
    names = {  # ours to theirs, which are multiplied by their weight
        "adversarial_A": ("G_B", 1), "adversarial_B": ("G_A", 1), "cycle_A": ("cycle_A", 10),
        "cycle_B": ("cycle_B", 10), "identity_A": ("idt_B", 5), "identity_B": ("idt_A", 5),
        "discriminator_A": ("D_B", 1), "discriminator_B": ("D_A", 1),
    }  # fmt: skip
    for step in range(4):
        a, b = (batch(2 * step + i, 1).double() for i in range(2))
        losses = ours.update(a, b)
        theirs.set_input({"A": a, "B": b, "A_paths": [], "B_paths": []})
        theirs.optimize_parameters()
        expected = theirs.get_current_losses()
        for name, (their_name, weight) in names.items():
            assert losses[name].item() * weight == pytest.approx(expected[their_name], rel=1e-9), (step, name)


def test_the_parts_of_a_trial_add_up_to_its_seconds():
    """12 s: 3 s before the session and 1 s for data; for each report 2 s of steps, 0.5 s of scoring and
    0.2 s of reporting, and 0.1 s more of the first for TensorBoard."""
    lines = [{"seconds": 3.5, "scoring_seconds": 0.5}, {"seconds": 6.3, "scoring_seconds": 1.0},
             {"seconds": 9.0, "scoring_seconds": 1.5}]
    parts = split_seconds(12.2, 9.2, lines)
    expected = {"start_up": 4.0, "steps": 6.0, "scoring": 1.5, "reporting": 0.7}
    assert parts == pytest.approx(expected) and sum(parts.values()) == pytest.approx(12.2)
