"""Several searches at equal budget."""

import json

import pytest

from experiments.nni_adapter import database
from experiments.report import comparison
from judge.common.errors import UserError


@pytest.fixture
def search(recorded):
    """Make a search with these final scores; trials start at second 1, and end a second after each other."""

    def make(id_: str, name: str, finals: list, judge: str = "abc") -> database.Experiment:
        config = {"trialCommand": "python -m trials.cyclegan", "experimentName": name}
        trials = [(f"{id_}{at}", {"cycle_weight": 1.0 + at}, "SUCCEEDED" if final else "FAILED", [], final)
                  for at, final in enumerate(finals)]
        folder = recorded(id_, config, trials)
        for id_, *_ in trials:
            (folder / "trials" / id_).mkdir(parents=True)
            record = {"judge": {"sha256": judge, "file": "j", "data": "d", "auc": 0.9},
                      "data": {"name": "monets", "stand_in": False}, "settings": {"size": "sketch"}}
            (folder / "trials" / id_ / "run.json").write_text(json.dumps(record))
        return database.find_experiment(str(folder))

    return make


def test_the_best_score_so_far_never_falls_and_a_crash_counts_as_a_trial(search):
    curve = comparison.best_so_far(search("a", "A", [0.2, None, 0.1, 0.6]))
    assert curve["trials"].tolist() == [1, 2, 3, 4]
    assert curve["best"].tolist() == [0.2, 0.2, 0.2, 0.6]


def test_searches_are_compared_where_the_shortest_ends_and_equal_names_are_seeds_of_one(search):
    curves = comparison.groups([search("a", "A", [0.2, 0.4, 0.9]), search("b", "A", [0.1, 0.8]),
                                search("c", "B", [0.1, 0.3])])
    table = comparison.at_equal_budget(curves).set_index("search")
    assert table["seeds"].to_dict() == {"A": 2, "B": 1}
    assert table["best after 2 trials"].to_dict() == {"A": pytest.approx(0.6), "B": 0.3}
    assert table["± (trials)"]["A"] == pytest.approx(0.2828, abs=1e-3)


def test_searches_with_different_judges_are_not_comparable(search):
    same = [search("a", "A", [0.2]), search("b", "B", [0.3])]
    assert comparison.differences(same) == []
    other = [same[0], search("c", "C", [0.3], judge="other")]
    assert "not comparable: the searches differ in judge" in comparison.text(other, comparison.groups(other))


def test_a_search_without_a_score_is_refused_in_one_line(search):
    with pytest.raises(UserError, match="^experiment a has no trial with a score yet$"):
        comparison.groups([search("a", "A", [None])])


def test_the_page_is_one_file_with_both_figures_and_escaped_names(search, tmp_path):
    searches = [search("a", "A <b>", [0.2, 0.4]), search("b", "A <b>", [0.1, 0.8])]
    file = comparison.write(searches, comparison.groups(searches), tmp_path)
    html = file.read_text()
    assert file.name == "compare-a-b.html" and "Against trials" in html and "Against seconds" in html
    assert "A &lt;b&gt;" in html and "<h1>A <b>" not in html
