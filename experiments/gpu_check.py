"""Check in at most six minutes that Salon works on this machine's GPU, and print a table of the results.

    python -m experiments.gpu_check                                # or make gpu-check
    python -m experiments.gpu_check --device cpu --size sketch     # the same on a CPU, to try it out; slower

The parts: the tests of CUDA, the speed of our step and of a plain loop, a judge, a trial that is killed and
continues, and a search through NNI. The table is in Markdown, for an issue or a README; it is also written to
$OUT/gpu-check.md if OUT names a folder. The exit code is 1 if a part failed, and 2 without a GPU.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Literal

from judge.common.children import bound
from judge.common.cli import Parser, PositiveInt, from_namespace, importing, main
from judge.common.constants import ROOT, SIZES
from judge.common.errors import UserError
from trials.session.records import git_commit, read_lines, read_record

TOTAL_SECONDS = 300  # and at most `GRACE_SECONDS` more
PATIENCE = {"cuda": 1, "cpu": 4}  # times `TOTAL_SECONDS` and those of a part: a CPU only tries the check out
GRACE_SECONDS = 30  # for a command to end by itself after SIGTERM: a search stops NNI and its trials
MAX_LINE = 200  # characters of a printed line and of a cell of the table
SAMPLE = {"train": 48, "test": 24}  # images of each domain
STEPS = {"cuda": 400, "cpu": 60}  # of a trial, by device
TIMED_SECONDS = {"cuda": 6, "cpu": 1}  # of each loop
REPORTS, REPORTS_BEFORE_KILL = 10, 3  # of a trial
TRIALS, AT_ONCE = 4, 2  # of the search


class Failed(Exception):
    """A part failed; the text says why."""


class Skipped(Exception):
    """A part cannot run here; the text says why."""


@dataclass(frozen=True)
class Options:
    """What to check."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu tries the check out where there is no GPU."""
    size: Literal[tuple(SIZES)] | None = None
    """Size for all parts; by default draft, and the speed also at paper."""
    steps: PositiveInt | None = None
    """Steps of a trial; by default 400, on a CPU 60."""


@dataclass(frozen=True)
class Check:
    """A check: its device, the size and steps of its trials, and the folder for the files of its parts."""

    device: str
    size: str
    steps: int
    folder: Path

    @property
    def data(self) -> str:
        """The data, which `train_judge` makes: a smaller built-in sample."""
        return str(self.folder / "sample")

    @property
    def judge(self) -> Path:
        """The file of the judge, which `train_judge` makes."""
        return self.folder / "judge.pt"

    def trial(self) -> list[str]:
        """Return the module and the options of a trial. Raises Skipped if there is no judge."""
        if not self.judge.exists():
            raise Skipped("no judge")
        return ["trials.cyclegan", "--data", self.data, "--judge", str(self.judge), "--size", self.size,
                "--device", self.device, "--steps", str(self.steps), "--reports", str(REPORTS)]

    def record(self, folder: Path) -> dict:
        """Return a trial's run.json. Raises Failed if it did not run on the device of the check."""
        record = read_record(folder)
        if str(record.get("device")).startswith("cpu") != (self.device == "cpu"):
            raise Failed(f"a trial ran on {record.get('device')}, not on {self.device}")
        return record


def command(arguments: list[str]) -> int:
    """Run the check, and return 1 if a part failed, else 0."""
    parser = Parser(__doc__, prog="python -m experiments.gpu_check")
    parser.add_fields(Options)
    options = from_namespace(Options, parser.parse_args(arguments))
    with importing():
        import torch
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch finds no GPU here; --device cpu --size sketch tries the check on a CPU")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the commands that are started
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that they are ended
    folder = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    check = Check(options.device, options.size or "draft", options.steps or STEPS[options.device], folder)
    sizes = [options.size] if options.size else ["draft", "paper"]
    results = run_parts(check, parts(sizes), title(options.device))
    if any(result == "failed" for _, result, _, _ in results):
        print(f"files and logs of the parts: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def parts(sizes: list[str]) -> dict[str, tuple[float, Callable]]:
    """Return the parts by name, each with the seconds that it may take on a GPU; what is timed goes first."""
    speed = {f"speed, {size}": (60, partial(measure_speed, size=size)) for size in sizes}
    return {**speed, "tests of CUDA": (80, run_tests), "judge": (60, train_judge),
            "resume after kill -9": (80, kill_and_resume), "search through NNI": (150, search)}


def run_parts(check: Check, parts: dict[str, tuple[float, Callable]], title: str) -> list[tuple]:
    """Run the parts one after the other, print the table, and return its rows: name, result, figures,
    seconds."""
    print(title, flush=True)
    total = TOTAL_SECONDS * PATIENCE[check.device]
    end, rows = time.monotonic() + total, []
    for name, (seconds, part) in parts.items():
        started = time.monotonic()
        print(f"\n== {name}", flush=True)
        try:
            if started >= end:
                raise Failed(f"no time was left of {total} s")
            result, figures = "ok", part(check, min(end, started + seconds * PATIENCE[check.device]))
        except Skipped as reason:
            result, figures = "skipped", str(reason)
        except Exception as error:  # of any part: the others still run
            result, figures = "failed", f"{error}" if isinstance(error, Failed) else f"{error!r}"
        rows.append((name, result, figures, round(time.monotonic() - started)))
        print(f"{name}: {result}, {cut(figures)}", flush=True)
        text = table(title, rows)
        if "OUT" in os.environ:  # after each part, in case that the rest is cut off
            (Path(os.environ["OUT"]) / "gpu-check.md").write_text(text)
    print(f"\n{text}", flush=True)
    return rows


def table(title: str, rows: list[tuple]) -> str:
    """Return the rows as a table in Markdown under a title."""
    lines = [f"| {name} | {result} | {cut(figures).replace('|', '/')} | {seconds} |"
             for name, result, figures, seconds in rows]
    return "\n".join([title, "", "| part | result | figures | s |", "| --- | --- | --- | --- |", *lines, ""])


def title(device: str) -> str:
    """Return a line with the card, the driver, the versions and the commit."""
    import torch

    from judge.common.device import device_name

    card = device_name(torch.device("cpu"))
    if device == "cuda":
        # In a process of its own: this one must not hold the GPU, which may admit only one process.
        card = output(sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())")
        driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        card += f", driver {driver.splitlines()[0]}, CUDA {torch.version.cuda}"
    commit = git_commit() or "unknown"
    return f"{card}, torch {torch.__version__}, commit {commit}, {time.strftime('%d %B %Y')}"


def output(*words: str) -> str:
    """Return what a short command prints, or "unknown"."""
    with suppress(OSError, subprocess.TimeoutExpired):  # it is not installed, or hangs
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip() or "unknown"
    return "unknown"


def cut(text: str) -> str:
    """Return the text on one line of at most `MAX_LINE` characters."""
    return shorten(text, MAX_LINE, placeholder=" ...")


# ---------------------------------------------------------------------------------------------
# Commands


def start(words: list[str], log: Path) -> subprocess.Popen:
    """Start `python -m WORDS` with its output in `log`."""
    with open(log, "w") as out:
        return subprocess.Popen(bound([sys.executable, "-u", "-m", *words]), cwd=ROOT, stdout=out,
                                stderr=subprocess.STDOUT, start_new_session=True)


def call(check: Check, words: list[str], until: float) -> tuple[int, list[str]]:
    """Run `python -m WORDS`, print its lines as they come, cut, and return its exit code and its lines.

    Raises Failed if it has not ended at `until`, by the monotonic clock; then it is ended.
    """
    log = check.folder / f"{len([*check.folder.glob('*.log')])}.log"
    process, shown = start(words, log), 0
    try:
        while True:
            ended = process.poll() is not None
            *lines, last = log.read_text(errors="replace").split("\n")
            lines += [last] if ended and last else []
            for line in lines[shown:]:
                if not is_json(line):  # which is for a part
                    print(line[:MAX_LINE], flush=True)
            shown = len(lines)
            if ended:
                return process.returncode, lines
            if time.monotonic() > until:
                raise Failed(f"{words[0]} took too long; its last line: {lines[-1] if lines else ''}")
            time.sleep(0.2)
    finally:
        stop(process)


def is_json(line: str) -> bool:
    """Return whether a line is a command's result in JSON."""
    return line.startswith("{")


def stop(process: subprocess.Popen) -> None:
    """End a process, and if it does not end by itself, its process group."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def succeed(check: Check, words: list[str], until: float) -> list[str]:
    """Run `python -m WORDS` and return its lines. Raises Failed if its exit code is not 0."""
    code, lines = call(check, words, until)
    if code:
        raise Failed(f"{words[0]} ended with {code}: {lines[-1] if lines else 'no output'}")
    return lines


# ---------------------------------------------------------------------------------------------
# Parts: each returns its figures, and raises Failed or Skipped


def measure_speed(check: Check, until: float, size: str) -> str:
    """Compare our step with the plain loop."""
    from trials.bench.speed import describe, describe_step

    words = ["trials.bench", "--size", size, "--device", check.device, "--peer",
             "--seconds", str(TIMED_SECONDS[check.device]), "--rounds", "5", "--json"]
    lines = succeed(check, words, until)
    result = json.loads(next(line for line in reversed(lines) if is_json(line)))
    print(describe(result), flush=True)
    plain = result["peers"]["plain loop"]
    if "error" in plain:
        raise Failed(f"the plain loop cannot run: {plain['error']}")
    return (f"{result['steps_per_second']:.3g} steps/s, {plain['ratio']:.2f} times the plain loop's "
            f"{plain['steps_per_second']:.3g}; {describe_step(result)}")


def run_tests(check: Check, until: float) -> str:
    """Run the tests that are marked `cuda`, which are those of trials and judge."""
    require("pytest")
    words = ["pytest", "-m", "cuda", "-q", "--tb=short", "--maxfail=5", "-p", "no:cacheprovider",
             "tests/judge", "tests/trials"]
    code, lines = call(check, words, until)
    summary = lines[-1] if lines else "no output"
    if code == 5:  # pytest's code for a run without a test
        raise Skipped(f"no test is marked cuda: {summary}")
    if code:
        raise Failed(summary)
    if " passed" not in summary:
        raise Skipped(f"no GPU: {summary}")
    return summary


def train_judge(check: Check, until: float) -> str:
    """Make a sample and train a judge on it, just long enough for the parts that need one."""
    from judge import sample

    sample.make(Path(check.data), **SAMPLE)
    words = ["judge", "train", "--data", check.data, "--size", check.size, "--weights", "none",
             "--epochs", "2", "--out", str(check.judge)]
    lines = succeed(check, words, until)
    return next((line for line in lines if line.startswith("trained ")), "trained")


def kill_and_resume(check: Check, until: float) -> str:
    """Kill a trial by SIGKILL after some reports, run the same command again, and compare the steps.

    A report's checkpoint is written after its line of stats.jsonl, so the last one may be missing.
    """
    folder = check.folder / "killed"
    words, log = [*check.trial(), "--out", str(folder)], check.folder / "killed.log"
    first = start(words, log)
    try:
        while len(reports := read_lines(folder / "stats.jsonl")) < REPORTS_BEFORE_KILL:
            if first.poll() is not None or time.monotonic() > until:
                last = log.read_text(errors="replace").strip()[-MAX_LINE:]
                raise Failed(f"no {REPORTS_BEFORE_KILL} reports to kill the trial at: {last}")
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
    killed = f"killed after step {reports[-1]['step']}"
    print(killed, flush=True)
    succeed(check, words, until)
    record, steps = check.record(folder), [line["step"] for line in read_lines(folder / "stats.jsonl")]
    resumed = record.get("resumed_at", 0)
    if resumed < reports[-2]["step"] or steps[-1] != check.steps or steps != sorted(set(steps)):
        raise Failed(f"continued at {resumed}, and reported at the steps {steps}, not up to {check.steps}")
    return f"{killed}, continued at {resumed}, ended at {steps[-1]}"


def search(check: Check, until: float) -> str:
    """Run a small search through NNI, on a GPU with two trials at once on it."""
    require("nni", "plotly")  # plotly: for the search's page
    config = {
        "experimentName": "GPU check", "experimentWorkingDirectory": str(check.folder / "runs"),
        "searchSpaceFile": str(ROOT / "search_spaces/cyclegan.json"), "trialCodeDirectory": str(ROOT),
        "trialCommand": " ".join(["python", "-m", *check.trial()]),
        "trialConcurrency": AT_ONCE, "maxTrialNumber": TRIALS,
        "tuner": {"className": "experiments.tuner.Tpe", "codeDirectory": str(ROOT), "classArgs": {
            "reference": "trials.cyclegan", "optimize_mode": "maximize", "seed": 0,
            "tpe_args": {"n_startup_jobs": 2}}},
        "trainingService": {"platform": "local"},
    }  # fmt: skip
    if check.device == "cuda":
        if not shutil.which("nvidia-smi"):
            raise Skipped("no nvidia-smi here, with which NNI looks for GPUs")
        config["trialGpuNumber"] = 1
        config["trainingService"] |= {"useActiveGpu": True, "maxTrialNumberPerGpu": AT_ONCE}
    (check.folder / "runs").mkdir()
    file = check.folder / "search.yml"
    file.write_text(json.dumps(config))  # which is YAML too
    succeed(check, ["experiments", "run", str(file), "--unmeasured"], until)
    folders = (check.folder / "runs").glob("[!_]*/trials/*")
    records = [check.record(folder) for folder in folders]
    ended = [record for record in records if record.get("status") in ("finished", "diverged")]
    if len(ended) < TRIALS or all(record["status"] == "diverged" for record in ended):
        raise Failed(f"of {TRIALS} trials {[record.get('status') for record in records]}")
    seconds = sum(record["seconds"] for record in ended) / len(ended)
    memory = max(record.get("peak_memory") or 0 for record in ended)
    figures = [f"{TRIALS} trials of {check.steps} steps, {AT_ONCE} at once, {seconds:.0f} s each",
               *sorted({record.get("graphs_fallback") or record.get("step", "") for record in ended})]
    if memory:
        figures.append(f"{memory / 2**30:.2f} GiB of GPU memory at the peak of one")
    if diverged := sum(record["status"] == "diverged" for record in ended):
        figures.append(f"{diverged} diverged")
    return ", ".join(filter(None, figures))


def require(*packages: str) -> None:
    """Raise Skipped if one of the packages is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")


if __name__ == "__main__":
    main("python -m experiments.gpu_check", command)
