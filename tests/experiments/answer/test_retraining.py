"""The confirmation trains what the protocol says, measures it with the other judge, and continues."""

from dataclasses import replace

import pandas as pd
import pytest

from experiments.answer import collection, retraining
from experiments.answer.options import Confirmation
from experiments.confirmation import PUBLISHED
from judge.common.errors import UserError
from trials.session.records import read_record

TINY = {"size": "sketch", "ngf": 4, "blocks": 1, "ndf": 4, "steps": 2, "reports": 1, "photos": 4}


@pytest.fixture
def options(tmp_path, sample_data, judge_file, monkeypatch) -> Confirmation:
    """The confirmation of a tiny pair of domains, whose halves are the same images."""
    monkeypatch.setattr(retraining, "TRIAL", TINY)
    monkeypatch.setattr(retraining, "SEEDS", (1001, 1002))
    halves = tmp_path / "halves"
    halves.mkdir()
    for half in ("search", "yardstick"):
        (halves / half).symlink_to(sample_data)
    return Confirmation("sample", halves, judge_file, judge_file, tmp_path / "out")


@pytest.mark.slow
def test_each_different_setting_is_trained_with_each_seed_once(options, tmp_path, monkeypatch):
    published, table = collection.published_settings()[PUBLISHED], tmp_path / "confirmed.csv"
    other = published | {"cycle_weight": 5.0}
    settings = {PUBLISHED: published, "tpe 1": other, "random 1": other}
    retraining.run(options, settings, table)
    rows = pd.read_csv(table).set_index(["setting", "seed"])
    assert len(rows) == 6 and rows["folder"].nunique() == 4 and not rows["diverged"].any()
    assert rows.loc["tpe 1"].equals(rows.loc["random 1"])
    record = read_record(tmp_path / "out/sample/tpe-1-1002")
    assert {name: record["settings"][name] for name in ("seed", "cycle_weight", "steps", "budget")} == {
        "seed": 1002, "cycle_weight": 5.0, "steps": 2, "budget": 1.0}
    assert (tmp_path / "out/sample/tpe-1-1002" / retraining.SHEET).is_file()

    before = table.read_bytes()
    monkeypatch.setattr(retraining, "train", None)  # nothing is trained again
    retraining.run(options, settings, table)
    assert table.read_bytes() == before


def test_a_diverged_training_has_the_score_0_and_no_parts(options, tmp_path):
    (tmp_path / "run.json").write_text('{"status": "diverged", "settings": {}}')
    assert retraining.Yardstick(options)(tmp_path) == {"diverged": True, "default": 0.0}


def test_a_training_ends_with_a_confirmation_that_is_killed(options, tmp_path, monkeypatch, killed_with):
    monkeypatch.setattr(retraining.trial_command, "render", lambda *_, **more: "sleep 1000")
    killed_with(lambda: retraining.train({"seed": 1}, options, tmp_path / "folder"), 1)


def test_a_training_that_fails_is_named_with_its_log(options, tmp_path):
    broken = replace(options, judge=tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="folder did not finish: see .*folder/log"):
        retraining.train({"seed": 1}, broken, tmp_path / "folder")
    assert "no judge at" in (tmp_path / "folder/log").read_text()


@pytest.mark.slow
def test_sizes_are_compared_on_what_the_trials_reported(options, tmp_path, monkeypatch):
    def train(parameters, options, folder, **changed):
        trained.append((parameters["seed"], changed.get("size"), options.judge.name))
        scores = {1001: 0.2, 1002: 0.8}
        return {"score": {"default": 0.1 if "size" in changed else scores[parameters["seed"]]}}

    trained = []
    monkeypatch.setattr(retraining, "train", train)
    retraining.compare_sizes(options, {PUBLISHED: {}}, tmp_path / "draft.pt", 0.25, tmp_path / "sizes.csv")
    assert trained == [(1001, None, options.judge.name), (1002, None, options.judge.name),
                       (1001, "draft", "draft.pt")]  # fmt: skip
    row = pd.read_csv(tmp_path / "sizes.csv").iloc[0]
    assert (row["sketch"], row["draft"]) == (pytest.approx(0.4), 0.1)
