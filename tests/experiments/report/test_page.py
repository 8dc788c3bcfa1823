"""The page of an experiment as a file."""

import json
import re

import pytest

from experiments.nni_adapter.database import find_experiment
from experiments.report import page
from experiments.report.page_data import PageData
from judge.score import find_formula
from tests.experiments.report.conftest import COMMAND, PUBLISHED


def scripts(html: str) -> tuple[dict, dict]:
    """Return the document and the pictures in a page."""
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html, re.DOTALL)
    content = {name: json.loads(text) for name, text in found}
    return content["data"], content["pictures"]


def test_a_file_has_every_trial_and_picture_and_reads_nothing_from_the_network(search):
    experiment = search(9)
    file = page.write(experiment)
    assert file == experiment.folder / "ssssssss.html"
    html = file.read_text()
    document, pictures = scripts(html)
    keys = [key for trial in document["trials"] for key in trial["pictures"].values()]
    assert len(document["trials"]) == 9 and len(keys) == 27 and not document["live"]
    assert set(pictures) == {*keys, "pictures/sources.webp"}
    assert all(url.startswith("data:image/webp;base64,") for url in pictures.values())
    linked = [link for kind in ("files", "sheets") for link in document["trials"][0][kind]]
    assert [link["label"] for link in linked] == ["run.json", "stats.jsonl", "100", "200", "300"]
    assert all((file.parent / link["url"]).is_file() for link in linked)
    without_plotly = html.replace(page.get_plotlyjs(), "")
    assert not re.search(r"<(script|link|img)[^>]* (src|href)=\"(?!data:)", without_plotly)
    assert "cycle_A loss is nan <b>" not in html and "cycle_A loss is nan \\u003cb>" in html


def test_a_page_that_is_asked_for_shows_its_progress_and_one_that_is_written_beside_a_live_table_none(
    search, monkeypatch,
):
    told, experiment = [], search(3)
    monkeypatch.setattr(page, "progress", lambda items, doing: told.append((doing, len(items))) or items)
    page.write_data(PageData(experiment))
    assert told == []
    page.write(experiment)
    assert told == [("trials on the page", 3)]


def test_a_page_in_another_folder_has_no_links_to_files_which_it_would_not_find(search, tmp_path):
    document, _ = scripts(page.write(search(2), tmp_path / "elsewhere").read_text())
    assert all(trial["files"] == trial["sheets"] == [] for trial in document["trials"])


def test_the_last_picture_is_the_best_one_and_with_many_trials_each_shows_fewer_steps(search, monkeypatch):
    data, steps = PageData(search(2, reports=8)), [str(step) for step in range(100, 900, 100)]
    document = data.document()
    for budget, kept in ((48e6, steps), (3 * 2 * 8 * 64**2, ["100", "500", "800"]), (1, ["800"])):
        monkeypatch.setattr(page, "MAX_PIXELS", budget)
        reduced, strips = page.embed(data, document)
        assert [list(trial["pictures"]) for trial in reduced["trials"]] == [kept] * 2
        assert len(strips) == 1 + 2 * len(kept)
        assert len(strips["pictures/t000/800.webp"]) > 1.5 * len(strips.get("pictures/t000/100.webp", ""))
    assert list(document["trials"][0]["pictures"]) == steps  # as it was


def test_a_picture_that_cannot_be_read_any_more_is_left_out(search):
    experiment = search(2)
    data = PageData(experiment)
    document = data.document()
    (experiment.folder / "trials/t001/samples/step_000200.png").write_bytes(b"\x89PNG half")
    reduced, strips = page.embed(data, document)
    kept = {trial["id"]: list(trial["pictures"]) for trial in reduced["trials"]}
    assert kept == {"t000": ["100", "200", "300"], "t001": ["100", "300"]} and len(strips) == 6


def test_another_formula_ranks_the_page(search, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"format": "salon score 1", "weights": {"content": 1}}')
    experiment = search(6)
    document, _ = scripts(page.write(experiment, tmp_path, find_formula(str(file))).read_text())
    assert document["search"]["rescored"]
    assert any(f"scores: by {file}, not by the formula" in line for line in document["search"]["facts"])


@pytest.mark.parametrize("trials", [[], [("a", PUBLISHED, None, [], None)]])
def test_a_search_that_has_only_begun_has_a_page(recorded, trials):
    folder = recorded("begun", {"trialCommand": COMMAND, "experimentName": "Begun"}, trials)
    document, pictures = scripts(page.write(find_experiment(str(folder))).read_text())
    assert document["search"]["name"] == "Begun" and len(document["trials"]) == len(trials) and not pictures


def test_the_page_of_a_search_and_that_of_its_confirmation_show_the_confirmation(search, recorded):
    experiment = search(1)
    for name, searched in (("this", "ssssssss"), ("another", "other")):
        arguments = {"settings": {"published": PUBLISHED}, "seeds": [0], "search": searched}
        tuner = {"className": "experiments.tuner.Listed", "classArgs": arguments}
        recorded(name, {"trialCommand": COMMAND, "experimentName": f"Seeds of {name}", "tuner": tuner},
                 [("p", PUBLISHED | {"seed": 0}, "SUCCEEDED", [], 0.7)])
    confirmation = find_experiment(str(experiment.folder.parent / "this"))
    for each, kind in ((experiment, "search"), (confirmation, "confirmation")):
        facts = PageData(each).document()["search"]
        assert facts["confirmation"].startswith("Seeds of this") and facts["kind"] == kind
