"""`experiments check` finds mistakes that NNI reports late, or not at all."""

import math
import os
import shutil
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from experiments import __main__ as commands
from experiments import check as checks
from experiments import disk, search
from experiments.check import check, refuse
from experiments.nni_adapter import remote
from experiments.overrides import NO_OVERRIDES
from experiments.search import describe
from experiments.trial_command import parse
from judge import evaluation, sample
from judge.common.cli import Namespace
from judge.common.errors import UserError
from tests.experiments.helpers import TINY

ROOT = Path(__file__).parents[2]
REFERENCE = {"reference": "trials.cyclegan"}


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as error:
        check(file)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def no_cache(monkeypatch):
    """Leave what decoding adds to the cache out of account."""
    monkeypatch.setattr(disk, "cache_needed", lambda settings: 0)


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that makes torch see so many GPUs."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)

    return see


def test_the_shipped_search_passes_also_if_it_is_limited_by_time_alone(experiment, no_cache):
    assert "24 trials of trials.cyclegan, 2 at once" in describe(check(experiment()))
    plan = check(experiment(maxTrialNumber=None, maxExperimentDuration="1h"))
    assert "unlimited trials" in describe(plan)


def judged(monkeypatch, experiment, aucs: float, **options) -> str | None:
    """What is said of a judge with such probabilities of paintings; each call has other images."""
    for file in (Path(parse(check(experiment()).config.trial_command)[1].data) / "testB").iterdir():
        os.utime(file)
    at = np.random.default_rng(0).random(8)

    def probabilities(judge, pixels):
        assert len(pixels) == 16
        right = round(8 * aucs)  # so many paintings are above all photographs, the others below
        return np.concatenate([0.3 + 0.1 * at, np.where(np.arange(8) < right, 0.5, 0.1)])

    monkeypatch.setattr(evaluation, "painting_probabilities", probabilities)
    return checks.judge_on_data(check(experiment()).settings, **options)


def test_a_judge_is_asked_about_the_data_at_hand(experiment, monkeypatch):
    assert judged(monkeypatch, experiment, 1.0) is None
    assert "with an AUC of 0.75 (0.5: chance, 0.9: good)" in judged(monkeypatch, experiment, 0.75)
    with pytest.raises(UserError, match="AUC of 0.50 .* or add --any-judge"):
        judged(monkeypatch, experiment, 0.5)
    assert judged(monkeypatch, experiment, 0.5, any_judge=True).startswith("warning: ")


def test_a_judge_is_asked_once_and_only_a_few_images_of_a_large_set(experiment, monkeypatch):
    settings, asked = check(experiment()).settings, []
    monkeypatch.setattr(checks, "MAX_JUDGED_IMAGES", 3)
    monkeypatch.setattr(evaluation, "painting_probabilities",
                        lambda judge, x: asked.append(len(x)) or np.linspace(0, 1, len(x)))
    assert [checks.judge_on_data(settings) for _ in range(3)] == 3 * [None]
    assert asked == [6]  # every third of eight images of each domain


def test_only_judges_of_two_domains_are_asked(experiment, sample_data):
    assert checks.judge_on_data(check(experiment(system="gan")).settings) is None
    settings = check(experiment(system="dcgan")).settings
    assert checks.judge_on_data(replace(settings, data=str(sample_data / "trainA"))) is None


def test_shipped_files_can_be_read_and_their_spaces_contain_the_published_values(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").touch()
    for file in (ROOT / "experiments").glob("*.yml"):
        config = checks.load(file)
        assert file.name != "quickstart.yml" or "--size sketch" in config.trial_command  # on a GPU too
        assert config.tuner.class_args["reference"] in config.trial_command
        module, settings, _ = parse(config.trial_command)
        checks.check_space(config, module, settings)
        checks.check_tuner(config, module)


def test_the_first_two_experiments_in_a_new_environment_do_not_read_half_of_nnis_lists(
    experiment, tmp_path, monkeypatch,
):
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "new"))
    monkeypatch.setattr("nni.runtime.config.shutil.copyfile", lambda *_: pytest.fail("NNI writes"))
    checks.load(experiment())
    written = {file.name: file.read_text() for file in (tmp_path / "new").iterdir()}
    assert set(written) == {"registered_algorithms.yml", "training_services.json"} and all(written.values())


def test_a_file_that_is_missing_or_that_nni_cannot_read_is_named(tmp_path):
    assert "no experiment file" in refusal(tmp_path / "bad.yml")
    for content in ("", "just text", "a: [1", "trialConcurrencey: 2"):
        (tmp_path / "bad.yml").write_text(content)
        assert "bad.yml" in refusal(tmp_path / "bad.yml")


@pytest.mark.parametrize("space, said", [
    ({"identiy_weight": {"_type": "uniform", "_value": [1, 9]}}, "identiy_weight is not a setting"),
    ({"cycle_weight": {"_type": "unifrom", "_value": [1, 20]}}, "'unifrom'"),
    ({"cycle_weight": {"_type": "uniform", "_value": [1]}}, "must have 2 values"),
    ({"cycle_weight": {"_type": "uniform", "_value": [20, 1]}}, "must have high > low"),
    ({"cycle_weight": {"_type": "uniform", "_value": ["1", "20"]}}, "must have float values"),
    ({"cycle_weight": {"_type": "uniform", "_value": 20}}, "is not a list"),
    ({"cycle_weight": {"_type": "loguniform", "_value": [0, 20]}}, "must have low > 0"),
    ({"cycle_weight": {"_type": "uniform", "_value": [-5, 20]}}, "cycle_weight"),
    ({"cycle_weight": {"_value": [1, 20]}}, 'does not have "_type" or "_value"'),
    ({"cycle_weight": {"_type": "uniform", "_value": [11, 20]}}, "does not contain the published"),
    ({"cycle_weight": {"_type": "choice", "_value": [5, 20]}}, "does not contain the published"),
    ({"cycle_weight": {"_type": "choice", "_value": [10, "twenty"]}}, "cycle_weight"),
    ({"batch_size": {"_type": "uniform", "_value": [1, 4.5]}}, "batch_size"),
    ({"batch_size": {"_type": "randint", "_value": [0, 5]}}, "batch_size"),
    ({"ngf": {"_type": "choice", "_value": [16, 32]}}, "depends on --size"),
    ({"cycle_weight": [1, 20]}, "is a list, expect a dict"),
    ({"cycle_weight": {"_type": ["uniform"], "_value": [1, 20]}}, "unsupported type"),
    ({"cycle_weight": {"_type": "uniform", "_value": [1, math.inf]}}, "cycle_weight is inf"),
    ({"cycle_weight": {"_type": "uniform", "_value": [math.nan, 20]}}, "cycle_weight is nan"),
    ({"batch_size": {"_type": "uniform", "_value": [1, 4]}}, "1.0, expected a whole number from 1"),
    ({"batch_size": {"_type": "quniform", "_value": [1, 8, 1]}}, "1.0, expected a whole number from 1"),
    ({"batch_size": {"_type": "qlognormal", "_value": [1, 0.1, 1]}}, "expected a whole number from 1"),
    ({"batch_size": {"_type": "randint", "_value": [1.5, 5]}}, "must have int values"),
    ({"cycle_weight": {"_type": "normal", "_value": [10, 3]}}, "cycle_weight is -2.0"),
    ({"cycle_weight": {"_type": "normal", "_value": [10, -1]}}, "must have sigma > 0"),
    ({"cycle_weight": {"_type": "lognormal", "_value": [2000, 1]}}, "NNI cannot draw from lognormal"),
    ({"cycle_weight": {"_type": "quniform", "_value": [5, 20, 0]}}, "float division by zero"),
    ({"cycle_weight": {"_type": "choice", "_value": []}}, "NNI cannot draw from choice []"),
    ({"cycle_weight": {"_type": "choice", "_value": [10, None]}}, "numbers or strings"),
    ({"upsampling": {"_type": "choice", "_value": [{"_name": "resize"}]}}, "expected one of"),
    ({"beta1": {"_type": "uniform", "_value": [0, 1]}}, "beta1 is 1.0, expected a number from 0, below 1"),
    ({"seed": {"_type": "randint", "_value": [0, 10**9]}}, "give at most 1,000,000"),  # TPE would take 8 GB
    ({}, "search space"),
])
def test_a_wrong_search_space_is_named(experiment, space, said):
    assert said in refusal(experiment(space))


def test_good_spaces_of_every_kind_pass(experiment):
    check(experiment({
        "cycle_weight": {"_type": "quniform", "_value": [5, 15, 5]},
        "batch_size": {"_type": "randint", "_value": [1, 5]},
        "pool_size": {"_type": "choice", "_value": [0, 50]},
        "generator_lr": {"_type": "qloguniform", "_value": [1e-4, 1e-3, 1e-4]},
        "identity_weight": {"_type": "lognormal", "_value": [1.6, 0.5]},
        "adversarial_weight": {"_type": "normal", "_value": [1, 0.1]},
    }))  # fmt: skip


def test_settings_that_do_not_go_together_are_refused_though_each_is_good(experiment):
    space = {name: {"_type": "choice", "_value": [2, 4]} for name in ("steps", "epochs")}
    listed = {"className": "experiments.tuner.Listed", "classArgs": {"settings": {}, "seeds": [0]}}
    file = experiment(space, tuner=listed, assessor=None)
    assert "--steps and --epochs both set the length of the schedule" in refusal(file)


@pytest.mark.parametrize("trials, ends", [(6, True), (2, False), (None, True)])
def test_a_space_with_fewer_settings_than_trials_is_pointed_out(experiment, trials, ends):
    two = {"upsampling": {"_type": "choice", "_value": ["transposed", "resize"]}}
    file = experiment(two, maxTrialNumber=trials)
    said = "the search space has only 2 different settings: the search ends when all are tried"
    assert (said in check(file).notes) == ends


@pytest.mark.parametrize("changes, said", [
    ({"tuner": {"classArgs": REFERENCE | {"optimize_mode": "minimize"}}}, "maximized"),
    ({"tuner": {"classArgs": REFERENCE | {"sead": 1}}}, "sead"),
    ({"tuner": {"classArgs": {"reference": "trials.dcgan"}}}, "not the trial"),
    ({"tuner": {"className": "Tpe"}}, "tuner Tpe"),
    ({"tuner": {"className": "experiments.tuner.Tpee"}}, "Tpee"),
    ({"tuner": {"classArgs": REFERENCE | {"tpe_args": {"n_startup_jobs": "8"}}}}, "'8'"),
    ({"assessor": {"classArgs": {"start_step": 0}}}, "before their first report"),
    ({"assessor": {"classArgs": {"start_step": "4"}}}, "'4', but must be a whole number"),
    ({"assessor": {"classArgs": {"start_step": 4, "optimize_mode": "minimize"}}}, "maximized"),
    ({"assessor": {"name": "Medianstopp"}}, "assessor Medianstopp"),
    ({"assessor": {"classArgs": {"start_stepp": 4, "start_step": 4}}}, "start_stepp"),
])
def test_a_wrong_tuner_or_assessor_is_named(experiment, changes, said):
    assert said in refusal(experiment(**changes))


def test_what_only_wastes_is_noted_and_not_refused(experiment, no_cache):
    random = {"classArgs": REFERENCE | {"optimize_mode": "maximize", "tpe_args": {"n_startup_jobs": 24}}}
    said = describe(check(experiment(tuner=random)))
    assert "note: all 24 trials are drawn at random: TPE begins after n_startup_jobs 24" in said
    late = {"classArgs": {"start_step": 10, "optimize_mode": "maximize"}}
    said = describe(check(experiment(options="--reports 10", assessor=late)))
    assert "note: the assessor stops no trial: start_step is 10, and a trial makes 10 reports" in said


CHOICE = {"pool_size": {"_type": "choice", "_value": [0, 50]}}
WHOLE = {"batch_size": {"_type": "randint", "_value": [1, 5]}}
WEIGHT = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}


@pytest.mark.parametrize("space, tpe_args, fails", [
    (CHOICE, {"n_startup_jobs": 1}, True),
    (WHOLE | WEIGHT, {"n_startup_jobs": 1}, True),
    (CHOICE, {"n_startup_jobs": 2, "gamma": 1.0}, True),
    (CHOICE | WEIGHT, {"n_startup_jobs": 2}, False),
    (WEIGHT, {"n_startup_jobs": 1}, False),
])
def test_a_tpe_that_would_die_at_a_choice_is_refused_and_no_other(experiment, space, tpe_args, fails):
    file = experiment(space, tuner={"classArgs": REFERENCE | {"optimize_mode": "maximize", "seed": 0,
                                                              "tpe_args": tpe_args}})
    if fails:
        assert "NNI's TPE fails at a choice or randint" in refusal(file)
    else:
        check(file)


def test_more_threads_than_cores_are_refused_and_a_trial_has_one_by_default(experiment, monkeypatch):
    file = experiment(trialConcurrency=3)
    file.write_text(file.read_text().replace("--threads 1", ""))
    monkeypatch.setattr(checks, "available_cores", lambda: 3)
    check(file)
    monkeypatch.setattr(checks, "available_cores", lambda: 2)
    assert "trialConcurrency 3 x --threads 1 is more than 2 cores" in refusal(file)


@pytest.mark.parametrize("options, said", [
    ("--cycle-weight -3", "cycle-weight"),
    ("--data /nowhere", "no data folder /nowhere"),
    ("--judge /nowhere.pt", "no judge at /nowhere"),
    ("--score mine.json", "trialCommand: --score mine.json: neither style-and-scene nor combined nor plain"),
    ("--size draft", "trained at"),
    ("--data {tmp_path}/mine", "3 test images"),
])
def test_a_wrong_trial_command_or_data_set_is_named(experiment, sample_data, tmp_path, options, said):
    shutil.copytree(sample_data, tmp_path / "mine")
    for file in sorted((tmp_path / "mine/testA").glob("*.png"))[3:]:
        file.unlink()
    assert said in refusal(experiment(options=options.format(tmp_path=tmp_path)))


def test_gpus_that_do_not_exist_and_folders_with_a_space_are_refused(experiment, tmp_path):
    file = experiment(trialGpuNumber=1, trainingService={"useActiveGpu": True})
    assert "NNI would wait forever" in refusal(file)
    (tmp_path / "my runs").mkdir()
    file = experiment(experimentWorkingDirectory=str(tmp_path / "my runs"))
    assert refusal(file).startswith("experimentWorkingDirectory ") and "a path with ' '" in refusal(file)


@pytest.mark.parametrize("changes, said", [
    ({"maxTrialNumber": 0}, "this must hold: max_trial_number is None or max_trial_number > 0"),
    ({"trialConcurrency": 0}, "this must hold: trial_concurrency > 0"),
    ({"trialConcurrency": -1}, "this must hold: trial_concurrency > 0"),
    ({"maxExperimentDuration": "0s"}, "max_experiment_duration"),
    ({"maxTrialDuration": "0m"}, "max_trial_duration"),
    ({"logLevel": "loud"}, "this must hold: log_level in ['fatal'"),
    ({"maxExperimentDuration": "2 fortnight"}, "Bad unit"),
    ({"maxTrialNumber": 2.5}, "max_trial_number (2.5) is not"),
])
def test_a_number_that_nni_cannot_have_is_named(experiment, changes, said):
    assert said in refusal(experiment(**changes))


@pytest.mark.parametrize("service", [[{"platform": "local"}], {"platform": "adl"}, {"platform": "nowhere"}])
def test_where_trials_cannot_run_is_refused(experiment, service):
    file = experiment()
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"trainingService": service}))
    assert "trainingService" in refusal(file) or "training_service" in refusal(file)


def test_a_program_that_is_not_there_is_named(experiment):
    file = experiment()
    content = yaml.safe_load(file.read_text())
    content["trialCommand"] = content["trialCommand"].replace("python", "pyhton")
    file.write_text(yaml.safe_dump(content))
    assert refusal(file) == "trialCommand: there is no program pyhton"


def test_what_nni_runs_is_what_was_read(experiment):
    """A second line, which the shell would take as a command of its own, is part of the command."""
    file = experiment()
    content = yaml.safe_load(file.read_text())
    content["trialCommand"] = content["trialCommand"].replace(" --judge", "\n  --judge") + "\n"
    file.write_text(yaml.safe_dump(content))
    config = check(file).config
    assert "\n" not in config.trial_command and config.training_service.trial_command == config.trial_command
    content["trialCommand"] += "--identity-weight $(echo 5)"
    file.write_text(yaml.safe_dump(content))
    assert "$(echo" in refusal(file)


def test_names_are_looked_for_where_trials_will_look(
    experiment, sample_data, judge_file, tmp_path, monkeypatch,
):
    """From any folder; nothing is written there, nor is there anything if the search is refused."""
    code, here = tmp_path / "code", tmp_path / "here"
    (code / "models").mkdir(parents=True)
    (code / "data").mkdir()
    here.mkdir()
    shutil.copy(judge_file, code / "models/judge.pt")
    (code / "data/mine").symlink_to(sample_data)
    monkeypatch.chdir(here)
    file = experiment(trialCodeDirectory=str(code))
    for data, judge in (("mine", "models/judge.pt"), ("mine", "nowhere.pt"), ("sample", "nowhere.pt")):
        content = yaml.safe_load(file.read_text())
        content["trialCommand"] = f"python -m trials.cyclegan --data {data} --judge {judge} --size sketch"
        file.write_text(yaml.safe_dump(content))
        if judge == "nowhere.pt":
            assert "no judge at nowhere.pt" in refusal(file)
        else:
            assert check(file).settings.data == "mine"
        assert Path.cwd() == here and not list(here.iterdir()) and not (code / "data/sample").exists()


@pytest.mark.slow
def test_what_is_checked_or_refused_makes_no_data_and_a_search_that_starts_finds_it_made(
    experiment, judge_file, tmp_path, monkeypatch, capsys,
):
    """Not even by the trial that is measured."""
    make, code = sample.make, tmp_path / "code"
    code.mkdir()
    monkeypatch.setattr(sample, "make", lambda folder: make(folder, train=12, test=8, pixels=72))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    file = experiment(options=f"--data sample {TINY} --steps 4 --reports 2", trialCodeDirectory=str(code))
    before = sorted(tmp_path.rglob("*"))
    options = {"file": file, "keep": 1, "unmeasured": False, "any_judge": True, "long": False, "mps": False,
               "port": 0, "open": False}
    commands.check(Namespace(**vars(NO_OVERRIDES) | options))
    assert "data: sample (built-in stand-in" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr(search, "measure", lambda *_: refuse(True, "too long"))
    with pytest.raises(UserError, match="too long"):
        search.run(file)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr(search, "measure", lambda *_: None)
    monkeypatch.setattr(search, "run_nni", lambda *_: sorted(Path("data/sample").iterdir()))
    assert len(search.run(file)) == 6
    made = {path for path in tmp_path.rglob("*") if "data/sample" not in str(path)}
    assert made == {*before, code / "data"}


ONE_GPU = {"trialGpuNumber": 1, "trainingService": {"useActiveGpu": True}}
SHARED = {"trialGpuNumber": 1, "trainingService": {"useActiveGpu": True, "maxTrialNumberPerGpu": 4}}


@pytest.mark.parametrize("changes, used, said", [
    ({}, 1, "device: 1 GPU, 2 trials share one"),
    (ONE_GPU, 2, "device: 2 GPUs"),
    (SHARED, 1, "device: 1 GPU, 2 trials share one"),  # NNI fills one before it takes the next
    (SHARED | {"trialConcurrency": 16}, 4, "device: 4 GPUs, 4 trials share one"),
    ({"options": "--device cpu"}, 0, "device: cpu, --threads 1 a trial"),
])
def test_the_device_of_the_trials_is_said(experiment, gpus, no_cache, changes, used, said):
    gpus(4)
    plan = check(experiment(**changes))
    assert plan.gpus == used and said in describe(plan).splitlines()[2]


def test_gpus_that_would_idle_are_pointed_out_and_a_trial_cannot_have_two(experiment, gpus, no_cache):
    gpus(2)
    note = "note: all trials share GPU 0 of 2: to use all, set trialGpuNumber: 1 as in"
    assert note in describe(check(experiment()))
    assert "note" not in describe(check(experiment(**ONE_GPU)))
    assert "note" not in describe(check(experiment(options="--device cpu")))
    assert "a trial uses one GPU: set it to 1" in refusal(experiment(**ONE_GPU | {"trialGpuNumber": 2}))
    assert "2 GPUs run 2 trials at once" in refusal(experiment(**ONE_GPU | {"trialConcurrency": 3}))
    assert "hides the GPU from trials" in refusal(experiment(trialGpuNumber=0))
    gpus(1)  # as with CUDA_VISIBLE_DEVICES=0
    assert "note" not in describe(check(experiment()))


def test_trials_on_gpus_may_have_more_threads_than_there_are_cores(experiment, gpus, monkeypatch, no_cache):
    """They wait for the GPU, not for a core."""
    monkeypatch.setattr(checks, "available_cores", lambda: 4)
    gpus(8)
    said = describe(check(experiment(**ONE_GPU | {"trialConcurrency": 8})))
    assert "note: trialConcurrency 8 x --threads 1 is more than 4 cores here: allowed" in said
    assert "more than 4 cores here: all trials would" in refusal(
        experiment(trialConcurrency=8, options="--device cpu"))


def test_a_list_of_settings_need_not_hold_the_published_one(experiment):
    """Only a search with a reference trial runs it."""
    settings = {"mine": {"cycle_weight": 20.0}, "yours": {"cycle_weight": 30.0}}
    check(experiment(
        {"cycle_weight": {"_type": "choice", "_value": [20.0, 30.0]}}, options="--budget 0.2", assessor=None,
        tuner={"className": "experiments.tuner.Listed", "classArgs": {"settings": settings, "seeds": [0]}}))


PROBE = {"nni": version("nni"), "gpus": 4, "cores": 8, "missing": []}


@pytest.fixture
def on_workers(experiment, tmp_path, monkeypatch):
    """Return a function that writes an experiment for two machines, and sets what a probe of them returns."""
    (tmp_path / "key").touch()

    def write(probe=(), machine=(), service=(), options: str = "", **changes) -> Path:
        one = {"host": "worker", "user": "salon", "sshKeyFile": str(tmp_path / "key"), **dict(machine)}
        monkeypatch.setattr(remote.Worker, "probe", lambda self, python, paths: PROBE | dict(probe))
        listed = {"platform": "remote", "machineList": [one, one | {"host": "other"}], **dict(service)}
        return experiment(options=options, **{"trainingService": listed, "trialConcurrency": 2} | changes)

    return write


def test_a_search_that_uses_all_workers_passes(on_workers):
    assert len(remote.workers(check(on_workers()).config.json())) == 2
    check(on_workers(trialGpuNumber=1, trialConcurrency=8))
    plan = check(on_workers(trialGpuNumber=1, trialConcurrency=8, probe={"cores": 3}))
    assert plan.gpus == 0 and "trialConcurrency 4 x --threads 1 is more than 3 cores" in plan.notes[0]


@pytest.mark.parametrize("wrong, said", [
    ({"probe": {"missing": ["/srv/judge.pt"]}}, "salon@worker has no /srv/judge.pt"),
    ({"probe": {"nni": "3.0"}}, "has nni 3.0"),
    ({"probe": {"gpus": 0}, "trialGpuNumber": 1}, "sees 0 GPUs on salon@worker"),
    ({"probe": {"cores": 1, "gpus": 0}, "options": "--threads 4"}, "more than 2 cores on salon@worker"),
    ({"trialGpuNumber": 2}, "a trial uses one GPU"),
    ({"trialConcurrency": 4}, "one on each machine without trialGpuNumber: set it to 2"),
    ({"trialGpuNumber": 1}, "the machines run 8 at once: set it to 8"),
    ({"options": "--judge models/judge.pt"}, "models/judge.pt is not found on other"),
    ({"options": "--data monet2photo"}, "monet2photo is not found on other"),
    ({"machine": {"password": "secret"}}, "without a passphrase"),
    ({"machine": {"gpuIndices": [1]}}, "ignores gpuIndices"),
    ({"service": {"reuseMode": False}}, "reuseMode"),
])
def test_a_mistake_about_workers_is_named(on_workers, wrong, said):
    assert said in refusal(on_workers(**wrong))


def test_workers_need_the_file_of_the_score_at_an_absolute_path(on_workers, tmp_path):
    (tmp_path / "mine.json").write_text('{"format": "salon score 1", "weights": {"style": 1}}')
    file = on_workers(options="--score mine.json", trialCodeDirectory=str(tmp_path))
    assert "mine.json is not found on other" in refusal(file)
    for score in ("plain", tmp_path / "mine.json"):
        check(on_workers(options=f"--score {score}"))


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh here")
def test_a_worker_that_cannot_be_reached_is_named(experiment, tmp_path):
    (tmp_path / "key").touch()
    machine = {"host": "worker-1.invalid", "user": "salon", "sshKeyFile": str(tmp_path / "key")}
    service = {"platform": "remote", "machineList": [machine]}
    assert "salon@worker-1.invalid: ssh: " in refusal(experiment(trainingService=service, trialConcurrency=1))
