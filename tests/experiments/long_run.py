"""Run a search of many tiny trials through the real NNI, and measure its processes to find leaks.

    python -m tests.experiments.long_run --trials 300 --out /tmp/long     # some 40 minutes on two cores

Writes DIR/load.csv, a row every `--every` seconds, and prints what a trial adds to each figure.
"""

import argparse
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
from scipy.stats import siegelslopes

from experiments.nni_adapter import database
from experiments.nni_adapter.manager import write_config
from judge.common.errors import UserError
from tests.experiments.helpers import ROOT, manager_of


def write_experiment(folder: Path, trials: int, at_once: int, **more) -> Path:
    """Write an experiment file whose trials take little more than their start."""
    (folder / "runs").mkdir(parents=True)
    return write_config(folder / "experiment.yml", {
        "experimentName": "long run", "experimentWorkingDirectory": str(folder / "runs"),
        "trialCodeDirectory": str(ROOT), "trialCommand": "python -m tests.experiments.tiny",
        "trialConcurrency": at_once, "maxTrialNumber": trials,
        "searchSpace": {name: {"_type": "uniform", "_value": [0, 1]} for name in "xy"},
        "tuner": {"className": "experiments.tuner.Tpe", "codeDirectory": str(ROOT),
                  "classArgs": {"reference": "tests.experiments.tiny", "seed": 0,
                                "tpe_args": {"n_startup_jobs": min(8, trials - 1)}}},
        "trainingService": {"platform": "local"}, **more,
    })  # fmt: skip


def measure_search(folder: Path, trials: int, at_once: int = 2, every: float = 20) -> pd.DataFrame:
    """Run the search to its end and return a row of figures every so many seconds."""
    file, rows, started = write_experiment(folder, trials, at_once), [], time.monotonic()
    with open(folder / "run.log", "w") as log:
        command = [sys.executable, "-u", "-m", "experiments", "run", str(file), "--unmeasured"]
        run = psutil.Popen(command, cwd=ROOT, env=os.environ | {"HOME": str(folder)}, stdout=log, stderr=log)
    try:
        while run.poll() is None:
            with suppress(StopIteration, psutil.Error, UserError):  # before NNI's start or after its end
                figures = measure_processes(run, folder / "runs")
                rows.append({"seconds": round(time.monotonic() - started), **figures})
                pd.DataFrame(rows).to_csv(folder / "load.csv", index=False)
            with suppress(psutil.TimeoutExpired):
                run.wait(every)
    finally:
        if run.poll() is None:
            run.terminate()  # it stops NNI
            run.wait()
    return pd.DataFrame(rows)


def measure_processes(run: psutil.Process, runs: Path) -> dict[str, float]:
    """Return memory (`rss`, MB), open `files` and `threads` of each process of the search."""
    search = database.find_experiment(str(runs / "_latest"))
    manager = manager_of(search.id)
    children = manager.children(recursive=True)
    tuner = next(child for child in children if "--exp_params" in child.cmdline())
    figures = {"over": sum(trial.over for trial in search.trials()), "children": len(children),
               "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in children)}
    for role, process in {"run": run, "manager": manager, "tuner": tuner}.items():
        figures |= {f"{role}_rss": round(process.memory_info().rss / 1e6, 1),
                    f"{role}_files": process.num_fds(), f"{role}_threads": process.num_threads()}
    return figures


def growth(rows: pd.DataFrame) -> pd.Series:
    """Return what a trial that ends adds to each figure, once the first two are over.

    By repeated medians (Siegel 1982) of the minimum at each number of trials, because NNI sometimes holds
    some more files and children for a moment.
    """
    minima = rows[rows["over"] > 2].groupby("over").min().drop(columns="seconds")
    return minima.apply(lambda column: siegelslopes(column, minima.index).slope)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--every", type=float, default=20, help="seconds between measurements")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    rows = measure_search(options.out.resolve(), options.trials, options.at_once, options.every)
    print(rows.iloc[[0, len(rows) // 2, -1]].T.to_string(header=False))
    print(f"a trial adds:\n{growth(rows).round(3).to_string()}")
