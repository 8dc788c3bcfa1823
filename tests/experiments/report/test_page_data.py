"""The document of a page: what it says of trials in every state, and how little it reads again."""

import json
import threading
import time
from functools import partial

import pytest
import torch
from torchvision.utils import save_image

from experiments import notes
from experiments.nni_adapter.database import Trial, find_experiment
from experiments.report import importance, page_data, results
from experiments.report.page_data import PageData, Sparing, expected_end
from judge.class_score import ClassScorer
from judge.common.files import atomic_write
from judge.score import FORMULAS, MEANINGS, PARTS, find_formula
from tests.experiments.report.conftest import COMMAND, PUBLISHED, write_trial
from trials.session import records

EARLY = {3: "EARLY_STOPPED"}


def trials_of(document: dict) -> dict[int, dict]:
    """Return the entries by number; the document must be JSON without NaN."""
    json.dumps(document, allow_nan=False)
    return {trial["number"]: trial for trial in document["trials"]}


def test_the_document_has_what_the_page_shows_of_every_trial(search):
    experiment = search(9, ends=EARLY)
    document = PageData(experiment).document(links_from=experiment.folder)
    trials, facts = trials_of(document), document["search"]
    assert [trial["number"] for trial in document["trials"]][:2] == [8, 7]  # best first
    best = trials[8]
    assert best["best"] and not best["published"] and trials[0]["published"] and not trials[0]["best"]
    assert best["score_text"] == "0.744" and best["scores"]["default"] == 0.7444
    assert best["curve"]["step"] == [100, 200, 300] and best["curve"]["style"] == [0.2] * 3
    assert best["pictures"] == {str(step): f"pictures/t008/{step}.webp" for step in (100, 200, 300)}
    assert (best["step"], best["last_step"], best["pixels"]) == (300, 300, 64)
    assert best["steps_per_second"] == pytest.approx(100 / (10 - 2)) and best["seconds"] == 12
    assert best["settings"]["batch_size"] == 4 and not set(best["settings"]) & set(PUBLISHED)
    assert "--like" in best["command"] and best["reason"] is None and best["expected_end"] is None
    assert {"label": "run.json", "url": "trials/t008/run.json"} in best["files"]
    assert document["sources"] == {"picture": "pictures/sources.webp", "count": 8, "pixels": 64}
    assert facts["counts"] == {"succeeded": 6, "failed": 1, "diverged": 1, "early stopped": 1}
    assert (facts["ended"], facts["failed"], facts["max_trials"], facts["state"]) == (9, 1, 9, "ended")
    assert facts["published"] == PUBLISHED and set(facts["space"]) == set(PUBLISHED)
    assert facts["name"] == "A search" and any("AUC 0.980" in line for line in facts["facts"])
    assert not any("python -m" in line for line in facts["advice"])
    assert all("python -m" in each["command"] for each in facts["commands"])
    assert importance.MIN_TRIALS <= 9 and document["importance"]["note"]


def test_a_trial_that_ended_early_says_why_and_a_failed_one_the_last_line_of_its_log(search):
    experiment = search(5, ends=EARLY | {4: "FAILED"})
    folder = experiment.folder / "trials/t004"
    (folder / "run.json").unlink()  # it failed on import
    (folder / "stderr").write_text("Traceback ...\nModuleNotFoundError: No module named 'x'\n\n")
    trials = trials_of(PageData(experiment).document())
    assert trials[1]["state"] == "diverged" and "nan <b>" in trials[1]["reason"] and not trials[1]["log"]
    assert trials[2]["state"] == "failed" and trials[2]["reason"] == "no room"
    assert trials[3]["state"] == "early stopped"
    assert trials[3]["reason"] == "stopped by the assessor after 3 of 3 reports"  # not SIGTERM
    assert trials[4]["log"] == "ModuleNotFoundError: No module named 'x'" and trials[4]["reason"] is None
    assert trials[4]["log_file"] == str(folder / "stderr")


def test_a_running_trial_has_its_progress_its_newest_picture_and_when_it_will_end(search):
    experiment = search(4, reports=2, ends={3: None})
    data = PageData(experiment)
    data.state = "running"
    document = data.document(live=True)
    running = trials_of(document)[3]
    assert running["state"] == "running" and (running["step"], running["last_step"]) == (200, 300)
    assert running["scores"]["default"] == 0.1 and "200" in running["pictures"]
    record = experiment.folder / "trials/t003/run.json"
    record.write_text(record.read_text().replace('"seconds": 12.0', '"seconds": null'))
    running = trials_of(data.document(live=True))[3]
    assert running["expected_end"] == pytest.approx(time.time() + 100 * 20 / 200, abs=60)
    facts = document["search"]
    assert facts["state"] == "running" and facts["expected_end"] and facts["seconds"] > 0
    assert any(line.startswith("cpu ") for line in facts["machine"])
    assert not data.document()["search"]["machine"]  # in a file it would be old


@pytest.mark.parametrize("trials", [[], [("a", PUBLISHED, None, [], None)]])
def test_a_search_that_has_only_begun_has_a_document(recorded, trials):
    folder = recorded("begun", {"trialCommand": COMMAND}, trials)
    document = PageData(find_experiment(str(folder)), facts=["data: mine"]).document()
    assert len(trials_of(document)) == len(trials) and document["sources"] is None
    assert document["search"]["facts"] == ["data: mine"] and document["search"]["caption"] is None
    assert document["search"]["parts"] == [] and document["importance"]["rows"] == []


def test_only_what_has_changed_is_sent_and_read_again(search, monkeypatch):
    experiment, reads = search(6), []
    data = PageData(experiment)
    before = data.document()["revision"]

    def counted(read, place):
        reads.append(place)
        return read(place)

    for module, name in ((page_data, "read_lines"), (page_data, "read_record"), (results, "read_lines")):
        monkeypatch.setattr(module, name, partial(counted, getattr(module, name)))
    assert data.changes(before)["trials"] == [] and data.revision == before and not reads
    stats = experiment.folder / "trials/t003/stats.jsonl"
    line = {"step": 400, "score": {"default": 0.9}}
    stats.write_text(stats.read_text() + json.dumps(line) + "\n")
    notes.write(experiment.folder, "t005", note="look <b>", pinned=True)
    changes = data.changes(before)
    assert {trial["id"] for trial in changes["trials"]} == {"t003", "t005"}
    assert changes["revision"] > before and len(changes["order"]) == 6
    assert {str(place).split("/t00")[1][0] for place in reads if "/t00" in str(place)} == {"3", "5"}
    assert data.changes(changes["revision"])["trials"] == []
    assert {trial["id"] for trial in data.changes(0)["trials"]} == {f"t00{number}" for number in range(6)}
    (entry,) = [trial for trial in changes["trials"] if trial["id"] == "t005"]
    assert entry["note"] == "look <b>" and entry["pinned"]


def test_damaged_files_hide_themselves_and_nothing_else(search):
    experiment = search(4)
    folder = experiment.folder / "trials"
    (folder / "t003/samples/step_000300.png").write_bytes(b"\x89PNG half")
    (folder / "t003/samples/step_x.png").write_bytes(b"")
    (folder / "t000/stats.jsonl").write_text('{"step": 100, "score": {"default": NaN}}\n{"step": 2')
    (folder / "t001/run.json").write_text('{"settings": []')
    (experiment.folder / notes.FILE_NAME).write_text("{")
    data = PageData(experiment)
    trials = trials_of(data.document())
    assert list(trials[3]["pictures"]) == ["100", "200"] and trials[0]["curve"]["default"] == [None]
    assert trials[1]["state"] == "succeeded" and trials[1]["settings"] is not None
    assert data.picture("pictures/t003/300.webp") is None and data.picture("pictures/t003/200.webp")
    atomic_write(folder / "t003/samples/step_000300.png", lambda part: part.write_bytes(
        (folder / "t003/samples/step_000200.png").read_bytes()))  # as a trial that goes on writes it
    assert "300" in trials_of(data.document())[3]["pictures"]


def test_a_trial_whose_folder_is_on_another_machine_has_an_entry_without_files(recorded):
    folder = recorded("remote", {"trialCommand": COMMAND}, [("a", PUBLISHED, None, [0.5], None)])
    experiment = find_experiment(str(folder))
    entry = PageData(experiment).document(live=True)["trials"][0]
    assert entry["files"] == [] and entry["pictures"] == {} and entry["curve"] == []
    assert entry["scores"]["default"] == 0.5 and entry["last_step"] is None


def test_a_trial_that_was_trained_on_is_shown_beside_the_search_which_stays_as_it_was(search):
    experiment = search(4)
    data = PageData(experiment)
    before = data.document()
    photos, paintings = 2 * torch.rand(2, 8, 3, 64, 64) - 1
    write_trial(experiment.folder / "continued/t003", {
        "status": "finished", "score": {"default": 0.5, "error": 0.01},
        "schedule": {"steps": 1500, "until": 1500}}, photos, paintings, 4)
    changes = data.changes(before["revision"])
    (entry,) = changes["trials"]
    more = entry["trained_on"]
    no_links = {"files": [], "sheets": []}
    assert entry | {"trained_on": None} | no_links == (
        next(trial for trial in before["trials"] if trial["id"] == "t003") | no_links)
    assert (more["step"], more["last_step"], more["state"]) == (400, 1500, "finished")
    assert more["score_text"] == "0.500 ± 0.010" and more["pixels"] == 64
    assert more["folder"].endswith("continued/t003") and data.picture(more["picture"]).pixels == 64
    assert data.picture("pictures/continued/t002.webp") is None


def test_pictures_are_found_by_their_keys_and_no_key_leads_elsewhere(search):
    experiment = search(3)
    save_image(torch.zeros(3, 134, 530), experiment.folder / "secret.png")
    data = PageData(experiment)
    data.document()
    assert data.picture("pictures/sources.webp").webp != data.picture("pictures/t000/300.webp").webp
    for key in ("pictures/../secret.webp", "pictures/t000/../1.webp", "pictures/nobody/300.webp",
                "secret.png",
                "pictures/t000/999.webp", "pictures/continued/..", "pictures/t000/300.webp\n", ""):
        assert data.picture(key) is None, key
    assert data.file("t000", "run.json") and not data.file("t000", "checkpoint.pt")
    for id_, name in (("..", "run.json"), ("nobody", "run.json"), ("t000", "../t001/run.json"),
                      ("t000", None)):
        assert data.file(id_, name) is None, (id_, name)


def test_another_formula_ranks_the_trials_and_their_curves(search, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"format": "salon score 1", "weights": {"content": 2}}')
    document = PageData(search(6), find_formula(str(file))).document()
    assert document["search"]["rescored"] and document["search"]["parts"][0]["help"].endswith(": content²")
    assert trials_of(document)[5]["curve"]["default"] == pytest.approx([0.09] * 3)


def test_a_caption_says_what_a_size_can_show_and_how_one_gets_pictures(search):
    experiment = search(1)
    for size, until, words in (
        ("sketch", 300, ("Sketch (64 px), 300 of 1,500 steps", "paints nothing yet", "--size draft")),
        ("sketch", 1500, ("1,500 of 1,500", "too small for brush strokes", "--size draft")),
        ("draft", 300, ("Draft (128 px)", "--size paper --judge FILE")),
        ("paper", 300, ("Paper (256 px)", "not trained to the end", "promote ssssssss")),
    ):
        record = {"settings": {"size": size}, "schedule": {"steps": 1500, "until": until}}
        assert all(word in page_data.caption(experiment, record) for word in words), size
    for record in ({}, {"settings": {"size": "paper"}, "schedule": {"steps": 9, "until": 9}},
                   {"settings": {}, "schedule": {"steps": 9, "until": 3}}):
        assert page_data.caption(experiment, record) is None


def test_every_part_of_a_score_is_explained_and_the_formula_is_readable():
    assert set(PARTS) <= set(MEANINGS)
    documented = ClassScorer.__call__.__doc__
    assert {name for name in ("right", "confidence", "inception", "coverage", "diversity", "kid")
            if f"{name}:" in documented or f"{name}, " in documented} <= set(MEANINGS)
    assert [str(FORMULAS[name]) for name in ("style-and-scene", "combined", "plain")] == [
        "style × scene³ × diversity × clean / (1 + KID)", "style × content³ × diversity × clean / (1 + KID)²",
        "style"]


def test_the_end_of_a_search_is_expected_by_its_trials_so_far(tmp_path):
    over = [Trial(str(n), n, tmp_path, "SUCCEEDED", started=100.0, ended=160.0) for n in range(2)]
    running = Trial("r", 2, tmp_path, "RUNNING", started=160.0)
    assert expected_end([*over, running], 8, 2) == pytest.approx(time.time() + 6 * 60 / 2, abs=5)
    assert expected_end([running], 8, 2) is None and expected_end(over, None, 2) is None


def test_work_is_done_for_at_most_a_tenth_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work = Sparing(pause=30)
    for took, next_at in ((1.0, 31.0), (10.0, 131.0)):
        assert work.due
        with work:
            now[0] += took
        now[0] = next_at - 0.1
        assert not work.due
        now[0] = next_at
    assert work.due


def test_the_schedule_of_a_record_is_checked_like_the_rest_of_it(tmp_path):
    (tmp_path / "run.json").write_text('{"schedule": {"steps": 3, "until": "x"}}')
    assert records.read_record(tmp_path) == {}


def test_a_live_page_does_not_wait_for_the_importances_and_gets_them_later(search, monkeypatch):
    go_on, compute = threading.Event(), importance.of_rows
    monkeypatch.setattr(importance, "of_rows", lambda rows: go_on.wait(60) and compute(rows))
    data = PageData(search(12))
    before = data.document(live=True)
    assert before["importance"] == {"rows": [], "note": "being computed ..."}
    go_on.set()
    deadline = time.monotonic() + 60
    while not (changes := data.changes(before["revision"]))["importance"]["rows"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert changes["revision"] > before["revision"] and changes["trials"] == []
