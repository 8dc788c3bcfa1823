"""Several searches at equal budget."""

import json

import pytest

from experiments.nni_adapter import database
from experiments.report import comparison
from judge.common.errors import UserError


@pytest.fixture
def search(recorded):
    """A search of finals; each trial ends one second later than the one before (all begin at 1)."""

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


def test_the_best_so_far_never_falls_and_a_crash_counts_as_a_trial(search):
    course = comparison.best_so_far(search("a", "A", [0.2, None, 0.1, 0.6]))
    assert course["trials"].tolist() == [1, 2, 3, 4]
    assert course["best"].tolist() == [0.2, 0.2, 0.2, 0.6]


def test_searches_are_compared_where_the_shortest_ends(search):
    courses = comparison.groups([search("a", "A", [0.2, 0.3, 0.9]), search("b", "B", [0.1, 0.4])])
    table = comparison.at_equal_budget(courses).set_index("search")
    assert table["best after 2 trials"].to_dict() == {"A": 0.3, "B": 0.4}


def test_equal_names_are_one_search_with_several_seeds(search):
    courses = comparison.groups([search("a", "A", [0.2, 0.4]), search("b", "A", [0.1, 0.8])])
    table = comparison.at_equal_budget(courses)
    assert table["seeds"].tolist() == [2]
    assert table["best after 2 trials"].iloc[0] == pytest.approx(0.6)
    assert table["± (trials)"].iloc[0] == pytest.approx(0.2828, abs=1e-3)


def test_another_judge_makes_searches_not_comparable(search):
    same = [search("a", "A", [0.2]), search("b", "B", [0.3])]
    assert comparison.differences(same) == []
    other = [same[0], search("c", "C", [0.3], judge="other")]
    assert comparison.differences(other) == ["judge"]
    assert "not comparable: the searches differ in judge" in comparison.text(other, comparison.groups(other))


def test_a_search_without_a_score_is_one_line(search):
    with pytest.raises(UserError, match="^experiment a has no trial with a score yet$"):
        comparison.groups([search("a", "A", [None])])


def test_the_page_is_one_file_with_both_figures(search, tmp_path):
    searches = [search("a", "A <b>", [0.2, 0.4]), search("b", "A <b>", [0.1, 0.8])]
    file = comparison.write(searches, comparison.groups(searches), tmp_path)
    html = file.read_text()
    assert file.name == "compare-a-b.html" and "Against trials" in html and "Against seconds" in html
    assert "A &lt;b&gt;" in html and "<h1>A <b>" not in html
