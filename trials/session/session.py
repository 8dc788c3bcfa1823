"""Runs a trial: training with checkpoints, retries, signals, and one final result for the engine."""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from judge.common.cli import Interrupted, on_stop
from judge.common.device import peak_memory
from judge.common.errors import UserError, is_out_of_memory, one_line
from judge.common.files import as_user_error, atomic_write
from judge.common.tensors import read_tensors
from judge.images import to_bytes
from judge.score import WORST_SCORE, Score
from trials.session.cadence import Cadence
from trials.session.engine import NniEngine, NoEngine
from trials.session.failures import Diverged, Stopped, describe_error, is_transient
from trials.session.records import Record, settings_hash
from trials.session.reporter import Reporter
from trials.session.settings import RunOptions
from trials.session.steady import score_text

RUNS = Path("runs")  # holds the folders of trials that are started by hand
FIRST_BACKOFF = 10  # seconds before the first retry; each next one waits three times as long
Train = Callable[[Any, "Session"], None]  # of settings and session


class Session:
    """One run of a trial, for its `train` function: device, folder, record (run.json), steps, reports.

    `settings` are complete; `parameters` are those of them that came from the engine. Raises UserError if the
    folder cannot be written, is in use, or holds something else.
    """

    def __init__(self, system: str, settings: Any, options: RunOptions, engine: NoEngine | NniEngine,
                 parameters: dict):  # fmt: skip
        self.settings, self.engine, self.options = settings, engine, options
        self.device = options.torch_device()
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # the shapes of a trial are fixed
        self.folder = engine.folder or options.out or RUNS / f"{system}-{settings_hash(asdict(settings))}"
        self.record = Record(self.folder, system, settings, parameters, self.device)
        if engine.folder:  # made for this trial: the report shows what run.json there says
            self.record.begin()
        self.stop_signal: int | None = None  # once it has come; then `steps` stops
        self.reporter = Reporter(self.folder)

    def run(self, train: Train) -> int:
        """Train until the budget or something else ends it, and return the exit code."""
        on_stop(self._on_signal)
        try:
            train_with_retries(self, train)
            score = self.record.final_score or self.reporter.score(self.cadence.is_scheduled)
            end(self, "finished", None, score)
        except Diverged as error:
            print(f"diverged: {error}")
            end(self, "diverged", str(error), {"default": WORST_SCORE})
            return self.engine.diverged_code
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
        finally:
            self.record.close()
        return 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        if self.stop_signal:  # the second one: stop now, without a checkpoint
            raise Interrupted(number)
        self.stop_signal = number

    def restore(self, model: Any) -> None:
        """Load the folder's checkpoint or, with --earlier, an earlier run's, if there is one."""
        self._source = self.folder
        if self.options.earlier and not (self.folder / "checkpoint.pt").exists():
            self._source = self.record.find_earlier(self.options.earlier) or self.folder
        state, file = {}, self._source / "checkpoint.pt"
        if file.exists():
            state = self._load(model, file)
            self.record.update(resumed_at=model.step)
            print(f"continues at step {model.step} from {file}")
        self.reporter.restore(model.step, state, model.max_loss, self._source)

    def _begin(self) -> None:
        """Write what has waited until nothing can be refused any more: run.json, and a copy of the run that
        this one continues, if that is in another folder."""
        self.record.begin()
        self.reporter.begin()
        if self._source != self.folder:
            self.record.copy_earlier(self._source)  # its checkpoint last: then the copy is complete
            self.record.update(continues=str(self._source))

    def _load(self, model: Any, file: Path) -> dict:
        """Load the checkpoint `file` into `model`, and return it.

        It comes by way of the CPU: a GPU that is nearly full has no room for a copy.
        """
        try:
            state = read_tensors(file)
        except ValueError as error:
            message = f"{file} cannot be read ({one_line(error)}): move {self.folder} away"
            raise UserError(message) from None
        try:
            model.load_state_dict(state)
        except Exception as error:  # what does not fit can fail in any way
            if is_out_of_memory(error):
                raise
            message = f"{file} does not fit this trial ({one_line(error)}): move {self.folder} away"
            raise UserError(message) from None
        return state

    def steps(self, model: Any, last: int, every: int) -> Iterator[int]:
        """Yield the steps from `model.step` to `last`; each `every` steps and at the end a report is due.

        Print a line every half minute, and save a checkpoint at least every ten minutes. A signal saves the
        checkpoint and ends the trial. Of a trial that has finished before, nothing is written again.
        """
        if model.step > last:
            raise UserError(f"{self._source} is trained to step {model.step}, this budget ends at {last}: "
                            "choose another --out, or a larger budget")
        if "retries" not in self.record.facts:
            self.record.update(first_step_after=round(process_age(), 1))
        self.cadence = Cadence(model.step, last, every)
        self._stop_if_asked(model)
        if model.step < last or not self.record.final_score:
            self._begin()
        self.reporter.bar = bar = tqdm(initial=model.step, total=last, unit="step", disable=None)
        while model.step < last:
            if self.stop_signal:
                self._save_checkpoint(model)
            self._stop_if_asked(model)
            yield model.step
            bar.update()
            if self.cadence.line_due():
                self._print_line(model.step)
            if self.cadence.checkpoint_due():
                self._save_checkpoint(model)

    def _stop_if_asked(self, model: Any) -> None:
        if self.stop_signal:
            raise Stopped(f"{signal.Signals(self.stop_signal).name} at step {model.step}")

    def report_due(self, model: Any) -> bool:
        """Return whether `model` is to be scored and reported now: at a scheduled step, and once early."""
        early = not self.reporter.reports and self.cadence.early_look_due()
        return self.cadence.is_scheduled(model.step) or early

    def _print_line(self, step: int) -> None:
        memory = peak_memory(self.device)
        tqdm.write("  ".join([
            f"step {step} of {self.cadence.last}", self.cadence.describe_speed(step),
            *([f"{memory / 2**30:.1f} GiB"] if memory else []),
            *(f"{name} {value:.3g}" for name, value in self.reporter.mean_losses().items()),
        ]))

    def add_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Add a step's losses (scalars on the device) to the means of the next report."""
        self.reporter.add_losses(losses)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Count the time of the `with` block, which paints and scores, as scoring."""
        start = self.clock()  # the training steps before do not count
        yield
        self.reporter.scoring_seconds += time.perf_counter() - start

    def clock(self) -> float:
        """Return the time in seconds, once the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def report(self, model: Any, score: Score, outputs: torch.Tensor, sheet: torch.Tensor,
               **facts: float) -> None:  # fmt: skip
        """Write a report and the checkpoint, and tell the engine the steady score, unless it is an early
        look: the engine counts the reports of a trial.

        Raises Diverged if a loss or the score is not finite or too large; the last checkpoint then stays.

        Args:
            outputs: the scored images, float [N, C, H, W] in [-1, 1]; --keep writes them to paintings/.
            sheet: sample sheet, float [3, H, W] in [0, 1]: inputs or real images above, outputs below.
            facts: further numbers for stats.jsonl and TensorBoard.
        """
        if self.options.keep:
            self._save(to_bytes(outputs).cpu(), f"paintings/step_{model.step:06d}.pt")
        early = not self.cadence.is_scheduled(model.step)
        self.reporter.write(model.step, score, sheet, facts, early)
        self._save_checkpoint(model)
        line = f"step {model.step}  "
        if not early:
            mean = self.reporter.score(self.cadence.is_scheduled)
            with as_user_error(self.folder):  # NNI keeps results in the trial's folder
                self.engine.report_intermediate(mean)
            line += f"score {score_text(mean)}  this report: "
        tqdm.write(line + "  ".join(f"{name} {value:.4f}" for name, value in score.as_dict().items()))

    def _save_checkpoint(self, model: Any) -> None:
        self._save(model.state_dict() | self.reporter.state_dict(), "checkpoint.pt")
        self.cadence.saved()

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


def process_age() -> float:
    """Return the seconds since this process was started."""
    return time.time() - psutil.Process().create_time()


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
        session.record.update(status=status, reason=reason, score=score, **times,
                              peak_memory=peak_memory(session.device))
    except UserError:  # a full disk, perhaps; if the trial has failed already, the user needs the first error
        if status != "failed":
            raise
    session.record.close()
    if score:
        with as_user_error(session.folder):  # NNI keeps results in the trial's folder
            session.engine.report_final(score)
        print(f"{status}: score {score_text(score)}, {times['seconds']:.0f} s, {session.folder}")
