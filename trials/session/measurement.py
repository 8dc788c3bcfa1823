"""What a trial will cost on this machine, by some of its steps and one report (--measure)."""

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
WARM_UP_STEPS = {"cuda": 20, "cpu": 1}  # the first ones load kernels; on a GPU they choose and capture them


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
    """A session that takes a few steps in `folder`, makes one report and notes how long each took."""

    def __init__(self, system: str, settings: Any, options: RunOptions, folder: Path):
        super().__init__(system, settings, replace(options, out=folder, earlier=None), NoEngine(), {})
        self.result: dict[str, Any] = {}

    def steps(self, model: Any, last: int, every: int) -> Iterator[int]:
        """Yield steps to warm up, then steps to measure, then one step with a report."""
        self.cadence = Cadence(model.step, last, every)
        start, warm_up = process_age(), WARM_UP_STEPS[self.device.type]
        for _ in range(warm_up):
            yield next_step(model, last)
        warm, count, begin = self.clock(), 0, process_age()
        while time.perf_counter() - warm < MEASURED_SECONDS or not count:
            yield next_step(model, last)
            count += 1
        step = (self.clock() - warm) / count
        self.result = {
            # What the first steps take longer than the others is spent once, as the start is.
            "start": max(start, begin - warm_up * step), "step": step, "report": 0.0, "steps": last,
            "reports": -(-last // every), "device": device_name(self.device),
        }  # fmt: skip
        yield next_step(model, last)

    def report_due(self, model: Any) -> bool:
        """Return True after the last step."""
        if self.result:
            self._report_start = self.clock()
        return bool(self.result)

    def report(self, model: Any, score: Score, outputs: torch.Tensor, sheet: torch.Tensor,
               **facts: float) -> None:  # fmt: skip
        """Write a report as a trial does, and note the seconds since it was due."""
        super().report(model, score, outputs, sheet, **facts)
        self.result |= {"report": self.clock() - self._report_start, "memory": peak_memory(self.device)}


def next_step(model: Any, last: int) -> int:
    """Return the model's step, and let a schedule that is over start again."""
    model.step %= last
    return model.step
