"""The page while it is served: its requests, as a browser and as others send them."""

import http.client
import json
import shutil
import signal
import threading
import time
from contextlib import suppress
from http import HTTPStatus

import psutil
import pytest
import requests

from experiments import notes
from experiments.nni_adapter import manager
from experiments.nni_adapter.database import find_experiment
from experiments.report import live, page
from experiments.report.page_data import PageData
from judge.common.cli import Interrupted
from judge.common.errors import UserError
from tests.experiments import long_run
from tests.experiments.helpers import FEW, SPACE, TIMEOUT, TINY, finish, folder_of, processes_of, until


@pytest.fixture
def served(search):
    """Return the page of a search of five trials, of which the last one runs."""
    data = PageData(search(5, ends={4: None}))
    data.state = "running"
    page = live.LivePage(data)
    yield page
    page._polled = float("-inf")  # nobody has it open any more
    page.close()


def ask(page: live.LivePage, path: str, body: object = None, method: str | None = None) -> tuple:
    """Send a request, a POST if there is a body; return the status and the answer."""
    url = f"{page.address}{path}"
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = requests.request(method or ("GET" if body is None else "POST"), url, timeout=TIMEOUT,
                              data=None if body is None else content)
    return answer.status_code, answer.json() if "json" in answer.headers["Content-Type"] else answer.content


def test_the_page_and_all_that_it_loads_are_served_and_nothing_from_elsewhere_is_allowed(served):
    answer = requests.get(served.address, timeout=TIMEOUT)
    policy = answer.headers["Content-Security-Policy"]
    assert policy == ("default-src 'none'; img-src 'self' data: blob:; script-src 'self'; style-src 'self' "
                      "'unsafe-inline'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'")
    assert "A search" in answer.text and '"live": true' in answer.text
    assert "data:image/webp" not in answer.text
    for name in (*page.SCRIPTS, page.STYLE, "plotly.js"):
        assert ask(served, name)[0] == 200, name
    _, changes = ask(served, "changes?since=0")
    for trial in changes["trials"]:
        links = [link["url"] for link in trial["files"] + trial["sheets"]]
        for address in (*trial["pictures"].values(), *links):
            assert ask(served, address)[0] == 200, address
    status, webp = ask(served, changes["sources"]["picture"])
    assert status == 200 and webp[:4] == b"RIFF" and changes["search"]["state"] == "running"


def test_a_pin_and_a_note_are_kept_and_answered_with_what_has_changed(served):
    _, before = ask(served, "changes?since=0")
    status, changes = ask(served, "trials/t001", {"pinned": True, "note": "mine <b>"})
    assert status == 200 and [trial["id"] for trial in changes["trials"]] == ["t001"]
    assert changes["trials"][0]["pinned"] and changes["trials"][0]["note"] == "mine <b>"
    assert changes["revision"] > before["revision"]
    status, changes = ask(served, "search", {"note": "all of it"})
    assert status == 200 and changes["search"]["note"] == "all of it" and changes["trials"] == []
    kept = notes.read(served.data.experiment.folder)
    assert kept.trials == {"t001": notes.Mark("mine <b>", True)} and kept.search == notes.Mark("all of it")
    status, problem = ask(served, "trials/t001", {"note": "x" * (notes.MAX_NOTE + 1)})
    assert status == HTTPStatus.CONFLICT and "at most" in problem["problem"]
    assert notes.read(served.data.experiment.folder) == kept


def test_a_stop_is_nnis_own_call_and_only_while_the_search_runs(served, monkeypatch):
    status, problem = ask(served, "trials/t004", {"stop": True})
    assert status == HTTPStatus.CONFLICT and "not running any more" in problem["problem"]
    calls = []
    monkeypatch.setattr(manager, "port_of", lambda experiment: 12345)
    monkeypatch.setattr(
        manager.requests, "delete", lambda url, timeout: calls.append(url) or requests.Response())
    monkeypatch.setattr(requests.Response, "raise_for_status", lambda self: None)
    assert ask(served, "trials/t004", {"stop": True})[0] == 200
    assert calls == ["http://127.0.0.1:12345/api/v1/nni/trial-jobs/t004"]
    assert ask(served, "trials/t004", {"stop": False})[0] == 200 and len(calls) == 1


def test_requests_without_the_token_and_wrong_ones_are_refused_and_change_nothing(served):
    good, address = {"pinned": True}, served.address
    served.address = address.rsplit("/", 2)[0] + "/"
    for path in ("", "changes?since=0", "trials/t001", "x/trials/t001", "search", "pictures/sources.webp"):
        assert ask(served, path)[0] == ask(served, path, good)[0] == 403, path
    served.address = address
    for path in ("nothing", "trials/t001/checkpoint.pt", "trials/nobody/run.json", "trials/t001",
                 "pictures/t001/999.webp", "report.html", "page.py", "trials/t001/run.json/"):
        assert ask(served, path)[0] == 404, path
    for path in ("", "changes", "nothing", "trials/nobody", "trials/t001/run.json", "trials/"):
        assert ask(served, path, good)[0] == 404, path
    for body in (b"", b"{", b"[]", b"null", b"[" * 999, {}, {"pinned": 1}, {"note": 3}, {"stop": "yes"},
                 {"other": 1}, good | {"other": 1}, b'{"note": "' + b"x" * live.MAX_BODY):
        assert ask(served, "trials/t001", body)[0] == 400, body
    for since in ("", "-1", "x", "1" * 13):
        assert ask(served, f"changes?since={since}")[0] == 400, since
    assert ask(served, "", method="DELETE")[0] == 501
    assert not (served.data.experiment.folder / notes.FILE_NAME).exists()
    port, token = served.port, address.split("/")[3]
    for path in ("../../etc/passwd", "trials/../run.json", "trials/%2e%2e/run.json", "pictures/../../x.webp",
                 "/etc/passwd"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)  # sends the path as it is
        connection.request("GET", f"/{token}/{path}")
        assert connection.getresponse().status == 404, path


def test_a_database_that_cannot_be_read_is_said_on_the_page(served, monkeypatch):
    def fail(*_):
        raise UserError("db cannot be read: locked")

    monkeypatch.setattr(PageData, "changes", fail)
    assert ask(served, "changes?since=0") == (503, {"problem": "db cannot be read: locked"})


def test_a_page_that_is_open_learns_of_the_end_before_the_server_goes(served):
    ask(served, "changes?since=0")
    served.end("failed", "NNI died")
    closing = threading.Thread(target=served.close)
    closing.start()
    _, changes = ask(served, "changes?since=0")
    assert (changes["search"]["state"], changes["search"]["message"]) == ("failed", "NNI died")
    closing.join(TIMEOUT)
    with pytest.raises(requests.ConnectionError):
        ask(served, "")


def test_the_server_does_not_wait_for_a_page_that_nobody_has_open(search):
    page = live.LivePage(PageData(search(1)))
    start = time.monotonic()
    page.close()
    assert time.monotonic() - start < live.LAST_POLL


def test_the_file_is_written_when_something_is_new_and_not_again_at_once(served):
    file = served.data.experiment.folder / "ssssssss.html"
    served.write_file()
    first = file.stat().st_mtime_ns
    notes.write(served.data.experiment.folder, note="new")
    served.write_file()
    assert file.stat().st_mtime_ns == first
    served._writing = live.Sparing(0)
    served.write_file()
    assert file.stat().st_mtime_ns > first and '"new"' in file.read_text()


def test_a_server_that_ends_by_itself_is_one_line_and_its_end_is_not_waited_for(search, monkeypatch, capsys):
    def fail(*_):
        raise OSError("too many open files")

    monkeypatch.setattr(live.loopback.Server, "service_actions", fail)
    page = live.LivePage(PageData(search(1)))
    until(lambda: page.address and not any("_serve" in thread.name for thread in threading.enumerate()))
    page.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("page: no longer served (too many open files), python -m experiments show ")


def test_errors_and_ctrl_c_end_the_server_and_are_told_to_the_page(search, capsys):
    for error, *told in ((UserError("no room"), "failed", "no room"),
                         (Interrupted(signal.SIGINT), "stopped", "by SIGINT")):
        with suppress(UserError, KeyboardInterrupt), live.served(PageData(search(1))) as page:
            raise error
        assert [page.data.state, page.data.message] == told
        assert page.address in capsys.readouterr().out.splitlines()[0]
        with pytest.raises(requests.ConnectionError):
            ask(page, "")
        shutil.rmtree(page.data.experiment.folder)


@pytest.mark.slow
def test_a_real_search_is_shown_from_its_first_line_on_stopped_noted_and_ends_with_its_file(
    run_command, experiment,
):
    file = experiment(SPACE, options=f"{TINY} --steps 3000 --reports 100", maxTrialNumber=2,
                      trialConcurrency=1, **FEW,
                      experimentName="A name that is longer than what NNI's overview has room for")
    run = run_command(file)
    address = run.stdout.readline().split()[1]
    port = int(address.split(":")[2].split("/")[0])

    def changes(since: int = 0) -> dict:
        return requests.get(f"{address}changes?since={since}", timeout=TIMEOUT).json()

    first = changes()
    assert first["search"]["state"] == "preparing" and first["trials"] == []
    assert "longer than" in first["search"]["name"] and "size: sketch" in first["search"]["facts"]
    assert requests.post(f"{address}search", json={"note": "x"}, timeout=TIMEOUT).status_code == 409
    painted = until(lambda: next((trial for trial in changes()["trials"] if trial["pictures"]), None), run)
    assert painted["state"] == "running" and painted["last_step"] == 3000 and painted["expected_end"]
    picture = requests.get(address + list(painted["pictures"].values())[-1], timeout=TIMEOUT)
    assert picture.content[:4] == b"RIFF"
    revision = changes()["revision"]
    more = until(lambda: changes(revision)["trials"], run)
    assert len(more[0]["pictures"]) >= len(painted["pictures"])
    for request in ({"note": "stopped by me", "pinned": True}, {"stop": True}):
        answer = requests.post(f"{address}trials/{painted['id']}", json=request, timeout=TIMEOUT)
        assert answer.status_code == 200, answer.text
    folder = folder_of(file, run)
    until(lambda: [t.state for t in find_experiment(str(folder)).trials()][:1] == ["USER_CANCELED"], run)
    assert changes()["search"]["links"][0]["url"].startswith("http://127.0.0.1:")
    second = until(lambda: [t for t in changes()["trials"] if t["number"] == 1 and t["pictures"]], run)[0]
    assert next(folder.glob("*.html"))  # written while it runs
    assert requests.post(f"{address}trials/{second['id']}", json={"stop": True}, timeout=TIMEOUT).ok
    states = []
    with suppress(requests.ConnectionError):
        while True:
            states.append(changes()["search"]["state"])
            time.sleep(live.POLL / 4)
    output = finish(run, 1)  # no trial has finished
    assert states[-1] == "failed" and "no trial came to its end: 2 user canceled" in " ".join(output.split())
    assert find_experiment(str(folder)).config["experimentName"] == "A name that is longer than what NNI's…"
    html = (folder / f"{folder.name}.html").read_text()
    assert "stopped by me" in html and "data:image/webp" in html
    assert not processes_of(folder)
    assert port not in {c.laddr.port for c in psutil.net_connections() if c.status == psutil.CONN_LISTEN}


@pytest.mark.slow
def test_a_small_search_ends_well_and_show_serves_it_again_until_ctrl_c(tmp_path, run_command):
    file = long_run.write_experiment(tmp_path / "search", trials=2, at_once=2)
    run = run_command(file)
    lines = finish(run).splitlines()
    assert lines[0].startswith("page: http://127.0.0.1:")
    folder = next((tmp_path / "search").glob("runs/[!_]*"))
    show = run_command(folder, command="show")
    address = show.stdout.readline().split()[1]
    answer = requests.get(f"{address}changes?since=0", timeout=TIMEOUT).json()
    assert answer["search"]["state"] == "ended" and len(answer["trials"]) == 2
    answer = requests.post(f"{address}search", json={"pinned": True}, timeout=TIMEOUT).json()
    assert answer["search"]["pinned"]
    show.send_signal(signal.SIGINT)
    output, _ = show.communicate(timeout=TIMEOUT)
    assert show.returncode == 130 and "Traceback" not in output
    assert notes.read(folder).search.pinned


@pytest.mark.slow
def test_a_mistake_in_the_file_is_one_line_before_any_address(experiment, run_command):
    output = finish(run_command(experiment(trialConcurrency=1000)), 2)
    assert len(output.splitlines()) == 1 and "http" not in output
