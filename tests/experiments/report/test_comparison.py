"""Several searches at equal budget."""

import json
from html import unescape

import pytest
from plotly.colors import hex_to_rgb

from experiments.nni_adapter import database
from experiments.report import comparison
from judge.common.errors import UserError


@pytest.fixture
def search(recorded):
    """Return a function that makes a search; each trial ends a second after the one before."""

    def make(id_: str, name: str, finals: list, judge: str = "abc", options: str = "",
             space: dict | None = None) -> database.Experiment:  # fmt: skip
        config = {"trialCommand": f"python -m trials.cyclegan {options}", "experimentName": name}
        config |= {"searchSpace": space} if space else {}
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


SPACE = {"cycle_weight": {"_type": "uniform", "_value": [1, 10]}}


def test_searches_of_one_name_are_seeds_only_if_ranges_command_and_budget_agree(search):
    first, seed = search("a", "A", [0.2], options="--seed 1"), search("b", "A", [0.2], options="--seed 2")
    ranges, budget = search("c", "A", [0.2], space=SPACE), search("d", "A", [0.2], options="--budget 0.5")
    assert comparison.labels([first, seed]) == ["A", "A"]
    assert comparison.labels([first, ranges]) == ["A a", "A c"]
    assert comparison.labels([budget, first, seed]) == ["A d", "A a+b", "A a+b"]


def test_names_are_short_in_titles_and_legends(search):
    long = "A name of a search that says everything about it | sample | sketch | judge.pt"
    searches = [search("a", long, [0.2]), search("b", long, [0.2], options="--ndf 3")]
    assert comparison.labels(searches[:1]) == ["A name of a search that says everything…"]
    assert comparison.labels(searches) == [f"A name of a search that says everythi… {id_}" for id_ in "ab"]
    assert comparison.labels([search("c", "Quickstart | sample", [0.1])]) == ["Quickstart"]
    assert max(map(len, comparison.labels(searches))) <= 40


def test_a_search_without_a_score_so_far_says_so_and_is_not_drawn(search):
    slow, fast = search("slow", "Slow", [None, None, 0.4]), search("fast", "Fast", [0.1, 0.2])
    searches = [slow, fast]
    curves = comparison.groups(searches)
    assert "none yet" in comparison.text(searches, curves).splitlines()[1]
    assert comparison.at_equal_budget(curves).set_index("search").loc["Slow"].isna()["best after 2 trials"]
    slow_line = next(line for line in comparison.figure(curves, "trials").data if "Slow" in line.name)
    assert list(slow_line.x) == [3]


def test_a_band_is_a_paler_line_and_there_are_no_halves_of_trials(search):
    curves = comparison.groups([search("a", "A", [0.2, 0.4, 0.5]), search("b", "A", [0.1, 0.8, 0.8])])
    figure = comparison.figure(curves, "trials")
    (_, band, line), axis = figure.data, figure.layout.xaxis
    assert hex_to_rgb(line.line.color) == (31, 119, 180) and band.fillcolor == "rgba(31, 119, 180, 0.2)"
    assert axis.nticks == 3


def test_searches_with_different_judges_are_not_comparable(search):
    searches = [search("a", "A", [0.2]), search("b", "B", [0.3])]
    assert comparison.differences(searches) == []
    searches[1] = search("c", "C", [0.3], judge="other")
    text = comparison.text(searches, comparison.groups(searches))
    assert "\nnot comparable: the searches differ in judge\n" in text


@pytest.mark.parametrize(("first", "second", "line"), [
    ([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.9, 0.8],
     "a and b: 5 settings in both, Spearman's rank correlation 0.90 ["),
    ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5],
     "a and b: 4 settings in both, Spearman's rank correlation -1.00 [-1.00, -1.00] (95 %, bootstrap over"),
    ([0.1, 0.2, None, 0.4], [0.1, 0.2, 0.3, 0.4], "a and b: 3 settings in both, a rank correlation needs 4"),
    ([0.1], [0.1, 0.2, 0.3, 0.4], "a and b: 1 setting in both, a rank"),
    ([0.2] * 4, [0.1, 0.2, 0.3, 0.4], "a and b: 4 settings in both, one search has the same score for all"),
])
def test_the_ranks_of_settings_that_both_have_trained_are_compared(search, tmp_path, first, second, line):
    searches = [search("a", "A", first), search("b", "B", second, judge="other")]
    curves = comparison.groups(searches)
    assert line in comparison.text(searches, curves)
    html = comparison.write(searches, curves, tmp_path).read_text()
    assert line[:40] in unescape(html) and "<h2>Do the ranks" in html


def test_the_score_of_a_setting_is_its_mean_over_seeds_whatever_the_order_of_its_parameters(recorded):
    def seed(number: int, score: float, **parameters: float) -> tuple:
        return f"t{number}", {**parameters, "seed": number}, "SUCCEEDED", [0.1], score

    folder = recorded("seeds", {"trialCommand": "python -m trials.cyclegan"}, [
        seed(0, 0.2, beta1=0.5, cycle_weight=3.0), seed(1, 0.0, cycle_weight=3, beta1=0.5),
        seed(2, 0.4, cycle_weight=4.0, beta1=0.5), ("t3", {"beta1": 0.6}, "EARLY_STOPPED", [0.9], None)])
    experiment = database.find_experiment(str(folder))
    assert sorted(comparison.settings_scores(experiment)) == [0.1, 0.4]
    trials = [("t0", {"beta1": 0.6}, "EARLY_STOPPED", [0.9], None)]
    folder = recorded("stopped", {"trialCommand": "python -m trials.cyclegan"}, trials)
    stopped = database.find_experiment(str(folder))
    assert comparison.rank_correlations([experiment, stopped])[0].startswith("seeds and stopped: 0 settings")


def test_a_search_without_a_score_is_refused_in_one_line(search):
    with pytest.raises(UserError, match="^experiment a has no trial with a score yet$"):
        comparison.groups([search("a", "A", [None])])


def test_the_page_is_one_file_with_both_figures(search, tmp_path):
    searches = [search("a", "A", [0.2, 0.4]), search("b", "A", [0.1, 0.8])]
    file = comparison.write(searches, comparison.groups(searches), tmp_path)
    html = file.read_text()
    assert file.name == "compare-a-b.html" and "Against trials" in html and "Against seconds" in html
