"""Reading NNI's database, and the table made from it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.nni_adapter import database
from experiments.report import results
from judge.common.errors import UserError
from trials.cyclegan import Settings

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
OTHER = {"identity_weight": 2.0, "cycle_weight": 20.0}


@pytest.fixture
def experiment(recorded) -> Path:
    """A search cut off: the published setting done, one diverged, one crashed, one early-stopped."""
    config = {"trialCommand": "python -m trials.cyclegan --budget 0.2", "experimentName": "A search"}
    folder = recorded("abcdefgh", config | {"revision": 1}, [
        ("aaaaa", PUBLISHED, "SUCCEEDED", [0.3, 0.4], 0.4),
        ("bbbbb", OTHER, "SUCCEEDED", [0.9], 0.0),
        ("ccccc", OTHER | {"cycle_weight": 30.0}, "FAILED", [], None),
        ("ddddd", OTHER | {"cycle_weight": 5.0}, "EARLY_STOPPED", [0.8], None),
        ("eeeee", OTHER | {"cycle_weight": 6.0}, "SUCCEEDED", [0.2, 0.6], 0.6),
        ("fffff", OTHER | {"cycle_weight": 7.0}, None, [], None),
    ])
    facts = {
        "data": {"name": "sample", "stand_in": True}, "judge": {"file": "j.pt", "data": "sample", "auc": 0.9},
        "settings": {"size": "sketch", "budget": 0.2, "seed": 0},
    }
    for id_, status, reason in [("aaaaa", "finished", None), ("bbbbb", "diverged", "cycle_A loss is nan")]:
        (folder / "trials" / id_).mkdir(parents=True)
        record = facts | {"status": status, "reason": reason}
        (folder / "trials" / id_ / "run.json").write_text(json.dumps(record))
    return folder


def test_trials_are_read_with_their_states_reports_and_finals(experiment):
    trials = database.find_experiment(str(experiment)).trials()
    assert [t.state for t in trials] == [
        "SUCCEEDED", "SUCCEEDED", "FAILED", "EARLY_STOPPED", "SUCCEEDED", "RUNNING"]
    assert [len(t.reports) for t in trials] == [2, 1, 0, 1, 2, 0]
    assert trials[0].parameters == PUBLISHED and trials[0].final["default"] == 0.4
    assert (trials[0].started, trials[0].ended) == (1.0, 2.0)
    assert [t.over for t in trials] == [True] * 5 + [False]


def test_the_latest_configuration_counts(experiment):
    assert database.find_experiment(str(experiment)).config["revision"] == 1


def test_an_experiment_is_found_by_its_id_in_the_runs_folder(experiment, monkeypatch):
    monkeypatch.setattr(database, "ROOT", experiment.parent)
    (experiment.parent / "runs").symlink_to(experiment.parent)
    assert database.find_experiment("abcdefgh").id == "abcdefgh"


def test_an_unknown_experiment_is_one_line():
    with pytest.raises(UserError, match="no experiment zzzzzzzz"):
        database.find_experiment("zzzzzzzz")


def test_a_damaged_database_is_one_line(tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "nni.sqlite").write_bytes(b"not a database, not at all" * 50)
    with pytest.raises(UserError, match="cannot be read"):
        database.find_experiment(str(tmp_path))


def test_the_best_comes_first_and_what_has_no_score_last(experiment):
    numbers = [row.trial.number for row in results.rows(database.find_experiment(str(experiment)))]
    assert numbers == [3, 4, 0, 1, 2, 5]


def test_the_winner_is_a_trial_that_trained_to_its_end(experiment):
    assert results.best(results.rows(database.find_experiment(str(experiment)))).trial.number == 4


def test_the_published_setting_is_marked_and_only_it(experiment):
    table = results.frame(results.rows(database.find_experiment(str(experiment))))
    assert [name for name in table["trial"] if "published" in name] == ["0 published"]


def test_the_report_says_what_a_reader_must_know(experiment):
    text = results.text(database.find_experiment(str(experiment)))
    for said in (
        "sample (built-in stand-in", "AUC 0.900", "2 succeeded", "1 diverged",
        "1 early stopped", "trial 1: cycle_A loss is nan",
        "best: trial 4 with 0.6000, the published setting 0.4000 (one seed",
        "repeat it: python -m trials.cyclegan --budget 0.2 --identity-weight 2.0 --cycle-weight 6.0",
        "end: python -m trials.cyclegan --identity-weight 2.0 --cycle-weight 6.0 --budget 1.0 --out ",
    ):  # fmt: skip
        assert said in text, said


def test_the_table_is_one_for_pandas(experiment):
    table = results.frame(results.rows(database.find_experiment(str(experiment))))
    assert isinstance(table, pd.DataFrame) and len(table) == 6
    assert {"score", "style", "identity_weight", "cycle_weight"} <= set(table.columns)
