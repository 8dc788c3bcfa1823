"""The commands of the protocol say what is missing."""

import shutil

import pytest

from experiments.answer import __main__ as answer
from judge.common.errors import UserError


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
