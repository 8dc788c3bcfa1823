"""The table of a search, and NNI's database that it is read from."""

import json
import shlex

import pytest

from experiments import trial_command
from experiments.nni_adapter import database
from experiments.report import results
from judge.common.errors import UserError
from trials.cyclegan import Settings

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
OTHER = {"identity_weight": 2.0, "cycle_weight": 20.0}


@pytest.fixture
def experiment(recorded) -> database.Experiment:
    """A search that was cut off, with a trial of every end; two of them have a record."""
    config = {"trialCommand": "python -m trials.cyclegan --budget 0.2", "experimentName": "A search"}
    folder = recorded("abcdefgh", config | {"revision": 1}, [
        ("aaaaa", PUBLISHED, "SUCCEEDED", [0.3, 0.4], 0.4),
        ("bbbbb", OTHER, "SUCCEEDED", [0.9], 0.0),
        ("ccccc", OTHER | {"cycle_weight": 30.0}, "FAILED", [], None),
        ("ddddd", OTHER | {"cycle_weight": 5.0}, "EARLY_STOPPED", [0.8], None),
        ("eeeee", OTHER | {"cycle_weight": 6.0}, "SUCCEEDED", [0.2, 0.6], 0.6),
        ("fffff", OTHER | {"cycle_weight": 7.0}, None, [], None),
    ])
    for id_, status, reason in [("aaaaa", "finished", None), ("bbbbb", "diverged", "cycle_A loss is nan")]:
        (folder / "trials" / id_).mkdir(parents=True)
        (folder / "trials" / id_ / "run.json").write_text(json.dumps({
            "status": status, "reason": reason, "data": {"name": "sample", "stand_in": True},
            "judge": {"file": "j.pt", "data": "sample", "auc": 0.9},
            "settings": vars(Settings(size="sketch", budget=0.2, seed=3, ngf=16)),
        }, default=str))  # fmt: skip
    return database.find_experiment(str(folder))


def test_trials_are_read_with_their_states_reports_and_finals(experiment):
    trials = experiment.trials()
    assert [(trial.state, len(trial.reports), trial.over) for trial in trials] == [
        ("SUCCEEDED", 2, True), ("SUCCEEDED", 1, True), ("FAILED", 0, True), ("EARLY_STOPPED", 1, True),
        ("SUCCEEDED", 2, True), ("RUNNING", 0, False)]
    assert trials[0].parameters == PUBLISHED and trials[0].final["default"] == 0.4
    assert (trials[0].started, trials[0].ended) == (1.0, 2.0)


def test_an_experiment_is_found_by_its_id_with_its_latest_configuration(experiment, monkeypatch):
    monkeypatch.setattr(database, "ROOT", experiment.folder.parent)
    (experiment.folder.parent / "runs").symlink_to(experiment.folder.parent)
    assert database.find_experiment("abcdefgh").config["revision"] == 1


def test_an_unknown_experiment_and_a_damaged_one_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no experiment zzzzzzzz"):
        database.find_experiment("zzzzzzzz")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "nni.sqlite").write_bytes(b"not a database, not at all" * 50)
    with pytest.raises(UserError, match="cannot be read"):
        database.find_experiment(str(tmp_path))


def test_the_table_has_the_best_first_marks_the_published_and_the_winner_completed_its_training(experiment):
    rows = results.rows(experiment)
    table = results.frame(rows)
    assert list(table["trial"]) == ["3", "4", "0 published", "1", "2", "5"]
    assert {"score", "style", "identity_weight", "cycle_weight"} <= set(table.columns)
    assert results.best(rows).trial.number == 4


def test_the_report_has_data_judge_states_reasons_and_the_next_commands(experiment):
    text = results.text(experiment)
    for words in (
        "sample (built-in stand-in", "AUC 0.900", "2 succeeded", "1 diverged",
        "1 early stopped", "trial 1: cycle_A loss is nan",
        "best: trial 4 with 0.6000, the published setting 0.4000 (one seed",
        "repeat it: python -m trials.cyclegan --budget 0.2 --identity-weight 2.0 --cycle-weight 6.0\n",
        "end: python -m trials.cyclegan --identity-weight 2.0 --cycle-weight 6.0 --budget 1.0 --out ",
        "python -m experiments promote abcdefgh",
    ):  # fmt: skip
        assert words in text, words


def test_a_command_repeats_the_settings_of_the_record_not_those_of_the_search(experiment):
    row = next(row for row in results.rows(experiment) if row.published)
    command = results.command(experiment, row, out="a folder")
    _, settings, options = trial_command.parse(command)
    assert settings == Settings(size="sketch", budget=0.2, seed=3, ngf=16) and str(options.out) == "a folder"
    assert "--cycle-weight" not in shlex.split(command)  # it is the default
