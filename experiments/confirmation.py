"""Confirmation of a search: do its best trials beat the published setting?

All are trained to the end of the schedule with several seeds, at the search's image size or at a larger one.
A confirmation is an experiment of NNI's like a search, but its tuner proposes a fixed list of settings, with
seeds that the search did not use. Its trials go on from copies of a confirmation's that was cut off.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pandas as pd
from scipy.stats import ttest_ind

from experiments import trial_command
from experiments.nni_adapter.database import LISTED_TUNER, RESUMES, Experiment, find_experiment, search_of
from experiments.nni_adapter.manager import write_config
from experiments.overrides import from_folder
from experiments.report import results
from experiments.study.independent_judge import IndependentJudge, final_quality
from judge import images, model
from judge.common.cli import parse_values
from judge.common.errors import UserError
from judge.score import FORMULAS, WORST_SCORE, find_formula
from trials import cyclegan
from trials.inspection.trained import settings_of
from trials.inspection.translation import load_trained
from trials.parts.batches import load_held_out
from trials.session import RunOptions
from trials.session.records import read_record

PUBLISHED = "published"
# Keys that a confirmation takes over from the search's configuration.
COPIED_KEYS = ("trialCodeDirectory", "experimentWorkingDirectory", "trialConcurrency", "trialGpuNumber",
               "trainingService")


def write(search: Experiment, top: int, seeds: int, size: str | None = None, judge: str | None = None,
          steps: int | None = None, score: str | None = None, *, folder: Path) -> Path:
    """Write the experiment file of a confirmation of `search` into `folder`, and return the file.

    It trains the published setting and the best `top` other trials that finished, each with `seeds` fresh
    seeds, at the search's size or as `at_size` describes; with `score`, as for `find_formula`, the best ones
    by that score, and scored by it. Raises UserError if no trial has finished, the options do not fit or the
    file cannot be written.
    """
    formula = find_formula(score) if score else None
    best = [row for row in results.finished(results.rows(search, formula)) if not row.published][:top]
    if not best:
        raise UserError(f"experiment {search.id} has no finished trial to promote")
    command = search.config["trialCommand"]
    module, _, run_options = trial_command.parse(command)
    published, searched = trial_command.published(module), list(best[0].trial.parameters)
    settings = {PUBLISHED: {name: published[name] for name in searched},
                **{f"trial {row.trial.number}": row.trial.parameters for row in best}}
    common, file = results.settings_of(search, best[0]), f"promotion-{top}x{seeds}"
    title = f"confirmation of {search.id}"
    # Trials run in another folder than the user's.
    judge = judge and from_folder(judge, Path(search.config["trialCodeDirectory"]))
    given = {"size": size, "judge": judge, "steps": steps}
    if given := {key: value for key, value in given.items() if value}:
        old, common = common.get("size"), at_size(search, module, common, given)
        file, title = f"{file}-{old}-{size}", f"{title} ({old}) at {size}"
    if steps:
        file, title = f"{file}-{steps}", f"{title}, {steps} steps"
    if formula:
        check_are_settings(module, common, ["score"])
        common |= {"score": score if score in FORMULAS else str(Path(score).resolve())}
        file, title = f"{file}-{Path(score).stem}", f"{title}, by {score}"
    choices = {name: list(dict.fromkeys(each[name] for each in settings.values())) for name in searched}
    # Not the search's seed: the best trials had luck with it.
    choices["seed"] = list(range(common["seed"] + 1, common["seed"] + 1 + seeds))
    options = vars(run_options) | {
        "python": trial_command.python_of(command), "budget": 1.0,
        "earlier": search.config["experimentWorkingDirectory"],
    }  # fmt: skip
    fixed = {name: value for name, value in common.items() if name not in choices}
    return write_config(folder / f"{file}.yml", {
        "experimentName": title,
        **{key: search.config[key] for key in COPIED_KEYS if search.config.get(key) is not None},
        "trialCommand": trial_command.render(module, fixed, **options),
        "maxTrialNumber": len(settings) * seeds,
        "searchSpace": {name: {"_type": "choice", "_value": values} for name, values in choices.items()},
        "tuner": {
            "className": LISTED_TUNER, "codeDirectory": search.config["trialCodeDirectory"],
            "classArgs": {"settings": settings, "seeds": choices["seed"], "search": search.id}},
    })  # fmt: skip


def at_size(search: Experiment, module: ModuleType, settings: dict, given: dict) -> dict:
    """Return the `settings` of a trial of `search` changed by those `given`: size, judge of that size, steps.

    What the preset of the search's size filled in, such as the networks' widths and the length of the
    schedule, is left to the preset of the new size. What the search's command or its tuner chose stays, but
    for the length of the schedule.

    Raises UserError if there is no such setting or size, or the judge is missing or of another size.
    """
    check_are_settings(module, settings, given)
    old, size = settings.get("size"), given.get("size")
    if size in (None, "auto"):
        raise UserError("--judge and --steps need a --size, given by name")
    for each in (old, size):
        parse_values(module.Settings, {"size": each})
    if size != old:
        if "judge" in settings and "judge" not in given:
            raise UserError(f"--size {size}: the search's judge is of size {old}, give one of size {size} by "
                            f"--judge FILE (python -m judge train --size {size} makes one)")
        # Not this search's command if it resumes another: `resume` writes out what a preset had filled in.
        _, chosen, _ = trial_command.parse(first_search(search).config["trialCommand"])
        kept = {"data"} | {name for name, value in vars(chosen).items() if value not in (None, "auto")}
        kept -= {"steps", "epochs"}  # a schedule's length is for a size
        settings = {name: value for name, value in settings.items() if name in kept}
    if "judge" in given:
        model.load_judge(given["judge"], size=images.SIZES[size])
    if "steps" in given:
        settings = settings | {"epochs": None}
    return settings | given


def check_are_settings(module: ModuleType, settings: dict, given: Iterable[str]) -> None:
    """Raise UserError if an option that was given is no setting of the trials."""
    if unknown := [f"--{name}" for name in given if name not in settings]:
        raise UserError(f"{', '.join(unknown)}: {module.__name__} has no such setting")


def first_search(search: Experiment) -> Experiment:
    """Return the search that `search` resumes, and if that one resumes another, the first of them."""
    resumed = ((search.config.get("tuner") or {}).get("classArgs") or {}).get(RESUMES)
    return first_search(find_experiment(resumed)) if resumed else search


def ends(confirmation: Experiment) -> pd.DataFrame:
    """Return a table with a row per finished trial: name of its setting, seed, score, its parts, folder, and
    whether it diverged; its score is then the worst one."""
    settings = confirmation.config["tuner"]["classArgs"]["settings"]
    rows = []
    for trial in confirmation.trials():
        if trial.final:
            seed = trial.parameters["seed"]
            setting = next(name for name in settings if settings[name] | {"seed": seed} == trial.parameters)
            diverged = read_record(trial.folder).get("status") == "diverged"
            rows.append({"setting": setting, "seed": seed, **trial.final, "folder": trial.folder,
                         "diverged": diverged})  # fmt: skip
    # The error of a trial is not shown: the spread over seeds is.
    return pd.DataFrame(rows).rename(columns={"default": "score"}).drop(columns="error", errors="ignore")


def measure_independently(table: pd.DataFrame, judge: str, data: str) -> pd.DataFrame:
    """Return the table of `ends` with an independent judge's measures of the final paintings, and `quality`.

    A trial that diverged has no final painting: its checkpoint, if there is one, is from before. It has no
    measures, and the worst quality. Computes on the GPU if there is one. Raises UserError as
    `IndependentJudge`, or if a checkpoint is damaged or the trials paint no photographs.
    """
    folders = table.loc[~table["diverged"], "folder"]
    if folders.empty:
        return table
    device, first = RunOptions().torch_device(), folders.iloc[0]
    record = read_record(first)
    if record.get("system") != "cyclegan":
        system = record.get("system")
        raise UserError(f"trials.{system} does not paint photographs, so no judge can measure them")
    settings = settings_of(cyclegan.Settings, record, first)
    test = load_held_out(images.find_dataset(settings.data), settings.pixels, settings.photos, device)
    measure = IndependentJudge(judge, data, test)
    measures = [measure(load_trained(folder, device).paint(test.photos)) for folder in folders]
    table = table.join(pd.DataFrame(measures, index=folders.index))
    return table.assign(quality=final_quality(table).fillna(WORST_SCORE))


def search_scores(confirmation: Experiment) -> pd.Series | None:
    """Return the score of each setting in the search, by name, called after the search's size.

    It is nan if no trial with that setting came to its end; None is returned if the search is not there.
    """
    settings = confirmation.config["tuner"]["classArgs"]["settings"]
    with suppress(UserError):  # it was moved away, or is damaged
        search = find_experiment(str(confirmation.folder.parent / str(search_of(confirmation))))
        rows = results.rows(search)
        ends = [(row.trial.parameters, row.score) for row in rows if row.trial.final]
        scores = {name: next((score for other, score in ends if other == parameters), math.nan)
                  for name, parameters in settings.items()}  # fmt: skip
        size = (results.first_record(rows).get("settings") or {}).get("size")
        return pd.Series(scores, name=f"search at {size}" if size else "search")
    return None


def text(confirmation: Experiment, table: pd.DataFrame) -> str:
    """Return the table of `ends` as text, mean ± standard deviation over seeds, and a verdict per setting."""
    if table.empty:
        return f"{confirmation.config['experimentName']}: no trial has finished yet"
    target = "quality" if "quality" in table else "score"
    values = table.drop(columns=["seed", "folder", "kid_error", "diverged"], errors="ignore")
    by_setting = values.groupby("setting", sort=False)
    mean = by_setting.mean().sort_values(target, ascending=False)
    deviation = by_setting.std().loc[mean.index]  # nan for one seed
    cells = number_texts(mean, "{:.3f}") + number_texts(deviation, " ± {:.3f}")
    cells.insert(0, "seeds", by_setting.size())
    if (scores := search_scores(confirmation)) is not None:
        cells.insert(1, scores.name, number_texts(scores, "{:.3f}"))
    lines = [confirmation.config["experimentName"], "", cells.to_string(), ""]
    lines += [f"{row.setting} diverged with seed {row.seed}: it counts as the worst, {WORST_SCORE:g}"
              for row in table[table["diverged"]].itertuples()]  # fmt: skip
    if PUBLISHED in mean.index:
        others = [name for name in mean.index if name != PUBLISHED]
        lines += [verdict(table, name, target, len(others)) for name in others]
    return "\n".join(lines)


def number_texts(values: pd.DataFrame | pd.Series, form: str) -> pd.DataFrame | pd.Series:
    """Return numbers as texts, and nan as an empty one."""
    return values.map(lambda value: "" if math.isnan(value) else form.format(value))


def verdict(table: pd.DataFrame, name: str, target: str, comparisons: int = 1) -> str:
    """Return how a setting compares with the published one: an interval over seeds by Welch's test.

    With several `comparisons` all their intervals hold together with 95 % (Bonferroni).
    """
    ours, published = (table.loc[table["setting"] == each, target] for each in (name, PUBLISHED))
    if min(len(ours), len(published)) < 2:
        return f"{name}: no comparison with one seed, which shows no spread"
    low, high = ttest_ind(ours, published, equal_var=False).confidence_interval(
        1 - 0.05 / comparisons)
    word = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
    return (f"{name} is {word} {PUBLISHED}: {target} {ours.mean() - published.mean():+.3f} "
            f"[{low:+.3f}, {high:+.3f}], 95 %{' for all together' * (comparisons > 1)}, {len(ours)} seeds")
