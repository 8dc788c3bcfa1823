"""Progress of what takes long: a bar in a terminal, a line now and then where there is none."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LINE_SECONDS = 30  # between two lines
BAR_SECONDS = 2  # after which a bar is shown: what is shorter needs none
DAY = 24 * 3600  # seconds

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
    """Return seconds as text, for example 2 min 20 s, 30 min, 5.3 h, 2.9 days."""
    rounded = round(seconds)
    if rounded < 60:
        return milliseconds(seconds)
    if rounded < 600:
        return f"{rounded // 60} min {rounded % 60} s"
    if rounded < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < DAY else f"{seconds / DAY:.1f} days"


def milliseconds(seconds: float) -> str:
    """Return seconds as text with two digits, for example 9.1 ms, 350 ms, 1.2 s."""
    number, unit = (seconds, "s") if seconds >= 1 or not seconds else (1000 * seconds, "ms")
    return f"{float(f'{number:.2g}'):g} {unit}"
