"""The report as a page: in a real browser, from disk."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torchvision.utils import save_image

from experiments.nni_adapter import database
from experiments.report import page
from trials.cyclegan import Settings

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight,
             "adversarial_weight": Settings().adversarial_weight}


def sheet(file: Path, seed: int) -> None:
    """A sample sheet of eight photographs and what was painted of them."""
    draw = torch.Generator().manual_seed(seed)
    top = torch.rand(1, 3, 66, 530, generator=torch.Generator().manual_seed(0))
    save_image(torch.cat([top, torch.rand(1, 3, 66, 530, generator=draw) * 0.3], 2), file)


@pytest.fixture
def search(recorded):
    """Writes a search of `count` trials with `reports` sheets each; the second diverged, the third
    crashed."""

    def make(count: int, reports: int = 3, name: str = "A search") -> database.Experiment:
        rng = torch.Generator().manual_seed(1)
        trials = []
        for at in range(count):
            parameters = PUBLISHED if at == 0 else {
                key: value * (0.5 + torch.rand((), generator=rng).item()) for key, value in PUBLISHED.items()}
            final = None if at == 2 else 0.0 if at == 1 else round(0.3 + 0.5 * at / count, 4)
            end = "FAILED" if at == 2 else "SUCCEEDED"
            trials.append((f"t{at:03}", parameters, end, [0.1] * reports, final))
        config = {"trialCommand": "python -m trials.cyclegan --budget 0.2", "experimentName": name}
        folder = recorded("ssssssss", config, trials)
        for at, (id_, *_) in enumerate(trials):
            own = folder / "trials" / id_
            (own / "samples").mkdir(parents=True)
            status, reason = {1: ("diverged", "cycle_A loss is nan <b>"), 2: ("failed", "no room")}.get(
                at, ("finished", None))
            (own / "run.json").write_text(json.dumps({
                "status": status, "reason": reason, "data": {"name": "monets", "stand_in": False},
                "judge": {"file": "j.pt", "data": "monets", "auc": 0.98},
                "settings": {"size": "sketch", "budget": 0.2, "seed": 0, "data": "monets", "judge": "j.pt"},
            }))  # fmt: skip
            lines = []
            for report in range(1, reports + 1):
                sheet(own / "samples" / f"step_{100 * report:06}.png", 1000 * at + report)
                parts = {"default": 0.1 * report, "style": 0.2, "content": 0.3}
                lines.append(json.dumps({"step": 100 * report, "score": parts}))
            (own / "stats.jsonl").write_text("\n".join(lines) + "\n")
        return database.find_experiment(str(folder))

    return make


def test_a_page_has_every_trial_its_pictures_and_the_figures(search):
    html = page.render(search(12))
    assert html.count('<tr data-trial="') + html.count('<tr class="best" data-trial="') == 12
    for words in ("experiment ssssssss: A search", "monets", "AUC 0.980", "Learning curves", "What matters",
                  "Slices", "Parallel coordinates", "0 published", "a hint, not a finding", "no room"):
        assert words in html, words
    assert html.count("data:image/webp;base64,") == 1 + 12 * 3  # the photographs, and each painting once


def test_of_many_points_only_the_published_and_the_unbeaten_are_named():
    rows = [SimpleNamespace(trial=SimpleNamespace(number=at), reference=at == 0) for at in range(4)]
    results = pd.DataFrame({"default": 0.5, "style": [0.1, 0.2, 0.9, 0.3], "content": [0.1, 0.2, 0.3, 0.9]})
    points, front = page.trade_off(rows, results).data
    assert list(points.text) == ["0 published", "", "2", "3"] and list(front.x) == [0.3, 0.9]
    assert list(points.hovertext) == ["0 published", "1", "2", "3"]


def test_what_came_from_a_file_is_escaped(search):
    html = page.render(search(4, name="<script>alert(1)</script>"))
    assert "<script>alert(1)" not in html and "cycle_A loss is nan &lt;b&gt;" in html


def test_a_page_reads_nothing_from_the_network(search):
    html = page.render(search(3))
    without_plotly = html.replace(page.get_plotlyjs(), "")
    assert "http://" not in without_plotly and "https://" not in without_plotly


def test_a_search_that_has_only_begun_has_a_page(recorded):
    config = {"trialCommand": "python -m trials.cyclegan", "experimentName": "Begun"}
    for id_, trials in (("eeeeeeee", []), ("rrrrrrrr", [("a", PUBLISHED, None, [], None)])):
        html = page.render(database.find_experiment(str(recorded(id_, config, trials))))
        assert "Begun" in html and "Learning curves" not in html


def test_many_trials_have_fewer_pictures_each(search):
    folder = search(3, reports=8).trials()[0].folder
    assert list(page.strips(folder, 3)) == [100, 400, 800]
    assert list(page.strips(folder, 1)) == [800] and len(page.strips(folder, 99)) == 8


def test_a_half_written_sheet_is_left_out(search):
    folder = search(3).trials()[0].folder
    (folder / "samples/step_000300.png").write_bytes(b"\x89PNG half")
    assert list(page.strips(folder, 9)) == [100, 200]


@pytest.mark.slow
def test_in_a_browser_every_trial_shows_its_painting_at_every_step(search, browser, tmp_path):
    file = page.write(search(12), tmp_path)
    assert file.name == "ssssssss.html"
    tab, complaints = browser(file)
    pictures = tab.locator("td.pictures img")
    assert pictures.count() == 12
    slider, seen = tab.get_by_label("Paintings after"), set()
    for value, step in ((0, "100"), (1, "200"), (2, "300")):
        slider.fill(str(value))
        assert tab.locator("#shown").inner_text() == step
        for picture in pictures.all():
            picture.scroll_into_view_if_needed()
            assert picture.is_visible()
            assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") == 530
            seen.add(picture.get_attribute("src"))
    assert len(seen) == 36  # all different
    assert not complaints, complaints


@pytest.mark.slow
def test_in_a_browser_a_column_sorts_both_ways_by_keyboard(search, browser, tmp_path):
    tab, complaints = browser(page.write(search(12), tmp_path))

    def trials() -> list[int]:
        return [int(row.get_attribute("data-trial")[1:]) for row in tab.locator("tbody tr").all()]

    assert trials()[0] == 11 and tab.locator("tr.best").count() == 1
    tab.get_by_role("button", name="trial", exact=True).focus()
    tab.keyboard.press("Enter")
    assert trials() == list(range(11, -1, -1))
    tab.keyboard.press("Enter")
    assert trials() == list(range(12))
    tab.get_by_role("button", name="cycle weight").click()
    cells = tab.locator("td[data-label='cycle weight']").all()
    values = [float(cell.get_attribute("data-value")) for cell in cells]
    assert values == sorted(values, reverse=True)
    tab.locator("summary").first.click()
    assert "python -m trials.cyclegan" in tab.locator("details[open] code").inner_text()
    assert tab.locator(".js-plotly-plot").count() == 5 and not complaints, complaints


@pytest.mark.slow
def test_in_a_phone_nothing_is_wider_than_the_screen(search, browser, tmp_path):
    tab, _ = browser(page.write(search(6), tmp_path), width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("td.pictures img").first.bounding_box()["width"] > 300


@pytest.mark.slow
def test_a_page_of_five_hundred_trials_still_scrolls(search, browser, tmp_path):
    file = page.write(search(500, reports=4), tmp_path)
    assert file.stat().st_size < 60e6
    tab, complaints = browser(file)
    last = tab.locator("td.pictures img").last
    last.scroll_into_view_if_needed()
    assert last.evaluate("i => i.decode().then(() => i.naturalWidth)") == 530
    tab.get_by_label("Paintings after").fill("0")
    assert last.get_attribute("data-step") != "400" and not complaints, complaints
