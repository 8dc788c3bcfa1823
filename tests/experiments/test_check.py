"""`experiments check` finds what NNI says late, or not at all."""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from experiments import check as checks
from experiments.__main__ import summary
from experiments.check import check
from experiments.nni_adapter import remote
from judge.common.device import available_cores
from judge.common.errors import UserError
from judge.images import find_dataset

ROOT = Path(__file__).parents[2]
EIGHT = {"n_startup_jobs": "8"}
SHIPPED = sorted(file.name for file in (ROOT / "experiments").glob("*.yml"))


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as error:
        check(file)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_shipped_search_is_in_order(experiment):
    plan = check(experiment(options="--budget 0.2"))
    assert plan.settings.report_count() == 10
    assert plan.config.trial_concurrency * plan.machine.threads <= max(2, available_cores())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_read_well_and_their_spaces_fit(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").touch()
    config = checks.load(ROOT / "experiments" / name)
    module = checks.module_of(config.trial_command)
    for parameter, spec in config.search_space.items():
        checks.check_form(parameter, spec)
        checks.check_default(parameter, spec, getattr(module.Settings(), parameter))


def test_two_first_experiments_in_a_new_environment_do_not_read_half_of_nni_s_lists(
    experiment, tmp_path, monkeypatch,
):
    """Which NNI writes at their first use, not atomically: two quickstarts at once met it."""
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "new"))
    monkeypatch.setattr("nni.runtime.config.shutil.copyfile", lambda *_: pytest.fail("NNI writes"))
    check(experiment(options="--budget 0.2"))
    written = {file.name: file.read_text() for file in (tmp_path / "new").iterdir()}
    assert set(written) == {"registered_algorithms.yml", "training_services.json"} and all(written.values())


def test_a_missing_file_is_named(tmp_path):
    assert "no experiment file" in refusal(tmp_path / "none.yml")


@pytest.mark.parametrize("content", ["", "just text", "a: [1", "trialConcurrencey: 2"])
def test_what_nni_cannot_read_is_named_with_the_file(tmp_path, content):
    (tmp_path / "bad.yml").write_text(content)
    assert "bad.yml" in refusal(tmp_path / "bad.yml")


@pytest.mark.parametrize(
    "space, said",
    [
        ({"identiy_weight": {"_type": "uniform", "_value": [1, 9]}}, "identiy_weight is no setting"),
        ({"cycle_weight": {"_type": "unifrom", "_value": [1, 20]}}, "'unifrom'"),
        ({"cycle_weight": {"_type": "uniform", "_value": [1]}}, "takes 2 numbers"),
        ({"cycle_weight": {"_type": "uniform", "_value": [20, 1]}}, "lower end"),
        ({"cycle_weight": {"_type": "uniform", "_value": ["1", "20"]}}, "takes 2 numbers"),
        ({"cycle_weight": {"_type": "uniform", "_value": 20}}, "_value is a list"),
        ({"cycle_weight": {"_type": "loguniform", "_value": [0, 20]}}, "begins above 0"),
        ({"cycle_weight": {"_type": "uniform", "_value": [-5, 20]}}, "cycle_weight"),
        ({"cycle_weight": {"_value": [1, 20]}}, "needs _type and _value"),
        ({"cycle_weight": [1, 20]}, "needs _type and _value"),
        ({"cycle_weight": {"_type": "uniform", "_value": [11, 20]}}, "leaves out the published 10"),
        ({"cycle_weight": {"_type": "choice", "_value": [5, 20]}}, "leaves out the published 10"),
        ({"cycle_weight": {"_type": "choice", "_value": [10, "twenty"]}}, "cycle_weight"),
        ({"batch_size": {"_type": "uniform", "_value": [1, 4.5]}}, "batch_size"),
        ({"batch_size": {"_type": "randint", "_value": [0, 5]}}, "batch_size"),
        ({"ngf": {"_type": "choice", "_value": [16, 32]}}, "goes with --size"),
        ({}, "search space"),
    ],
)
def test_a_wrong_search_space_is_named(experiment, space, said):
    assert said in refusal(experiment(space))


def test_good_spaces_of_every_kind_pass(experiment):
    check(experiment({
        "cycle_weight": {"_type": "quniform", "_value": [5, 15, 5]},
        "batch_size": {"_type": "randint", "_value": [1, 5]},
        "pool_size": {"_type": "choice", "_value": [0, 50]},
        "generator_lr": {"_type": "qloguniform", "_value": [1e-4, 1e-3, 1e-4]},
    }))  # fmt: skip


def test_an_assessor_that_stops_before_the_first_report_is_refused(experiment):
    assert "before their first report" in refusal(experiment(assessor={"classArgs": {"start_step": 0}}))


def test_an_assessor_that_comes_too_late_is_refused(experiment):
    assert "never acts" in refusal(
        experiment(options="--budget 0.2", assessor={"classArgs": {"start_step": 10}}))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"optimize_mode": "minimize", "reference": "trials.cyclegan"}, "maximized"),
        ({"reference": "trials.cyclegan", "sead": 1}, "sead"),
        ({"reference": "trials.dcgan"}, "not the trial"),
        ({"reference": "trials.cyclegan", "tpe_args": {"n_startup_jobs": 24}}, "random search"),
        ({"reference": "trials.cyclegan"}, None),
    ],
)
def test_a_wrong_tuner_is_named(experiment, arguments, said):
    file = experiment(tuner={"classArgs": arguments})
    assert said in refusal(file) if said else check(file)


def test_the_quickstart_is_a_sketch_on_a_gpu_too():
    config = checks.load(ROOT / "experiments/quickstart.yml")
    assert "--size sketch" in config.trial_command and "--size sketch" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"tuner": {"className": "Tpe"}}, "tuner Tpe"),
        ({"tuner": {"className": "experiments.tuner.Tpee"}}, "Tpee"),
        ({"tuner": {"classArgs": {"reference": "trials.cyclegan", "tpe_args": EIGHT}}}, "'8'"),
        ({"assessor": {"classArgs": {"start_step": "4"}}}, "'4' where a whole number belongs"),
        ({"assessor": {"classArgs": {"start_step": 4, "optimize_mode": "minimize"}}}, "maximized"),
        ({"assessor": {"name": "Medianstopp"}}, "assessor Medianstopp"),
        ({"assessor": {"classArgs": {"start_stepp": 4, "start_step": 4}}}, "start_stepp"),
        ({"options": "--threads -1"}, "threads"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line(experiment, changes, said):
    assert said in refusal(experiment(**changes))


def test_a_search_limited_by_time_alone_passes(experiment):
    plan = check(experiment(options="--budget 0.2", maxTrialNumber=None, maxExperimentDuration="1h"))
    assert "unlimited" in summary(plan)


def test_too_few_test_images_are_refused_before_training(experiment, sample_data, tmp_path):
    shutil.copytree(sample_data, tmp_path / "mine")
    for file in sorted((tmp_path / "mine/testA").glob("*.png"))[3:]:
        file.unlink()
    assert "3 test images" in refusal(experiment(options=f"--data {tmp_path / 'mine'}"))


def test_more_threads_than_cores_are_refused(experiment):
    assert "cores" in refusal(experiment(trialConcurrency=available_cores() + 1))
    assert "cores" in refusal(experiment(options=f"--threads {available_cores()}"))


def test_a_search_that_says_nothing_of_threads_has_one_a_trial(experiment, monkeypatch):
    file = experiment(trialConcurrency=3)
    file.write_text(file.read_text().replace("--threads 1", ""))
    monkeypatch.setattr(checks, "available_cores", lambda: 3)
    check(file)
    monkeypatch.setattr(checks, "available_cores", lambda: 2)
    assert "trialConcurrency 3 x --threads 1 is more than 2 cores" in refusal(file)


def test_a_gpu_that_is_not_there_does_not_end_in_silence(experiment):
    import torch

    more = torch.cuda.device_count() + 1
    assert "NNI would wait for ever" in refusal(
        experiment(trialGpuNumber=more, trainingService={"useActiveGpu": True}))


@pytest.mark.parametrize(
    "command, said",
    [
        ("exec python -m trials.cyclegan", "without `exec`"),
        ("sh run.sh", "not of the form"),
        ("python -m trials.cyclegam", "no trial trials.cyclegam"),
        ("python -m trials.cyclegan --cycle-wait 3", "cycle-wait"),
        ("python -m trials.cyclegan --cycle-weight -3", "cycle-weight"),
        ("python -m trials.cyclegan --threads 1 --data /nowhere", "no data folder /nowhere"),
        ("python -m trials.cyclegan --threads 1 --data {data} --judge /nowhere.pt", "no judge at /nowhere"),
        ("python -m trials.cyclegan --threads 1 --data {data} --judge {judge} --size draft", "trained at"),
    ],
)
def test_a_wrong_trial_command_is_named(experiment, sample_data, judge_file, command, said):
    assert said in refusal(experiment(trialCommand=command.format(data=sample_data, judge=judge_file)))


def test_a_space_in_the_working_directory_is_refused(experiment, tmp_path):
    (tmp_path / "my runs").mkdir()
    file = experiment(experimentWorkingDirectory=str(tmp_path / "my runs"))
    assert "has a space in it" in refusal(file)


def test_every_default_is_written_once():
    """Parameters travel one way: no file but a trial's own gives a setting a value."""
    spaces = [json.loads(file.read_text()) for file in (ROOT / "search_spaces").glob("*.json")]
    own = {file.with_suffix(".py").name for file in (ROOT / "search_spaces").glob("*.json")}
    for file in ROOT.glob("*/*.py"):
        if file.parent.name in ("judge", "trials", "experiments") and file.name not in own:
            for name in set().union(*spaces):
                literal = rf"\b{name}(: [^=\n]+)? ?= ?([\d.\"']|True|False)"
                assert not re.search(literal, file.read_text()), (file, name)


def test_the_sample_is_named_a_stand_in(sample_data):
    assert "stand-in" in find_dataset(str(sample_data)).description


def test_a_list_of_settings_need_not_hold_the_published_one(experiment):
    """Only a search with a reference trial runs it."""
    settings = {"mine": {"cycle_weight": 20.0}, "yours": {"cycle_weight": 30.0}}
    space = {"cycle_weight": {"_type": "choice", "_value": [20.0, 30.0]}}
    file = experiment(space, options="--budget 0.2", assessor=None, maxTrialNumber=2)
    config = yaml.safe_load(file.read_text())
    config["tuner"] = {"className": "experiments.tuner.Listed", "codeDirectory": str(ROOT),
                       "classArgs": {"settings": settings, "seeds": [0]}}
    file.write_text(yaml.safe_dump(config))
    assert check(file).space == space


FOUND = {"nni": version("nni"), "gpus": 4, "cores": 8, "missing": []}


@pytest.fixture
def on_workers(experiment, tmp_path, monkeypatch):
    """Writes an experiment for two machines, and says what is found on them."""
    (tmp_path / "key").touch()

    def write(found: dict | None = None, machine: dict | None = None, service: dict | None = None,
              options: str = "", **changes) -> Path:
        one = {"host": "worker", "user": "salon", "sshKeyFile": str(tmp_path / "key")} | (machine or {})
        monkeypatch.setattr(remote.Worker, "probe", lambda self, python, paths: FOUND | (found or {}))
        listed = {"platform": "remote", "machineList": [one, one | {"host": "other"}]} | (service or {})
        return experiment(options=options, **{"trainingService": listed, "trialConcurrency": 2} | changes)

    return write


def test_a_search_on_workers_is_in_order_when_all_of_them_are_at_work(on_workers):
    assert len(remote.workers(check(on_workers()).config.json())) == 2
    check(on_workers(trialGpuNumber=1, trialConcurrency=8))
    check(on_workers(trialGpuNumber=2, trialConcurrency=4))


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"found": {"missing": ["/srv/judge.pt"]}}, "salon@worker has no /srv/judge.pt"),
        ({"found": {"nni": "3.0"}}, "has nni 3.0"),
        ({"found": {"gpus": 0}, "trialGpuNumber": 1}, "sees 0 GPUs on salon@worker"),
        ({"found": {"cores": 1}, "options": "--threads 4"}, "more than 2 cores salon@worker"),
        ({"trialConcurrency": 4}, "without trialGpuNumber one each: set it to 2"),
        ({"trialGpuNumber": 1}, "the machines run 8 at once: set it to 8"),
        ({"options": "--judge models/judge.pt"}, "models/judge.pt is not there"),
        ({"options": "--data monet2photo"}, "monet2photo is not there"),
        ({"machine": {"password": "secret"}}, "without a passphrase"),
        ({"machine": {"gpuIndices": [1]}}, "does not heed gpuIndices"),
        ({"service": {"reuseMode": False}}, "reuseMode"),
    ],
)
def test_what_is_wrong_on_workers_is_named(on_workers, wrong, said):
    assert said in refusal(on_workers(**wrong))


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh here")
def test_a_placeholder_for_a_worker_is_named(experiment, tmp_path):
    (tmp_path / "key").touch()
    machine = {"host": "worker-1.invalid", "user": "salon", "sshKeyFile": str(tmp_path / "key")}
    service = {"platform": "remote", "machineList": [machine]}
    assert "salon@worker-1.invalid: ssh: " in refusal(experiment(trainingService=service, trialConcurrency=1))
