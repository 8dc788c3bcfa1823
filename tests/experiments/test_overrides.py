"""Options of `check` and `run` that change an experiment, through the real check."""

import re

import pytest
import yaml

from experiments.check import check
from experiments.overrides import Overrides
from experiments.trial_command import parse
from judge.common.errors import UserError


def test_without_options_the_file_is_kept_byte_for_byte(experiment):
    file = experiment()
    file.write_bytes(b"# mine \xc3\xbc\r\n" + file.read_bytes())
    assert check(file).source == file.read_bytes()


def test_options_replace_what_the_file_says(experiment, sample_data, judge_file):
    file = experiment(options="--budget 0.5 --reports 7")
    plan = check(file, Overrides(trials=12, concurrency=1, budget=0.25, seed=5, score="plain",
                                 set=["ngf=8", "pool-size=3"]))
    assert (plan.config.max_trial_number, plan.config.trial_concurrency) == (12, 1)
    settings = plan.settings
    assert (settings.budget, settings.seed, settings.score, settings.ngf, settings.pool_size) == (
        0.25, 5, "plain", 8, 3)
    assert (settings.data, settings.reports) == (str(sample_data), 7)  # as the file says
    assert plan.config.tuner.class_args["seed"] == 5 and plan.run_options.threads == 1


def test_the_changed_file_says_where_it_comes_from_and_gives_the_same_search_from_elsewhere(
    experiment, tmp_path,
):
    file = experiment()
    content = yaml.safe_load(file.read_text())
    content |= {"experimentWorkingDirectory": "runs", "searchSpaceFile": "space.json"}
    (tmp_path / "space.json").write_text('{"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}')
    file.write_text(yaml.safe_dump(content))
    plan = check(file, Overrides(trials=12, budget=0.1, set=["threads=1"]))
    kept = tmp_path / "elsewhere" / "experiment.yml"
    kept.parent.mkdir()
    kept.write_bytes(plan.source)
    first = kept.read_text().splitlines()[0]
    assert first == f"# {file} with --trials=12 --budget=0.1 --set=threads=1"
    again = check(kept)
    assert again.config.json() == plan.config.json()
    # A line in it can be changed: it is there once.
    kept.write_text(kept.read_text().replace("--budget 0.1", "--budget 0.2"))
    assert check(kept).settings.budget == 0.2 and check(kept).config.training_service.trial_command == (
        check(kept).config.trial_command)


def test_a_searched_setting_that_is_given_is_fixed_and_the_kept_file_has_the_space(experiment, tmp_path):
    plan = check(experiment(), Overrides(set=["cycle_weight=5"]))
    assert "cycle_weight" not in plan.config.search_space and plan.settings.cycle_weight == 5
    assert "cycle_weight is 5 in all trials, so it is not searched" in plan.notes
    kept = yaml.safe_load(plan.source)
    assert "searchSpaceFile" not in kept and set(kept["searchSpace"]) == set(plan.config.search_space)
    one = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
    with pytest.raises(UserError, match="^nothing is left to search: the file searches only cycle_weight"):
        check(experiment(one), Overrides(set=["cycle_weight=5"]))


def test_a_relative_path_names_the_users_file(experiment, sample_data, judge_file, monkeypatch):
    monkeypatch.chdir(judge_file.parent)
    plan = check(experiment(), Overrides(judge=judge_file.name))
    assert parse(plan.config.trial_command)[1].judge == str(judge_file.resolve())


@pytest.mark.parametrize("given, said", [
    (Overrides(set=["nfg=8"]), "--nfg: trials.cyclegan has no such setting; there are .*, ngf, "),
    (Overrides(set=["out=/tmp/x"]), "--out: trials.cyclegan has no such setting"),
    (Overrides(set=["ngf"]), "--set ngf: it must be name=value"),
    (Overrides(set=["ngf=x"]), "argument --ngf: 'x', expected a whole number from 1"),
    (Overrides(size="huge"), "argument --size: 'huge', expected one of auto, sketch, draft, paper"),
    (Overrides(judge="/nowhere.pt"), "no judge at /nowhere.pt"),
])
def test_what_the_trials_cannot_have_is_refused_by_name(experiment, given, said):
    with pytest.raises(UserError, match=f"^{said}") as error:
        check(experiment(), given)
    assert "\n" not in str(error.value)


def test_a_system_without_a_judge_refuses_one_by_name(experiment):
    with pytest.raises(UserError, match=re.escape("--judge: trials.gan has no such setting; there are")):
        check(experiment(system="gan"), Overrides(judge="models/judge.pt"))


