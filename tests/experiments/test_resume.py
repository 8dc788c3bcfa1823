"""An interrupted search, and the one that resumes it."""

import json
from dataclasses import replace

import pytest
import torch
import yaml

from experiments import __main__ as commands
from experiments import resume, search
from experiments.nni_adapter import database
from experiments.nni_adapter.manager import free_port, is_running
from experiments.report import results
from experiments.tuner import Tpe
from judge.common.cli import Namespace, Parser
from judge.common.errors import UserError
from judge.common.files import FileLock
from trials.cyclegan import Settings

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
SPACE = {name: {"_type": "loguniform", "_value": [0.5, 40]} for name in PUBLISHED}


def proposal(cycle_weight: float) -> dict:
    return PUBLISHED | {"cycle_weight": cycle_weight}


def config(tmp_path, **changes) -> dict:
    arguments = {"reference": "trials.cyclegan", "optimize_mode": "maximize", "seed": 0}
    return {
        "experimentName": "A search | sample", "experimentWorkingDirectory": str(tmp_path),
        "trialCommand": "python -m trials.cyclegan --budget 0.2 --threads 1", "maxTrialNumber": 8,
        "trialCodeDirectory": "/code", "trialConcurrency": 2, "searchSpace": SPACE,
        "tuner": {"className": resume.TUNER, "codeDirectory": "/code", "classArgs": arguments},
        "assessor": {"name": "Medianstop"}, "trainingService": {"platform": "local"},
    } | changes  # fmt: skip


@pytest.fixture
def broken(recorded, tmp_path) -> database.Experiment:
    """Two trials are settled, one failed, one was cut off by a stop and one by the end of everything."""
    return database.find_experiment(str(recorded("broken", config(tmp_path), [
        ("aaaaa", PUBLISHED, "SUCCEEDED", [0.3, 0.4], 0.4),
        ("bbbbb", proposal(20.0), "EARLY_STOPPED", [0.1], None),
        ("ccccc", proposal(21.0), "USER_CANCELED", [0.2], None),
        ("ddddd", proposal(22.0), "FAILED", [], None),
        ("eeeee", proposal(23.0), None, [0.6], None),
    ])))  # fmt: skip


def test_what_is_left_is_the_same_search_with_fewer_trials_and_the_name_in_its_file(broken, tmp_path):
    (broken.folder / search.FILE_NAME).write_text("maxTrialNumber: 8")
    assert "experimentName" not in yaml.safe_load(resume.write(broken, folder=tmp_path).read_text())
    (broken.folder / search.FILE_NAME).write_text("experimentName: A | search  # as the user wrote it")
    left = yaml.safe_load(resume.write(broken, folder=tmp_path).read_text())
    assert left["maxTrialNumber"] == 8 - 2 and left["experimentName"] == "A | search"
    for key in ("assessor", "searchSpace", "trialConcurrency", "trialCodeDirectory"):
        assert left[key] == broken.config[key]
    assert left["trialCommand"] == (  # with the folder where checkpoints are looked for
        f"python -m trials.cyclegan --budget 0.2 --threads 1 --earlier {tmp_path}")
    assert left["tuner"]["classArgs"]["resumes"] == str(broken.folder)


@pytest.mark.parametrize("changes, options", [
    ({}, ""), ({"ngf": 15, "pool_size": None, "reports": 49}, "--ngf 15 --pool-size 7 ")])
def test_its_trials_have_the_settings_of_the_first_ones_whatever_would_be_filled_in_now(
    broken, monkeypatch, changes, options,
):
    monkeypatch.setattr(Settings, "OLDER", {"pool_size": 7}, raising=False)
    settings = Settings(data="photos", size="sketch", budget=0.2, cycle_weight=7.0)
    settings = vars(settings.complete(torch.device("cpu"))) | changes
    folder = broken.folder / "trials" / "aaaaa"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({
        "settings": {name: value for name, value in settings.items() if name != "pool_size" or value},
        "data": {"name": "photos", "stand_in": False}}))  # fmt: skip
    command = resume.config(broken)["trialCommand"].split(" --threads")[0]
    words = "python -m trials.cyclegan --data photos --size sketch --budget 0.2 " + options
    assert sorted(command.split()) == sorted(words.split())


def test_the_tuner_knows_the_results_and_proposes_the_unfinished_first(broken):
    tuner = Tpe("trials.cyclegan", resumes=str(broken.folder), seed=0)
    for _ in range(2):  # NNI may say it again
        tuner.update_search_space(SPACE)
    assert sorted(record.loss for record in tuner._history[("cycle_weight",)]) == [-0.4, -0.1]
    left = [proposal(21.0), proposal(22.0), proposal(23.0)]
    assert [tuner.generate_parameters(at) for at in range(3)] == left
    assert tuner.generate_parameters(3) not in [t.parameters for t in broken.trials()]


def test_a_resumed_random_start_does_not_draw_what_was_drawn_before(recorded, tmp_path):
    first = Tpe("trials.cyclegan", seed=0)
    first.update_search_space(SPACE)
    drawn = [first.generate_parameters(at) for at in range(4)]
    trials = [(f"t{at}", each, "SUCCEEDED", [0.1], 0.1) for at, each in enumerate(drawn)]
    rest = Tpe("trials.cyclegan", seed=0, resumes=str(recorded("start", config(tmp_path), trials)))
    rest.update_search_space(SPACE)
    assert not [each for each in map(rest.generate_parameters, range(4)) if each in drawn]


@pytest.mark.parametrize("record", [{}, {"settings": {"data": "mine", "budget": 0.2}}])
def test_repeating_a_trial_of_a_resumed_search_copies_no_earlier_run(recorded, tmp_path, record):
    command = "python -m trials.cyclegan --budget 0.2 --earlier /runs --out x"
    rest = database.find_experiment(str(recorded("rest", config(tmp_path, trialCommand=command), [
        ("fffff", proposal(21.0), "SUCCEEDED", [0.5], 0.5)])))
    (row,) = results.rows(rest)
    words = results.command(rest, replace(row, record=record)).split()
    assert not {"--earlier", "--out"} & set(words) and ("--like" in words) == bool(record)


def test_its_trials_come_after_those_that_were_settled(broken, recorded, tmp_path):
    left = config(tmp_path, maxTrialNumber=6)
    left["tuner"]["classArgs"]["resumes"] = str(broken.folder)
    rest = database.find_experiment(str(recorded("rest", left, [
        ("fffff", proposal(21.0), "SUCCEEDED", [0.5], 0.5), ("ggggg", proposal(23.0), None, [], None)])))
    trials = rest.trials()
    assert [(t.number, t.id) for t in trials] == [
        (0, "aaaaa"), (1, "bbbbb"), (5, "fffff"), (6, "ggggg")]
    assert rest.max_trials == 8
    line = search.progress(trials, rest.max_trials, 1).plain
    assert line.startswith("3 of 8 trials, best so far 0.5")

    again = yaml.safe_load(resume.write(rest, folder=tmp_path).read_text())  # interrupted once more
    assert again["maxTrialNumber"] == 8 - 3 and again["experimentName"] == "A search | sample"
    tuner = Tpe("trials.cyclegan", resumes=again["tuner"]["classArgs"]["resumes"])
    tuner.update_search_space(SPACE)
    assert tuner.generate_parameters(0) == proposal(23.0)
    assert sorted(record.loss for record in tuner._history[("cycle_weight",)]) == [-0.5, -0.4, -0.1]


@pytest.mark.parametrize(("changes", "line"), [
    ({"maxTrialNumber": 1}, "is complete: 1 trials; --trials 9 adds 8$"),
    ({"tuner": {"className": "experiments.tuner.Listed"}}, "repeat the `promote` command$"),
    ({"tuner": {"name": "TPE"}}, "is not by experiments.tuner.Tpe"),
    ({"tuner": {"className": resume.TUNER}}, "its configuration is not complete"),
])
def test_what_cannot_go_on_is_refused_in_one_line(recorded, tmp_path, changes, line):
    trials = [("a", PUBLISHED, "SUCCEEDED", [0.4], 0.4)]
    refused = database.find_experiment(str(recorded("whole", config(tmp_path, **changes), trials)))
    with pytest.raises(UserError, match=line) as caught:
        resume.write(refused, folder=tmp_path)
    assert "\n" not in str(caught.value) and not list(refused.folder.glob("*.yml"))


def test_a_search_is_extended_to_a_number_of_trials_in_all_and_refused_if_it_has_as_many(broken, tmp_path):
    assert yaml.safe_load(resume.write(broken, 40, folder=tmp_path).read_text())["maxTrialNumber"] == 40 - 2
    assert yaml.safe_load(resume.write(broken, 3, folder=tmp_path).read_text())["maxTrialNumber"] == 1
    for trials in (1, 2):
        with pytest.raises(UserError, match="is complete: 2 trials; --trials 10 adds 8$"):
            resume.write(broken, trials, folder=tmp_path)


def test_a_search_that_is_still_running_is_refused(broken, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "NNI_HOME", tmp_path)
    (tmp_path / ".experiment").write_text(json.dumps({"broken": {"port": free_port()}}))
    assert not is_running(broken)  # nothing listens at that port
    monkeypatch.setattr(resume, "is_running", lambda experiment: experiment is broken)
    with pytest.raises(UserError, match="^experiment broken is still running: nnictl stop broken ends it$"):
        resume.write(broken, folder=tmp_path)


def options_of(command: str, search: database.Experiment) -> Namespace:
    """The options of `python -m experiments COMMAND FOLDER --unmeasured`."""
    parser = Parser()
    commands.add_options(command, parser)
    return parser.parse_args([str(search.folder), "--unmeasured"])


@pytest.mark.parametrize("command", ["resume", "promote"])
def test_what_is_refused_after_its_experiment_was_written_leaves_no_file(recorded, tmp_path, command):
    """The judge is away."""
    old = config(tmp_path)
    old["trialCommand"] += " --judge nowhere.pt"
    folder = recorded("half", old, [("aaaaa", proposal(20.0), "SUCCEEDED", [0.4], 0.4)])
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError):
        getattr(commands, command)(options_of(command, database.find_experiment(str(folder))))
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command, doing", [("resume", "resuming"), ("promote", "promoting")])
def test_two_processes_do_not_train_the_same_trials(broken, monkeypatch, command, doing):
    monkeypatch.setattr(search, "run", lambda *_: pytest.fail("it went on"))
    options = options_of(command, broken)
    refused = pytest.raises(UserError, match=f"another process is {doing} experiment broken")
    with FileLock(broken.folder / f".{command}.lock", "first"), refused:
        getattr(commands, command)(options)
