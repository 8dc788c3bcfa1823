"""What a trial will cost on this machine, by some of its steps and reports (--measure)."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from judge.common.device import device_name, peak_memory
from judge.common.errors import UserError, is_out_of_memory
from judge.score import Score
from trials.session.cadence import Cadence
from trials.session.engine import NoEngine
from trials.session.failures import Diverged, describe_error
from trials.session.session import Session, Train, process_age
from trials.session.settings import RunOptions

MEASURED_SECONDS = 3  # of steps, at least one
WARM_UP_STEPS = {"cuda": 20, "cpu": 1}  # on a GPU, kernels are loaded, chosen and captured in the first ones


def measure(train: Train, system: str, settings: Any, options: RunOptions) -> int:
    """Measure a trial without training it, print the result as a line of JSON, and return the exit code.

    The keys: `start`, seconds from the start of this process to the first step; `step` and `report`, seconds
    of one; `steps` and `reports`, how many the budget has; `device`; `memory`, the most bytes on the GPU, or
    null on a CPU. Raises UserError for what would end a trial.
    """
    with TemporaryDirectory() as folder:
        session = Measurement(system, settings, options, Path(folder))
        try:
            train(settings, session)
        except Diverged as error:
            raise UserError(f"the trial diverges in its first steps: {error}") from None
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise UserError(describe_error(error, settings, session.device)) from None
            raise
        finally:
            session.reporter.close()
            session.record.close()
    print(json.dumps(session.result))
    return 0


class Measurement(Session):
    """A session that takes a few steps and makes two reports in `folder`, and notes how long each took."""

    def __init__(self, system: str, settings: Any, options: RunOptions, folder: Path):
        super().__init__(system, settings, replace(options, out=folder, earlier=None), NoEngine(), {})
        self.result: dict[str, Any] = {}
        self._due, self._due_at, self._report_seconds = False, 0.0, 0.0

    def steps(self, model: Any, last: int, every: int) -> Iterator[int]:
        """Yield steps and a report to warm up, then steps to measure, then a report to measure."""
        self.cadence = Cadence(model.step, last, every)
        start, warm_up = process_age(), WARM_UP_STEPS[self.device.type]
        for count in range(warm_up):
            self._due = count == warm_up - 1
            yield next_step(model, last)
        warm, warm_at, count, self._due = self.clock(), process_age(), 0, False
        while time.perf_counter() - warm < MEASURED_SECONDS or not count:
            yield next_step(model, last)
            count += 1
        step, self._due = (self.clock() - warm) / count, True
        yield next_step(model, last)
        report = self._report_seconds
        self.result = {
            # What the warm-up takes longer than its steps and its report is spent once, as the start is.
            "start": max(start, warm_at - warm_up * step - report), "step": step, "report": report,
            "steps": last, "reports": -(-last // every), "device": device_name(self.device),
            "memory": peak_memory(self.device),
        }  # fmt: skip

    def report_due(self, model: Any) -> bool:
        """Return whether `steps` has come to a report, and start to measure it."""
        if self._due:
            self._due_at = self.clock()
        return self._due

    def report(self, model: Any, score: Score, outputs: torch.Tensor, sheet: torch.Tensor,
               **facts: float) -> None:  # fmt: skip
        """Write a report as a trial does, and note the seconds since it was due."""
        super().report(model, score, outputs, sheet, **facts)
        self._report_seconds = self.clock() - self._due_at


def next_step(model: Any, last: int) -> int:
    """Return the model's step, and let a schedule that is over start again."""
    model.step %= last
    return model.step
