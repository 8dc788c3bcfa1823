"""The commands of the protocol say what is missing."""

import shutil
from argparse import Namespace

import pandas as pd
import pytest

from experiments.answer import __main__ as answer
from judge.common.errors import UserError


def test_votes_on_other_questions_are_added_and_those_on_the_same_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "VOTES", tmp_path / "votes.csv")
    (tmp_path / "me.csv").write_text("0,upper\n")
    for question, upper in ("a", "tpe 1"), ("b", "tpe 1"), ("a", "published"):
        key = {"pair": "monet", "question": question, "seed": 1001, "first": "tpe 1", "second": "published"}
        pd.DataFrame([key | {"upper": upper}]).rename_axis("number").to_csv(tmp_path / "key.csv")
        answer.votes(Namespace(out=tmp_path, answers=[f"me={tmp_path / 'me.csv'}"]))
    table = pd.read_csv(tmp_path / "votes.csv").set_index("question")
    assert table["choice"].to_dict() == {"a": "published", "b": "tpe 1"}


def test_before_the_confirmation_is_complete_the_searches_are_shown_and_nothing_is_tested(
        tmp_path, monkeypatch, capsys):
    searches = answer.table_of("searches", "monet")
    monkeypatch.setattr(answer, "FOLDER", tmp_path)
    shutil.copy(searches, tmp_path)
    answer.results(None)
    assert "confirmed-monet.csv: PROTOCOL.md says how" in capsys.readouterr().out
    answer.table_of("confirmed", "monet").write_text("pair,setting,seed,default\nmonet,published,1001,0.04\n")
    answer.results(None)
    out = capsys.readouterr().out
    assert "the confirmation has 1 of 64 trainings" in out
    assert "best score of each search" in out and "winners against" not in out
    with pytest.raises(UserError, match="1 of 64 trainings: repeat `confirm`"):
        answer.read_confirmed()
