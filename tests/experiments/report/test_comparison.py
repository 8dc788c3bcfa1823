"""Several searches at equal budget."""

import json

import pytest

from experiments.nni_adapter import database
from experiments.report import comparison
from judge.common.errors import UserError


@pytest.fixture
def search(recorded):
    """Return a function that makes a search; each trial ends a second after the one before."""

    def make(id_: str, name: str, finals: list, judge: str = "abc") -> database.Experiment:
        config = {"trialCommand": "python -m trials.cyclegan", "experimentName": name}
        folder = recorded(id_, config, [
            (f"{id_}{at}", {"cycle_weight": 1.0 + at}, "SUCCEEDED" if final else "FAILED", [], final)
            for at, final in enumerate(finals)])
        (folder / "trials" / f"{id_}0").mkdir(parents=True)
        (folder / "trials" / f"{id_}0" / "run.json").write_text(json.dumps({
            "judge": {"sha256": judge, "file": "j"}, "data": {"name": "monets", "stand_in": False}}))
        return database.find_experiment(str(folder))

    return make


def test_searches_are_compared_where_the_shortest_ends_and_equal_names_are_seeds_of_one(search):
    curves = comparison.groups([search("a", "A", [0.2, None, 0.1, 0.6]), search("b", "A", [0.1, 0.8]),
                                search("c", "B", [0.4, 0.3])])
    assert curves.loc[curves["search"] == 0, "best"].tolist() == [0.2, 0.2, 0.2, 0.6]  # a crash is a trial
    table = comparison.at_equal_budget(curves).set_index("search")
    assert table["seeds"].to_dict() == {"A": 2, "B": 1}
    assert table["best after 2 trials"].to_dict() == {"A": pytest.approx(0.5), "B": 0.4}
    assert table["± (trials)"]["A"] == pytest.approx(0.4243, abs=1e-3)
    low, high, mean = comparison.figure(curves[curves["name"] == "A"], "trials").data
    assert [list(line.y) for line in (low, high)] == [[0.1, 0.2, 0.2, 0.6], [0.2, 0.8, 0.8, 0.8]]
    assert list(mean.y) == pytest.approx([0.15, 0.5, 0.5, 0.7])


def test_searches_with_different_judges_are_not_comparable(search):
    searches = [search("a", "A", [0.2]), search("b", "B", [0.3])]
    assert comparison.differences(searches) == []
    searches[1] = search("c", "C", [0.3], judge="other")
    text = comparison.text(searches, comparison.groups(searches))
    assert text.endswith("\nnot comparable: the searches differ in judge")


def test_a_search_without_a_score_is_refused_in_one_line(search):
    with pytest.raises(UserError, match="^experiment a has no trial with a score yet$"):
        comparison.groups([search("a", "A", [None])])


def test_the_page_is_one_file_with_both_figures(search, tmp_path):
    searches = [search("a", "A", [0.2, 0.4]), search("b", "A", [0.1, 0.8])]
    file = comparison.write(searches, comparison.groups(searches), tmp_path)
    html = file.read_text()
    assert file.name == "compare-a-b.html" and "Against trials" in html and "Against seconds" in html
