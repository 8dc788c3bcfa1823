"""python -m experiments run | resume | check | report | compare | promote | study | ranks | simulate

    python -m experiments check experiments/cyclegan.yml   # before anything runs
    python -m experiments run experiments/cyclegan.yml     # the search, with a live table
    python -m experiments resume ID                        # the rest of one that was broken off
    python -m experiments report ID                        # its page and its table, at any time
    python -m experiments compare ID ID                    # several searches at equal budget
    python -m experiments promote ID                       # does its winner really win?
    python -m experiments study --data DIR ...             # does the early score foretell the end?
    python -m experiments ranks                            # what the last study found
    python -m experiments simulate                         # does stopping trials early pay?
"""

import signal
import sys
import tempfile
import time
import webbrowser
from datetime import datetime
from pathlib import Path

import pandas as pd
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from experiments import confirmation as promotions
from experiments import disk
from experiments import resume as resumptions
from experiments.check import Plan
from experiments.check import check as checked
from experiments.nni_adapter import database, remote
from experiments.nni_adapter.manager import ENDED, FINISHED, create, dead_runner, last_error, status, stop
from experiments.report import results
from experiments.study import simulation as simulations
from experiments.study import study as studies
from judge import images, model
from judge.common.cli import Fraction, Namespace, Parser, PositiveInt, from_namespace, subcommands
from judge.common.errors import UserError, one_line
from judge.common.files import file_lock

POLL = 2.0  # seconds between looks at NNI's database
STALLED = 300.0  # seconds without a first trial after which the search is given up


def file_options(parser: Parser) -> None:
    parser.add_argument("file", type=Path, help="the experiment, a YAML file of NNI's")
    keep_option(parser)


def keep_option(parser: Parser) -> None:
    parser.add_argument("--keep", type=PositiveInt, default=disk.CHECKPOINTS_KEPT,
                        help="checkpoints of so many best trials stay, and the published setting's")


def check(options: Namespace) -> None:
    """Say what would go wrong in an experiment, before anything runs."""
    print(summary(checked(options.file), options.keep))


def summary(plan: Plan, keep: int | None = None) -> str:
    """What a checked experiment is going to do and take, in a few lines.

    Args:
        keep: checkpoints of so many best trials; of all where None.

    Raises:
        UserError: the disk has not so much room.
    """
    config = plan.config
    inputs = "; ".join(f"{name}: {value}" for name, value in plan.settings.describe_inputs().items())
    trials = config.max_trial_number or keep or 1  # nobody knows of an unlimited search
    room = disk.disk_needed(plan.footprint, trials, config.trial_concurrency, keep or trials)
    return (
        f"{plan.file}: {config.max_trial_number or 'unlimited'} trials of {plan.module.__name__}, "
        f"{config.trial_concurrency} at once, over {', '.join(plan.space)}\n{inputs}\n"
        f"{disk.check(Path(config.experiment_working_directory), room)}"
    )


# ---------------------------------------------------------------------------------------------
# run


def run(options: Namespace) -> int:
    """Check an experiment, run it to its end with a live table, and print its report.

    The exit code is 0 when the search finished, 1 when it broke, 130 after Ctrl-C.
    """
    return searched(options.file, options.keep)


def resume_options(parser: Parser) -> None:
    parser.add_argument("experiment", help="the search's id, or its folder")
    keep_option(parser)


def resume(options: Namespace) -> int:
    """Go on with a search that was broken off, in an experiment of its own.

    Finished trials are kept and taught to the tuner; unfinished ones go on from their checkpoints.
    """
    search = database.find_experiment(options.experiment)
    with file_lock(search.folder / ".resume.lock", f"going on with experiment {search.id}"):
        return searched(resumptions.write(search), options.keep)


def searched(file: Path, keep: int) -> int:
    """Carry out a search and print what it found; returns the exit code."""
    experiment, code = carried_out(file, keep)
    print(f"\n{table_of(experiment)}")
    write_page(experiment)
    print(f"both again: python -m experiments report {experiment.id}")
    if code:
        print(f"what is left of it: python -m experiments resume {experiment.id}")
    return code


def carried_out(file: Path, keep: int | None = None) -> tuple[database.Experiment, int]:
    """An experiment, checked and run to its end with a live table, and the exit code.

    Args:
        keep: checkpoints of so many best trials; of all where None.
    """
    plan = checked(file)
    print(summary(plan, keep))
    for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left running, also where a shell
        signal.signal(number, signal.default_int_handler)  # that started us had SIGINT ignored
    lines = remote.Tunnels(remote.workers(plan.config.json()))
    try:
        with tempfile.TemporaryDirectory() as folder:
            described, config = Path(folder) / file.name, plan.config.json()
            config["experimentName"] = title(plan)
            described.write_text(yaml.safe_dump(config, sort_keys=False))
            experiment, port = create(described, lines.open)
        return experiment, seen_through(experiment, port, plan, keep, lines)
    finally:
        lines.close()


def seen_through(
    experiment: database.Experiment, port: int, plan: Plan, keep: int | None, lines: remote.Tunnels,
) -> int:
    """Watch a started experiment to its end, and end it; returns the exit code."""
    print(f"experiment {experiment.id} in {experiment.folder}")
    print(f"web UI: http://127.0.0.1:{port} (this machine only; else ssh -L {port}:127.0.0.1:{port})")
    code = 1
    try:
        lines.tie(experiment.id)
        state = watch(experiment, port, plan, keep, lines)
        code = 0 if state in FINISHED and any(trial.final for trial in experiment.trials()) else 1
        if code:
            print(f"the search broke off ({state}): {last_error(experiment)}", file=sys.stderr)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        print("stopping; trials keep their checkpoints", file=sys.stderr)
    finally:
        lines.close()  # first: NNI kills trials on other machines, checkpoint or not
        stop(experiment.id)
    for problem in lines.fetch(experiment):
        print(f"not fetched: {problem} ({remote.FOLDER}/{experiment.id} there)", file=sys.stderr)
    return code


def title(plan: Plan) -> str:
    """What the web UI calls the experiment: its name, data, size and judge."""
    name = plan.config.experiment_name or plan.file.stem
    return " | ".join([name, *plan.settings.describe_inputs().values()])


def watch(
    experiment: database.Experiment, port: int, plan: Plan, keep: int | None, lines: remote.Tunnels,
) -> str:
    """Show the trials until the search is over, giving up checkpoints beyond the best `keep`; returns
    NNI's last word on it."""
    console, seen, data = Console(), {}, plan.settings.describe_inputs()["data"]
    began = time.monotonic()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            state, trials = status(port), experiment.trials()
            if lost := lines.lost():
                return lost
            if place := dead_runner(experiment, trials):
                return f"NNI's runner has ended in {place}"
            lines.fetch(experiment, trials)
            if keep:
                disk.prune(trials, plan.module, keep)
            if console.is_terminal:
                above = f"{data}: {progress(trials, experiment.max_trials, plan.config.trial_concurrency)}"
                live.update(Group(above, table(shown(trials), plan)), refresh=True)
            else:
                seen = tell(trials, seen)
            if state in ENDED and all(trial.over for trial in trials):
                return state
            if state in ("ERROR", "STOPPED"):
                return state
            if not trials and time.monotonic() - began > STALLED:
                return f"{state}, no trial in {STALLED:.0f} s"
            time.sleep(POLL)


def shown(trials: list[database.Trial], best: int = 10) -> list[database.Trial]:
    """What fits a terminal: the running trials and the best of the others."""
    others = [trial for trial in trials if trial.over and trial.latest]
    others.sort(key=lambda trial: trial.latest["default"], reverse=True)
    return [trial for trial in trials if not trial.over] + others[:best]


def table(trials: list[database.Trial], plan: Plan) -> Table:
    """The trials as they stand, the best in bold."""
    parameters = list(trials[0].parameters) if trials else []
    lines = Table(box=None, header_style="bold")
    for name in ("trial", "state", "reports", "score", *parameters):
        lines.add_column(name, justify="right" if name != "state" else "left")
    top = max((t for t in trials if t.latest), key=lambda t: t.latest["default"], default=None)
    for trial in trials:
        score = f"{trial.latest['default']:.4f}" if trial.latest else ""
        values = [f"{trial.parameters[name]:.3g}" if isinstance(trial.parameters[name], float)
                  else str(trial.parameters[name]) for name in parameters]
        lines.add_row(
            results.name(trial, results.is_published(trial, plan.module)), trial.state.lower(),
            str(len(trial.reports)), score, *values, style="bold" if trial is top else None,
        )  # fmt: skip
    return lines


def progress(trials: list[database.Trial], most: int | None, at_once: int) -> str:
    """How many of `most` trials are over, the best so far and the expected end."""
    scores = [trial.latest["default"] for trial in trials if trial.latest]
    best = f"best so far {max(scores):.4f}" if scores else "no score yet"
    over = sum(trial.over for trial in trials)
    return f"{over} of {most or 'unlimited'} trials, {best}{expected_end(trials, most, at_once)}"


def expected_end(trials: list[database.Trial], most: int | None, at_once: int) -> str:
    """When the last trial should end, from how long the ended ones took."""
    took = [t.ended - t.started for t in trials if t.ended and t.started]
    if not took or most is None:
        return ""
    seconds = (most - sum(trial.over for trial in trials)) * (sum(took) / len(took)) / at_once
    return f", expected end {datetime.fromtimestamp(time.time() + seconds):%H:%M}"


def tell(trials: list[database.Trial], seen: dict) -> dict:
    """Without a terminal: a line for each change. Returns what has been told."""
    now = {trial.id: (trial.state, len(trial.reports)) for trial in trials}
    for trial in trials:
        if seen.get(trial.id) != now[trial.id]:
            score = f"score {trial.latest['default']:.4f}" if trial.latest else ""
            print(f"{datetime.now():%H:%M:%S}  trial {trial.number:3}  {trial.state.lower():13}  "
                  f"{len(trial.reports):2} reports  {score}".rstrip(), flush=True)
    return now


# ---------------------------------------------------------------------------------------------
# report


def report_options(parser: Parser) -> None:
    parser.add_argument("experiment", help="the id that `run` printed, or the experiment's folder")
    parser.add_argument("--csv", action="store_true", help="only the table, for pandas")
    parser.add_argument("--json", action="store_true", help="only the table, as JSON records")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the page goes; else into its folder")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    yardstick_options(parser)


def show(options: Namespace) -> None:
    """The trials of an experiment, best first: as a page with pictures, and as a table here."""
    check_yardstick(options)
    experiment = database.find_experiment(options.experiment)
    if options.csv or options.json:
        table = results.frame(results.rows(experiment))
        found = table.to_csv(index=False) if options.csv else table.to_json(orient="records", indent=2)
        print(found.rstrip("\n"))
        return
    print(table_of(experiment, options.yardstick, options.yardstick_data))
    file = write_page(experiment, options.out)
    if options.open:
        webbrowser.open(file.resolve().as_uri())


def table_of(experiment: database.Experiment, judge: str | None = None, data: str | None = None) -> str:
    """The experiment's table for reading: of a search's trials, or of a promotion's settings, those
    also by the yardstick where there is one."""
    if not promotions.is_confirmation(experiment):
        return results.text(experiment)
    found = promotions.ends(experiment)
    if judge and data and len(found):
        found = promotions.measure_independently(found, judge, data)
    return promotions.text(experiment, found)


def write_page(experiment: database.Experiment, out: Path | None = None) -> Path:
    """Write the experiment's page, and say where."""
    from experiments.report import page  # not above: its libraries take a second

    file = page.write(experiment, out)
    print(f"\nwith pictures: {file}")
    return file


# ---------------------------------------------------------------------------------------------
# compare


def compare_options(parser: Parser) -> None:
    parser.add_argument("experiments", nargs="+", help="ids or folders of searches")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where the page goes")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")


def compare(options: Namespace) -> None:
    """Several searches at equal budget: the best so far against trials and against seconds.

    Searches of equal names count as one search with several seeds.
    """
    from experiments.report import comparison  # not above: its libraries take a second

    searches = [database.find_experiment(name) for name in options.experiments]
    courses = comparison.groups(searches)
    print(comparison.text(searches, courses))
    file = comparison.write(searches, courses, options.out)
    print(f"with curves: {file}")
    if options.open:
        webbrowser.open(file.resolve().as_uri())


# ---------------------------------------------------------------------------------------------
# promote


def promote_options(parser: Parser) -> None:
    parser.add_argument("experiment", help="the search's id, or its folder")
    parser.add_argument("--top", type=PositiveInt, default=3, help="so many of its best trials")
    parser.add_argument("--seeds", type=PositiveInt, default=3, help="each with so many seeds")
    yardstick_options(parser)


def yardstick_options(parser: Parser) -> None:
    parser.add_argument("--yardstick", metavar="JUDGE",
                        help="a second judge that measures what came out, trained on other images")
    parser.add_argument("--yardstick-data", metavar="DATA",
                        help="the data set that it was trained on (python -m judge halves)")


def promote(options: Namespace) -> int:
    """Train the best trials and the published setting to the end, with several seeds, and compare.

    What is already trained of them is not trained again, so the same command goes on after a break.
    """
    check_yardstick(options)
    search = database.find_experiment(options.experiment)
    with file_lock(search.folder / ".promote.lock", f"promoting experiment {search.id}"):
        promotion, code = carried_out(promotions.write(search, options.top, options.seeds))
    print(f"\n{table_of(promotion, options.yardstick, options.yardstick_data)}")
    write_page(promotion)
    return code


def check_yardstick(options: Namespace) -> None:
    """Find out before training whether the yardstick can measure.

    Raises:
        UserError: one option without the other, or no such judge or data.
    """
    if bool(options.yardstick) != bool(options.yardstick_data):
        raise UserError("--yardstick and --yardstick-data go together: a judge and the data it knows")
    if options.yardstick:
        model.load_judge(options.yardstick)
        images.find_dataset(options.yardstick_data)


# ---------------------------------------------------------------------------------------------
# study


def study_options(parser: Parser) -> None:
    parser.add_fields(studies.Study)


def study(options: Namespace) -> None:
    """Train settings to the end and rank them by their early scores against how they end.

    Goes on where it was stopped: figures of finished trials are in the table, trials in their folders.
    """
    print(studies.text(studies.run(from_namespace(studies.Study, options))))


def ranks_options(parser: Parser) -> None:
    parser.add_argument("table", type=Path, nargs="?", default=studies.Study.table,
                        help="a study's table")
    parser.add_argument("--style", type=Fraction, default=studies.STYLE_WEIGHT,
                        help="weight of style against content in final quality")
    parser.add_argument("--csv", action="store_true", help="every coefficient, for pandas")


def ranks(options: Namespace) -> None:
    """How early scores rank settings against how they end, from a study's table."""
    try:
        table = pd.read_csv(options.table)
        found = studies.ranking(table, options.style) if options.csv else studies.text(table, options.style)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{options.table} is not a study's table: {one_line(error)}") from None
    print(found.to_csv(index=False) if options.csv else found)


# ---------------------------------------------------------------------------------------------
# simulate


def simulate_options(parser: Parser) -> None:
    parser.add_fields(simulations.Simulation)
    parser.add_argument("--csv", action="store_true", help="every search, for pandas")


def simulate(options: Namespace) -> None:
    """Replay searches on a study's curves, with and without stopping trials early, in equal time."""
    try:
        found = simulations.run(from_namespace(simulations.Simulation, options))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{options.table} is not a study's table: {one_line(error)}") from None
    print(found.to_csv(index=False).rstrip("\n") if options.csv else simulations.text(found))


if __name__ == "__main__":
    subcommands("python -m experiments", __doc__, {
        "run": (file_options, run),
        "resume": (resume_options, resume),
        "compare": (compare_options, compare),
        "promote": (promote_options, promote),
        "check": (file_options, check),
        "report": (report_options, show),
        "study": (study_options, study),
        "ranks": (ranks_options, ranks),
        "simulate": (simulate_options, simulate),
    })  # fmt: skip
