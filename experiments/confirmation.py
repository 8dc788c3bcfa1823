"""Does the winner of a search really win? Its best trials and the published setting, trained to the
end of the schedule with several seeds.

A promotion is an experiment of NNI's like a search, whose tuner proposes a list. Trials go on from
copies of what is already trained of them, in the search or in a promotion that was cut off.
"""

import math
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import ttest_ind

from experiments.nni_adapter.database import Experiment
from experiments.nni_adapter.manager import write_config
from experiments.report import results
from experiments.study.independent_judge import IndependentJudge, final_quality
from judge import images
from judge.common.errors import UserError
from trials import cyclegan
from trials.parts.batches import load_held_out
from trials.session.records import read_record
from trials.translate import trained

TUNER = "experiments.tuner.Listed"
PUBLISHED = "published"
# Of the search's configuration.
KEPT = ("trialCodeDirectory", "experimentWorkingDirectory", "trialConcurrency", "trialGpuNumber",
        "trainingService")  # fmt: skip


def write(search: Experiment, top: int, seeds: int) -> Path:
    """The promotion of the published setting and of the best `top` others that trained to the
    search's budget, as an experiment file in the search's folder.

    Raises:
        UserError: nothing can be promoted, or the file cannot be written.
    """
    best = [row for row in results.finished(results.rows(search)) if not row.reference][:top]
    if not best:
        raise UserError(f"experiment {search.id} has no finished trial to promote")
    return write_config(search.folder / f"promotion-{top}x{seeds}.yml", config(search, best, seeds))


def config(search: Experiment, best: list[results.Row], seeds: int) -> dict:
    """NNI's configuration of a promotion."""
    defaults = vars(results.module_of(search.config["trialCommand"]).Settings())
    record, searched = best[0].record, best[0].trial.parameters
    settings = {PUBLISHED: {name: defaults[name] for name in searched},
                **{f"trial {row.trial.number}": row.trial.parameters for row in best}}
    first = record["settings"]["seed"]
    arguments = {"settings": settings, "seeds": list(range(first, first + seeds))}
    taken = {name: list(dict.fromkeys(s[name] for s in settings.values())) for name in searched}
    options = {"budget": 1.0, "earlier": search.config["experimentWorkingDirectory"]}
    return {
        "experimentName": confirmation_name(search),
        **{key: search.config[key] for key in KEPT if search.config.get(key) is not None},
        "trialCommand": results.command_with(search, record, options),
        "maxTrialNumber": len(settings) * seeds,
        "searchSpace": {name: {"_type": "choice", "_value": values}
                        for name, values in {**taken, "seed": arguments["seeds"]}.items()},
        "tuner": {"className": TUNER, "codeDirectory": search.config["trialCodeDirectory"],
                  "classArgs": arguments},
    }  # fmt: skip


def confirmation_name(search: Experiment) -> str:
    """How a promotion's name begins."""
    return f"promotion of {search.id}"


def is_confirmation(experiment: Experiment) -> bool:
    """Whether `experiment` compares a list of settings, and is no search."""
    return (experiment.config.get("tuner") or {}).get("className") == TUNER


# ---------------------------------------------------------------------------------------------
# What came out


def ends(promotion: Experiment) -> pd.DataFrame:
    """A row a finished trial: setting by name, seed, score with its parts, folder."""
    settings = promotion.config["tuner"]["classArgs"]["settings"]
    lines = []
    for trial in promotion.trials():
        if trial.final:
            own = {name: value for name, value in trial.parameters.items() if name != "seed"}
            name = next(name for name, parameters in settings.items() if parameters == own)
            lines.append({"setting": name, "seed": trial.parameters["seed"],
                          "score": trial.final["default"],
                          **{k: v for k, v in trial.final.items() if k != "default"},
                          "folder": trial.folder})
    return pd.DataFrame(lines)


def measure_independently(found: pd.DataFrame, judge: str, data: str) -> pd.DataFrame:
    """`found` with the yardstick's figures of what each trial paints at its end, and `quality`.

    Raises:
        UserError: as `Yardstick`, a trial's checkpoint cannot be read, or they paint no photographs.
    """
    cpu, record = torch.device("cpu"), read_record(found["folder"].iloc[0])
    if record["system"] != "cyclegan":
        raise UserError(f"trials.{record['system']} paints no photographs, which a yardstick measures")
    settings = cyclegan.Settings(**record["settings"])
    test = load_held_out(images.find_dataset(settings.data), settings.pixels, settings.photos, cpu)
    yardstick = IndependentJudge(judge, data, test)
    figures = [yardstick(trained(folder, cpu).paint(test.photos)) for folder in found["folder"]]
    found = found.join(pd.DataFrame(figures, index=found.index))
    return found.assign(quality=final_quality(found))


def text(promotion: Experiment, found: pd.DataFrame) -> str:
    """The table for reading, mean and standard deviation over seeds, and what follows from it."""
    if found.empty:
        return f"{promotion.config['experimentName']}: no trial has finished yet"
    values = found.drop(columns=["seed", "folder", "kid_error"], errors="ignore")
    by_setting = values.groupby("setting", sort=False)
    mean, spread = by_setting.mean(), by_setting.std()
    shown = mean.map("{:.3f}".format) + spread.map(lambda s: "" if math.isnan(s) else f" ± {s:.3f}")
    shown.insert(0, "seeds", by_setting.size())
    aim = "quality" if "quality" in found else "score"
    order = mean[aim].sort_values(ascending=False).index
    lines = [promotion.config["experimentName"], "", shown.loc[order].to_string(), ""]
    if PUBLISHED in order:
        lines += [verdict(found, name, aim) for name in order if name != PUBLISHED]
    return "\n".join(lines)


def verdict(found: pd.DataFrame, name: str, aim: str) -> str:
    """How far a setting is from the published one, with the 95 % interval of Welch's test over seeds."""
    ours, theirs = (found.loc[found["setting"] == one, aim] for one in (name, PUBLISHED))
    if min(len(ours), len(theirs)) < 2:
        return f"{name}: one seed tells no spread"
    low, high = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    word = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
    return (f"{name} is {word} {PUBLISHED}: {aim} {ours.mean() - theirs.mean():+.3f} "
            f"[{low:+.3f}, {high:+.3f}], 95 % over {len(ours)} seeds")
