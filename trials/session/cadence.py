"""When a trial reports, prints a line and saves a checkpoint."""

from datetime import datetime, timedelta
from time import monotonic

from judge.common.progress import LINE_SECONDS

EARLY_LOOK_SECONDS = 90  # after which a trial without a report makes one
CHECKPOINT_SECONDS = 600


class Cadence:
    """The times of one attempt at the steps from `first` to `last`, with a report every `every` steps."""

    def __init__(self, first: int, last: int, every: int):
        self.first, self.last, self.every = first, last, every
        self.start = self._saved = monotonic()
        self._line = self.start, first  # time and step

    def is_scheduled(self, step: int) -> bool:
        """Return whether a report belongs to `step`, however long the steps take."""
        return step % self.every == 0 or step == self.last

    def early_look_due(self) -> bool:
        """Return whether a user has waited long enough for a first report."""
        return monotonic() >= self.start + EARLY_LOOK_SECONDS

    def checkpoint_due(self) -> bool:
        """Return whether the last checkpoint is too old."""
        return monotonic() >= self._saved + CHECKPOINT_SECONDS

    def saved(self) -> None:
        """Note that there is a checkpoint of now."""
        self._saved = monotonic()

    def line_due(self) -> bool:
        """Return whether the last line is too old."""
        return monotonic() >= self._line[0] + LINE_SECONDS

    def describe_speed(self, step: int) -> str:
        """Return the steps a second since the last line, and when the trial will end at its mean speed."""
        now, (line_time, line_step) = monotonic(), self._line
        self._line = now, step
        rest = timedelta(seconds=(self.last - step) * (now - self.start) / (step - self.first))
        end = datetime.now() + rest
        day = "" if end.date() == datetime.now().date() else f"{end:%d %b} "
        return f"{(step - line_step) / (now - line_time):.3g} steps/s  ends {day}{end:%H:%M}"
