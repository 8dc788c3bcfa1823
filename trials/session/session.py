"""Runs a trial: training with checkpoints, retries, signals, and one final result for the engine."""

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from judge.common.cli import from_namespace, main
from judge.common.errors import UserError, is_out_of_memory, one_line
from judge.common.files import as_user_error, atomic_write
from judge.common.tensors import read_tensors
from judge.images import to_bytes
from judge.score import WORST_SCORE, Score
from trials.session.engine import NniEngine, NoEngine, current_engine
from trials.session.failures import Diverged, Stopped, describe_error, is_transient
from trials.session.records import Record, settings_hash, write_json
from trials.session.reporter import Reporter
from trials.session.settings import RunOptions, trial_parser, with_parameters

RUNS = Path("runs")  # holds the folders of trials that are started by hand
FIRST_BACKOFF = 10  # seconds before the first retry; each next one waits three times as long
Train = Callable[[Any, "Session"], None]  # of settings and session


def run(train: Train, Settings: type) -> None:
    """Run a trial, started from the command line or by the engine, and exit."""
    system = Path(sys.modules[train.__module__].__file__).stem
    prog = f"python -m trials.{system}"

    def command(arguments: list[str]) -> int:
        sys.stdout.reconfigure(line_buffering=True)  # NNI's log can be read while the trial runs
        parsed = trial_parser(Settings, prog).parse_args(arguments)
        options = from_namespace(RunOptions, parsed)
        device, engine = options.torch_device(), current_engine()
        if threads := options.threads or engine.threads:
            torch.set_num_threads(threads)
        parameters = engine.get_parameters()
        try:
            settings = with_parameters(from_namespace(Settings, parsed), parameters).complete(device)
            session = Session(system, settings, options, engine, parameters)
        except UserError as error:  # there is no Record yet that could say so in run.json
            if engine.folder and not (engine.folder / "run.json").exists():
                with suppress(OSError):  # the user needs the first error
                    write_json(engine.folder / "run.json", {
                        "parameters": parameters, "status": "failed", "reason": one_line(error)})
            raise
        return session.run(train)

    main(prog, command)


class Session:
    """One run of a trial, for its `train` function: device, folder, record (run.json), steps, reports.

    `settings` are complete; `parameters` are those of them that came from the engine. Raises UserError if the
    folder cannot be written, is in use, or holds something else.
    """

    def __init__(self, system: str, settings: Any, options: RunOptions, engine: NoEngine | NniEngine,
                 parameters: dict):  # fmt: skip
        self.settings, self.engine, self.options = settings, engine, options
        self.device = options.torch_device()
        self.folder = engine.folder or options.out or RUNS / f"{system}-{settings_hash(asdict(settings))}"
        self.record = Record(self.folder, system, settings, parameters, self.device)
        self.stop_signal: int | None = None  # SIGTERM or SIGINT, once it has come; then `steps` stops
        self.reporter = Reporter(self.folder)

    def run(self, train: Train) -> int:
        """Train until the budget or something else ends it, and return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            train_with_retries(self, train)
            end(self, "finished", None, self.reporter.reports[-1]["score"])
        except Diverged as error:
            print(f"diverged: {error}")
            end(self, "diverged", str(error), {"default": WORST_SCORE})
        except Stopped as error:
            print(f"stopped: {error}")
            end(self, "stopped", str(error))
            return 128 + self.stop_signal
        except Exception as error:
            reason = describe_error(error, self.settings, self.device)
            end(self, "failed", reason)
            if is_out_of_memory(error):  # a traceback would not help
                raise UserError(reason) from None
            raise
        return 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        if self.stop_signal:  # the second one: stop now, without a checkpoint
            raise KeyboardInterrupt
        self.stop_signal = number

    def restore(self, model: Any) -> None:
        """Load the folder's checkpoint or, with --earlier, a copy of an earlier run's, if there is one."""
        file = self.folder / "checkpoint.pt"
        if self.options.earlier and not file.exists():
            self.record.copy_earlier(self.options.earlier)
        if file.exists():
            try:
                model.load_state_dict(read_tensors(file, self.device))
            except Exception as error:  # a damaged file can fail in any way
                message = f"{file} cannot be read ({one_line(error)}): move {self.folder} away"
                raise UserError(message) from None
            self.record.update(resumed_at=model.step)
            print(f"continues at step {model.step} from {file}")
        self.reporter.restore(model.step)

    def steps(self, model: Any, last: int) -> Iterator[int]:
        """Yield the steps from `model.step` to `last`. A signal writes the checkpoint and ends the trial."""
        if model.step > last:
            raise UserError(f"{self.folder} is trained to step {model.step}, this budget ends at {last}: "
                            "choose another --out, or a larger budget")
        if "retries" not in self.record.facts:
            age = time.time() - psutil.Process().create_time()
            self.record.update(first_step_after=round(age, 1))
        self.reporter.bar = bar = tqdm(initial=model.step, total=last, unit="step", disable=None)
        while model.step < last:
            if self.stop_signal:
                self._save(model.state_dict(), "checkpoint.pt")
                raise Stopped(f"{signal.Signals(self.stop_signal).name} at step {model.step}")
            yield model.step
            bar.update()

    def add_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Add a step's losses (scalars on the device) to the means of the next report."""
        self.reporter.add_losses(losses)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Count the time of the `with` block, which paints and scores, as scoring."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # the training steps before do not count
        start = time.perf_counter()
        yield
        self.reporter.scoring_seconds += time.perf_counter() - start

    def report(self, model: Any, score: Score, outputs: torch.Tensor, sheet: torch.Tensor,
               **facts: float) -> None:  # fmt: skip
        """Write a report and the checkpoint, and tell the engine the score.

        Raises Diverged if a loss or the score is not finite or too large; the last checkpoint then stays.

        Args:
            outputs: the scored images, float [N, C, H, W] in [-1, 1]; --keep writes them to paintings/.
            sheet: sample sheet, float [3, H, W] in [0, 1]: inputs or real images above, outputs below.
            facts: further numbers for stats.jsonl and TensorBoard.
        """
        if self.options.keep:
            self._save(to_bytes(outputs).cpu(), f"paintings/step_{model.step:06d}.pt")
        self.reporter.write(model.step, score, sheet, facts)
        self._save(model.state_dict(), "checkpoint.pt")
        values = score.as_dict()
        with as_user_error(self.folder):  # NNI keeps results in the trial's folder
            self.engine.report_intermediate(values)
        scores = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        tqdm.write(f"step {model.step}  {scores}")

    def _save(self, content: Any, name: str) -> None:
        file = self.folder / name
        with as_user_error(self.folder):
            file.parent.mkdir(exist_ok=True)
            atomic_write(file, lambda part: torch.save(content, part))


def train_with_retries(session: Session, train: Train) -> None:
    """Train; after a temporary failure wait, and continue from the checkpoint."""
    for attempt in range(session.options.retries + 1):
        try:
            return train(session.settings, session)
        except Exception as error:
            if attempt == session.options.retries or not is_transient(error, session.device):
                raise
            reason = describe_error(error, session.settings, session.device)
        # Outside of `except`: the exception keeps the tensors of the failed attempt alive.
        session.reporter.close()
        session.record.update(retries=[*session.record.facts.get("retries", []), reason])
        seconds = FIRST_BACKOFF * 3**attempt
        print(f"retries in {seconds} s: {reason}")
        wait(session, seconds)
        session.reporter = Reporter(session.folder)


def wait(session: Session, seconds: int) -> None:
    """Free memory, and wait for `seconds` or until a signal comes."""
    gc.collect()  # networks and optimizers refer to each other
    torch.cuda.empty_cache()
    for _ in range(seconds):
        if not session.stop_signal:
            time.sleep(1)


def end(session: Session, status: str, reason: str | None, score: dict[str, float] | None = None) -> None:
    """Write to run.json how the trial ended, then report `score` to the engine as the final result."""
    times = session.reporter.times()
    session.reporter.close()
    try:
        session.record.update(status=status, reason=reason, score=score, **times)
    except UserError:  # a full disk, perhaps; if the trial has failed already, the user needs the first error
        if status != "failed":
            raise
    session.record.close()
    if score:
        with as_user_error(session.folder):  # NNI keeps results in the trial's folder
            session.engine.report_final(score)
        print(f"{status}: score {score['default']:.4f}, {times['seconds']:.0f} s, {session.folder}")
