"""The report as a page: its HTML, and in a real browser, from disk."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torchvision.utils import save_image

from experiments.nni_adapter import database
from experiments.report import page, results
from judge.score import find_formula
from trials.cyclegan import Settings

NAMES = ("identity_weight", "cycle_weight", "adversarial_weight")
PUBLISHED = {name: getattr(Settings(), name) for name in NAMES}
COMMAND = "python -m trials.cyclegan --budget 0.2"


@pytest.fixture
def search(recorded):
    """Return a function that makes a search of `count` trials; the second diverged, the third crashed."""

    def make(count: int, reports: int = 3) -> database.Experiment:
        rng, noise = torch.Generator().manual_seed(1), torch.rand(1, 3, 66, 530)
        trials = []
        for number in range(count):
            parameters = PUBLISHED if number == 0 else {
                key: value * (0.5 + torch.rand((), generator=rng).item()) for key, value in PUBLISHED.items()}
            final = {1: 0.0, 2: None}.get(number, round(0.3 + 0.5 * number / count, 4))
            end = "FAILED" if number == 2 else "SUCCEEDED"
            trials.append((f"t{number:03}", parameters, end, [0.1] * reports, final))
        folder = recorded("ssssssss", {"trialCommand": COMMAND, "experimentName": "A search"}, trials)
        ends = {1: ("diverged", "cycle_A loss is nan <b>"), 2: ("failed", "no room")}
        for number, (id_, *_) in enumerate(trials):
            trial = folder / "trials" / id_
            (trial / "samples").mkdir(parents=True)
            status, reason = ends.get(number, ("finished", None))
            (trial / "run.json").write_text(json.dumps({
                "status": status, "reason": reason, "data": {"name": "monets", "stand_in": False},
                "judge": {"file": "j.pt", "data": "monets", "auc": 0.98},
                "settings": {"size": "sketch", "budget": 0.2, "data": "monets", "judge": "j.pt"},
            }))  # fmt: skip
            lines = []
            for step in range(100, 100 * reports + 1, 100):  # the same photographs above other paintings
                painted = 0.3 * torch.rand(noise.shape, generator=rng)
                save_image(torch.cat([noise, painted], 2), trial / f"samples/step_{step:06}.png")
                scores = {"default": 0.001 * step, "style": 0.2, "content": 0.3}
                lines.append(json.dumps({"step": step, "score": scores}) + "\n")
            (trial / "stats.jsonl").write_text("".join(lines))
        return database.find_experiment(str(folder))

    return make


def test_a_page_has_every_trial_its_pictures_and_the_figures_and_reads_nothing_from_the_network(search):
    html = page.render(search(12))
    assert html.count('<tr data-trial="') + html.count('<tr class="best" data-trial="') == 12
    for words in ("experiment ssssssss: ", "monets", "AUC 0.980", "Learning curves", "What matters", "Slices",
                  "Parallel coordinates", "0 published", "a hint, not a finding", "no room", "adds up to 1",
                  "cycle_A loss is nan &lt;b&gt;"):
        assert words in html, words
    assert html.count("data:image/webp;base64,") == 1 + 12 * 3  # the photographs, and each painting once
    without_plotly = html.replace(page.get_plotlyjs(), "")
    assert "http://" not in without_plotly and "https://" not in without_plotly


def test_an_early_look_is_no_report_of_a_curve_but_its_sheet_is_shown(search):
    experiment = search(1)
    (trial,) = results.rows(experiment)
    stats, samples = trial.trial.folder / "stats.jsonl", trial.trial.folder / "samples"
    early = {"step": 42, "score": {"default": 0.9}, "early": True}
    stats.write_text(json.dumps(early) + "\n" + stats.read_text())
    (samples / "step_000042.png").write_bytes((samples / "step_000100.png").read_bytes())
    steps = {step for line in page.curves([trial]).data for step in line.x}
    assert steps == {100, 200, 300, None}
    assert list(page.painted_strips(trial.trial.folder, 9)) == [42, 100, 200, 300]


def test_another_formula_ranks_the_page_and_its_curves(search, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"format": "salon score 1", "weights": {"content": 1}}')
    experiment, formula = search(6), find_formula(str(file))
    assert "scores: by" not in page.render(experiment)
    html = page.write(experiment, tmp_path, formula).read_text()
    best = html.index('<tr class="best" data-trial="t000"')  # content is 1 - the score here
    assert best < html.index('data-trial="t005"') and f"scores: by {file}, not by the formula" in html
    curves = page.curves(results.rows(experiment, formula))
    assert {value for trace in curves.data if trace.visible for value in trace.y} == {0.3, None}


def test_only_the_published_setting_and_the_pareto_front_are_labelled():
    rows = [SimpleNamespace(trial=SimpleNamespace(number=at), published=at == 0) for at in range(4)]
    finals = pd.DataFrame({"default": 0.5, "style": [0.1, 0.2, 0.9, 0.3], "content": [0.1, 0.2, 0.3, 0.9]})
    points, front = page.trade_off(rows, finals).data
    assert list(points.text) == ["0 published", "", "2", "3"] and list(front.x) == [0.3, 0.9]
    assert list(points.hovertext) == ["0 published", "1", "2", "3"]


@pytest.mark.parametrize("trials", [[], [("a", PUBLISHED, None, [], None)]])
def test_a_search_that_has_only_begun_has_a_page(recorded, trials):
    folder = recorded("begun", {"trialCommand": COMMAND, "experimentName": "Begun"}, trials)
    html = page.render(database.find_experiment(str(folder)))
    assert "Begun" in html and "Learning curves" not in html


def test_the_page_of_a_search_and_that_of_its_confirmation_show_the_confirmation(search, recorded):
    experiment = search(1)
    for name, searched in (("this", "ssssssss"), ("another", "other")):
        arguments = {"settings": {"published": PUBLISHED}, "seeds": [0], "search": searched}
        tuner = {"className": "experiments.tuner.Listed", "classArgs": arguments}
        recorded(name, {"trialCommand": COMMAND, "experimentName": f"Seeds of {name}", "tuner": tuner},
                 [("p", PUBLISHED | {"seed": 0}, "SUCCEEDED", [], 0.7)])
    confirmation = database.find_experiment(str(experiment.folder.parent / "this"))
    for html in map(page.render, (experiment, confirmation)):
        assert "<h2>Confirmation" in html and "<pre>Seeds of this" in html and "Seeds of another" not in html


def test_with_many_trials_each_shows_fewer_steps_and_a_half_written_sheet_is_left_out(search):
    folder = search(1, reports=8).trials()[0].folder
    assert list(page.painted_strips(folder, 3)) == [100, 400, 800]
    assert list(page.painted_strips(folder, 1)) == [800] and len(page.painted_strips(folder, 99)) == 8
    (folder / "samples/step_000800.png").write_bytes(b"\x89PNG half")
    assert list(page.painted_strips(folder, 3)) == [100, 400]


@pytest.mark.slow
def test_in_a_browser_every_trial_shows_its_painting_at_each_step_and_columns_sort(search, browser, tmp_path):
    file = page.write(search(12), tmp_path)
    assert file.name == "ssssssss.html"
    tab, complaints = browser(file)
    pictures = tab.locator("td.pictures img:visible")
    slider, seen = tab.get_by_label("Paintings after"), set()
    for value, step in ((0, "100"), (1, "200"), (2, "300")):
        slider.fill(str(value))
        assert tab.locator("#shown").inner_text() == step and pictures.count() == 12
        for picture in pictures.all():
            picture.scroll_into_view_if_needed()
            assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") == 530
            seen.add(picture.get_attribute("src"))
    assert len(seen) == 36  # all different

    def trials() -> list[int]:
        return [int(row.get_attribute("data-trial")[1:]) for row in tab.locator("tbody tr").all()]

    assert trials()[0] == 11 and tab.locator("tr.best").count() == 1
    tab.get_by_role("button", name="trial", exact=True).focus()
    for expected in (list(range(11, -1, -1)), list(range(12))):  # by keyboard, both ways
        tab.keyboard.press("Enter")
        assert trials() == expected
    for column in ("cycle weight", "state"):  # numbers and words
        tab.get_by_role("button", name=column).click()
        cells = tab.locator(f"td[data-label='{column}']")
        values = cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")
        assert values == sorted(values, key=str if column == "state" else float, reverse=True)
    tab.locator("summary").first.click()
    assert "python -m trials.cyclegan" in tab.locator("details[open] code").inner_text()
    assert tab.locator(".js-plotly-plot").count() == 5 and not complaints, complaints


@pytest.mark.slow
def test_in_a_browser_a_phone_is_wide_enough_and_five_hundred_trials_still_scroll(search, browser, tmp_path):
    file = page.write(search(500, reports=4), tmp_path)
    assert file.stat().st_size < 60e6
    tab, complaints = browser(file, width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    pictures = tab.locator("td.pictures img:visible")
    assert pictures.first.bounding_box()["width"] > 300
    pictures.last.scroll_into_view_if_needed()
    assert pictures.last.evaluate("i => i.decode().then(() => i.naturalWidth)") == 530
    tab.get_by_label("Paintings after").fill("0")
    assert pictures.last.get_attribute("data-step") != "400" and not complaints, complaints
