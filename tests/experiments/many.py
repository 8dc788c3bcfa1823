"""How many trials at once NNI's manager holds: a table of experiments/SCALE.md.

    python -m tests.experiments.many --at-once 2 16 64 256 --out /tmp/many     # some minutes each

The trials are processes that wait (`tests.experiments.idle`), so that what is measured is NNI: how long
it takes to start them all, what it takes to keep them, how soon it answers, and how long after they are
all at their end it has noticed. A count that makes no progress for `--patience` seconds is where it breaks.
"""

import argparse
import fcntl
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import requests

from experiments.nni_adapter import database
from experiments.nni_adapter.manager import create, stop
from tests.experiments.long_run import described, manager_of

WATCHED = 60  # seconds, with all trials running
POLLED = 2  # seconds


def measured(folder: Path, at_once: int, patience: float) -> dict[str, float]:
    """What a search of `at_once` trials, all of them at once, takes of NNI."""
    folder.mkdir(parents=True)
    gate = folder / "gate"
    command = f"{sys.executable} -S -E tests/experiments/idle.py {gate}"
    (folder / "runs").mkdir()
    with open(gate, "w") as closed:
        fcntl.flock(closed, fcntl.LOCK_EX)
        search, port = create(described(folder, at_once, at_once, trialCommand=command))
        try:
            found = {"trials at once": at_once}
            found["started"], found["seconds to start"] = waited(
                lambda: counted(search, "RUNNING"), at_once, patience)
            found |= watched(manager_of(search.id), port)
            fcntl.flock(closed, fcntl.LOCK_UN)
            found["ended"], found["seconds to notice their end"] = waited(
                lambda: counted(search, "SUCCEEDED"), at_once, patience)
            return found
        finally:
            stop(search.id)


def counted(search: database.Experiment, state: str) -> int:
    return sum(trial.state == state for trial in search.trials())


def waited(count: Callable[[], int], most: int, patience: float) -> tuple[int, int]:
    """What `count` came to, `most` or where it stood still for so long, and after how many seconds."""
    began = grown = time.monotonic()
    so_far = count()
    while so_far < most and time.monotonic() - grown < patience:
        time.sleep(POLLED)
        if (now := count()) > so_far:
            so_far, grown = now, time.monotonic()
    return so_far, round(grown - began)


def watched(manager: psutil.Process, port: int) -> dict[str, float]:
    """What the manager takes while nothing happens, and how soon it answers."""
    before, busy, began = manager.cpu_times(), psutil.cpu_times(), time.monotonic()
    answers = []
    while time.monotonic() - began < WATCHED:
        asked = time.monotonic()
        requests.get(f"http://127.0.0.1:{port}/api/v1/nni/trial-jobs", timeout=60)
        answers.append(time.monotonic() - asked)
        time.sleep(POLLED)
    seconds, now, all_ = time.monotonic() - began, manager.cpu_times(), psutil.cpu_times()
    used = sum(getattr(all_, kind) - getattr(busy, kind) for kind in ("user", "system"))
    return {
        "cores of the manager": (now.user + now.system - before.user - before.system) / seconds,
        # The manager's kill -0 of each trial is a process of its own, over between two looks.
        "cores of the machine": used / seconds,
        "manager, MB": manager.memory_info().rss / 1e6,
        "seconds to answer": statistics.median(answers), "at the most": max(answers),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--at-once", type=int, nargs="+", default=[2, 16, 64, 256])
    parser.add_argument("--patience", type=float, default=120, help="seconds without progress")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the searches")
    options = parser.parse_args()
    out = options.out.resolve()
    os.environ["HOME"], database.NNI_HOME = str(out), out / "nni-experiments"  # NNI's list of experiments too
    rows = []
    for count in options.at_once:
        rows.append(measured(out / str(count), count, options.patience))
        print(pd.DataFrame(rows[-1:]).T.to_string(header=False, float_format="{:.3g}".format), flush=True)
    print("\n" + pd.DataFrame(rows).set_index("trials at once").T.to_string(float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
