"""The page that asks for votes: its requests, and in a real browser."""

import http.client
import json
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from experiments import loopback
from experiments.preferences import candidates, server, votes
from experiments.preferences.pairs import Chooser
from judge.common.errors import UserError
from judge.score import PARTS

TOKEN = "secret"


@pytest.fixture
def voting(searched, tmp_path) -> server.Voting:
    """Return a run of twelve votes on a search of three trials."""
    _, found = candidates.find([str(searched("aaaa"))])
    chooser = Chooser(found, seed=0)
    return server.Voting(chooser, tmp_path / votes.FILE_NAME, "ann <b>", 12)


@pytest.fixture
def ask(voting) -> Callable[..., tuple[int, dict]]:
    """Return a function that sends a request, and returns the status and the JSON in the answer."""
    with loopback.Server(("127.0.0.1", 0), partial(server.Handler, voting, TOKEN)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()

        def ask(method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
            connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=60)
            content = body if isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, content if method == "POST" else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            is_json = "json" in answer.headers["Content-Type"]
            return answer.status, json.loads(text) if is_json else {"text": text.decode()}

        ask.address = f"http://127.0.0.1:{running.server_port}/{TOKEN}/"
        yield ask
        running.shutdown()


def answers(file: Path) -> list[str]:
    return [vote.vote for vote in votes.read(file)[0]]


def test_a_vote_is_in_the_file_at_once_with_all_that_the_fit_needs_and_undo_takes_it_back(voting, ask):
    _, first = ask("GET", f"/{TOKEN}/pair")
    assert (first["number"], first["total"], first["voter"]) == (1, 12, "ann <b>")
    assert first["edge"] == 128 and all(len(first[name]) == 8 for name in ("photographs", "left", "right"))
    assert "aaaa" not in json.dumps(first) and "style" not in json.dumps(first)  # no names, no scores
    left, right, _ = voting.pair
    assert ask("POST", f"/{TOKEN}/vote", {"number": 1, "vote": "right"})[1]["number"] == 2
    ((vote,), damaged) = votes.read(voting.file)
    assert (vote.left, vote.right, vote.vote, vote.voter) == (left.sheet, right.sheet, "right", "ann <b>")
    assert vote.left.folder == f"aaaa/trials/{vote.left.trial}" and not vote.repeat and not damaged
    assert set(vote.left.parts) == set(PARTS)  # all that the trial recorded
    ask("POST", f"/{TOKEN}/vote", {"number": 1, "vote": "left"})  # pressed twice: ignored
    ask("POST", f"/{TOKEN}/vote", {"number": 2, "vote": "level"})
    assert answers(voting.file) == ["right", "level"]
    for number in (3, 2, 1):  # the third is refused: there is nothing left of this run
        _, view = ask("POST", f"/{TOKEN}/vote", {"number": number, "vote": "undo"})
    assert view == first and answers(voting.file) == []


def test_requests_without_the_token_and_wrong_ones_are_refused_and_change_nothing(voting, ask):
    before = voting.pair
    good = {"number": 1, "vote": "left"}
    for path in ("/", "/vote", "/pair", "//vote", "/secret2/vote", "/secre/vote", "/%73ecret/vote"):
        for method in ("GET", "POST"):
            assert ask(method, path, good, Referer=ask.address)[0] == 403, path
    for path in ("/secret/", "/secret/pair", "/secret/../secret/vote", "/secret/page.py"):
        assert ask("POST", path, good)[0] == 404
    assert ask("GET", "/secret/../../../etc/passwd")[0] == ask("GET", "/secret/vote")[0] == 404
    for body in (b"", b"{", b"[" * 999, b"\xff", b"null", {}, {"number": "1", "vote": "left"},
                 b"[" + b" " * 999):
        assert ask("POST", "/secret/vote", body)[0] == 400, body
    for length in ("x", "-1"):
        assert ask("POST", "/secret/vote", b"", **{"Content-Length": length})[0] == 400
    for wrong in (good | {"vote": "both"}, good | {"number": 2}, good | {"vote": "undo"}):
        assert ask("POST", "/secret/vote", wrong)[0] == 200
    assert not voting.file.exists() and voting.pair == before


def test_a_vote_that_cannot_be_written_is_said_on_the_page_and_not_counted(voting, ask, capsys):
    voting.file.mkdir()
    _, view = ask("POST", f"/{TOKEN}/vote", {"number": 1, "vote": "left"})
    assert "cannot write to" in view["problem"] and voting.number == 1
    voting.file.rmdir()
    assert ask("POST", f"/{TOKEN}/vote", {"number": 1, "vote": "left"})[1]["number"] == 2


def test_votes_of_earlier_runs_are_not_asked_for_again_and_those_of_others_are(voting, searched):
    for _ in range(12):
        voting.receive(voting.number, "left")
    assert voting.pair is None and "12 votes are in" in voting.view()["end"]
    seen = {vote.key for vote in voting.votes}
    again = {name: server.Voting(voting.chooser, voting.file, name, 9) for name in (voting.voter, "bob")}
    for run in again.values():
        for _ in range(9):
            run.receive(run.number, "left")
    assert not seen & {vote.key for vote in again[voting.voter].votes}
    assert seen & {vote.key for vote in again["bob"].votes}


def test_a_wrong_name_and_a_busy_port_are_said_before_anything_is_shown(searched, tmp_path, voting):
    folder = str(tmp_path / "aaaa")
    with pytest.raises(UserError, match="not a name"):
        server.prefer([folder], " \n", 60, 0, False, 0)
    with loopback.Server(("127.0.0.1", 0), None) as busy:
        for port in (busy.server_port, 10**6):
            with pytest.raises(UserError, match=f"--port {port} cannot be used"):
                server.prefer([folder], "ann", 60, port, False, 0)


@pytest.mark.slow
def test_the_command_prints_its_address_first_and_ctrl_c_ends_it_without_a_traceback(searched, run_command):
    folder = searched("aaaa")
    run = run_command(folder, "--voter", "bob", command="prefer")
    address, place = run.stdout.readline().strip(), run.stdout.readline()
    port, token = address.removeprefix("http://127.0.0.1:").rstrip("/").split("/")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    connection.request("POST", f"/{token}/vote", json.dumps({"number": 1, "vote": "left"}))
    assert json.loads(connection.getresponse().read())["number"] == 2
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in output and "votes of bob go to" in place
    assert answers(folder.parent / votes.FILE_NAME) == ["left"]
    taste = run_command(folder.parent, command="taste")
    output, _ = taste.communicate(timeout=120)
    assert taste.returncode == 0 and "bob: 1 votes" in output and (folder.parent / "score.json").exists()


@pytest.mark.slow
def test_in_a_browser_one_votes_and_undoes_by_keyboard_and_by_buttons(voting, ask, browser):
    tab, complaints = browser(ask.address)
    progress = tab.locator("#progress")

    def shows(text: str) -> None:
        tab.wait_for_function("text => document.querySelector('#progress').textContent === text", arg=text)

    shows("0 of 12")
    assert tab.locator("#voter").inner_text() == "by ann <b>"
    images = tab.locator(".images img")
    assert images.count() == 24
    for image in images.all():  # the trial's own pixels, enlarged by a whole factor without smoothing
        facts = image.evaluate("i => i.decode().then(() => [i.naturalWidth, i.getBoundingClientRect().width,"
                               " getComputedStyle(i).imageRendering])")
        assert facts == [64, 128, "pixelated"]
    left, right = (tab.locator(f"#{side}").bounding_box() for side in ("left", "right"))
    assert left["x"] + left["width"] < right["x"] and left["y"] == right["y"]
    assert tab.locator("#photographs").bounding_box()["y"] < left["y"]
    for key, text in (("ArrowLeft", "1 of 12"), ("ArrowRight", "2 of 12"), ("ArrowDown", "3 of 12"),
                      ("u", "2 of 12"), ("U", "1 of 12")):
        tab.keyboard.press(key)
        shows(text)
    assert answers(voting.file) == ["left"]
    tab.reload()  # nothing is lost
    shows("1 of 12")
    for name, text in (("right", "2 of 12"), ("level", "3 of 12"), ("undo", "2 of 12"), ("left", "3 of 12")):
        tab.get_by_role("button", name=name).click()
        shows(text)
    for number in range(4, 13):
        tab.keyboard.press("ArrowLeft")
        shows(f"{number} of 12")
    assert "Thank you. 12 votes are in" in tab.locator("#message").inner_text()
    assert not tab.locator("#sheets").is_visible()
    tab.keyboard.press("u")
    shows("11 of 12")
    assert tab.locator("#sheets").is_visible() and progress.is_visible()
    assert answers(voting.file) == ["left", "right"] + ["left"] * 9
    assert not complaints, complaints


@pytest.mark.slow
def test_in_a_browser_a_phone_shows_the_sheets_below_each_other_and_is_wide_enough(ask, browser):
    tab, complaints = browser(ask.address, width=390)
    tab.locator(".images img").nth(23).wait_for(state="attached")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    left, right = (tab.locator(f"#{side}").bounding_box() for side in ("left", "right"))
    assert left["y"] + left["height"] < right["y"] and left["x"] == right["x"]
    assert tab.locator("#left img").first.bounding_box()["width"] == 128
    for button in tab.locator("button").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and 0 <= box["x"] and box["x"] + box["width"] <= 390
    tab.get_by_role("button", name="right").click()
    tab.wait_for_function("() => document.querySelector('#progress').textContent === '1 of 12'")
    assert not complaints, complaints
