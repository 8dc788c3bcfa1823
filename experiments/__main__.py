"""python -m experiments COMMAND

    python -m experiments check experiments/cyclegan.yml   # find mistakes before anything runs
    python -m experiments run experiments/cyclegan.yml     # the search, with a live table
    python -m experiments list                             # all experiments on this machine
    python -m experiments note ID TEXT                     # a note on a search or on one of its trials
    python -m experiments pin ID                           # shown first in lists and tables
    python -m experiments rm ID                            # delete a search, after asking
    python -m experiments resume ID                        # the rest of a search, or with --trials more of it
    python -m experiments report ID                        # its page and its table, at any time
    python -m experiments show ID                          # the page as `run` serves it, with notes
    python -m experiments compare ID ID                    # several searches at equal budget
    python -m experiments promote ID                       # is its best trial really better?
    python -m experiments promote ID --size paper ...      # and at a larger image size?
    python -m experiments prefer ID                        # which sheets are better? a page asks you
    python -m experiments taste                            # a score that agrees with your votes
    python -m experiments study --data DIR ...             # does the early score predict the end?
    python -m experiments ranks runs/study.csv             # its results; without a table those of ours
    python -m experiments reliability TABLE                # how much of a score is chance?
    python -m experiments simulate ID ID                   # does stopping trials early pay?

ID is the id that `run` printed, the experiment's name or folder, or `latest`, the one started last.
"""

import webbrowser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments import early_check
from experiments.nni_adapter.database import (
    Experiment,
    error_prefix,
    find_experiment,
    find_trial,
    is_confirmation,
)
from experiments.overrides import OverrideOptions, Overrides
from experiments.study.options import SHIPPED_TABLE, STYLE_WEIGHT, Simulation, Study
from experiments.trial_command import trials_folder
from judge.common.cli import (
    Fraction,
    Namespace,
    NonNegativeInt,
    Parser,
    PositiveInt,
    from_namespace,
    subcommands,
)
from judge.common.errors import UserError
from judge.common.files import FileLock

STUDY_ERRORS = (OSError, ValueError, KeyError)  # of a file that is not a study's table
# Each command imports what it needs when it runs, after the first refusals: torch and NNI take seconds.


def check(options: Namespace) -> None:
    """Find mistakes in an experiment file and say what the search will cost, before anything runs."""
    early_check.check(options.file, given(options))
    from experiments import search

    with search.making_aside():  # nothing is written but the cache
        plan = search.check(options.file, given(options))
        with trials_folder(plan.config.trial_code_directory):
            print(search.describe(plan, options.keep), flush=True)
            search.measure(plan, options.unmeasured, options.long, options.any_judge)


def run(options: Namespace) -> int:
    """Check an experiment, run it to its end with a live table, and print its report.

    The exit code is 0 when the search finished, 1 when it broke, 130 after Ctrl-C.
    """
    early_check.check(options.file, given(options))
    from experiments import search

    return shown(*search.run(options.file, options.keep, given(options), **start_options(options)))


def shown(experiment: Experiment, code: int) -> int:
    """Print the report of a search that has ended with this exit code, and return the code."""
    print()
    show_report(experiment)
    print(f"both again: python -m experiments report {experiment.id}")
    if code:
        print(f"to resume it: python -m experiments resume {experiment.id}")
    return code


def given(options: Namespace) -> Overrides:
    """Return the options that change the experiment file."""
    return from_namespace(Overrides, options)


def start_options(options: Namespace) -> dict[str, bool]:
    """Return the options of every command that starts NNI, for `search.run`."""
    names = ("unmeasured", "long", "any_judge", "mps", "port")
    return {name: getattr(options, name) for name in names} | {"show": options.open}


def resume(options: Namespace) -> int:
    """Resume an interrupted search, or extend a finished one, as a new experiment.

    Finished trials are kept and added to the tuner's history; unfinished ones continue from their
    checkpoints. With --trials the number of trials in all becomes this one.
    """
    interrupted = find_experiment(options.experiment)
    from experiments import resume, search

    with (FileLock(interrupted.folder / ".resume.lock", f"resuming experiment {interrupted.id}"),
          TemporaryDirectory() as folder):  # fmt: skip
        file = resume.write(interrupted, options.trials, folder=Path(folder))
        return shown(*search.run(file, options.keep, **start_options(options)))


def list_experiments(options: Namespace) -> None:
    """List the experiments below runs/ and in NNI's list: pinned ones first, then the one started last."""
    from experiments import searches

    rows = searches.summaries()
    if options.json or options.csv:
        print(searches.as_json(rows) if options.json else searches.as_csv(rows))
    else:
        searches.print_list(rows)


def note(options: Namespace) -> None:
    """Write a note on an experiment, or with --trial on one of its trials; an empty text removes it."""
    mark(options, note=options.text)


def pin(options: Namespace) -> None:
    """Pin an experiment, or with --trial one of its trials: it is then shown first in lists and tables."""
    mark(options, pinned=not options.off)


def mark(options: Namespace, **changes: str | bool) -> None:
    """Write a note or a pin, and print what there is now."""
    from experiments import notes

    experiment = find_experiment(options.experiment)
    trial = find_trial(experiment, options.trial) if options.trial else None
    notes.write(experiment.folder, trial and trial.id, **changes)
    written = notes.read(experiment.folder)
    now = written.trials.get(trial.id, notes.Mark()) if trial else written.search
    of = f"trial {trial.number} ({trial.id}) of " if trial else ""
    print(f"{of}{experiment.id} {experiment.name}: {'' if now.pinned else 'not '}pinned, "
          f"{f'note: {now.note}' if now.note else 'no note'}")


def remove(options: Namespace) -> None:
    """Delete experiments with all their trials, after saying what goes and asking."""
    from experiments import searches

    searches.remove([find_experiment(name) for name in options.experiments], options.yes)


def report(options: Namespace) -> None:
    """Show the trials of an experiment, best first: as a table, and as a page with pictures."""
    experiment = find_experiment(options.experiment)
    check_yardstick(options)
    from experiments.report import results

    formula = formula_of(options, experiment)
    if options.csv or options.json:
        frame = results.frame(results.rows(experiment, formula))
        text = frame.to_csv(index=False) if options.csv else frame.to_json(orient="records", indent=2)
        print(text.rstrip("\n"))
        return
    file = show_report(experiment, options.yardstick, options.yardstick_data, options.out, formula)
    if options.open:
        webbrowser.open(file.resolve().as_uri())


def show(options: Namespace) -> None:
    """Serve the page of an experiment, running or not, on this machine until Ctrl-C: for notes and pins."""
    from experiments.report import live

    live.show(find_experiment(options.experiment), options.port, options.open)


def formula_of(options: Namespace, experiment: Experiment):
    """Return the formula that --score names; None without it."""
    from judge.score import find_formula

    if options.score and is_confirmation(experiment):
        raise UserError(f"--score ranks the trials of a search, and {experiment.id} is a confirmation")
    return find_formula(options.score) if options.score else None


def show_report(experiment: Experiment, judge=None, data=None, out: Path | None = None, formula=None) -> Path:
    """Print an experiment's table (a confirmation's also by an independent judge); write, return its page."""
    from experiments import confirmation
    from experiments.report import page, results

    if is_confirmation(experiment):
        ends = confirmation.ends(experiment)
        if judge and len(ends):
            ends = confirmation.measure_independently(ends, judge, data)
        print(confirmation.text(experiment, ends))
    else:
        print(results.text(experiment, formula))
    file = page.write(experiment, out, formula)
    print(f"\nwith pictures: {file}")
    return file


def compare(options: Namespace) -> None:
    """Compare searches at equal budget: the best score so far, over trials and over seconds.

    Searches of the same name, ranges and trial command (but for the seed) count as one with several seeds.
    """
    searches = [find_experiment(name) for name in options.experiments]
    from experiments.report import comparison

    courses = comparison.groups(searches)
    print(comparison.text(searches, courses))
    file = comparison.write(searches, courses, options.out or Path("runs"))
    print(f"with curves: {file}")
    if options.open:
        webbrowser.open(file.resolve().as_uri())


def promote(options: Namespace) -> int:
    """Train the best trials and the published setting to the end, with several seeds, and compare them.

    With --size, at a larger image size than the search's; with --score, those that are best by another score.
    Trained parts are not trained again, so the same command also continues an interrupted confirmation.
    """
    source = find_experiment(options.experiment)
    check_yardstick(options, options.size)
    from experiments import confirmation, search

    with (FileLock(source.folder / ".promote.lock", f"promoting experiment {source.id}"),
          TemporaryDirectory() as folder):  # fmt: skip
        file = confirmation.write(source, options.top, options.seeds, options.size, options.judge,
                                  options.steps, options.score, folder=Path(folder))
        confirmed, code = search.run(file, **start_options(options))
    print()
    show_report(confirmed, options.yardstick, options.yardstick_data)
    if code:
        print("to continue it: the same command")
    return code


def check_yardstick(options: Namespace, size: str | None = None) -> None:
    """Check before training that the independent judge, of any or this size, and its data can be read."""
    if bool(options.yardstick) != bool(options.yardstick_data):
        raise UserError("--yardstick and --yardstick-data go together: give a judge and its training data")
    if options.yardstick:
        from judge import images, model

        with error_prefix("--yardstick", UserError):
            model.load_judge(options.yardstick, size=images.SIZES.get(size))
        images.find_dataset(options.yardstick_data)


def prefer(options: Namespace) -> None:
    """Show pairs of sample sheets on a page of this machine, and note which one you prefer, until Ctrl-C.

    Keys: left, right, down for level, U to undo. The votes go to preferences.jsonl beside the experiments.
    """
    from experiments.preferences import server

    server.prefer(options.experiments, options.voter or "me", options.pairs, options.port, options.open,
                  options.seed)


def taste(options: Namespace) -> None:
    """Fit the weights of the score's parts to the votes of `prefer`, and write them to a file for --score."""
    from experiments.preferences import taste

    print(taste.taste(options.votes, options.voter, options.out))


def study(options: Namespace) -> None:
    """Train settings to the end, and compare the ranks by their early scores with those at the end.

    A stopped study continues: figures of finished trials are in the table, trials in their folders.
    """
    from experiments.study import reliability, study
    from judge.score import DEFAULT_FORMULA, FORMULAS

    check_yardstick(options, options.size)
    table = study.run(from_namespace(Study, options))
    if options.yardstick:
        print(study.text(table))
    if options.seeds > 1:
        print(reliability.text({options.table: table}, FORMULAS[DEFAULT_FORMULA]))


def ranks(options: Namespace) -> None:
    """Compare the ranks of settings by early scores with those at the end, from a study's table."""
    from experiments.study import study

    with error_prefix(f"{options.table} is not a study's table", STUDY_ERRORS):
        frame = study.read_table(options.table)
        result = study.ranking(frame, options.style) if options.csv else study.text(frame, options.style)
    print(result.to_csv(index=False) if options.csv else result)


def reliability(options: Namespace) -> None:
    """Print how much of a score is the setting, and how much chance, from a study with several seeds."""
    from experiments.study import reliability, study
    from judge.score import DEFAULT_FORMULA, find_formula

    formula = find_formula(options.score or DEFAULT_FORMULA)
    with error_prefix(f"{', '.join(map(str, options.tables))}: no study's table", STUDY_ERRORS):
        tables = {file: study.read_table(file) for file in options.tables}
        text = reliability.text(tables, formula)
    print(text)  # not above: a closed pipe is no error of the table


def simulate(options: Namespace) -> None:
    """Replay searches on the curves of others, with and without stopping trials early, in equal time."""
    import pandas as pd

    from experiments.study import simulation

    if bool(options.experiments) == bool(options.table):
        raise UserError("give the experiments whose curves are replayed, or --table")
    with error_prefix(f"{options.table} is no table of curves", STUDY_ERRORS):
        table = pd.read_csv(options.table) if options.table else simulation.curves_of(options.experiments)
        curves = simulation.steady_curves(table, options.score)
    result = simulation.run(from_namespace(Simulation, options), curves)
    print(result.to_csv(index=False).rstrip("\n") if options.csv else simulation.text(result))


OPTIONS = {
    "file": {"type": Path, "help": "the experiment, a YAML file of NNI's"},
    "experiment": {"metavar": "ID", "help": "id, name or folder of an experiment, or latest"},
    "experiments": {"nargs": "+", "metavar": "ID", "help": "ids, names or folders of experiments, or latest"},
    "text": {"help": "the note"},
    "--trial": {"metavar": "NUMBER|ID", "help": "one of its trials"},
    "--off": {"action": "store_true", "help": "take the pin away"},
    "--yes": {"action": "store_true", "help": "do not ask"},
    "--trials": {"type": PositiveInt, "help": "number of trials in all, with those that have ended"},
    "--keep": {"type": PositiveInt, "default": 10,
               "help": "checkpoints of so many best trials are kept, and the published setting's"},
    "--unmeasured": {"action": "store_true",
                     "help": "do not measure the judge and a trial, nor say what the search costs"},
    "--long": {"action": "store_true", "help": "allow a search of more than a day"},
    "--any-judge": {"action": "store_true", "help": "allow a judge that is bad on the data (AUC below 0.7)"},
    "--mps": {"action": "store_true",
              "help": "run NVIDIA's MPS during the search, for several trials on one GPU"},
    "--score": {"metavar": "NAME|FILE",
                "help": "rank the trials by another score: style-and-scene, combined, plain, or a file"},
    "--csv": {"action": "store_true", "help": "only the table, for pandas"},
    "--json": {"action": "store_true", "help": "only the table, as JSON records"},
    "--out": {"type": Path, "metavar": "DIR", "help": "folder for the page (default: experiment's, or runs)"},
    "--open": {"action": "store_true", "help": "show the page in the browser"},
    "--voter": {"metavar": "NAME", "help": "whose votes (default: me; of `taste`: everybody's)"},
    "--pairs": {"type": PositiveInt, "default": 60, "help": "number of pairs to show"},
    "--port": {"type": NonNegativeInt, "default": 0, "help": "port of the page; 0 is any free one"},
    "--seed": {"type": NonNegativeInt, "default": 0, "help": "seed of the choice of pairs"},
    "votes": {"type": Path, "nargs": "?", "default": Path("runs"), "metavar": "FILE|DIR",
              "help": "preferences.jsonl, or its folder"},
    "tables": {"type": Path, "nargs": "+", "metavar": "TABLE",
               "help": "tables of studies with several seeds"},
    "--top": {"type": PositiveInt, "default": 3, "help": "number of its best trials"},
    "--seeds": {"type": PositiveInt, "default": 3, "help": "number of seeds for each of them"},
    "--size": {"help": "image size to confirm at, draft or paper; by default the search's"},
    "--judge": {"metavar": "FILE", "help": "the judge of that size, if it is not the search's"},
    "--steps": {"type": PositiveInt, "help": "length of the schedule at that size; by default its own"},
    "--yardstick": {"metavar": "JUDGE", "help": "an independent judge that also measures the results"},
    "--yardstick-data": {"metavar": "DATA", "help": "the data it was trained on (python -m judge halves)"},
}  # fmt: skip

START = ("--unmeasured", "--long", "--any-judge", "--mps", "--open", "--port")  # of all that start NNI
COMMANDS = {
    "run": (run, "file", "--keep", *START),
    "list": (list_experiments, "--csv", "--json"),
    "note": (note, "experiment", "text", "--trial"),
    "pin": (pin, "experiment", "--off", "--trial"),
    "rm": (remove, "experiments", "--yes"),
    "resume": (resume, "experiment", "--trials", "--keep", *START),
    "compare": (compare, "experiments", "--out", "--open"),
    "promote": (promote, "experiment", "--top", "--seeds", "--size", "--judge", "--steps", "--score",
                "--yardstick", "--yardstick-data", *START),
    "prefer": (prefer, "experiments", "--voter", "--pairs", "--port", "--open", "--seed"),
    "taste": (taste, "votes", "--voter"),
    "check": (check, "file", "--keep", "--unmeasured", "--long", "--any-judge"),
    "report": (report, "experiment", "--score", "--csv", "--json", "--out", "--open", "--yardstick",
               "--yardstick-data"),
    "show": (show, "experiment", "--port", "--open"),
    "study": (study,),
    "ranks": (ranks, "--csv"),
    "reliability": (reliability, "tables", "--score"),
    "simulate": (simulate, "--csv"),
}


def add_options(name: str, parser: Parser) -> None:
    """Add the options of the command `name`."""
    for option in COMMANDS[name][1:]:
        parser.add_argument(option, **OPTIONS[option])
    if name in ("check", "run"):
        parser.add_fields(OverrideOptions)
        parser.add_argument("--set", action="append", metavar="NAME=VALUE",
                            help="another setting of the trials; if it was searched, it no longer is. Repeat "
                            "it for several")
    if name == "taste":
        parser.add_argument("--out", type=Path, metavar="FILE",
                            help="where to write the weights (default: score.json beside the votes)")
    if name == "ranks":
        parser.add_argument("table", type=Path, nargs="?", default=SHIPPED_TABLE, help="a study's table")
        parser.add_argument("--style", type=Fraction, default=STYLE_WEIGHT,
                            help="weight of style against content in final quality")
    if name == "simulate":
        parser.add_argument("experiments", metavar="ID", nargs="*",
                            help="experiments whose trials were not stopped early")
    if name in ("study", "simulate"):
        parser.add_fields(Study if name == "study" else Simulation)


if __name__ == "__main__":
    subcommands("python -m experiments", __doc__, {
        name: (partial(add_options, name), command) for name, (command, *_) in COMMANDS.items()})
