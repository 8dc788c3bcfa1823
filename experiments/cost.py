"""What a search will cost: a trial is measured before the start."""

import json
import math
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, fields

from nni.experiment.config.utils import parse_time

from experiments.check import Plan
from experiments.disk import gigabytes
from experiments.nni_adapter.manager import search_path
from judge.common.children import bound
from judge.common.errors import UserError
from judge.common.progress import DAY, duration, milliseconds
from trials.session.engine import NniEngine

NNI_SECONDS = 10  # between the end of a trial and the start of the next: NNI looks every 5 s, twice


@dataclass(frozen=True)
class Cost:
    """What a trial takes on this machine, as its `--measure` prints it; times in seconds."""

    start: float  # until the first step
    step: float
    report: float
    steps: int  # of a trial
    reports: int
    device: str
    memory: int | None  # bytes on the GPU at most

    @property
    def computing(self) -> float:
        """Seconds of a trial without its start."""
        return self.steps * self.step + self.reports * self.report

    def __str__(self) -> str:
        memory = f", {gigabytes(self.memory)} of GPU memory" if self.memory else ""
        return (f"a trial takes about {duration(self.start + self.computing)} on {self.device} "
                f"({self.steps:,} steps of {milliseconds(self.step)}, {self.reports} reports of "
                f"{milliseconds(self.report)}, start {milliseconds(self.start)}{memory})")


def measure(plan: Plan) -> Cost:
    """Run the trial's command with --measure, as NNI will run it, and return its cost.

    This also shows errors that only training has, and fills the cache of images. Raises UserError with the
    command's last line if it fails.
    """
    config, environment = plan.config, os.environ | {"PATH": search_path()}
    if plan.gpus and (indices := getattr(config.training_service, "gpu_indices", None)):
        environment["CUDA_VISIBLE_DEVICES"] = str(indices[0])
    threads = [] if plan.run_options.threads else ["--threads", str(NniEngine.threads)]
    result = subprocess.run(
        bound([*shlex.split(config.trial_command), *threads, "--measure"]), env=environment,
        capture_output=True, cwd=config.trial_code_directory, text=True, stdin=subprocess.DEVNULL)
    printed = (result.stderr if result.returncode else result.stdout).strip().splitlines()
    last = printed[-1] if printed else f"no output, exit code {result.returncode}"
    if result.returncode:
        raise UserError(f"a trial that was measured failed: {last}")
    print(result.stderr, end="", file=sys.stderr)  # notes and warnings
    try:
        answer = json.loads(last)
        return Cost(**{field.name: answer[field.name] for field in fields(Cost)})
    except (ValueError, TypeError, KeyError):
        raise UserError(f"trialCommand with --measure printed no measurement, but {last!r}") from None


def describe(plan: Plan, cost: Cost) -> str:
    """Return a line on the time that a trial and the search take."""
    trials, limit = plan.config.max_trial_number, plan.config.max_experiment_duration
    seconds, each = search_seconds(plan, cost), plan.config.max_trial_duration
    if each and parse_time(each) < cost.start + cost.computing:
        cost = f"{cost}; warning: maxTrialDuration {each} will stop trials before their end"
    number = f"{trials or 'unlimited'} trials, {plan.config.trial_concurrency} at once"
    if seconds is None:
        return f"{cost}; {number}: until you stop it"
    ends = ", then maxExperimentDuration ends it" if limit and seconds == parse_time(limit) else ""
    return f"{cost}; {number}: at most about {duration(seconds)}{ends}"


def search_seconds(plan: Plan, cost: Cost) -> float | None:
    """Return the seconds that the search takes if no trial is stopped early; None if it has no end.

    Trials on a CPU run side by side. Trials that share a GPU take turns, except for their starts.
    """
    config, ends = plan.config, []
    if config.max_experiment_duration:
        ends.append(parse_time(config.max_experiment_duration))
    if config.max_trial_number:
        trials, at_once = config.max_trial_number, config.trial_concurrency
        alone, places = NNI_SECONDS + cost.start + cost.computing, plan.gpus or at_once
        each = max(cost.computing, alone / (at_once // plan.gpus)) if plan.gpus else alone
        ends.append(math.ceil(trials / places) * each)
    return min(ends, default=None)


def refuse_long(plan: Plan, cost: Cost) -> None:
    """Raise a UserError if the search may take more than a day."""
    seconds = search_seconds(plan, cost) or 0
    if seconds > DAY:
        raise UserError(f"about {duration(seconds)}, more than a day: add --long, or lower maxTrialNumber, "
                        "--budget or --size")
