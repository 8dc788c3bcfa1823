"""A trial is measured before a search starts, and the search's time is worked out from it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import __main__ as commands
from experiments import check as checks
from experiments import cost, disk, search
from experiments.check import check
from experiments.cost import Cost
from experiments.overrides import NO_OVERRIDES
from judge.common.cli import Namespace
from judge.common.errors import UserError
from tests.experiments.helpers import TINY

H200 = Cost(6, step=0.009, report=1, steps=12_000, reports=20, device="NVIDIA H200", memory=1_200_000_000)
TRIAL = """
import json, os, sys
if not (sys.argv[-1] == "--measure" and "--threads 1" in " ".join(sys.argv) and "--size" in sys.argv):
    sys.exit(f"wrong options: {sys.argv}")
print("CycleGAN, 128 px", os.environ.get("CUDA_VISIBLE_DEVICES"))
print("warning: slow", file=sys.stderr)
FAIL
print(json.dumps({"start": 6.0, "step": 0.009, "report": 1.0, "steps": 12000, "reports": 20,
                  "device": "NVIDIA H200", "memory": 1200000000, "more": 1}))
"""


@pytest.fixture
def plan(experiment, monkeypatch, tmp_path):
    """Return a function that checks a changed search and gives it GPUs and a trial that is only measured."""
    monkeypatch.setattr(disk, "cache_needed", lambda settings: 0)
    monkeypatch.setattr(checks, "available_cores", lambda: 8)

    def make(gpus: int = 0, fail: str = "", **changes) -> checks.Plan:
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / "measured.py").write_text(TRIAL.replace("FAIL", fail))
        made = check(experiment(**changes))
        made.config.trial_command = "python -m measured --size draft"
        made.config.trial_code_directory = str(tmp_path / "code")
        options = replace(made.run_options, threads=None)
        plan = replace(made, gpus=gpus, run_options=options)
        monkeypatch.setattr(search, "check", lambda file, given: plan)
        return plan

    return make


def test_the_command_of_the_trial_is_measured_as_nni_runs_it(plan, capfd):
    """In the code's folder, with one thread, and with its own Python."""
    assert cost.measure(plan()) == H200
    assert "warning: slow" in capfd.readouterr().err
    made = plan()
    made.config.trial_command = made.config.trial_command.replace("python", sys.executable)
    assert cost.measure(made) == H200
    made.config.trial_command += " --threads 1"
    assert cost.measure(replace(made, run_options=replace(made.run_options, threads=1))) == H200


def test_a_real_trial_measures_itself(experiment, tmp_path):
    measured = cost.measure(check(experiment(options=f"{TINY} --steps 40 --reports 10")))
    assert (measured.steps, measured.reports, measured.memory) == (40, 10, None)
    assert measured.device.startswith("cpu") and min(measured.start, measured.step, measured.report) > 0
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("fail, said", [
    ("sys.exit('trials.cyclegan: out of memory, 139 GB')", "failed: trials.cyclegan: out of memory, 139 GB"),
    ("os._exit(9)", "failed: warning: slow"),
    ("print('not JSON'); sys.exit()", "printed no measurement, but 'not JSON'"),
    ("print('{}'); sys.exit()", "printed no measurement, but '{}'"),
])
def test_a_trial_that_fails_is_refused_with_its_last_line(plan, fail, said):
    with pytest.raises(UserError) as error:
        cost.measure(plan(fail=fail))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_trial_is_measured_on_a_gpu_that_the_search_may_use(plan):
    made = plan(gpus=1, fail="if os.environ.get('CUDA_VISIBLE_DEVICES') != '2': sys.exit('wrong GPU')")
    made.config.training_service.gpu_indices = [2, 3]
    assert cost.measure(made) == H200


ALONE = 6 + 128 + cost.NNI_SECONDS  # seconds: start, computing, NNI's own


@pytest.mark.parametrize("gpus, changes, seconds", [
    (0, {}, 12 * ALONE),
    (0, {"maxTrialNumber": 25}, 13 * ALONE),
    (1, {}, 24 * 128),  # the two take turns
    (1, {"trialConcurrency": 1}, 24 * ALONE),
    (2, {}, 12 * ALONE),
    (2, {"trialConcurrency": 8}, 12 * 128),
    (0, {"maxExperimentDuration": "10m"}, 600),
    (0, {"maxTrialNumber": None, "maxExperimentDuration": "10m"}, 600),
    (0, {"maxTrialNumber": None}, None),
])
def test_trials_on_a_cpu_run_side_by_side_and_on_a_gpu_they_take_turns(plan, gpus, changes, seconds):
    assert cost.search_seconds(plan(gpus, **changes), H200) == (seconds and pytest.approx(seconds))


def test_the_cost_of_a_trial_and_of_the_search_is_said(plan):
    assert cost.describe(plan(1), H200) == (
        "a trial takes about 2 min 14 s on NVIDIA H200 (12,000 steps of 9 ms, 20 reports of 1 s, start 6 s, "
        "1.2 GB of GPU memory); 24 trials, 2 at once: at most about 51 min")
    on_cpu = replace(H200, device="cpu (x86_64, 2 cores)", memory=None)
    assert "start 6 s); 24 trials" in cost.describe(plan(), on_cpu)
    line = cost.describe(plan(maxTrialNumber=None), H200)
    assert line.endswith("unlimited trials, 2 at once: until you stop it")
    line = cost.describe(plan(maxExperimentDuration="10m"), H200)
    assert line.endswith("at most about 10 min, then maxExperimentDuration ends it")
    for limit, warned in (("2m", True), ("3m", False)):
        warning = f"; warning: maxTrialDuration {limit} will stop trials before their end; 24"
        assert (warning in cost.describe(plan(maxTrialDuration=limit), H200)) == warned


def command(name: str, file: Path, **options) -> None:
    given = {"file": file, "keep": 1, "unmeasured": False, "any_judge": True, "long": False, "mps": False,
             "port": 0, "open": False}
    getattr(commands, name)(Namespace(**vars(NO_OVERRIDES) | given | options))


@pytest.mark.parametrize("name", ["check", "run"])
def test_a_search_of_more_than_a_day_needs_an_option(plan, monkeypatch, capsys, name):
    monkeypatch.setattr(search, "start", lambda *_: pytest.fail("it started"))
    monkeypatch.setattr(cost, "measure", lambda plan: replace(H200, step=2))
    made = plan()
    with pytest.raises(UserError, match="^about 3.3 days, more than a day: add --long, or lower maxTrial"):
        command(name, made.file)
    printed = capsys.readouterr().out
    assert "24 trials of trials.cyclegan" in printed and "at most about 3.3 days" in printed
    command("check", made.file, long=True)
    monkeypatch.setattr(cost, "measure", lambda plan: pytest.fail("it measured"))
    command("check", made.file, unmeasured=True)


def test_trials_on_other_machines_are_not_measured_here(plan, monkeypatch, capsys):
    made = plan()
    monkeypatch.setattr(search, "is_remote", lambda config: True)
    monkeypatch.setattr(cost, "measure", lambda plan: pytest.fail("it measured"))
    command("check", made.file)
    assert "time: not known, trials on other machines are not measured" in capsys.readouterr().out
