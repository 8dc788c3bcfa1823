"""What `taste` says of viewers whose weights are known, and the file that it writes."""

import json

import pytest

from experiments.preferences import fit, votes
from experiments.preferences.taste import taste
from experiments.study.options import SHIPPED_TABLE
from judge.common.errors import UserError
from judge.score import FORMULAS, find_formula
from tests.experiments.preferences.test_fit import STYLE
from tests.experiments.preferences.viewers import simulate

STUDY = SHIPPED_TABLE.parent


def test_the_votes_that_ship_are_whole_and_agree_most_often_with_the_default_score():
    for name in ("votes.jsonl", "votes_fresh.jsonl"):
        given, damaged = votes.read(STUDY / name)
        x, y = votes.differences(given)
        default, *others = (fit.agrees(x @ fit.weights_of(each), y).mean() for each in FORMULAS.values())
        assert not damaged and default > max(others)


@pytest.fixture
def said(tmp_path):
    """Return a function that returns what `taste` says of these votes, in runs/."""

    def said(*given: votes.Vote, **options) -> str:
        for vote in given:
            votes.append(tmp_path / votes.FILE_NAME, vote)
        return taste(tmp_path, **options)

    return said


def test_a_viewer_of_another_taste_gets_better_weights_which_are_a_formula(said, tmp_path):
    text = said(*simulate([2 * weight for weight in STYLE], 300, seed=0, level=0.3))
    for words in ("ann: 300 votes, ", "on pairs shown before", "better than a coin", "shipped formula   0.",
                  "the fitted weights are better than the shipped formula: where the two differ"):
        assert words in text, words
    content = json.loads((tmp_path / "score.json").read_text())
    assert (content["votes"], content["voters"]) == (300, ["ann"]) and len(content["made"]) == 10
    formula = find_formula(str(tmp_path / "score.json"))
    assert formula.weights["style"] > 2 and sum(formula.weights.values()) == pytest.approx(
        fit.SHIPPED_WEIGHTS.sum(), abs=0.01)
    own = text.split("the voter         ")[1].split()[0]
    assert float(own) > 0.75  # that of two votes by known odds
    assert float(text.split("no score can agree with more than ")[1].split()[0]) > float(own)


def test_a_viewer_who_votes_at_random_is_found_to_be_one(said):
    text = said(*simulate(None, 150, seed=0, repeats=0.3))
    assert "no better than a coin" in text and "no better than the shipped formula" in text
    own = text.split("the voter         ")[1].split()[0]
    assert 0.25 < float(own) < 0.75


def test_viewers_are_kept_apart_and_compared_on_the_pairs_that_both_saw(said, tmp_path):
    ann, bob = (simulate([5 * weight for weight in STYLE], 40, seed=0, voter=voter, repeats=0)
                for voter in ("ann", "bob"))
    text = said(*ann, *bob)
    for words in ("ann: 40 votes", "bob: 40 votes", "everybody: 80 votes"):
        assert words in text
    assert "ann and bob: 1.00 of 40" in text  # the same seed
    assert "bob" not in said(voter="ann", out=tmp_path / "ann.json").replace("everybody", "")
    assert json.loads((tmp_path / "ann.json").read_text())["voters"] == ["ann"]


def test_few_votes_level_votes_and_none_are_said_in_words(said, tmp_path):
    with pytest.raises(UserError, match="has no votes: python -m experiments prefer"):
        said()
    text = said(*simulate(None, 1, seed=0, level=99))
    assert "All votes are level" in text
    with pytest.raises(UserError, match="no votes by zoe; voters: ann"):
        said(voter="zoe")
    with open(tmp_path / votes.FILE_NAME, "a") as file:
        file.write("{\n")
    assert "left out: 1 lines" in said(*simulate(STYLE, 1, seed=1))
