"""A search of many tiny trials through the real nnictl, and what its processes take as it goes on.

    python -m tests.experiments.long_run --trials 300 --out /tmp/long     # some 40 minutes on two cores

Writes DIR/load.csv, a line every `--every` seconds, and prints figures from first to last side by side and
what a trial adds to each: what does not hold still is a leak. NNI looks at its trials every 5 s, which
decides the pace.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
from scipy.stats import siegelslopes

from experiments.nni_adapter import database
from experiments.nni_adapter.manager import write_config
from judge.common.errors import UserError

ROOT = Path(__file__).parents[2]
SPACE = {name: {"_type": "uniform", "_value": [0, 1]} for name in "xy"}
RUN, MANAGER, TUNER = "run", "manager", "tuner"


def described(folder: Path, trials: int, at_once: int, **more) -> Path:
    """The experiment file of a search whose trials take little more than their start."""
    return write_config(folder / "experiment.yml", {
        "experimentName": "long run", "experimentWorkingDirectory": str(folder / "runs"),
        "trialCodeDirectory": str(ROOT), "trialCommand": "python -m tests.experiments.tiny",
        "trialConcurrency": at_once, "maxTrialNumber": trials, "searchSpace": SPACE,
        "tuner": {"className": "experiments.tuner.Tpe", "codeDirectory": str(ROOT),
                  "classArgs": {"reference": "tests.experiments.tiny", "seed": 0,
                                "tpe_args": {"n_startup_jobs": min(8, trials - 1)}}},
        "trainingService": {"platform": "local"}, **more,
    })  # fmt: skip


def carried_out(folder: Path, trials: int, at_once: int = 2, every: float = 20) -> pd.DataFrame:
    """Run the search to its end; a line every so many seconds, also in load.csv as it comes.

    NNI's list of experiments is in `folder` too, and the output of `experiments run` in run.log.
    """
    (folder / "runs").mkdir(parents=True)
    file, lines = described(folder, trials, at_once), []
    with open(folder / "run.log", "w") as log:
        command = [sys.executable, "-u", "-m", "experiments", "run", str(file)]
        run = psutil.Popen(command, cwd=ROOT, env=os.environ | {"HOME": str(folder)}, stdout=log, stderr=log)
    began = time.monotonic()
    try:
        while run.poll() is None:
            if line := sample(run, folder / "runs"):
                lines.append({"seconds": round(time.monotonic() - began), **line})
                pd.DataFrame(lines).to_csv(folder / "load.csv", index=False)
            try:
                run.wait(every)
            except psutil.TimeoutExpired:
                pass
    finally:
        if run.poll() is None:
            run.terminate()  # it ends NNI
            run.wait()
    return pd.DataFrame(lines)


def sample(run: psutil.Process, runs: Path) -> dict[str, float]:
    """What each process takes now; empty before the search has begun or after it has ended.

    By role: memory (`rss`, `pss`) in MB, open `files`, `threads`, seconds of `cpu` so far.
    """
    try:
        search = database.find_experiment(str(runs / "_latest"))
        children = manager_of(search.id).children(recursive=True)
        roles = {RUN: run, MANAGER: manager_of(search.id), TUNER: next(filter(is_tuner, children))}
        began = time.perf_counter()
        trials = search.trials()
        read = time.perf_counter() - began
        stored = search.folder / "db" / "nni.sqlite"
        return {
            "over": sum(trial.over for trial in trials), "children": len(children),
            "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in children),
            "database": round(stored.stat().st_size / 1e6, 2), "read": round(read, 3),
            **{f"{role}_{name}": value for role, process in roles.items() for name, value in taken(process)},
        }  # fmt: skip
    except (StopIteration, psutil.Error, UserError):
        return {}


def growth(found: pd.DataFrame) -> pd.Series:
    """What a trial that ends adds to each figure of `carried_out`, once the first two are over.

    Repeated medians (Siegel 1982) of the least at each number of trials: NNI holds some files and children
    more now and then, for a moment.
    """
    least = found[found["over"] > 2].groupby("over").min()
    taken = least.filter(regex="_(rss|files|threads)$|^children$|^zombies$")
    return taken.apply(lambda column: siegelslopes(column, least.index).slope)


def manager_of(id_: str) -> psutil.Process:
    """NNI's manager of an experiment."""
    commands = ((p, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
    return next(p for p, words in commands if id_ in words and any("main.js" in word for word in words))


def is_tuner(process: psutil.Process) -> bool:
    return "--exp_params" in process.cmdline()


def taken(process: psutil.Process) -> Iterator[tuple[str, float]]:
    memory, cpu = process.memory_full_info(), process.cpu_times()
    yield "rss", round(memory.rss / 1e6, 1)
    yield "pss", round(memory.pss / 1e6, 1)
    yield "files", process.num_fds()
    yield "threads", process.num_threads()
    yield "cpu", round(cpu.user + cpu.system, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--every", type=float, default=20, help="seconds between looks")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    found = carried_out(options.out.resolve(), options.trials, options.at_once, options.every)
    quarters = found.iloc[[round(at * (len(found) - 1)) for at in (0, 0.25, 0.5, 0.75, 1)]]
    print(quarters.T.to_string(header=False))
    print(f"a trial adds:\n{growth(found).round(3).to_string()}")
    folder = (options.out / "runs" / "_latest").resolve()
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "experiments", "report", str(folder)], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    size = next(folder.glob("*.html")).stat().st_size
    print(f"report: {time.perf_counter() - began:.1f} s, a page of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
