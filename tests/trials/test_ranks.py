"""Several processes as one trial: what comes out is what one process would have made."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from experiments.engine import free_port
from trials import ranks
from trials.cyclegan import CycleGAN, Settings
from trials.records import read_lines

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
STEPS, THRESHOLD = 6, 0.5


def trained(rank: int, count: int, port: int, file: Path) -> None:
    """Train on noise as process `rank` of `count`, and leave what came out in `file` and its rank.

    In doubles: Adam blows the rounding of floats up, from step to step, to what could hide a mistake.
    """
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "RANK": str(rank), "WORLD_SIZE": str(count)}
    ranks.RANK, ranks.COUNT = rank, count
    with ranks.joined(CPU):
        # Pools that swap, and discriminators that are skipped now and then.
        settings = Settings(size="sketch", ngf=4, blocks=1, ndf=4, batch_size=4, pool_size=5,
                            precision="fp32", discriminator_threshold=THRESHOLD).complete(CPU)
        net, losses = CycleGAN(settings, STEPS, CPU), []
        for step in range(STEPS):
            draw = torch.Generator().manual_seed(step)
            a, b = (torch.rand(4, 3, 32, 32, generator=draw) * 2 - 1 for _ in "ab")
            losses.append(torch.stack([loss.detach() for loss in net.update(a, b).values()]))
        pools = torch.stack([*net.pool_A.fakes, *net.pool_B.fakes])
        torch.save([torch.stack(losses), pools], f"{file}{rank}")
    assert not torch.distributed.is_initialized()  # or its threads may abort the interpreter as it ends


def test_two_processes_make_of_a_batch_what_one_makes_of_it(tmp_path):
    for count, name in ((2, "two"), (1, "one")):
        torch.multiprocessing.spawn(trained, (count, free_port(), tmp_path / name), nprocs=count, daemon=True)
    one, first, second = (torch.load(tmp_path / name) for name in ("one0", "two0", "two1"))
    for alone, leading, following in zip(one, first, second):
        assert torch.equal(leading, following)
        torch.testing.assert_close(leading, alone, rtol=1e-9, atol=1e-9)
    skipped = one[0][:, -2:] < THRESHOLD
    assert skipped.any() and not skipped.all()


# ---------------------------------------------------------------------------------------------
# Through torchrun


@pytest.fixture(scope="module")
def options(sample_data, judge_file) -> list[str]:
    values = {"data": sample_data, "judge": judge_file, "size": "sketch", "ngf": 4, "blocks": 1, "ndf": 4,
              "photos": 4, "threads": 1, "device": "cpu", "batch-size": 2, "steps": 4, "reports": 4}
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def torchrun(*options: object) -> list[str]:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trials.cyclegan"]
    return [sys.executable, *start, *map(str, options)]


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.slow
def test_one_process_tells_and_both_end(options, tmp_path):
    done = run(torchrun(*options, "--out", tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished: score") == 1
    assert [line["step"] for line in read_lines(tmp_path / "stats.jsonl")] == [1, 2, 3, 4]
    assert record(tmp_path)["status"] == "finished" and record(tmp_path)["processes"] == 2


@pytest.mark.slow
def test_two_processes_go_on_where_one_was(options, tmp_path):
    alone = [sys.executable, "-m", "trials.cyclegan", *options]
    assert run([*alone, "--out", str(tmp_path / "one")]).returncode == 0
    assert run([*alone, "--budget", "0.5", "--out", str(tmp_path / "two")]).returncode == 0
    done = run(torchrun(*options, "--out", tmp_path / "two"))
    assert "continues at step 2" in done.stdout, done.stderr
    lines = [read_lines(tmp_path / name / "stats.jsonl") for name in ("one", "two")]
    assert [line["step"] for line in lines[1]] == [1, 2, 3, 4]
    for one, two in zip(*lines):
        assert two["losses"] == pytest.approx(one["losses"], rel=0.05)


@pytest.mark.slow
def test_a_signal_ends_all(options, tmp_path):
    process = subprocess.Popen(torchrun(*options, "--steps", "100000", "--out", tmp_path), cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while "schedule" not in (record(tmp_path) if (tmp_path / "run.json").exists() else {}):
        assert process.poll() is None
        time.sleep(0.1)
    ours = psutil.Process(process.pid).children(recursive=True)
    assert len(ours) == 2
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([*ours, process], timeout=300)
    assert not left
    assert record(tmp_path)["status"] == "stopped" and record(tmp_path)["reason"].startswith("SIGTERM")
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_equally_is_refused(options, tmp_path):
    done = run(torchrun(*options, "--batch-size", 3, "--out", tmp_path))
    assert done.returncode != 0
    assert "--batch-size 3 cannot be shared by 2 processes: take a multiple of 2" in done.stderr
    assert not (tmp_path / "run.json").exists()
