"""Confirmation of a search: do its best trials beat the published setting?

All are trained to the end of the schedule with several seeds. A confirmation is an experiment of NNI's like
a search, but its tuner proposes a fixed list of settings. Its trials go on from copies of the checkpoints of
the search, or of a confirmation that was cut off.
"""

import math
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import ttest_ind

from experiments import trial_command
from experiments.nni_adapter.database import Experiment
from experiments.nni_adapter.manager import write_config
from experiments.report import results
from experiments.study.independent_judge import IndependentJudge, final_quality
from judge import images
from judge.common.errors import UserError
from trials import cyclegan
from trials.parts.batches import load_held_out
from trials.session.records import read_record
from trials.translate import load_trained

TUNER = "experiments.tuner.Listed"
PUBLISHED = "published"
# Keys that a confirmation takes over from the search's configuration.
COPIED_KEYS = ("trialCodeDirectory", "experimentWorkingDirectory", "trialConcurrency", "trialGpuNumber",
               "trainingService")


def write(search: Experiment, top: int, seeds: int) -> Path:
    """Write the experiment file of a confirmation into the search's folder, and return the file.

    It trains the published setting and the best `top` other trials that finished, each with `seeds` seeds.
    Raises UserError if no trial has finished or the file cannot be written.
    """
    best = [row for row in results.finished(results.rows(search)) if not row.published][:top]
    if not best:
        raise UserError(f"experiment {search.id} has no finished trial to promote")
    command = search.config["trialCommand"]
    module, _, run_options = trial_command.parse(command)
    defaults, searched = vars(module.Settings()), list(best[0].trial.parameters)
    settings = {PUBLISHED: {name: defaults[name] for name in searched},
                **{f"trial {row.trial.number}": row.trial.parameters for row in best}}
    common = results.settings_of(search, best[0])
    choices = {name: list(dict.fromkeys(each[name] for each in settings.values())) for name in searched}
    choices["seed"] = list(range(common["seed"], common["seed"] + seeds))
    options = vars(run_options) | {
        "python": trial_command.python_of(command), "budget": 1.0,
        "earlier": search.config["experimentWorkingDirectory"],
    }  # fmt: skip
    fixed = {name: value for name, value in common.items() if name not in choices}
    return write_config(search.folder / f"promotion-{top}x{seeds}.yml", {
        "experimentName": f"confirmation of {search.id}",
        **{key: search.config[key] for key in COPIED_KEYS if search.config.get(key) is not None},
        "trialCommand": trial_command.render(module, fixed, **options),
        "maxTrialNumber": len(settings) * seeds,
        "searchSpace": {name: {"_type": "choice", "_value": values} for name, values in choices.items()},
        "tuner": {"className": TUNER, "codeDirectory": search.config["trialCodeDirectory"], "classArgs": {
            "settings": settings, "seeds": choices["seed"], "search": search.id}},
    })  # fmt: skip


def is_confirmation(experiment: Experiment) -> bool:
    """Return True if `experiment` is a confirmation, not a search."""
    return (experiment.config.get("tuner") or {}).get("className") == TUNER


def search_of(experiment: Experiment) -> str | None:
    """Return the ID of the search that `experiment` confirms; None if it is not a confirmation."""
    tuner = experiment.config["tuner"] if is_confirmation(experiment) else {}
    return tuner.get("classArgs", {}).get("search")


def ends(confirmation: Experiment) -> pd.DataFrame:
    """Return a table with a row per finished trial: name of its setting, seed, score, its parts, folder."""
    settings = confirmation.config["tuner"]["classArgs"]["settings"]
    rows = []
    for trial in confirmation.trials():
        if trial.final:
            seed = trial.parameters["seed"]
            setting = next(name for name in settings if settings[name] | {"seed": seed} == trial.parameters)
            rows.append({"setting": setting, "seed": seed, **trial.final, "folder": trial.folder})
    return pd.DataFrame(rows).rename(columns={"default": "score"})


def measure_independently(table: pd.DataFrame, judge: str, data: str) -> pd.DataFrame:
    """Return the table of `ends` with an independent judge's measures of the final paintings, and `quality`.

    Raises UserError as `IndependentJudge`, or if a checkpoint is damaged or the trials paint no photographs.
    """
    cpu, record = torch.device("cpu"), read_record(table["folder"].iloc[0])
    if record["system"] != "cyclegan":
        raise UserError(f"trials.{record['system']} does not paint photographs, so no judge can measure them")
    settings = cyclegan.Settings(**record["settings"])
    test = load_held_out(images.find_dataset(settings.data), settings.pixels, settings.photos, cpu)
    measure = IndependentJudge(judge, data, test)
    measures = [measure(load_trained(folder, cpu).paint(test.photos)) for folder in table["folder"]]
    table = table.join(pd.DataFrame(measures, index=table.index))
    return table.assign(quality=final_quality(table))


def text(confirmation: Experiment, table: pd.DataFrame) -> str:
    """Return the table of `ends` as text, mean ± standard deviation over seeds, and a verdict per setting."""
    if table.empty:
        return f"{confirmation.config['experimentName']}: no trial has finished yet"
    target = "quality" if "quality" in table else "score"
    values = table.drop(columns=["seed", "folder", "kid_error"], errors="ignore")
    by_setting = values.groupby("setting", sort=False)
    mean = by_setting.mean().sort_values(target, ascending=False)
    deviation = by_setting.std().loc[mean.index]
    cells = mean.map("{:.3f}".format) + deviation.map(lambda s: "" if math.isnan(s) else f" ± {s:.3f}")
    cells.insert(0, "seeds", by_setting.size())
    lines = [confirmation.config["experimentName"], "", cells.to_string(), ""]
    if PUBLISHED in mean.index:
        lines += [verdict(table, name, target) for name in mean.index if name != PUBLISHED]
    return "\n".join(lines)


def verdict(table: pd.DataFrame, name: str, target: str) -> str:
    """Return how a setting compares with the published one: 95 % interval over seeds by Welch's test."""
    ours, published = (table.loc[table["setting"] == each, target] for each in (name, PUBLISHED))
    if min(len(ours), len(published)) < 2:
        return f"{name}: no comparison with one seed, which shows no spread"
    low, high = ttest_ind(ours, published, equal_var=False).confidence_interval()
    word = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
    return (f"{name} is {word} {PUBLISHED}: {target} {ours.mean() - published.mean():+.3f} "
            f"[{low:+.3f}, {high:+.3f}], 95 % over {len(ours)} seeds")
