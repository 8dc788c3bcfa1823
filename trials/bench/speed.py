"""The speed of a CycleGAN's training step, alone and beside others, and the parts of a short trial's time."""

import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from judge import images
from judge.common.children import bound
from judge.common.errors import UserError, one_line
from judge.model import describe_size
from trials.bench.peer import AuthorsCycleGAN, PlainCycleGAN
from trials.cyclegan import Settings
from trials.parts.batches import CROP_SIZE, LOAD_SIZE, Domain
from trials.session.records import read_lines, read_record
from trials.training import cyclegan
from trials.training.cyclegan import CycleGAN

if TYPE_CHECKING:
    from trials.bench.__main__ import Options

MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns; large enough to reach the device's full rate
RANDOM_IMAGES = 8  # of each domain
ENDLESS_SCHEDULE = 10**9  # steps; the learning rates do not decay while they are timed
FIRST_STEPS = 2  # without optimisers' states, and then with them, they take other time and memory
WARM_UP_CALLS = 3  # calls whose time decides how often each function is called in a round
PROFILED_STEPS = 5
MIN_OPERATOR_SHARE = 0.02  # of a step's time: smaller operators are not listed
TRIAL_REPORTS = 3  # the first takes longer (warm-up, import of TensorBoard) than the others
MAX_REASON = 300  # characters of an error's text; a compiler's may have thousands


class Started(NamedTuple):
    """A network that has taken its first steps."""

    step: Callable[[], object]  # takes one more
    kind: str  # "as CUDA graphs", or "eager", perhaps with the reason
    memory: int | None  # bytes on the GPU at the peak so far; None without one


def start(make: Callable, device: torch.device) -> Started:
    """Make a network, prepare its step if it is ours, and take the first steps."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        others = torch.cuda.memory_allocated(device)
    net = make()
    batches, kind = random_batches(net.settings, device), "eager"
    if isinstance(net, CycleGAN):
        if reason := net.prepare(*batches(net.step)):
            kind = f"eager: {reason}"
        elif net.is_recorded:
            kind = "as CUDA graphs"

    def step() -> None:
        net.update(*batches(net.step))

    for _ in range(FIRST_STEPS):
        step()
    return Started(step, kind, torch.cuda.max_memory_allocated(device) - others if on_gpu else None)


def random_batches(settings: Settings, device: torch.device) -> Callable[[int], list[torch.Tensor]]:
    """Return a function of a step that returns its batches, as a trial's, of random images."""
    size = round(settings.pixels * LOAD_SIZE / CROP_SIZE)
    domains = [Domain(torch.randint(256, (RANDOM_IMAGES, 3, size, size), dtype=torch.uint8, device=device),
                      settings.pixels, name, name == "A", {}) for name in "AB"]
    return lambda step: [domain.batch(settings.seed, step, settings.batch_size) for domain in domains]


def measure_steps(settings: Settings, options: "Options", device: torch.device) -> dict:
    """Return the rate of training steps, their arithmetic and peak memory in bytes.

    `share_of_matmul` compares their arithmetic rate with that of a matrix product of the same precision,
    which is timed in turns with them.
    """
    flop, operators = count_eager_step(settings, device)
    step, kind, memory = start(partial(CycleGAN, settings, ENDLESS_SCHEDULE, device), device)
    if device.type == "cuda":
        if torch.backends.cudnn.allow_tf32:  # PyTorch's defaults for fp32 products and convolutions differ
            torch.set_float32_matmul_precision("high")
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # of the process; it counts in KiB
    multiply, matmul_flop = matmul(device, settings.precision)
    times = time_in_turns([step, multiply], options, device)
    seconds, matmul_seconds = np.median(times, axis=0).tolist()
    time_ratio = np.median(times[:, 1] / times[:, 0])
    return {
        "steps_per_second": 1 / seconds, "images_per_second": settings.batch_size / seconds, "step": kind,
        "flop_per_step": flop, "flop_per_second": flop / seconds,
        "matmul_flop_per_second": matmul_flop / matmul_seconds,
        "share_of_matmul": float(time_ratio) * flop / matmul_flop, "peak_memory": memory,
        "operators": operators,
    }  # fmt: skip


def count_eager_step(settings: Settings, device: torch.device) -> tuple[int, dict[str, float]]:
    """Return the floating-point operations of an eager step, and its `operator_shares`.

    PyTorch's counter does not see the operations of a CUDA graph, nor its profiler their names.
    """
    net, batches = CycleGAN(settings, ENDLESS_SCHEDULE, device), random_batches(settings, device)

    def step() -> None:
        net.update(*batches(net.step))

    with FlopCounterMode(display=False) as counter:
        step()
    for _ in range(FIRST_STEPS):
        step()
    return counter.get_total_flops(), operator_shares(step, device)


def matmul(device: torch.device, precision: str) -> tuple[Callable[[], torch.Tensor], int]:
    """Return a function that multiplies two square matrices of `bf16` or `fp32`, and its number of
    floating-point operations."""
    size, dtype = MATRIX_SIZE[device.type], torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.linspace(-1, 1, size**2, device=device).view(size, size).to(dtype)
    return lambda: x @ x, 2 * size**3


def operator_shares(step: Callable, device: torch.device) -> dict[str, float]:
    """Return the shares of a step's time by PyTorch operator, or by kernel on a GPU, largest first."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports a missing GPU as an error
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        torch.get_device_module(device).synchronize()
    times = {event.key.removeprefix("aten::"):
             event.self_device_time_total if on_gpu else event.self_cpu_time_total
             for event in profiler.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=times.get, reverse=True)
    return {name: times[name] / total for name in largest if times[name] > MIN_OPERATOR_SHARE * total}


def compare(settings: Settings, variants: dict[str, Settings], options: "Options",
            device: torch.device) -> dict:
    """Return the rates of our step, of the peers, and of our step under the settings of each variant.

    `ratio` is how many times as fast as the other ours is: median and quartiles over the rounds. What
    cannot run has an `error` in place of them.
    """
    def ours(settings: Settings) -> CycleGAN:
        return CycleGAN(settings, ENDLESS_SCHEDULE, device)

    first, others = start(partial(ours, settings), device), {}
    if options.peer or options.peer_path:
        others["plain loop"] = lambda: PlainCycleGAN(ours(settings))
    if options.peer_path:
        others["authors' code"] = lambda: AuthorsCycleGAN(ours(settings), options.peer_path)
    others |= {name: partial(ours, changed) for name, changed in variants.items()}
    started, table = {}, {}
    for name, make in others.items():
        try:
            started[name] = start(make, device)
        except UserError:
            raise
        except Exception as error:  # a capture, a compiler or a lack of memory may raise any
            table[name] = {"error": shorten(f"{type(error).__name__}: {error}", MAX_REASON)}
        gc.collect()  # networks that failed
    times = time_in_turns([each.step for each in (first, *started.values())], options, device)
    rate, *rates = (1 / np.median(times, axis=0)).tolist()
    ratios = np.quantile(times[:, 1:] / times[:, :1], [0.25, 0.5, 0.75], axis=0).T.tolist()
    for (name, other), other_rate, (low, median, high) in zip(started.items(), rates, ratios):
        table[name] = {"steps_per_second": other_rate, "ratio": median, "ratio_quartiles": [low, high],
                       "step": other.kind, "peak_memory": other.memory}
    return {"steps_per_second": rate, "step": first.kind, "peak_memory": first.memory,
            "peers": {name: table[name] for name in others}, "rounds": options.rounds}


def time_in_turns(functions: list[Callable], options: "Options", device: torch.device) -> np.ndarray:
    """Return the seconds of a call, [rounds, functions].

    The functions take turns so that other work on the machine slows all of them down alike.
    """
    budget = options.seconds / options.rounds
    counts = [max(1, round(budget / seconds_per_call(f, WARM_UP_CALLS, device))) for f in functions]
    return np.array([[seconds_per_call(f, count, device) for f, count in zip(functions, counts)]
                     for _ in range(options.rounds)])


def seconds_per_call(function: Callable, count: int, device: torch.device) -> float:
    """Return the mean time of `count` calls; wait for the device before the first and after the last only."""
    synchronize = torch.get_device_module(device).synchronize
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        function()
    synchronize()
    return (time.perf_counter() - start) / count


def measure_trial(settings: Settings, options: "Options", steps_per_second: float) -> dict:
    """Return the seconds of each part of a short trial, in a process of its own, or why it cannot run.

    It reports as often as a real trial, or every `--seconds` if that is more often.
    """
    try:
        cyclegan.check(settings)
    except UserError as error:
        return {"split": None, "no_split": one_line(error)}
    larger = max(map(len, images.find_dataset(settings.data).train.values()))
    every = min(settings.report_interval(larger), max(1, round(steps_per_second * options.seconds)))
    short = replace(settings, steps=TRIAL_REPORTS * every, epochs=None, reports=TRIAL_REPORTS, budget=1.0)
    with TemporaryDirectory() as folder:
        values = {**asdict(short), "device": options.device, "threads": options.threads, "out": folder}
        arguments = [f"--{name.replace('_', '-')}={v}" for name, v in values.items() if v is not None]
        start = time.perf_counter()
        process = subprocess.run(
            bound([sys.executable, "-m", "trials.cyclegan", *arguments]), capture_output=True, text=True)
        seconds = time.perf_counter() - start
        record, reports = read_record(Path(folder)), read_lines(Path(folder) / "stats.jsonl")
    if len(reports) < TRIAL_REPORTS:
        reason = record.get("reason") or process.stderr.strip().split("\n")[-1]
        return {"split": None, "no_split": f"the short trial failed: {reason}"}
    return {"split": split_seconds(seconds, record["seconds"], reports), "split_steps": short.steps,
            "first_step_after": record["first_step_after"]}


def split_seconds(seconds: float, session_seconds: float, reports: list[dict]) -> dict[str, float]:
    """Split a trial's `seconds` into start-up (imports, data, judge, networks), steps, scoring and reporting.

    A line of stats.jsonl is written after the steps and the scoring, and before the rest of the report. After
    the last line the session has only the rest of its report left.
    """
    scoring = [line["scoring_seconds"] for line in reports]
    report = session_seconds - reports[-1]["seconds"]
    # Between two lines are a report, steps and scoring. The times in the files are rounded to 0.1 s.
    first, last = np.diff([line["seconds"] for line in reports]) - np.diff(scoring)
    steps = max(0.0, last - report)
    parts = {"steps": TRIAL_REPORTS * steps, "scoring": scoring[-1],
             "reporting": max(0.0, first - steps) + 2 * report}
    return {"start_up": seconds - sum(parts.values())} | parts


def describe_step(row: dict) -> str:
    """Return how the steps of `compare`'s result or of a row of it run, and their memory."""
    memory = row["peak_memory"]
    return row["step"] + (f", {memory / 2**30:.2f} GiB of GPU memory at the peak" if memory else "")


def describe(result: dict) -> str:
    """Return the result of `command` as lines of text."""
    s, rate = result["settings"], result["steps_per_second"]
    lines = [f"CycleGAN, {describe_size(images.SIZES[s['size']])}, batch {s['batch_size']}, "
             f"{s['precision']}, {result['device']}, threads {result['threads']}"]
    if "peers" in result:
        lines.append(f"ours {rate:.3g} steps/s, {describe_step(result)}")
        for name, peer in result["peers"].items():
            if "error" in peer:
                lines.append(f"{name} cannot run: {peer['error']}")
                continue
            low, high = peer["ratio_quartiles"]
            lines.append(f"{name} {peer['steps_per_second']:.3g}: ours is {peer['ratio']:.2f} times as fast "
                         f"(median of {result['rounds']} pairs, quartiles {low:.2f} and {high:.2f}), "
                         f"{describe_step(peer)}")
        return "\n".join(lines)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result["operators"].items())
    lines += [
        f"{rate:.3g} steps/s, {result['images_per_second']:.3g} images/s of each domain, {result['step']}",
        f"{result['flop_per_step'] / 1e9:.4g} GFLOP a step, {result['flop_per_second'] / 1e9:.4g} GFLOP/s, "
        f"{result['share_of_matmul']:.0%} of a matrix product's {result['matmul_flop_per_second'] / 1e9:.4g}",
        f"{result['peak_memory'] / 2**30:.2f} GiB of memory at the peak",
        f"an eager step's time: {shares}",
    ]
    if split := result["split"]:
        total = sum(split.values())
        parts = ", ".join(f"{name.replace('_', '-')} {part / total:.0%}" for name, part in split.items())
        lines.append(f"a trial of {result['split_steps']} steps and {TRIAL_REPORTS} reports, {total:.0f} s: "
                     f"{parts}; its first step {result['first_step_after']:.1f} s after its start")
    else:
        lines.append(f"no short trial: {result['no_split']}")
    return "\n".join(lines)
