"""What a search of so many trials costs, outside of the trials: the table of experiments/SCALE.md.

    python -m tests.experiments.scale --out /tmp/scale     # five minutes, as many more with --trials 100000

The searches are written as NNI and `trials.cyclegan` would have left them. A figure is the median of
seconds of CPU, whatever else the machine does; what takes longer than `--patience` is left
empty with more trials, and so are reports of more than ten thousand.
"""

import argparse
import json
import logging
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from nni.common.hpo_utils import format_parameters

from experiments import disk
from experiments.__main__ import progress, shown, table
from experiments.nni_adapter import database
from experiments.report import page, results
from experiments.tuner import Tpe
from trials import cyclegan
from trials.session.records import json_line

REPORTS = 10  # a trial, as in experiments/cyclegan.yml
GPUS = 1000
FOLDERS = 10_000  # trials whose folders are written; with more there is no report
ROOT = Path(__file__).parents[2]
SPACE = json.loads((ROOT / "search_spaces/cyclegan.json").read_text())
# NNI's own, nni_node/core/sqlDatabase.js.
TABLES = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
                            sequenceId integer, message text);
create index TrialJobEvent_trialJobId on TrialJobEvent(trialJobId);
create index TrialJobEvent_event on TrialJobEvent(event);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text,
                         sequence integer, data text);
create index MetricData_trialJobId on MetricData(trialJobId);
create index MetricData_type on MetricData(type);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer,
                                endTime integer, logDir text, nextSequenceId integer, revision integer);
"""


def tuner() -> Tpe:
    """As the experiment files have it."""
    made = Tpe("trials.cyclegan", seed=0, tpe_args={"n_startup_jobs": 8})
    made._given = []  # no published setting: to ask another process for it takes seconds
    made.update_search_space(SPACE)
    return made


def written(folder: Path, count: int) -> database.Experiment:
    """A search of `count` finished trials in `folder`."""
    made, draw = tuner(), np.random.default_rng(0)
    made.args, made.liar = made.args._replace(n_startup_jobs=count), None  # at random is quick
    events, metrics = [], []
    for number in range(count):
        id_, parameters = f"t{number:06d}", made.generate_parameters(number)
        proposal = json.dumps({"parameter_id": number, "parameters": parameters})
        events += [(number, id_, event, proposal if event == "WAITING" else None, "", number, "")
                   for event in ("WAITING", "RUNNING", "SUCCEEDED")]
        lines = [{name: round(float(draw.random()), 6) for name in
                  ("default", "style", "content", "diversity", "clean", "kid", "kid_error")}
                 for _ in range(REPORTS)]
        kinds = [("PERIODICAL", line) for line in lines] + [("FINAL", lines[-1])]
        metrics += [(0, id_, str(number), kind, at, json.dumps(json.dumps(line)))
                    for at, (kind, line) in enumerate(kinds)]
        if count <= FOLDERS:
            fill(folder / "trials" / id_, parameters, lines)
    config = {"experimentName": "scale", "trialCommand": "python -m trials.cyclegan --size sketch",
              "maxTrialNumber": count, "searchSpace": SPACE}  # fmt: skip
    (folder / "db").mkdir(parents=True)
    with sqlite3.connect(folder / "db" / "nni.sqlite") as db:
        db.executescript(TABLES)
        db.executemany("insert into TrialJobEvent values (?,?,?,?,?,?,?)", events)
        db.executemany("insert into MetricData values (?,?,?,?,?,?)", metrics)
        db.execute("insert into ExperimentProfile values (?,?,0,0,0,'',0,0)",
                   (json.dumps(config), folder.name))
    return database.find_experiment(str(folder))


def fill(trial: Path, parameters: dict, lines: list[dict]) -> None:
    """A trial's folder, without checkpoint and pictures."""
    trial.mkdir(parents=True)
    (trial / "run.json").write_text(json_line({
        "system": "cyclegan", "parameters": parameters, "status": "finished", "reason": None,
        "settings": vars(cyclegan.Settings(**parameters)), "score": lines[-1],
    }))  # fmt: skip
    (trial / "stats.jsonl").write_text("".join(
        json_line({"step": 100 * at, "score": line}) for at, line in enumerate(lines)))


def looked(experiment: database.Experiment) -> None:
    """What `experiments run` does every two seconds."""
    trials, plan = experiment.trials(), SimpleNamespace(module=cyclegan)
    disk.prune(trials, cyclegan, disk.CHECKPOINTS_KEPT)
    progress(trials, experiment.max_trials, GPUS)
    table(shown(trials), plan)


def taught(trials: list[database.Trial], running: int) -> Tpe:
    """The tuner after these trials, while so many others run."""
    made = tuner()
    for number, trial in enumerate(trials[:running]):  # what runs is like what ran
        made._running_params[-1 - number] = format_parameters(trial.parameters, made.space)
    made.import_data([{"parameter": trial.parameters, "value": trial.final} for trial in trials])
    return made


def measures(experiment: database.Experiment) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    trials = experiment.trials()
    few, many = (taught(trials, running) for running in (2, GPUS))
    numbers = iter(range(10**9))
    return {
        "first look": lambda: looked(database.find_experiment(str(experiment.folder))),
        "each look": lambda: looked(experiment),
        "proposal, 2 running": lambda: few.generate_parameters(next(numbers)),
        f"proposal, {GPUS} running": lambda: many.generate_parameters(next(numbers)),
        "report": lambda: results.text(experiment), "page": lambda: page.write(experiment),
    }  # fmt: skip


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """The median CPU time that `call` takes; of one that takes long, the first."""
    found = []
    while len(found) < times and sum(found) < 10:
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return statistics.median(found)


def measured(counts: list[int], out: Path, patience: float) -> pd.DataFrame:
    """A row a number of trials."""
    rows, slow = [], set()
    for count in counts:
        folder = out / f"scale{count}"
        experiment = written(folder, count)
        row = {"trials": count, "database, MB": (folder / "db/nni.sqlite").stat().st_size / 1e6}
        for name, call in measures(experiment).items():
            if name not in slow and (count <= FOLDERS or name not in ("report", "page")):
                row[name] = seconds(call)
                slow |= {name} if row[name] > patience else set()
        rows.append(row)
        print(pd.DataFrame([row]).to_string(index=False, float_format="{:.3g}".format), flush=True)
        shutil.rmtree(folder)
    return pd.DataFrame(rows)


def main() -> None:
    logging.getLogger("nni").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[300, 1000, 10_000])
    parser.add_argument("--patience", type=float, default=60, help="seconds")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the searches")
    options = parser.parse_args()
    found = measured(options.trials, options.out.resolve(), options.patience)
    print("\n" + found.to_string(index=False, float_format="{:.3g}".format, na_rep=""))


if __name__ == "__main__":
    main()
