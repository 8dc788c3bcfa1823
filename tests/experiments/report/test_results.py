"""The table of a search, the commands that it gives, and NNI's database that it is read from."""

import json
import math
import re
import shlex
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from experiments import trial_command
from experiments.nni_adapter import database
from experiments.report import results
from judge.common.errors import UserError
from judge.common.files import FileLock
from judge.score import find_formula
from trials.cyclegan import Settings
from trials.session.records import read_record

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
            "system": "cyclegan", "status": status, "reason": reason,
            "data": {"name": "sample", "stand_in": True},
            "judge": {"file": "j.pt", "data": "sample", "auc": 0.9},
            "settings": vars(Settings(size="sketch", budget=0.2, seed=3, ngf=15)),
        }))  # fmt: skip
    return database.find_experiment(str(folder))


def test_an_experiment_is_found_by_its_id_with_its_latest_configuration_and_all_its_trials(
    experiment, monkeypatch,
):
    monkeypatch.setattr(database, "RUNS", experiment.folder.parent)
    found = database.find_experiment("abcdefgh")
    trials = found.trials()
    assert found.config["revision"] == 1 and trials[0].parameters == PUBLISHED
    assert (trials[0].final["default"], trials[0].started, trials[0].ended) == (0.4, 1.0, 2.0)
    assert [(trial.state, len(trial.reports), trial.over) for trial in trials] == [
        ("SUCCEEDED", 2, True), ("SUCCEEDED", 1, True), ("FAILED", 0, True), ("EARLY_STOPPED", 1, True),
        ("SUCCEEDED", 2, True), ("RUNNING", 0, False)]
    with pytest.raises(UserError, match="no experiment zzzzzzzz"):
        database.find_experiment("zzzzzzzz")
    (experiment.folder / "db/nni.sqlite").write_bytes(b"not a database, not at all" * 50)
    with pytest.raises(UserError, match="cannot be read"):
        database.find_experiment(str(experiment.folder))


def test_the_report_has_the_best_first_data_judge_states_reasons_and_the_next_commands(experiment):
    rows = results.rows(experiment)
    table, text = results.frame(rows), results.text(experiment)
    assert list(table["trial"]) == ["3", "4", "0 published", "1", "2", "5"]
    assert {"score", "style", "identity_weight", "cycle_weight"} <= set(table.columns)
    assert results.best(rows).trial.number == 4  # trial 3 was stopped
    for words in (
        "sample (built-in stand-in", "AUC 0.900", "2 succeeded", "1 diverged",
        "1 early stopped", "trial 1: cycle_A loss is nan",
        "best: trial 4, score 0.600 (one seed: a hint, not a proof); the published setting: 0.400",
        "trial: python -m trials.cyclegan --budget 0.2 --identity-weight 2.0 --cycle-weight 6.0\n",
        "end: python -m trials.cyclegan --identity-weight 2.0 --cycle-weight 6.0 --budget 1.0 --out ",
        "seeds: python -m experiments promote abcdefgh\n",
        "published size: python -m experiments promote abcdefgh --size paper --judge FILE",
    ):  # fmt: skip
        assert words in text, words
    command = results.command(experiment, rows[2], budget=1.0, out="a folder")  # it has a record
    assert command == (f"python -m trials.cyclegan --like {experiment.folder}/trials/aaaaa --budget 1.0 "
                       "--out 'a folder'")
    _, settings, _ = trial_command.parse(command)
    assert settings == Settings(size="sketch", budget=1.0, seed=3, ngf=15)


@pytest.mark.parametrize(("records", "line"), [
    ([{"device": "cpu (x86_64, 2 cores)"}] * 2, "device: cpu (x86_64, 2 cores)"),
    ([{"device": "NVIDIA H200", "gpu": {"name": "NVIDIA H200", "memory": 150_000_000_000}},
      {"device": "NVIDIA T4"}], "devices: NVIDIA H200 with 139 GiB; NVIDIA T4"),
    ([{"device": "cpu", "gpu": None}, {}], "device: cpu"),  # the second has not started
    ([{}], None),
])
def test_the_heading_names_each_device_once_and_the_memory_of_a_gpu(experiment, records, line):
    rows = [results.Row(trial, record, False) for trial, record in zip(experiment.trials(), records)]
    lines = [text for text in results.heading(experiment, rows) if text.startswith("device")]
    assert lines == ([line] if line else [])


def test_another_formula_ranks_the_recorded_trials_anew_and_a_diverged_one_stays_last(experiment, tmp_path):
    for trial in database.find_experiment(str(experiment.folder)).trials():
        trial.folder.mkdir(exist_ok=True, parents=True)
        (trial.folder / "stats.jsonl").write_text("".join(
            json.dumps({"step": step, "score": score, "early": False}) + "\n"
            for step, score in enumerate(trial.reports)))
    early = {"step": 0, "score": {"default": 0.9, "style": 0.9, "content": 0.9}, "early": True}
    (trial.folder / "stats.jsonl").write_text(json.dumps(early))  # the last one has no other report
    file = tmp_path / "mine.json"
    file.write_text('{"format": "salon score 1", "weights": {"style": 0, "content": 2}}')
    formula = find_formula(str(file))
    with sqlite3.connect(experiment.folder / "db/nni.sqlite") as db:  # what a trial that diverges reports
        db.execute("update MetricData set data = ? where trialJobId = 'bbbbb' and type = 'FINAL'",
                   [json.dumps(json.dumps({"default": 0.0}))])
    before, after = results.rows(experiment), results.rows(experiment, formula)
    assert [row.trial.number for row in before] == [3, 4, 0, 1, 2, 5]
    assert [row.trial.number for row in after] == [0, 4, 3, 1, 2, 5]  # by content, which is 1 - style here
    # The geometric mean of two reports, and its error.
    assert after[0].score == pytest.approx((1 - 0.4) * (1 - 0.3)) and results.best(after).trial.number == 0
    assert after[0].error == pytest.approx(after[0].score * math.log(0.7 / 0.6))
    assert after[0].trial.reports[0]["default"] == pytest.approx((1 - 0.3) ** 2)
    text = results.text(experiment, formula)
    assert "best: trial 0, score 0.420 ± 0.065" in text
    assert f"scores: by {file}, not by the formula of the search" in text
    assert "scores: by" not in results.text(experiment)
    assert [row.score for row in after if row.state == "diverged"] == [0.0]
    with pytest.raises(UserError, match="--score combined: the trials recorded no clean, diversity, kid"):
        results.rows(experiment, find_formula("combined"))


def test_the_table_of_a_search_without_trials_has_its_head(recorded):
    empty = database.find_experiment(str(recorded("empty", {"trialCommand": "python -m trials.gan"}, [])))
    table = results.frame(results.rows(empty))
    assert table.to_csv(index=False) == "trial,id,data,state,reports,score\n"
    assert table.to_json(orient="records") == "[]"
    assert results.text(empty).endswith("trials: none yet")


def test_a_trial_that_is_trained_on_as_advised_leaves_the_search_as_it_was(recorded):
    command = "python -m trials.gan --data pattern --steps 40 --budget 0.5 --reports 2 --device cpu"
    folder = recorded("searched", {"trialCommand": command}, [
        ("aaaaa", {"generator_lr": 2e-4}, "SUCCEEDED", [0.3, 0.4], 0.4)])
    run([*command.split(), "--out", folder / "trials/aaaaa"])
    experiment = database.find_experiment(str(folder))
    before, text = results.rows(experiment), results.text(experiment)
    longer = dict(results.commands(experiment, before[0], before))["Train it on to the end"]
    assert longer == (f"python -m trials.gan --like {folder}/trials/aaaaa --budget 1.0 "
                      f"--out {folder}/continued/aaaaa")
    assert "continues at step 20" in run(shlex.split(longer))
    assert results.rows(experiment) == before and results.recorded_scores(before[0].trial).keys() == {10, 20}
    assert read_record(folder / "continued/aaaaa")["settings"]["budget"] == 1.0
    (line,) = set(results.text(experiment).splitlines()) - set(text.splitlines())
    assert re.fullmatch(rf"trial 0 trained on to the end: \S.* \({folder}/continued/aaaaa\)", line)


def run(words: list) -> str:
    """Run a trial's command, and return what it printed."""
    done = subprocess.run([sys.executable, *map(str, words[1:])], cwd=database.ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_trial_that_ended_early_has_a_reason_in_words(experiment):
    trials = {row.trial.id: row for row in results.rows(experiment)}
    trials["ddddd"].record.update(status="stopped", reason="SIGTERM at step 301", settings={"reports": 20})
    def reason(id_: str) -> str | None:
        return results.reason(experiment, trials[id_])

    assert reason("ddddd") == "stopped by the assessor after 1 of 20 reports"
    assert reason("bbbbb") == "cycle_A loss is nan"
    assert [reason(id_) for id_ in ("aaaaa", "ccccc", "fffff")] == [None] * 3
    assert "maxTrialDuration" not in results.text(experiment)
    experiment.config["maxTrialDuration"] = "1s"
    assert reason("ddddd") == "stopped by maxTrialDuration 1s after 1 of 20 reports"
    assert "\ntrial 3: stopped by maxTrialDuration 1s after" in results.text(experiment)
    log = trials["ccccc"].trial.folder / "stderr"
    log.parent.mkdir()
    log.write_text("Traceback ...\nModuleNotFoundError: No module named 'x'\n\n")
    assert f"\ntrial 2: ModuleNotFoundError: No module named 'x' ({log})\n" in results.text(experiment)


def test_a_trial_that_was_stopped_with_its_search_is_stopped_and_not_running(experiment):
    folder = experiment.folder / "trials" / "fffff"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"status": "stopped", "reason": "SIGTERM at step 3"}))
    assert ", 1 stopped" in results.text(experiment) and "running" not in results.text(experiment)
    (folder / "run.json").write_text(json.dumps({"status": "running"}))
    assert "1 running" in results.text(experiment)  # perhaps on another machine, whose lock is not here
    with FileLock(folder / ".lock", "training"):
        assert "1 running" in results.text(experiment)
    (folder / ".lock").touch()
    assert "1 stopped" in results.text(experiment)  # it was killed


@pytest.mark.parametrize(("width", "left_out"), [
    (160, ""), (70, "left out here, in --csv: content"),
    (60, "left out here, in --csv: style, content, cycle_weight")])
def test_the_table_of_the_text_fits_a_terminal(experiment, width, left_out):
    lines = results.table_text(results.rows(experiment), width).splitlines()
    assert max(map(len, lines)) <= width
    assert (lines[-1] if lines[-1].startswith("left") else "") == left_out
    head = " ".join(lines[0].split() + lines[1].split())
    assert "trial state reports score" in head and "id" not in head.split() and "kid" not in head


def test_columns_that_say_nothing_are_not_in_the_table_of_the_text(experiment):
    rows = [row for row in results.rows(experiment) if row.state == "succeeded"]  # both have two reports
    text = results.table_text(rows)
    assert "reports" not in text and "identity" in text
    same = [replace(row, trial=replace(row.trial, parameters=PUBLISHED)) for row in rows]
    assert "identity" not in results.table_text(same) and "identity" in results.table_text(same[:1])
