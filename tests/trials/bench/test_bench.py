"""The benchmark measures what it says, and ours and the plain loop are one computation."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from trials.bench.__main__ import REPORTS, split
from trials.bench.peer import AuthorsCycleGAN, PlainCycleGAN
from trials.cyclegan import CycleGAN, Settings

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
TINY = Settings(data="sample", size="sketch", precision="fp32", ngf=4, blocks=1, ndf=4, steps=100)
NETWORKS = ("G_AB", "G_BA", "D_A", "D_B")


def batch(seed: int, count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("changes", [
    {}, {"identity_weight": 0.0}, {"batch_size": 2}, {"identity_weight": 0.0, "batch_size": 2},
])  # fmt: skip
def test_our_step_is_the_plain_loops(changes, monkeypatch):
    """Losses, gradients and weights over steps that fill the pools and swap from them, in doubles:
    Adam blows the rounding of floats up, from step to step, to what could hide a mistake."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ours, plain = pair(torch.float64, pool_size=2, **changes)
    for step in range(5):
        take_step(ours, plain, step, tolerance=1e-9)
    for name in NETWORKS:
        for mine, theirs in zip(*(getattr(net, name).parameters() for net in (ours, plain))):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("changes", [{}, {"identity_weight": 0.0}, {"batch_size": 2}])
def test_in_fp32_they_part_by_rounding_only(changes):
    ours, plain = pair(torch.float32, **changes)
    # Where an input of a ReLU is 0 but for rounding, its slope is one's 0 and the other's 1: of 120 such
    # steps the gradients of 18 parted by more than 1e-4, at most by 0.009.
    take_step(ours, plain, 0, tolerance=1e-4, of_gradients=0.05)


def pair(precision: torch.dtype, **changes) -> tuple[CycleGAN, PlainCycleGAN]:
    """Ours and the plain loop, from the same weights."""
    settings = replace(TINY, **changes).complete(CPU)
    nets = CycleGAN(settings, 100, CPU), PlainCycleGAN(CycleGAN(settings, 100, CPU))
    for net in nets:
        for name in NETWORKS:
            getattr(net, name).to(precision)
    return nets


def take_step(
    ours: CycleGAN, plain: PlainCycleGAN, step: int, tolerance: float, of_gradients: float | None = None,
) -> None:
    """The same step of both, which must have the same losses and gradients."""
    count, precision = ours.settings.batch_size, next(ours.G_AB.parameters()).dtype
    a, b = (batch(2 * step + i, count).to(precision) for i in range(2))
    mine, theirs = ours.update(a, b), plain.update(a, b)
    assert mine.keys() == theirs.keys()
    for name, loss in theirs.items():
        assert mine[name].item() == pytest.approx(loss, rel=tolerance), (step, name)
    for name in NETWORKS:
        gradients = ([p.grad for p in getattr(net, name).parameters()] for net in (ours, plain))
        assert distance(*gradients) < (of_gradients or tolerance), (step, name)


def distance(mine: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Of two lists of tensors, relative to the length of the second."""
    x, y = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (mine, theirs))
    return ((x - y).norm() / y.norm()).item()


SHORT = ["--size", "sketch", "--ngf", 4, "--blocks", 1, "--ndf", 4, "--photos", 4, "--threads", 1,
         "--seconds", 0.5, "--rounds", 2]


def bench(*options: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "trials.bench", *map(str, [*SHORT, *options])],
                          cwd=ROOT, capture_output=True, text=True)


def test_the_figures_are_finite_and_agree_with_each_other(sample_data, judge_file):
    done = bench("--batch-size", 2, "--json", "--data", sample_data, "--judge", judge_file)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rate = found["steps_per_second"]
    assert found["images_per_second"] == pytest.approx(2 * rate)
    assert found["flop_per_second"] == pytest.approx(rate * found["flop_per_step"])
    assert found["threads"] == 1 and found["settings"]["batch_size"] == 2
    for name in ("flop_per_step", "matmul_flop_per_second", "share_of_matmul", "peak_memory"):
        assert math.isfinite(found[name]) and found[name] > 0, name
    shares = [*found["operators"].values()]
    assert shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1
    assert any("convolution" in name for name in found["operators"])
    assert set(found["split"]) == {"start_up", "steps", "scoring", "reporting"}
    assert all(seconds >= 0 for seconds in found["split"].values())
    assert found["split_steps"] % REPORTS == 0
    assert 0 < found["first_step_after"] <= sum(found["split"].values())


def test_without_a_judge_the_split_is_left_out_in_one_line(sample_data, command):
    done = command("trials.bench", *SHORT, "--data", sample_data, "--judge", "/nowhere.pt")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and "steps/s" in lines[1] and "no judge at /nowhere.pt" in lines[-1]


def test_the_peer_is_timed_beside_ours(command):
    found = json.loads(command("trials.bench", *SHORT, "--peer", "--json").stdout)
    assert list(found["peers"]) == ["plain loop"] and found["rounds"] == 2 and found["steps_per_second"] > 0
    peer = found["peers"]["plain loop"]
    low, high = peer["ratio_quartiles"]
    assert 0 < low <= peer["ratio"] <= high and peer["steps_per_second"] > 0
    assert "times as fast (median of 2 pairs" in command("trials.bench", *SHORT, "--peer").stdout


# ---------------------------------------------------------------------------------------------
# The authors' code

CHECKOUT = {  # as much of one as is used
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
                    parser.add_argument("--" + name, type=float)
            def __init__(self, opt):
                print("initialize network")
                assert opt.isTrain and opt.lambda_identity == 0.5 and opt.ngf == 4
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
                for name in ("dataroot", "netG"):
                    parser.add_argument("--" + name)
                for name in ("ngf", "ndf", "pool_size", "batch_size"):
                    parser.add_argument("--" + name, type=int)
                for name in ("lr", "beta1"):
                    parser.add_argument("--" + name, type=float)
                return parser
    """,
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name, text in CHECKOUT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def test_the_authors_code_is_timed_where_it_is_at_hand(checkout):
    found = json.loads(bench("--peer-path", checkout, "--json").stdout)
    assert list(found["peers"]) == ["plain loop", "authors' code"]
    assert found["peers"]["authors' code"]["ratio"] > 0


def test_what_is_no_checkout_of_theirs_is_one_line(checkout):
    (checkout / "models/networks.py").write_text("import visdom_of_2017")
    for path, why in ((checkout, "No module named 'visdom_of_2017'"), ("/nowhere", "is no checkout")):
        done = bench("--peer-path", path)
        assert done.returncode == 2 and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1 and str(path) in done.stderr and why in done.stderr


@pytest.mark.skipif("CYCLEGAN_CHECKOUT" not in os.environ, reason="CYCLEGAN_CHECKOUT names no checkout")
def test_our_losses_are_those_of_the_authors_code(monkeypatch):
    """In doubles, over steps that would part if a gradient differed. Their pools draw as they like."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ours = CycleGAN(replace(TINY, pool_size=0).complete(CPU), 10**9, CPU)
    theirs = AuthorsCycleGAN(ours, Path(os.environ["CYCLEGAN_CHECKOUT"])).model
    for mine, name in (("G_AB", "G_A"), ("G_BA", "G_B"), ("D_B", "D_A"), ("D_A", "D_B")):
        networks = [getattr(ours, mine).double(), getattr(theirs, f"net{name}").double()]
        for parameter, copied in zip(*(network.parameters() for network in networks), strict=True):
            copied.data.copy_(parameter.data)
    theirs.criterionGAN.double()
    names = {"adversarial": ("G_B", "G_A", 1), "cycle": ("cycle_A", "cycle_B", 10),
             "identity": ("idt_B", "idt_A", 5), "discriminator": ("D_B", "D_A", 1)}
    for step in range(4):
        a, b = (batch(2 * step + i, 1).double() for i in range(2))
        losses = ours.update(a, b)
        theirs.set_input({"A": a, "B": b, "A_paths": [], "B_paths": []})
        theirs.optimize_parameters()
        expected = theirs.get_current_losses()
        for name, (of_a, of_b, weight) in names.items():
            for letter, known in (("A", of_a), ("B", of_b)):
                mine = losses[f"{name}_{letter}"].item() * weight
                assert mine == pytest.approx(expected[known], rel=1e-9), (step, name, letter)


# ---------------------------------------------------------------------------------------------
# The split of a trial


def test_the_split_adds_up_to_the_trial():
    """12 s: 3 s before the session, 1 s of data; 2 s of steps, 0.5 s of scoring, 0.2 s of reporting
    a report, and 0.1 s more in the first for TensorBoard."""
    lines = [{"seconds": 3.5, "scoring_seconds": 0.5}, {"seconds": 6.3, "scoring_seconds": 1.0},
             {"seconds": 9.0, "scoring_seconds": 1.5}]
    found = split((12.2, {"seconds": 9.2}, lines))
    expected = {"start_up": 4.0, "steps": 6.0, "scoring": 1.5, "reporting": 0.7}
    assert found == pytest.approx(expected) and sum(found.values()) == pytest.approx(12.2)

