"""How fast a CycleGAN trains here, and what share of the hardware's arithmetic that is.

    python -m trials.bench --size sketch
    python -m trials.bench --size draft --precision fp32 --threads 2 --json
    python -m trials.bench --size sketch --peer    # against the loop as it is usually written, in turns

The steps are those of a trial, on random images. Where its data and judge are there, a short trial
shows what start-up, scoring and reporting take beside them.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from judge import images
from judge.common.cli import Parser, PositiveFloat, PositiveInt, from_namespace, main
from judge.common.device import device_name
from judge.common.errors import UserError, one_line
from judge.model import describe_size
from trials import cyclegan
from trials.bench.device_rate import matmul, seconds_per_call, tf32_as_convolutions
from trials.bench.peer import AuthorsCycleGAN, PlainCycleGAN
from trials.cyclegan import CycleGAN, Settings
from trials.parts.batches import CROP_SIZE, LOAD_SIZE, Domain
from trials.session.records import read_lines, read_record, versions
from trials.session.session import RunOptions

IMAGES = 8  # random ones of each domain
FOREVER = 10**9  # steps of a schedule whose rates do not fall while they are timed
PROFILED = 5  # steps
NOTED = 0.02  # share of a step's time from which an operator is named
REPORTS = 3  # of the short trial: the first is longer (warming up, loading TensorBoard) than the others


@dataclass(frozen=True)
class Options:
    """How to measure, as against what."""

    peer: bool = False
    """Time the plain loop (trials/bench_peer.py: eager, fp32) and ours, in turns."""
    peer_path: Path | None = None
    """Time the authors' step too: a checkout of pytorch-CycleGAN-and-pix2pix, whose code is run."""
    rounds: PositiveInt = 7
    """Turns; what is printed is their median."""
    seconds: PositiveFloat = 10.0
    """Seconds that each thing is timed for, all rounds together."""
    json: bool = False
    """Print one JSON object instead of lines."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto is the GPU where there is one."""
    threads: PositiveInt | None = None
    """CPU threads; by default as many as cores."""


def command(arguments: list[str]) -> None:
    """Carry out the command line."""
    parser = Parser(__doc__, prog="python -m trials.bench")
    parser.add_fields(Options)
    parser.add_fields(Settings)
    given = parser.parse_args(arguments)
    options = from_namespace(Options, given)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = RunOptions(device=options.device).torch_device()
    settings = from_namespace(Settings, given).complete(device)
    found = {
        "device": device_name(device), "threads": torch.get_num_threads(), "versions": versions(),
        "settings": asdict(settings),
    }  # fmt: skip
    if options.peer or options.peer_path:
        found |= against_peers(settings, options, device)
    else:
        found |= step_rate(settings, options, device)
        found |= split_of_a_trial(settings, options, found["steps_per_second"])
    print(json.dumps(found) if options.json else in_words(found))


# ---------------------------------------------------------------------------------------------
# Steps


def step_rate(settings: Settings, options: Options, device: torch.device) -> dict:
    """Rate of our steps, their arithmetic, and their share of the device's rate in a matrix product
    of the same precision, timed in turns with them. Memory is in bytes, of the process on a CPU."""
    net = CycleGAN(settings, FOREVER, device)
    step = step_of(net, random_domains(settings, device))
    with FlopCounterMode(display=False) as counter:
        step()
    for _ in range(2):  # without the counter, and with optimisers that have a state
        step()
    memory = peak_memory(device)
    multiply, of_matrices = matmul(device, settings.precision)
    with tf32_as_convolutions(device):
        times = in_turns([step, multiply], options, device)
    seconds, of_product = np.median(times, axis=0).tolist()
    flop, share = counter.get_total_flops(), np.median(times[:, 1] / times[:, 0])
    return {
        "steps_per_second": 1 / seconds, "images_per_second": settings.batch_size / seconds,
        "flop_per_step": flop, "flop_per_second": flop / seconds,
        "matmul_flop_per_second": of_matrices / of_product,
        "share_of_matmul": float(share) * flop / of_matrices, "peak_memory": memory,
        "operators": operators(step, device),
    }  # fmt: skip


def operators(step: Callable, device: torch.device) -> dict[str, float]:
    """Shares of a step's time by PyTorch's operators, largest first; a GPU's by its kernels."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of a missing GPU as of an error
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(PROFILED):
            step()
        torch.get_device_module(device).synchronize()
    times = {event.key.removeprefix("aten::"):
             event.self_device_time_total if on_gpu else event.self_cpu_time_total
             for event in seen.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=times.get, reverse=True)
    return {name: times[name] / total for name in largest if times[name] > NOTED * total}


def against_peers(settings: Settings, options: Options, device: torch.device) -> dict:
    """Rates of the plain loop, of the authors' where it is at hand, and of ours on the same images, and
    how many times as fast as each ours is: median and quartiles over the rounds."""
    net = CycleGAN(settings, FOREVER, device)
    nets = {"plain loop": PlainCycleGAN(net)}
    if options.peer_path:
        nets["authors' code"] = AuthorsCycleGAN(net, options.peer_path)
    domains = random_domains(settings, device)
    times = in_turns([step_of(one, domains) for one in (net, *nets.values())], options, device)
    ours, *theirs = (1 / np.median(times, axis=0)).tolist()
    ratios = np.quantile(times[:, 1:] / times[:, :1], [0.25, 0.5, 0.75], axis=0).T.tolist()
    peers = {name: {"steps_per_second": rate, "ratio": median, "ratio_quartiles": [low, high]}
             for name, rate, (low, median, high) in zip(nets, theirs, ratios)}
    return {"steps_per_second": ours, "peers": peers, "rounds": options.rounds}


def random_domains(settings: Settings, device: torch.device) -> tuple[Domain, Domain]:
    """As `trials.batches.unpaired`, of noise."""
    edge = round(settings.pixels * LOAD_SIZE / CROP_SIZE)
    paintings, photos = (
        Domain(torch.randint(256, (IMAGES, 3, edge, edge), dtype=torch.uint8, device=device),
               settings.pixels, name, name == "A", {})
        for name in "AB"
    )  # fmt: skip
    return paintings, photos


def step_of(net: CycleGAN | PlainCycleGAN | AuthorsCycleGAN, domains: tuple[Domain, Domain]) -> Callable:
    """One training step of `net`, batches included."""
    seed, count = net.settings.seed, net.settings.batch_size
    return lambda: net.update(*(domain.batch(seed, net.step, count) for domain in domains))


def in_turns(works: list[Callable], options: Options, device: torch.device) -> np.ndarray:
    """Seconds a call, [rounds, works]. In turns, because whatever else the machine does meanwhile
    then slows all of them down."""
    each = options.seconds / options.rounds
    counts = [max(1, round(each / seconds_per_call(work, 3, device))) for work in works]
    return np.array([[seconds_per_call(work, count, device) for work, count in zip(works, counts)]
                     for _ in range(options.rounds)])


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process (its resident set) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ---------------------------------------------------------------------------------------------
# A short trial


def split_of_a_trial(settings: Settings, options: Options, rate: float) -> dict:
    """Seconds of a real trial by what they went to, or why there is none.

    It reports as often as its size says or, where that is seldom, about every `--seconds`.
    """
    try:
        cyclegan.check(settings)
        larger = max(map(len, images.find_dataset(settings.data).train.values()))
        every = min(settings.report_interval(larger), max(1, round(rate * options.seconds)))
        short = replace(settings, steps=REPORTS * every, epochs=None, reports=REPORTS, budget=1.0)
        with TemporaryDirectory() as folder:
            done = trial(short, options, Path(folder))
        return {"split": split(done), "split_steps": short.steps,
                "first_step_after": done[1]["first_step_after"]}
    except UserError as error:
        return {"split": None, "no_split": one_line(error)}


def trial(settings: Settings, options: Options, folder: Path) -> tuple[float, dict, list[dict]]:
    """Run a trial in a process of its own; returns its seconds, its record and its reports.

    Raises:
        UserError: it did not come to its end.
    """
    given = {**asdict(settings), "device": options.device, "threads": options.threads, "out": folder}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "trials.cyclegan", *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    record, reports = read_record(folder), read_lines(folder / "stats.jsonl")
    if len(reports) < REPORTS:
        why = record.get("reason") or done.stderr.strip().split("\n")[-1]
        raise UserError(f"the short trial did not come to its end: {why}")
    return seconds, record, reports


def split(run: tuple[float, dict, list[dict]]) -> dict:
    """Seconds that went to start-up (imports, data, judge, networks), steps, scoring and reporting.

    A line of stats.jsonl is written after its steps and its scoring, before its reporting, which for
    the last line is what remains of the trial.
    """
    seconds, record, lines = run
    scoring = [line["scoring_seconds"] for line in lines]
    report = record["seconds"] - lines[-1]["seconds"]
    # Between two lines: a report, steps, a scoring. Times in the files are rounded to 0.1 s.
    first, last = np.diff([line["seconds"] for line in lines]) - np.diff(scoring)
    steps = max(0.0, last - report)
    found = {
        "steps": REPORTS * steps, "scoring": scoring[-1],
        "reporting": max(0.0, first - steps) + 2 * report,
    }  # fmt: skip
    return {"start_up": seconds - sum(found.values())} | found


# ---------------------------------------------------------------------------------------------
# Words


def in_words(found: dict) -> str:
    """What `command` found, as lines."""
    s = found["settings"]
    lines = [f"CycleGAN, {describe_size(images.SIZES[s['size']])}, batch {s['batch_size']}, "
             f"{s['precision']}, {found['device']}, threads {found['threads']}"]
    if "peers" in found:
        lines.append(f"ours {found['steps_per_second']:.3g} steps/s")
        for name, peer in found["peers"].items():
            low, high = peer["ratio_quartiles"]
            lines.append(f"{name} {peer['steps_per_second']:.3g}: ours is {peer['ratio']:.2f} times as fast "
                         f"(median of {found['rounds']} pairs, quartiles {low:.2f} and {high:.2f})")
        return "\n".join(lines)
    lines += [
        f"{found['steps_per_second']:.3g} steps/s, {found['images_per_second']:.3g} images/s of each domain",
        f"{found['flop_per_step'] / 1e9:.4g} GFLOP a step, {found['flop_per_second'] / 1e9:.4g} GFLOP/s, "
        f"{found['share_of_matmul']:.0%} of a matrix product's {found['matmul_flop_per_second'] / 1e9:.4g}",
        f"{found['peak_memory'] / 2**30:.2f} GiB of memory at the peak",
        "a step's time: " + ", ".join(f"{name} {share:.0%}" for name, share in found["operators"].items()),
    ]
    if found["split"]:
        total = sum(found["split"].values())
        parts = ", ".join(f"{name.replace('_', '-')} {part / total:.0%}"
                          for name, part in found["split"].items())
        return "\n".join([*lines, f"a trial of {found['split_steps']} steps and {REPORTS} reports, "
                                  f"{total:.0f} s: {parts}; its first step {found['first_step_after']:.1f} s "
                                  "after its start"])
    return "\n".join([*lines, f"no trial to split into its parts: {found['no_split']}"])


if __name__ == "__main__":
    main("python -m trials.bench", command)
