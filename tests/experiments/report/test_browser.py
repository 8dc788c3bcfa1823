"""The page in a real browser: from a file, and live."""

import io
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.experiments.report import page_fixture

pytestmark = pytest.mark.slow
WAIT = 60_000  # milliseconds, on a busy machine


@pytest.fixture(autouse=True)
def patience():
    expect.set_options(timeout=WAIT)


@pytest.fixture
def opened(browser, tmp_path):
    """Return a function that opens a document's page from disk; it returns the tab and its complaints."""

    def open_(data: dict, pictures: dict, **options):
        return browser(page_fixture.save(tmp_path, data, pictures), **options)

    return open_


def trials(tab: Page) -> list[int]:
    """Return the numbers of the trials that the table shows, in its order."""
    rows = tab.locator("#trials tbody:not([hidden])")
    return [int(name[1:]) for name in rows.evaluate_all("rows => rows.map(row => row.dataset.trial)")]


def column(tab: Page, label: str) -> list[str]:
    return tab.locator(f"#trials td[data-label='{label}']").all_inner_texts()


def marks(tab: Page, figure: str) -> set[str]:
    """Return the ids of the trials that a figure of plotly shows."""
    tab.locator(f"#{figure}").scroll_into_view_if_needed()
    tab.locator(f"#{figure} .plot .main-svg").first.wait_for()
    return set(tab.locator(f"#{figure} .plot").evaluate(
        "plot => plot.data.flatMap(trace => trace.customdata ?? []).filter(id => id)"))


def picture(strip: Locator, without: set[str] = frozenset()) -> str:
    """Return the address of the picture that a strip shows, once it shows another one than before."""
    return until(lambda: {strip.get_attribute("style")} - without - {None}, strip.page).pop()


def until(condition: Callable, tab: Page):
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + WAIT / 1000
    while not (value := condition()):
        assert time.monotonic() < deadline
        tab.wait_for_timeout(20)
    return value


def colour(tab: Page, canvas: str) -> tuple:
    """Return the colour at the middle of a canvas, and its edge in pixels."""
    return tuple(tab.locator(canvas).evaluate(
        "c => [...c.getContext('2d').getImageData(c.width / 2, 5, 1, 1).data.slice(0, 3), c.width]"))


def painted(pictures: dict, key: str, image: int, pixels: int = 64) -> tuple:
    """Return the colour of an image of a strip, and its edge in pixels."""
    return (*Image.open(io.BytesIO(pictures[key])).convert("RGB").getpixel((image * pixels + 5, 5)), pixels)


def test_a_picture_opens_at_its_own_pixels_and_the_keyboard_goes_through_images_trials_and_steps(opened):
    data, pictures = page_fixture.document(12)
    tab, complaints = opened(data, pictures)
    dialog, caption = tab.locator("#viewer"), tab.locator("#viewed")
    cell = tab.get_by_role("button", name="trial 11, image 1", exact=True)
    cell.focus()
    tab.keyboard.press("Enter")
    expect(caption).to_contain_text("trial 11 best · image 1 · step 300")

    def shows(id_: str, step: int, image: int) -> None:
        """Both canvases show this image at 64 pixels, as large as a whole number of times fits."""
        wanted = painted(pictures, f"pictures/{id_}/{step}.webp", image)
        until(lambda: colour(tab, "#painting") == wanted, tab)
        assert colour(tab, "#source") == painted(pictures, "pictures/sources.webp", image)

    shows("t011", 300, 0)
    box = tab.locator("#painting").bounding_box()
    assert box["width"] % 64 == 0 and box["width"] >= 512
    assert tab.locator("#painting").evaluate("c => getComputedStyle(c).imageRendering") == "pixelated"
    for keys, id_, step, image in [
        ("ArrowRight", "t011", 300, 1), ("ArrowLeft ArrowLeft", "t011", 300, 7),
        ("ArrowDown", "t010", 300, 7),
        ("-", "t010", 200, 7), ("ArrowUp", "t011", 200, 7), ("+", "t011", 300, 7),
    ]:  # fmt: skip
        for key in keys.split():
            tab.keyboard.press(key)
        expect(caption).to_contain_text(f"trial {int(id_[1:])}")
        shows(id_, step, image)
    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cell).to_be_focused()
    assert not complaints, complaints


def test_head_and_first_column_stay_and_the_slider_shows_each_step(opened):
    data, pictures = page_fixture.document(30)
    tab, complaints = opened(data, pictures, width=900)
    scroller = tab.get_by_role("region", name="table of trials")
    head, first = tab.locator("#trials th[data-key=state]"), tab.locator("tbody[data-trial=t005] .first")
    before = head.bounding_box()["y"], tab.locator("thead th.first").bounding_box()["x"]
    scroller.evaluate("node => node.scrollTo(200, 1200)")
    assert scroller.evaluate("node => [node.scrollLeft > 50, node.scrollTop]") == [True, 1200]
    assert head.bounding_box()["y"] == pytest.approx(before[0], abs=1)
    assert first.bounding_box()["x"] == pytest.approx(before[1], abs=1)
    scroller.evaluate("node => node.scrollTo(0, 0)")
    strip = tab.locator("tbody[data-trial=t029] .strip")
    seen = [picture(strip)]  # the last one, of step 300
    slider = tab.get_by_label("Pictures after")
    slider.focus()
    for key, step in (("Home", "100"), ("ArrowRight", "200"), ("ArrowRight", "300")):
        tab.keyboard.press(key)
        expect(tab.locator("#shown")).to_have_text(step)
        expect(strip).to_have_attribute("data-shown", f"pictures/t029/{step}.webp")
        seen.append(picture(strip, without={seen[-1]}))
    assert len(set(seen)) == 3 and seen[0] == seen[-1]
    stopped = tab.locator("tbody[data-trial=t027] .strip small")
    expect(stopped).to_have_text("at step 200")
    assert not complaints, complaints


def test_columns_sort_best_first_fold_and_hide_and_a_filter_holds_in_table_and_figures(opened):
    data, pictures = page_fixture.document(12)
    for trial in data["trials"]:
        trial["pinned"] = trial["number"] == 4
    tab, complaints = opened(data, pictures)
    head = tab.locator("#trials thead")
    expect(tab.locator("th[aria-sort]")).to_contain_text("score")
    assert trials(tab)[:3] == [4, 11, 10] and trials(tab)[-1] == 2  # pinned, best first, without a score last
    kid = head.get_by_role("button", name="KID")
    kid.focus()
    expect(tab.locator("#tip")).to_contain_text("lower is better: distance to real paintings")
    tab.keyboard.press("Enter")
    values = [float(text) for text in column(tab, "KID") if text]
    assert values[1:] == sorted(values[1:]) and trials(tab)[0] == 4
    kid.click()
    values = [float(text) for text in column(tab, "KID") if text]
    assert values[1:] == sorted(values[1:], reverse=True) and set(trials(tab)[-2:]) == {1, 2}
    head.get_by_role("button", name="state").click()
    states = [text.split("\n")[0] for text in column(tab, "state")]
    assert states[1:] == sorted(states[1:])

    hidden = tab.locator("#hidden-columns")
    expect(hidden).to_contain_text("clean (1 everywhere), KID error (0.02 everywhere)")
    assert head.get_by_role("button", name="clean").count() == 0
    tab.get_by_role("button", name="show them").click()
    expect(head.get_by_role("button", name="clean")).to_be_visible()
    tab.locator("[data-fold=parameters]").click()
    expect(head.get_by_role("button", name="cycle weight")).to_have_count(0)
    tab.locator("[data-fold=parts]").click()
    expect(head.get_by_role("button")).to_have_text(
        ["trial", *[""] * 8, "state", "score ↑"])

    filter_ = tab.get_by_label("filter")
    for words, expected in [("resize", {1, 3, 5, 7, 9, 11}), ("upsampling=resize score>0.2", {5, 7, 9, 11}),
                            ("best", {11}), ("early", {3, 7}), ("kid<100 number>9", {10, 11}),
                            ("batch_size=4 number=3", {3})]:
        filter_.fill(words)
        assert set(trials(tab)) == expected, words
    expect(tab.get_by_text("1 of 12 trials")).to_be_visible()
    filter_.fill("nothing<3")
    expect(tab.get_by_text("no column nothing")).to_be_visible()
    filter_.fill("score>0.3")
    assert marks(tab, "tradeoff") == marks(tab, "slices") == {f"t{number:03}" for number in trials(tab)}
    filter_.fill("")
    assert len(marks(tab, "slices")) == 12  # also those that were stopped, diverged or failed
    assert not complaints, complaints


def test_a_row_opens_over_the_full_width_and_what_failed_is_seen_without_opening(opened):
    data, pictures = page_fixture.document(6)
    hostile = "</script><script>fail()</script><b>bold</b>"
    data["search"]["name"] = data["search"]["facts"][0] = hostile
    for trial in data["trials"]:
        trial["note"], trial["reason"] = hostile, hostile
    data["trials"][0]["parameters"]["upsampling"] = "<i>new</i>"
    data["trials"][0]["trained_on"] = {
        "step": 2000, "last_step": 2000, "score_text": "0.0425 ± 0.003", "state": "finished",
        "folder": "/c/t005", "picture": "pictures/sources.webp", "pixels": 64}  # fmt: skip
    tab, complaints = opened(data, pictures)
    expect(tab.locator("h1")).to_have_text(hostile)
    failed = tab.locator("tbody[data-trial=t002] .problem")
    expect(failed).to_have_text("ModuleNotFoundError: No module named 'x'")
    row = tab.locator("tbody[data-trial=t005]")
    expect(row.locator(".continued")).to_contain_text("0.0425 ± 0.003 finished, 2,000 of 2,000 steps")
    opener = tab.get_by_role("button", name="details of trial 5")
    opener.focus()
    tab.keyboard.press("Enter")
    detail = row.locator(".detail")
    expect(detail).to_contain_text(hostile)
    expect(detail).to_contain_text("batch_size 4")
    expect(detail.get_by_role("link", name="run.json")).to_have_attribute("href", "trials/t005/run.json")
    expect(opener).to_be_focused()
    assert detail.locator(".wide").bounding_box()["width"] > 1200 and detail.locator("textarea").count() == 0
    detail.get_by_role("button", name="copy").click()
    expect(detail.locator("[data-copy]")).to_have_text(re.compile("copied|selected"))
    tab.get_by_text("Commands", exact=True).click()
    expect(tab.locator("#commands")).to_contain_text("--like x")
    assert len(marks(tab, "curves")) == 5
    assert tab.locator("i, b:has-text('bold'), .plot svg i").count() == 0 and not complaints, complaints


def test_figures_follow_highlight_smoothing_facet_and_dark_mode(opened):
    data, pictures = page_fixture.document(12)
    tab, complaints = opened(data, pictures)
    plot = tab.locator("#curves .plot")
    marks(tab, "curves")

    def curve(name: str) -> dict:
        return plot.evaluate("(plot, name) => plot.data.find(trace => trace.name === name)", name)

    assert curve("11 best")["line"]["color"] == "#e0672f"
    assert curve("0 published")["line"]["color"] == "#2a7fde"
    grey = curve("5")["line"]
    tab.get_by_role("button", name="highlight trial 5 in").click()
    expect(tab.locator("tbody[data-trial=t005]")).to_have_class("highlighted")
    marks(tab, "curves")
    assert curve("5")["line"]["color"] != grey["color"] and curve("5")["line"]["width"] == 3
    rough = curve("5")["y"]
    tab.get_by_label("smooth").fill("0.9")
    assert curve("5")["y"][0] == rough[0] and curve("5")["y"][2] < rough[2]
    tab.get_by_label("log scale", exact=True).check()
    assert plot.evaluate("plot => plot.layout.yaxis.type") == "log"
    tab.get_by_label("Pictures after").fill("0")
    assert plot.evaluate("plot => plot.layout.shapes[0].x0") == 100

    marks(tab, "slices")
    slices = tab.locator("#slices .plot")
    panels = "plot => plot.data.length"
    assert slices.evaluate(panels) == 2 * 4  # three parameters and a ratio, for each upsampling
    axis = slices.evaluate("({layout: {xaxis}}) => [xaxis.type, xaxis.range.map(end => Math.round(end))]")
    assert axis == ["log", [0, 2]]  # as the search space, 1 to 100
    symbols = set(slices.evaluate("plot => plot.data.flatMap(trace => trace.marker.symbol)"))
    assert symbols == {"circle", "circle-open", "x-thin-open"}
    tab.locator("[data-facet=slices]").select_option("none")
    assert slices.evaluate(panels) == 5
    marks(tab, "contour")
    tab.locator("#contour-x").select_option("generator lr")
    assert tab.locator("#contour .plot").evaluate("plot => plot.layout.xaxis.title.text") == "generator lr"
    tab.locator("#parallel").scroll_into_view_if_needed()
    expect(tab.locator("#parallel polyline")).to_have_count(12)
    tab.locator("#parallel polyline[data-trial=t011]").dispatch_event("mouseover")
    expect(tab.locator("#under-pointer")).to_contain_text("trial 11 best")

    text = slices.evaluate("plot => plot.layout.font.color")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.emulate_media(color_scheme="dark")
    marks(tab, "slices")
    expect(tab.locator("body")).to_have_css("color", "rgb(255, 255, 255)")
    assert slices.evaluate("plot => plot.layout.font.color") != text and paper is not None
    assert not complaints, complaints


def test_a_phone_is_wide_enough_and_sorts(opened):
    data, pictures = page_fixture.document(12)
    tab, complaints = opened(data, pictures, width=390)
    for figure in ("curves", "slices", "contour", "tradeoff"):
        marks(tab, figure)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("tbody .strip").first.bounding_box()["width"] > 340
    cut = tab.locator("button:visible").evaluate_all(
        "buttons => buttons.filter(button => button.getBoundingClientRect().right > 390"
        " || button.scrollWidth > button.offsetWidth + 2)")
    assert not cut
    tab.get_by_label("sort by").select_option("KID")
    values = [float(text) for text in column(tab, "KID") if text]
    assert values == sorted(values)
    tab.get_by_role("button", name="other direction").click()
    values = [float(text) for text in column(tab, "KID") if text]
    assert values == sorted(values, reverse=True)
    tab.locator("tbody .cell").first.click()
    for canvas in ("#source", "#painting"):
        expect(tab.locator(canvas)).to_be_visible()
        box = tab.locator(canvas).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert not complaints, complaints


def test_a_page_of_five_hundred_trials_opens_filters_and_scrolls(opened):
    data, pictures = page_fixture.document(500, reports=4)
    tab, complaints = opened(data, pictures)
    last = tab.locator("#trials tbody").last
    last.scroll_into_view_if_needed()
    expect(last.locator(".first")).to_contain_text("2")
    shown = tab.locator("tbody[data-trial=t001] .strip")
    expect(shown).to_have_attribute("style", re.compile("blob:"))
    assert len(marks(tab, "slices")) == 500 and len(marks(tab, "curves")) == 499
    tab.get_by_label("filter").fill("number=7")
    assert trials(tab) == [7]
    assert not complaints, complaints


def test_images_can_be_chosen(opened):
    data, pictures = page_fixture.document(4, images=10)
    tab, complaints = opened(data, pictures)
    head, cells = tab.locator("thead"), tab.locator("tbody[data-trial=t000] .cell")
    expect(cells).to_have_count(8)
    head.get_by_role("button", name="image 2", exact=True).click()
    expect(cells).to_have_count(7)
    head.get_by_role("button", name="image 10", exact=True).click()
    expect(cells).to_have_count(8)
    expect(cells.last).to_have_attribute("data-image", "9")
    cells.last.click()
    expect(tab.locator("#viewed")).to_contain_text("image 10")
    assert not complaints, complaints


def test_a_live_page_changes_without_a_reload_and_keeps_what_its_reader_did(browser):
    data, pictures = page_fixture.document(30)
    data["search"] |= {"state": "running", "machine": ["cpu 97 %"], "expected_end": 2e9, "ended": 5}
    with page_fixture.serve(data, pictures) as served:
        served.change("t020", state="running", expected_end=2e9)
        tab, complaints = browser(served.url)
        expect(tab.locator("#state")).to_contain_text("running: 5 of 30 trials · 1 failed · best 0.4")
        expect(tab.locator("#machine")).to_have_text("cpu 97 %")
        tab.evaluate("window.loadedOnce = true")
        tab.locator("thead").get_by_role("button", name="trial", exact=True).click()  # by number
        row = tab.locator("tbody[data-trial=t020]")
        row.get_by_role("button", name="details of trial 20").click()
        note = tab.get_by_label("note on this trial")
        tab.get_by_label("Pictures after").fill("1")
        note.type("half a no")
        scroller = tab.locator(".scroll.table")
        before = scroller.evaluate("node => [node.scrollTop, scrollY]")
        assert before[0] > 0

        served.pictures["pictures/t020/250.webp"] = pictures["pictures/t029/300.webp"]
        shown = {"100": "pictures/t020/100.webp", "200": "pictures/t020/250.webp"}
        served.change("t020", pictures=shown, step=250, state="running", score_text="0.9 ± 0.1")
        expect(row.locator(".strip")).to_have_attribute("data-shown", "pictures/t020/250.webp")
        expect(row.locator("progress")).to_have_attribute("value", "250")
        expect(row.locator("td.score")).to_contain_text("0.9")
        assert scroller.evaluate("node => [node.scrollTop, scrollY]") == before
        expect(note).to_be_focused()
        expect(note).to_have_value("half a no")
        assert trials(tab) == list(range(30)) and tab.get_by_label("Pictures after").input_value() == "1"

        new = page_fixture.trial(30, 31, 3, np.random.default_rng(1)) | {"state": "running"}
        served.data["trials"].append(new)
        served.changed["t030"] = 0
        served.change("t030", number=30)
        expect(tab.locator("tbody[data-trial=t030]")).to_be_attached()
        expect(note).to_have_value("half a no")

        note.type("te")
        note.blur()
        expect(tab.locator("#problem")).to_have_text("")
        row.get_by_role("button", name="pin on top").click()
        expect(row.locator(".mark.pinned")).to_be_visible()
        assert trials(tab)[0] == 20
        tab.on("dialog", lambda dialog: dialog.accept())
        row.get_by_role("button", name="stop this trial").click()
        until(lambda: len(served.posts) == 3, tab)
        assert served.posts == [("trials/t020", {"note": "half a note"}), ("trials/t020", {"pinned": True}),
                                ("trials/t020", {"stop": True})]
        assert tab.evaluate("window.loadedOnce") and not complaints, complaints
        served.change(None, state="ended", message=None)
        expect(tab.locator("#state")).to_contain_text("the search has ended")
        served.stop()
        expect(tab.locator("#problem")).to_contain_text("python -m experiments show ssssssss")
        assert "blob:" in picture(row.locator(".strip"))


def test_a_refusal_of_the_server_is_shown(browser):
    data, pictures = page_fixture.document(3)
    with page_fixture.serve(data, pictures) as served:
        tab, _ = browser(served.url)
        served.post = lambda path, body: b'{"problem": "a note has at most 2000 characters"}'
        tab.get_by_role("button", name="details of trial 0").click()
        served.get = lambda path: None  # no poll takes the line away
        tab.get_by_role("button", name="pin on top").click()
        expect(tab.get_by_role("alert")).to_have_text("a note has at most 2000 characters")


def test_a_page_that_is_open_before_the_first_trial_fills(browser):
    data, pictures = page_fixture.document(4)
    trials_later, sources = data["trials"], data["sources"]
    data |= {"trials": [], "sources": None, "importance": {"rows": [], "note": ""}}
    data["search"] |= {"state": "preparing", "message": "measuring a trial ...", "counts": {}, "facts": []}
    with page_fixture.serve(data, pictures) as served:
        tab, complaints = browser(served.url)
        expect(tab.locator("#state")).to_contain_text("the search begins · measuring a trial ...")
        expect(tab.get_by_label("Pictures after")).to_be_hidden()
        served.data |= {"trials": trials_later, "sources": sources}
        served.changed |= {trial["id"]: 2 for trial in trials_later}
        served.change(None, state="running")
        expect(tab.locator("tbody .cell")).to_have_count(3 * 8)
        assert trials(tab) == [3, 0, 1, 2]
        assert "blob:" in picture(tab.locator("tbody[data-trial=t003] .strip"))
        assert not complaints, complaints
