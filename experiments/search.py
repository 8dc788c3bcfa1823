"""Run a search: check its file, start NNI, show the trials until the last has ended, and stop NNI."""

import os
import re
import signal
import stat
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments import cost, disk
from experiments.check import Plan, check, is_remote, judge_on_data, trials_per_gpu
from experiments.mps import Daemon, daemon
from experiments.nni_adapter import manager
from experiments.nni_adapter.database import FAILED, Experiment, Trial, find_experiment
from experiments.nni_adapter.remote import FOLDER, Tunnels, workers
from experiments.overrides import NO_OVERRIDES, Overrides
from experiments.report import results
from experiments.report.live import LivePage, served
from experiments.report.page_data import PageData, expected_end
from experiments.trial_command import trials_folder
from judge.common.cache import cache_folder
from judge.common.cli import Interrupted, interrupt_on_signals, on_stop
from judge.common.device import available_cores
from judge.images import making_aside
from trials.session.engine import NniEngine
from trials.session.steady import score_text

FILE_NAME = "experiment.yml"  # in an experiment's folder: its file as it was run
FIRST_TRIAL_TIMEOUT = 300.0  # seconds
TITLE = 40  # characters of a search's name in NNI's web UI: more cover other things there
SHOWN_FAILURES = 5  # in the live table
# So many trials in a row that fail for the same reason end a search: before the first success, and after it.
FIRST_FAILURES, FURTHER_FAILURES = 3, 6


@dataclass(eq=False)
class Planned(Experiment):
    """An experiment that has been checked and that NNI has not started yet."""

    def trials(self) -> list[Trial]:
        return []


def run(file: Path, keep: int | None = None, given: Overrides = NO_OVERRIDES, *,
        unmeasured: bool = False, long: bool = False, any_judge: bool = False, mps: bool = False,
        port: int = 0, show: bool = False) -> tuple[Experiment, int]:  # fmt: skip
    """Check an experiment file, run it to its end with a live table, and return it with an exit code.

    The code is 0 when the search finished, 1 when it broke or most trials failed, 130 after Ctrl-C, and 128
    and its number after another signal. Whatever ends this, nothing of the search is left running.
    Checkpoints are deleted except those of the best `keep` trials; None keeps all. With `mps`, NVIDIA's MPS
    runs during the search. The page is served at `port`, or at any free one for 0, and opened with `show`.
    For `unmeasured`, `long` and `any_judge` see `measure`, for `given` `overrides.change`.
    """
    stops = Stops()
    try:
        with making_aside() as keep_data:
            plan = check(file, given)
            with trials_folder(plan.config.trial_code_directory):
                return run_plan(plan, keep, unmeasured, long, any_judge, mps, port, show, stops, keep_data)
    finally:
        stops.release()


def run_plan(plan: Plan, keep: int | None, unmeasured: bool, long: bool, any_judge: bool, mps: bool,
             port: int, show: bool, stops: "Stops",
             keep_data: Callable[[], None]) -> tuple[Experiment, int]:  # fmt: skip
    """Run a checked experiment, as `run` does; data that the check has made is kept once nothing refuses."""
    description = describe(plan, keep)
    with (served(prepared(plan), port, show) as page,
          daemon(plan.gpus) if mps else nullcontext() as mps_daemon):  # fmt: skip
        print(description, flush=True)
        measure(plan, unmeasured, long, any_judge)
        keep_data()
        page.data.message = "starting NNI ..."
        return run_nni(plan, keep, mps_daemon, page, stops)


class Stops:
    """The signals that ask this process to end, from now on: the first raises Interrupted.

    Later ones, and all after `hold`, only count: nothing interrupts the end of a search. Where the terminal
    was closed, what is printed from then on is dropped, because printing would fail.
    """

    def __init__(self):
        self._numbers: list[int] = []
        self._held = False
        on_stop(self._come)

    def _come(self, number: int, _frame: Any) -> None:
        self._numbers.append(number)
        if number == signal.SIGHUP:
            drop_output()
        if len(self._numbers) == 1 and not self._held:
            raise Interrupted(number)

    def hold(self) -> None:
        """Raise nothing from now on."""
        self._held = True

    def release(self) -> None:
        """If none has come, let the next one raise again."""
        if not self._numbers:
            interrupt_on_signals()

    def hurry(self) -> bool:
        """Return whether the user has pressed Ctrl-C again."""
        return signal.SIGINT in self._numbers[1:]


def drop_output() -> None:
    """Drop what is printed from now on to a terminal, which may be closed already."""
    for stream in (sys.stdout, sys.stderr):
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepared(plan: Plan) -> PageData:
    """Return what the page shows before NNI has started."""
    config = plan.config.json() | {"experimentName": title(plan)}
    folder = Path(plan.config.experiment_working_directory) / "none yet"
    inputs = plan.settings.describe_inputs().items()
    data = PageData(Planned("", folder, config), facts=[f"{name}: {value}" for name, value in inputs])
    data.state, data.message = "preparing", "measuring a trial ..."
    return data


def title(plan: Plan) -> str:
    """Return the name of the experiment for NNI's web UI, cut at a word where it is too long."""
    name = " ".join((plan.config.experiment_name or plan.file.stem).split())
    short = textwrap.shorten(name, TITLE, placeholder="…")
    return short if len(short) > 1 else f"{name[: TITLE - 1]}…"  # one long word


def measure(plan: Plan, unmeasured: bool = False, long: bool = False, any_judge: bool = False) -> None:
    """Measure the judge on the data and then a trial, and print what the search will cost.

    Raises UserError if the judge is bad on the data without `any_judge`, if the trial fails, and if the
    search may take more than a day without `long`. With `unmeasured`, and for trials on other machines,
    nothing is measured and the cost is not known.
    """
    if is_remote(plan.config):
        print("time: not known, trials on other machines are not measured")
    elif not unmeasured:
        if warning := judge_on_data(plan.settings, any_judge):
            print(warning)
        print("measuring a trial ...", flush=True)
        measured = cost.measure(plan)
        print(cost.describe(plan, measured), flush=True)
        if not long:
            cost.refuse_long(plan, measured)


def run_nni(plan: Plan, keep: int | None, mps_daemon: Daemon | None, page: LivePage,
            stops: Stops) -> tuple[Experiment, int]:  # fmt: skip
    """Start NNI, watch the search to its end, stop NNI, and return as `run` does."""
    tunnels, id_ = Tunnels(workers(plan.config.json())), manager.new_id()
    experiment, code, problem, state = None, 1, None, "failed"
    try:
        experiment, port = start(id_, plan, mps_daemon, tunnels, page)
        problem = watch(experiment, port, plan, keep, mps_daemon, tunnels, page) or failure(experiment)
        code, state = (1, "failed") if problem else (0, "ended")
    except Interrupted as stop:
        code, problem, state = stop.exit_code, f"by {stop}", "stopped"
        if experiment is None:
            raise
        print(f"stopped by {stop}: trials save their checkpoints; Ctrl-C again kills them", file=sys.stderr)
    finally:
        try:
            stops.hold()
        finally:
            tunnels.close()  # before `stop`, with which NNI kills trials elsewhere without a checkpoint
            manager.stop(id_, stops.hurry)
    if state == "failed":
        print(problem, file=sys.stderr)
    for place in tunnels.fetch(experiment):
        print(f"not fetched: {place} (still there in {FOLDER}/{experiment.id})", file=sys.stderr)
    page.end(state, problem)
    return experiment, code


def start(id_: str, plan: Plan, mps_daemon: Daemon | None, tunnels: Tunnels,
          page: LivePage) -> tuple[Experiment, int]:  # fmt: skip
    """Start NNI, say where the search is, and return the experiment and NNI's port."""
    with tempfile.TemporaryDirectory() as folder:
        config = plan.config.json() | {"experimentName": title(plan)}
        file = manager.write_config(Path(folder) / plan.file.name, config)
        variables = mps_daemon.variables if mps_daemon else {}
        experiment, port = manager.create(file, id_, tunnels.open, variables)
    page.begin(find_experiment(str(experiment.folder)), port)  # another one: other threads read it
    print(f"experiment {experiment.id} in {experiment.folder}")
    print(f"web UI: http://127.0.0.1:{port} (this machine only; else ssh -L {port}:127.0.0.1:{port})")
    (experiment.folder / FILE_NAME).write_bytes(plan.source)
    tunnels.watch(experiment.id)
    return experiment, port


def describe(plan: Plan, keep: int | None = None) -> str:
    """Return lines on what a checked experiment will do, and on its disk space, or raise a UserError."""
    config, settings = plan.config, plan.settings
    inputs = "; ".join(f"{name}: {value}" for name, value in settings.describe_inputs().items())
    trials = config.max_trial_number or keep or 1  # without a limit, nobody knows
    paintings = disk.paintings(settings) if plan.run_options.keep else 0
    needed = {
        Path(config.experiment_working_directory): disk.disk_needed(
            plan.footprint, trials, config.trial_concurrency, keep or trials, paintings),
        cache_folder(): 0 if is_remote(config) else disk.cache_needed(settings),
    }  # fmt: skip
    return "\n".join([
        f"{plan.file.name}: {config.max_trial_number or 'unlimited'} trials of {plan.module.__name__}, "
        f"{config.trial_concurrency} at once, over {', '.join(config.search_space)}",
        inputs, device(plan), disk.check(needed), *(f"note: {note}" for note in plan.notes)])


def device(plan: Plan) -> str:
    """Return a line on where trials will run."""
    if is_remote(plan.config):
        return "device: other machines"
    if plan.gpus:
        each = min(plan.config.trial_concurrency, trials_per_gpu(plan.config))
        shared = f", {each} trials share one" if each > 1 else ""
        return f"device: {plan.gpus} GPU{'s' * (plan.gpus > 1)}{shared}"
    threads = plan.run_options.threads or NniEngine.threads
    return f"device: cpu, --threads {threads} a trial, {available_cores()} cores"


def failure(experiment: Experiment) -> str | None:
    """Return why a search that has come to its end counts as failed; None if it is a success."""
    trials = experiment.trials()
    failed = [trial for trial in trials if trial.state == FAILED]
    if 2 * len(failed) > len(trials):
        return (f"the search failed: {len(failed)} of {len(trials)} trials failed, the last one with: "
                f"{log_text(failed[-1])}")
    if not any(trial.final for trial in trials):
        states = Counter(trial.state.lower().replace("_", " ") for trial in trials)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        limit = next(filter(None, (results.overtime(experiment, trial) for trial in trials)), None)
        return f"the search failed: no trial came to its end: {counts}{f' by {limit}' * bool(limit)}"
    return None


def repeated_failure(trials: list[Trial]) -> str | None:
    """Return a line if the last trials have all failed for the same reason: the next ones will, too."""
    ended = sorted((trial for trial in trials if trial.over), key=lambda trial: trial.ended or 0)
    count = FURTHER_FAILURES if any(trial.final for trial in ended) else FIRST_FAILURES
    last = ended[-count:]
    if len(last) < count or any(trial.state != FAILED for trial in last):
        return None
    # Paths and numbers, such as a process's, differ from trial to trial.
    if len({re.sub(r"\S*/\S*|\d+", "", log_text(trial)) for trial in last}) > 1:
        return None
    return f"the search was ended: {count} trials in a row failed for the same reason: {log_text(last[-1])}"


def watch(experiment: Experiment, port: int, plan: Plan, keep: int | None, mps_daemon: Daemon | None,
          tunnels: Tunnels, page: LivePage) -> str | None:  # fmt: skip
    """Show the trials until the search is over, and return what went wrong, if anything did."""
    console, shown, data, reported = Console(), {}, plan.settings.describe_inputs()["data"], set()
    started = time.monotonic()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            (state, errors), trials = manager.status(port), experiment.trials()
            if problem := tunnels.problem() or (mps_daemon and mps_daemon.problem()):
                return f"the search failed: {problem}"
            if place := manager.dead_runner(experiment, trials):
                return f"the search failed: NNI's runner has died in {place}"
            ended = manager.ended_tensorboards(port)
            for id_ in ended.keys() - reported:
                print(f"TensorBoard at {ended[id_]} has ended: NNI's web UI starts another")
            reported |= ended.keys()
            tunnels.fetch(experiment, trials)
            if keep:
                disk.prune(trials, plan.module, keep)
            page.write_file()
            if console.is_terminal:
                line = progress(trials, experiment.max_trials, plan.config.trial_concurrency)
                live.update(Group(Text(f"{data}: ") + line, table(trials, plan), failures(trials)),
                            refresh=True)
            else:
                shown = print_changes(trials, shown)
            if state in ("ERROR", "STOPPED"):
                return f"the search failed: {manager.what_ended(experiment, errors)}"
            if state in manager.FINISHED and all(trial.over for trial in trials):
                return None
            if problem := repeated_failure(trials):
                return problem
            if not trials and time.monotonic() - started > FIRST_TRIAL_TIMEOUT:
                return f"the search failed: {state}, no trial in {FIRST_TRIAL_TIMEOUT:.0f} s"
            time.sleep(2)  # seconds between two reads


def table(trials: list[Trial], plan: Plan) -> Table:
    """Return a table of the trials that run and the best ten that have ended; the best row is bold."""
    ended = [trial for trial in trials if trial.over and trial.latest]
    ended.sort(key=lambda trial: trial.latest["default"], reverse=True)
    trials = [trial for trial in trials if not trial.over] + ended[:10]
    best = max((t for t in trials if t.latest), key=lambda t: t.latest["default"], default=None)
    rows = Table(box=None, header_style="bold")
    parameters = list(trials[0].parameters) if trials else []
    for name in ("trial", "state", "reports", "score", *parameters):
        rows.add_column(name, justify="right" if name != "state" else "left")
    for trial in trials:
        score = score_text(trial.latest) if trial.latest else ""
        values = [f"{value:.3g}" if isinstance(value, float) else str(value)
                  for value in (trial.parameters[name] for name in parameters)]
        name = results.name(trial, results.is_published(trial, plan.module))
        rows.add_row(name, trial.state.lower(), str(len(trial.reports)), score, *values,
                     style="bold" if trial is best else None)
    return rows


def failures(trials: list[Trial]) -> Text:
    """Return a red line on each of the last trials that failed: what it printed last, and where."""
    failed = [trial for trial in trials if trial.state == FAILED]
    lines = [f"trial {trial.number} failed: {log_text(trial)}" for trial in failed[-SHOWN_FAILURES:]]
    return Text("\n".join(lines), style="red")


def log_text(trial: Trial) -> str:
    """Return the last line that a failed trial printed, and the file; without one, say so."""
    return results.log_text(trial) or f"it printed nothing ({results.shown(trial.folder)})"


def progress(trials: list[Trial], max_trials: int | None, at_once: int) -> Text:
    """Return a line with the number of ended and of failed trials, the best score so far and the expected
    end."""
    scores = [trial.latest for trial in trials if trial.latest]
    best = max(scores, key=lambda score: score["default"], default=None)
    best = f"best so far {score_text(best)}" if best else "no score yet"
    ended = sum(trial.over for trial in trials)
    failed = sum(trial.state == FAILED for trial in trials)
    line = Text(f"{ended} of {max_trials or 'unlimited'} trials, ")
    line.append(f"{failed} failed, " if failed else "", "bold red").append(best)
    if end := expected_end(trials, max_trials, at_once):
        line.append(f", expected end {datetime.fromtimestamp(end):%H:%M}")
    return line


def print_changes(trials: list[Trial], shown: dict) -> dict:
    """Print a line for each trial that differs from what was `shown`, by id; return what is shown now."""
    now = {trial.id: (trial.state, len(trial.reports)) for trial in trials}
    for trial in trials:
        if shown.get(trial.id) != now[trial.id]:
            score = f"score {score_text(trial.latest)}" if trial.latest else ""
            score += f"  {log_text(trial)}" if trial.state == FAILED else ""
            print(f"{datetime.now():%H:%M:%S}  trial {trial.number:3}  {trial.state.lower():13}  "
                  f"{len(trial.reports):2} reports  {score}".rstrip(), flush=True)
    return now
