"""The list of experiments, notes and pins by command, and removal."""

import csv
import io
import json
import subprocess
import sys

import pytest
import yaml

from experiments import __main__ as commands
from experiments import notes, searches
from experiments.nni_adapter import database
from judge.common.cli import Namespace
from judge.common.errors import UserError
from tests.experiments import long_run
from tests.experiments.helpers import ROOT, finish

CONFIG = {"trialCommand": "python -m trials.cyclegan", "maxTrialNumber": 3}
TRIALS = [
    ("aaaaa", {"cycle_weight": 1.0}, "SUCCEEDED", [0.3, 0.4], 0.4),
    ("bbbbb", {"cycle_weight": 2.0}, "FAILED", [], None),
    ("ccccc", {"cycle_weight": 3.0}, "EARLY_STOPPED", [0.1], None),
]


@pytest.fixture
def runs(recorded, nni_home, monkeypatch, tmp_path):
    """A finished search, its confirmation, one that was interrupted, and one that resumes the latter."""
    monkeypatch.setattr(database, "RUNS", tmp_path)
    recorded("whole", CONFIG | {"experimentName": "Monets | monet2photo | sketch"}, TRIALS)
    recorded("confirms", CONFIG | {"experimentName": "confirmation of whole", "tuner": {
        "className": database.LISTED_TUNER, "classArgs": {"search": "whole"}}}, [])  # fmt: skip
    broken = recorded("broken", CONFIG | {"experimentName": "Digits"}, TRIALS[:1])
    recorded("rest", CONFIG | {"maxTrialNumber": 2, "tuner": {"classArgs": {"resumes": str(broken)}}}, [])
    trial = tmp_path / "whole/trials/bbbbb"
    trial.mkdir(parents=True)
    (trial / "run.json").write_text(json.dumps({"data": {"name": "monet2photo", "stand_in": False}}))
    (trial / "checkpoint.pt").write_bytes(bytes(3_000_000))
    return tmp_path


def test_a_row_says_what_one_looks_for(runs):
    notes.write(runs / "whole", note="good", pinned=True)
    rows = searches.summaries()
    assert [row.id for row in rows] == ["whole", "rest", "broken", "confirms"]  # pinned, newest
    first, rest, broken, confirmation = rows
    assert (first.name, first.kind, first.data) == ("Monets", "search", "monet2photo")
    assert (first.ended, first.max_trials, first.failed, first.best, first.state) == (3, 3, 1, 0.4, "ended")
    assert first.bytes > 3_000_000 and (first.note, first.pinned) == ("good", True)
    assert (broken.ended, broken.state, broken.data) == (1, "interrupted", None)
    assert (rest.ended, rest.max_trials, rest.best) == (1, 3, 0.4)  # with the resumed search's
    assert confirmation.kind == "confirmation" and confirmation.best is None


def test_the_list_is_a_table_csv_and_json(runs, capsys):
    notes.write(runs / "broken", note="first line [bold]\nsecond \x1b[31m line, with a comma")
    rows = searches.summaries()
    table = list(csv.DictReader(io.StringIO(searches.as_csv(rows))))
    assert [line["id"] for line in table] == [each["id"] for each in json.loads(searches.as_json(rows))]
    searches.print_list(rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rows) and "1 of 3" in lines[2] and lines[2].endswith("first line [bold]")
    assert "3 of 3, 1 failed  0.400" in lines[4] and "3.0 MB" in lines[4]
    searches.print_list([])
    assert capsys.readouterr().out.startswith("no experiments yet")


def test_damaged_experiments_are_left_out_with_a_line(runs, capsys):
    (runs / "confirms/db/nni.sqlite").write_text("nonsense")
    (runs / "whole/notes.json").write_text("{")
    assert [row.id for row in searches.summaries()] == ["rest", "broken"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("left out: ") for line in lines)


def test_list_needs_neither_torch_nor_pandas_nor_nni(runs):
    code = ("import sys; from experiments import searches; searches.print_list(searches.summaries()); "
            "print({'torch', 'pandas', 'nni', 'requests', 'numpy'} & set(sys.modules))")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.endswith("\nset()\n"), result


def test_a_note_and_a_pin_are_written_on_a_search_and_on_a_trial(runs, capsys):
    def options(**changes) -> Namespace:
        return Namespace(experiment=str(runs / "whole"), **{"trial": None, "off": False} | changes)

    commands.note(options(text="fog"))
    commands.pin(options(trial="0"))
    commands.note(options(trial="ccccc", text="streaks"))
    assert notes.read(runs / "whole") == notes.Notes(notes.Mark("fog"), {
        "aaaaa": notes.Mark(pinned=True), "ccccc": notes.Mark("streaks")})
    assert capsys.readouterr().out.splitlines() == [
        "whole Monets: not pinned, note: fog", "trial 0 (aaaaa) of whole Monets: pinned, no note",
        "trial 2 (ccccc) of whole Monets: not pinned, note: streaks"]
    commands.note(options(text=""))
    commands.pin(options(trial="aaaaa", off=True))
    assert notes.read(runs / "whole").search == notes.Mark()


def find(*names: str) -> list[database.Experiment]:
    return [database.find_experiment(name) for name in names]


def test_what_is_removed_is_said_and_gone_from_nnis_list_with_a_dangling_link(runs, capsys):
    database.NNI_HOME.mkdir()
    (database.NNI_HOME / ".experiment").write_text(json.dumps({"rest": {}, "whole": {}}))
    (runs / "_latest").symlink_to("rest")
    searches.remove(find("rest"), yes=True)
    assert not (runs / "rest").exists() and not (runs / "_latest").is_symlink()
    assert list(database.known_experiments()) == ["whole"]
    (runs / "_latest").symlink_to("broken")
    searches.remove(find("whole", "confirms", "whole"), yes=True)
    assert [each.id for each in database.all_experiments()] == ["broken"] and (runs / "_latest").exists()
    assert "whole Monets: 1 trials, 1 checkpoints, 3.0 MB in " in capsys.readouterr().out


def test_rm_asks_and_without_anybody_to_ask_refuses(runs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
    with pytest.raises(UserError, match="add --yes$"):
        searches.remove(find("rest"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    searches.remove(find("rest"))
    assert (runs / "rest").exists() and "nothing is deleted" in capsys.readouterr().out


def test_an_experiment_whose_removal_was_stopped_is_still_found(runs, monkeypatch):
    rmtree, removed = searches.shutil.rmtree, []

    def stopped(place):
        if removed:
            raise KeyboardInterrupt
        removed.append(rmtree(place))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(searches.shutil, "rmtree", stopped)
        searches.remove(find("whole", "confirms"), yes=True)
    assert removed
    searches.remove(find("whole", "confirms"), yes=True)
    assert not (runs / "whole").exists()


@pytest.mark.parametrize("name, said", [
    ("whole", "^experiment confirms confirms whole: name both, or keep both$"),
    ("broken", "^experiment rest resumes broken: name both, or keep both$"),
])
def test_what_another_experiment_needs_is_not_removed(runs, name, said):
    with pytest.raises(UserError, match=said):
        searches.remove(find(name), yes=True)
    assert (runs / name).exists()


def test_a_running_experiment_is_not_removed(runs, monkeypatch):
    monkeypatch.setattr(searches, "is_running", lambda experiment: experiment.id == "rest")
    with pytest.raises(UserError, match="^experiment rest is running: nnictl stop rest ends it$"):
        searches.remove(find("confirms", "rest"), yes=True)
    assert (runs / "confirms").exists()


@pytest.mark.slow
def test_a_search_is_found_extended_marked_and_removed(tmp_path, run_command):
    """With fewer trials than its file says, and then with more."""
    file = long_run.write_experiment(tmp_path / "search", trials=8, at_once=2)

    def command(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "experiments", *words], cwd=ROOT, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done
        return done.stdout

    def listed() -> list[dict]:
        # Not those of this checkout.
        return [row for row in json.loads(command("list", "--json")) if str(tmp_path) in row["folder"]]

    said = finish(run_command(file, "--trials", "2", "--concurrency", "1", "--set", "y=0.7"))
    assert "note: y is 0.7 in all trials, so it is not searched" in said
    (first,) = listed()
    assert (first["ended"], first["max_trials"], first["state"], first["kind"]) == (2, 2, "ended", "search")
    kept = yaml.safe_load((tmp_path / first["folder"] / "experiment.yml").read_text())
    assert kept["maxTrialNumber"] == 2 and list(kept["searchSpace"]) == ["x"]

    assert "is complete: 2 trials" in finish(run_command("latest", "--trials", "2", command="resume"), code=2)
    finish(run_command("latest", "--trials", "3", command="resume"))
    longer, first = listed()
    assert (longer["ended"], longer["max_trials"], longer["state"]) == (3, 3, "ended")
    assert longer["name"] == first["name"]

    command("pin", first["id"])
    command("note", "latest", "three are enough", "--trial", "2")
    assert [row["id"] for row in listed()] == [first["id"], longer["id"]]
    assert "three are enough" in (tmp_path / longer["folder"] / "notes.json").read_text()
    assert "deleted" in command("rm", first["id"], longer["id"], "--yes")
    assert not listed() and not (tmp_path / first["folder"]).exists()
    assert longer["id"] not in (tmp_path / "nni-experiments/.experiment").read_text()
