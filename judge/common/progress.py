"""Progress of what takes long: a bar in a terminal, a line now and then where there is none."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LINE_SECONDS = 30  # between two lines
BAR_SECONDS = 2  # after which a bar is shown: what is shorter needs none

Item = TypeVar("Item")


def progress(items: Iterable[Item], doing: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, and show on stderr how many of them are done; `doing` names what they are.

    `total` is their number, if they have no `len`.
    """
    total = len(items) if total is None else total
    bar = tqdm(items, doing, total, leave=False, delay=BAR_SECONDS, disable=None)
    started = last = time.monotonic()
    for number, item in enumerate(bar):
        now = time.monotonic()
        if bar.disable and number and now >= last + LINE_SECONDS:
            last, left = now, (now - started) * (total / number - 1)
            print(f"{doing}: {number} of {total}, about {duration(left)} left", file=sys.stderr)
        yield item


def duration(seconds: float) -> str:
    """Return a time as a person reads it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
