"""The study: it ranks scores correctly, trains what it says, and continues where it was stopped."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import psutil
import pytest

from experiments.study import study
from experiments.study.options import SHIPPED_TABLE, Study
from experiments.study.study import REPORTS, SHARES, STEADY, final_quality, final_rows, ranking
from judge.common.cli import main
from judge.common.errors import UserError
from judge.score import FORMULAS, PARTS
from tests.experiments.helpers import until
from trials import cyclegan
from trials.cyclegan import Settings

RISING = [0.1, 0.2, 0.3, 0.4, 0.5]
FALLING = RISING[::-1]
TINY = {"ngf": 4, "blocks": 1, "ndf": 4}
ENDS = {"style": RISING, "kid": FALLING, "content": RISING}


def study_table(early: dict[str, list[float]], final: dict[str, list[float]]) -> pd.DataFrame:
    """Return a study's table of five settings with the same early values at each share, one seed."""
    values = dict.fromkeys(PARTS, [0.2, 0.4, 0.1, 0.5, 0.3]) | early
    values |= {f"final_{name}": column for name, column in final.items()}
    rows = pd.DataFrame({"setting": range(5), "seed": 0, **values})
    return rows.merge(pd.DataFrame({"share": SHARES}), how="cross")


@pytest.mark.parametrize(("early", "score", "target", "spearman", "regret"), [
    ({"style": RISING}, "style", "quality", 1, 0),
    ({"style": FALLING}, "style", "quality", -1, 1),
    ({"kid": FALLING}, "-kid", "-kid", 1, 0),  # a smaller distance is better
    ({"content": [0.1, 0.2, 0.3, 0.9, 0.5]}, "content", "content", 0.9, 0.25),  # picks the second best
])
def test_the_ranking_says_how_well_an_early_score_predicts_the_end(early, score, target, spearman, regret):
    table = ranking(study_table(early, ENDS))
    parts = {"style", "content", "scene", "diversity", "clean", "-kid"}
    assert set(table["score"]) == {*FORMULAS, *parts, *map(STEADY.format, FORMULAS)}
    assert len(table) == 4 * 12 * len(SHARES)  # targets, scores
    older = ranking(study_table(early, ENDS).drop(columns="scene"))
    assert set(older["score"]) == {
        "combined", "plain", STEADY.format("combined"), STEADY.format("plain"), *parts} - {"scene"}
    rows = table[(table["score"] == score) & (table["target"] == target)]
    assert rows["spearman"].to_numpy() == pytest.approx(spearman)
    assert rows["regret"].to_numpy() == pytest.approx(regret)
    if abs(spearman) == 1:
        assert rows[["kendall", "low", "high"]].to_numpy() == pytest.approx(spearman)


@pytest.mark.parametrize(("weight", "expected"), [
    (1.0, [0.2, 0.4, 0.6, 0.8, 1.0]), (0.0, [1.0, 0.8, 0.6, 0.4, 0.2]), (0.5, [0.6] * 5)])
def test_quality_weighs_style_against_content(weight, expected):
    ends = final_rows(study_table({}, {"style": RISING, "kid": FALLING, "content": FALLING}))
    assert final_quality(ends, weight).to_numpy() == pytest.approx(expected)


def test_the_interval_is_wider_for_fewer_settings():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=100), rng.normal(size=100)
    few, many = (np.ptp(study.spearman_interval(x[:n], x[:n] + noise[:n])) for n in (10, 100))
    assert few > 2 * many > 0


def test_the_published_setting_comes_first_and_the_others_are_sampled_again_alike(tmp_path):
    first, *others = study.sample_settings(Study.space, 5)
    assert first == {name: getattr(Settings(), name) for name in first}
    assert study.sample_settings(Study.space, 5) == [first, *others]
    assert study.sample_settings(Study.space, 3)[1:] == others[:2]
    assert len({str(setting) for setting in others}) == 4
    with pytest.raises(UserError, match="^the search space .*nowhere.json cannot be read: "):
        study.sample_settings(tmp_path / "nowhere.json", 2)


def test_a_space_may_choose_between_words_but_only_of_settings(tmp_path):
    space = json.loads(Study.space.read_text())
    words = {"score": {"_type": "choice", "_value": list(FORMULAS)}}
    (tmp_path / "space.json").write_text(json.dumps(space | words))
    first, *others = study.sample_settings(tmp_path / "space.json", 9)
    assert first["score"] == Settings().score and {each["score"] for each in others} == set(FORMULAS)
    table = study_table({}, ENDS).assign(score=["plain", None] * 12 + ["combined"])
    assert len(ranking(table)) == len(ranking(table.drop(columns="score")))
    (tmp_path / "space.json").write_text(json.dumps({"colour": words["score"]}))
    with pytest.raises(UserError, match="space.json cannot be read: .* no attribute 'colour'"):
        study.sample_settings(tmp_path / "space.json", 9)


def test_the_table_that_ships_is_said_to_be_of_the_earlier_sketch(capsys, tmp_path):
    shipped = study.read_table(SHIPPED_TABLE)
    assert f"{SHIPPED_TABLE}: {study.OLD_SKETCH}\n" == capsys.readouterr().err
    assert "combined" in study.text(shipped)  # though it lacks the parameter `upsampling`
    shipped.assign(judge="another").to_csv(tmp_path / "new.csv")
    study.read_table(tmp_path / "new.csv")
    assert not capsys.readouterr().err


@pytest.fixture
def small(tmp_path, sample_data, judge_file, monkeypatch) -> Study:
    monkeypatch.setattr(study, "RESAMPLES", 10)
    monkeypatch.setattr(study, "available_cores", lambda: 1)  # threads on busy cores wait for each other
    return Study(
        data=str(sample_data), judge=str(judge_file), yardstick=str(judge_file),
        yardstick_data=str(sample_data), out=tmp_path / "runs", table=tmp_path / "study.csv", size="sketch",
        steps=20, settings=3, again=1, photos=4, at_once=1,
    )  # fmt: skip


def test_rows_of_the_same_judges_count_also_if_a_hash_reads_as_a_number(small, monkeypatch):
    for name in ("618938990956", "618938990e56", "007938990956"):
        monkeypatch.setattr(study.model, "sha256_of", lambda file, name=name: name)
        results = study.StudyTable(small)
        rows = [{**results.conditions, "setting": 0, "seed": 0}, {**results.conditions, "yardstick": "other"}]
        pd.DataFrame(rows).to_csv(small.table, index=False)
        assert len(results.complete([(0, 0)])) == 1


def test_trials_and_measures_have_the_size_that_is_the_default_on_their_device(small, monkeypatch):
    small = replace(small, size="auto", device="cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    commands = []
    monkeypatch.setattr(study.subprocess, "Popen", lambda words, **options: commands.append(words) or Mock())
    with pytest.raises(UserError, match="the trial of setting 1 did not finish"):
        study.StudyTable(small).complete([(1, 0)])
    options = dict(zip(commands[0], commands[0][1:]))
    assert options["--size"] == "sketch" and options["--device"] == "cpu"


def test_a_study_that_is_interrupted_ends_its_trials_too(small, monkeypatch):
    """Only Ctrl-C on a terminal reaches them by itself."""
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    monkeypatch.setattr(study.trial_command, "render", lambda *_, **options: "sleep 1000")
    table = study.StudyTable(replace(small, at_once=2))

    def alarm():
        until(lambda: len(table.running) == 2)
        os.kill(os.getpid(), signal.SIGALRM)

    threading.Thread(target=alarm).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            table.complete([(0, 0), (1, 0), (2, 0)])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [trial.returncode for trial in table.running] == [-signal.SIGTERM] * 2


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
SLOW_TO_END = ("import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(3), sys.exit())); "
               "time.sleep(1000)")


@pytest.mark.parametrize("stop", [(INT,), (INT, INT), (TERM,), (HUP,), (TERM, INT)])
def test_whatever_stops_a_study_says_so_in_a_line_and_nothing_of_it_is_left(small, monkeypatch, capfd, stop):
    """The second signal comes while it waits for its trials."""
    words = [sys.executable, "-c", SLOW_TO_END]
    monkeypatch.setattr(study.trial_command, "render", lambda *_, **options: shlex.join(words))
    table = study.StudyTable(replace(small, at_once=2))
    capfd.readouterr()
    if not (pid := os.fork()):
        try:
            main("study", lambda _: table.complete([(0, 0), (1, 0), (2, 0)]))
        except SystemExit as ended:
            threading._shutdown()
            os._exit(ended.code)
        os._exit(1)
    until(lambda: len(psutil.Process(pid).children()) == 2)
    trials = psutil.Process(pid).children()
    until(lambda: all(SLOW_TO_END in trial.cmdline() for trial in trials))
    for number in stop:
        os.kill(pid, number)
        time.sleep(1.2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + stop[0]
    assert capfd.readouterr().err == f"study: stopped by {stop[0].name}\n"
    assert not any(trial.is_running() for trial in trials)


def test_a_study_that_is_killed_ends_its_trials_too(small, monkeypatch, killed_with):
    monkeypatch.setattr(study.trial_command, "render", lambda *_, **options: "sleep 1000")
    table = study.StudyTable(replace(small, at_once=2))
    killed_with(lambda: table.complete([(0, 0), (1, 0), (2, 0)]), 2)


def test_a_table_with_results_of_another_judge_is_refused_before_training_and_stays(small, monkeypatch):
    pd.DataFrame([{**study.StudyTable(small).conditions, "judge": "other", "setting": 0}]).to_csv(small.table)
    before = small.table.read_bytes()
    monkeypatch.setattr(study.subprocess, "Popen", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(UserError, match="has results of other trials or judges: choose another --table$"):
        study.StudyTable(small).complete([(0, 0)])
    assert small.table.read_bytes() == before


def test_rows_and_trials_of_other_settings_are_not_taken_for_these(small):
    rows = study.StudyTable(small)
    pd.DataFrame([rows.conditions | {"setting": 0, "seed": 0}]).to_csv(small.table, index=False)
    assert len(rows._read()) == 1 and study.StudyTable(replace(small, steps=40))._read().empty
    pd.read_csv(small.table).drop(columns="trials").to_csv(small.table, index=False)
    assert rows._read().empty  # of an older version, whose sketch was another
    small.table.unlink()
    other = {"status": "finished", "settings": asdict(replace(rows.common, ngf=15))}
    (small.out / "00-0").mkdir(parents=True)
    (small.out / "00-0" / "run.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="00-0 holds a trial with other settings: choose another --out$"):
        rows.complete([(0, 0)])


def test_without_an_independent_judge_every_setting_is_trained_with_each_seed(small, monkeypatch):
    monkeypatch.setattr(study.StudyTable, "complete", lambda self, runs: runs)
    alone = replace(small, yardstick=None, yardstick_data=None, seeds=2)
    assert study.run(alone) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert set(study.StudyTable(alone).conditions) == {"judge", "trials"}
    with pytest.raises(UserError, match="^nothing to compare: give --yardstick, or --seeds 2 or more$"):
        study.run(replace(alone, seeds=1))


@pytest.mark.slow
def test_a_study_trains_measures_and_continues_where_it_was_stopped(small, monkeypatch, command):
    def start(words: list[str], **_) -> Mock:
        code = command(*words[words.index("-m") + 1 :]).returncode
        return Mock(returncode=code, wait=lambda: code)

    monkeypatch.setitem(cyclegan.PRESETS, "sketch", cyclegan.PRESETS["sketch"] | TINY)
    with monkeypatch.context() as patch:  # all in this process: one of its own takes seconds to start
        patch.setattr(study, "ThreadPoolExecutor", lambda at_once: nullcontext(Mock(map=map)))
        patch.setattr(study, "subprocess", Mock(run=start, Popen=start))
        table = study.run(small)
    runs = table[["setting", "seed"]].drop_duplicates()
    assert runs["seed"].value_counts().to_dict() == {0: 3, 1: 2}
    assert len(table) == 5 * REPORTS and table["final_style"].notna().sum() == 5
    text = study.text(table)
    assert "against the final quality" in text and "combined" in text and "0.05" in text

    # A trial that is missing in the table is measured again from what it painted, not trained again.
    shorter = table[~((table["setting"] == 2) & (table["seed"] == 0))]
    shorter.to_csv(small.table, index=False)
    with monkeypatch.context() as patch:
        patch.setattr(study.subprocess, "Popen", None)
        pd.testing.assert_frame_equal(study.run(small), table, check_dtype=False, rtol=1e-4)
        shorter.to_csv(small.table, index=False)
        (small.out / "02-0" / "paintings" / "step_000002.pt").unlink()
        with pytest.raises(UserError, match="step_000002.pt cannot be read .*: move .*02-0 away"):
            study.run(small)
    monkeypatch.setattr(study.sys, "executable", "false")
    with pytest.raises(UserError, match="the trial of setting 0 did not finish: see .*log$"):
        study.run(replace(small, out=small.out / "x", table=small.out / "y", settings=1, again=0))
