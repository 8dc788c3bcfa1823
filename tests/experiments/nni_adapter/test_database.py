"""Reading NNI's database."""

import json
import secrets
import socket
import sqlite3
from pathlib import Path

import pytest

from experiments.nni_adapter import database, manager
from experiments.nni_adapter.manager import free_port
from judge.common.errors import UserError

CONFIG = {"trialCommand": "python -m trials.cyclegan"}


@pytest.fixture
def search(recorded) -> Path:
    return recorded("growing", CONFIG, [
        ("aaaaa", {"cycle_weight": 1.0}, "SUCCEEDED", [0.3, 0.4], 0.4),
        ("bbbbb", {"cycle_weight": 2.0}, None, [0.1], None),
    ])  # fmt: skip


def grow(folder: Path) -> None:
    """Let the second trial report and end, and a third be proposed and report."""
    proposal, value = json.dumps({"parameters": {"cycle_weight": 3.0}}), json.dumps('{"default": 0.2}')
    with sqlite3.connect(folder / "db/nni.sqlite") as db:
        db.executemany("insert into MetricData values (0,?,'',?,0,?)", [
            ("bbbbb", "PERIODICAL", value), ("bbbbb", "FINAL", value), ("ccccc", "PERIODICAL", value)])
        db.executemany("insert into TrialJobEvent values (?,?,?,?,'',?,'')", [
            (5000, "bbbbb", "SUCCEEDED", None, 1), (5000, "ccccc", "WAITING", proposal, 2),
            (6000, "ccccc", "RUNNING", None, 2)])  # fmt: skip


def test_reading_a_search_while_it_grows_reads_only_new_rows_and_gives_what_one_reading_gives(
    search, monkeypatch,
):
    counts, query = [], database._query

    def counted(*arguments):
        rows = query(*arguments)
        counts.append(len(rows))
        return rows

    experiment = database.find_experiment(str(search))
    monkeypatch.setattr(database, "_query", counted)
    early = experiment.trials()
    assert experiment.trials() == early and counts == [4, 5, 0, 0]
    grow(search)
    late = experiment.trials()
    assert counts[4:] == [3, 3] and late == database.find_experiment(str(search)).trials()
    assert [(trial.state, len(trial.reports)) for trial in late] == [
        ("SUCCEEDED", 2), ("SUCCEEDED", 2), ("RUNNING", 1)]
    assert [(trial.state, len(trial.reports)) for trial in early] == [("SUCCEEDED", 2), ("RUNNING", 1)]


@pytest.mark.parametrize("table, column", [("ExperimentProfile", "id"), ("TrialJobEvent", "trialJobId")])
def test_an_id_that_would_name_another_file_is_refused(search, table, column):
    for id_ in ("../../evil", "/etc", "..", "<b>", "", None):
        with sqlite3.connect(search / "db/nni.sqlite") as db:
            db.execute(f"update {table} set {column} = ?", (id_,))
        with pytest.raises(UserError, match="cannot be read"):
            database.find_experiment(str(search)).trials()


def test_an_experiments_folder_may_have_any_name_and_no_other_name_is_found(search, tmp_path):
    for name in ("runs#1", "a%41", "a?mode=rwc&b", "a b", "ü", "$(touch x)"):
        search = search.rename(tmp_path / name)
        assert len(database.find_experiment(str(search)).trials()) == 2
    assert list(tmp_path.iterdir()) == [search]
    for name in ("../../x", "x" * 5000, "*", "", "\x1b[31m"):
        with pytest.raises(UserError, match="no experiment"):
            database.find_experiment(name)


@pytest.fixture
def three(recorded, nni_home, monkeypatch, tmp_path) -> list[str]:
    """Three experiments in a folder like runs/, the last one started last; two have the same name."""
    monkeypatch.setattr(database, "RUNS", tmp_path)
    ids = ["zzzzz", "yyyyy", "xxxxx"]
    for id_, name in zip(ids, ("Monets | monet2photo | sketch", "Digits", "Digits")):
        recorded(id_, CONFIG | {"experimentName": name}, [])
    (tmp_path / "_latest").symlink_to("zzzzz")  # NNI's, and here not true
    return ids


def test_an_experiment_is_found_by_id_by_name_and_as_the_one_started_last(three):
    found = [database.find_experiment(name).id for name in ("yyyyy", "Monets", "monets", "latest")]
    assert found == ["yyyyy", "zzzzz", "zzzzz", "xxxxx"]
    assert [each.id for each in database.all_experiments()] == three[::-1]


def test_a_name_that_several_have_lists_their_ids_and_an_unknown_one_what_is_close(three):
    with pytest.raises(UserError, match="^2 experiments are called Digits: give an id, xxxxx, yyyyy"):
        database.find_experiment("Digits")
    with pytest.raises(UserError, match="^no experiment Monts: is it Monets?"):
        database.find_experiment("Monts")
    with pytest.raises(UserError, match="^no experiment quite other: give an id, a name or a folder"):
        database.find_experiment("quite other")


def test_nnis_list_names_experiments_elsewhere_and_a_damaged_one_is_left_out(three, tmp_path):
    (database.NNI_HOME).mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "yyyyy").rename(tmp_path / "far/yyyyy")
    (database.NNI_HOME / ".experiment").write_text(json.dumps(
        {"yyyyy": {"logDir": str(tmp_path / "far")}, "gone": {"logDir": "/nowhere"}}))
    (tmp_path / "zzzzz/db/nni.sqlite").write_text("nonsense")
    lines = []
    assert [each.id for each in database.all_experiments(lines.append)] == ["xxxxx", "yyyyy"]
    assert len(lines) == 1 and "zzzzz/db cannot be read: file is not a database" in lines[0]
    (database.NNI_HOME / ".experiment").write_text('{"yyyyy": 3}')
    assert [each.id for each in database.all_experiments()] == ["xxxxx"]


def test_an_experiment_is_found_below_runs_also_if_nnis_list_names_an_older_place(three):
    """The repository was renamed, or copied."""
    database.NNI_HOME.mkdir()
    (database.NNI_HOME / ".experiment").write_text(json.dumps(
        {id_: {"logDir": "/old/salon/runs"} for id_ in three}))
    assert [database.find_experiment(id_).id for id_ in three] == three


MOVED = {
    "trialCommand": "python -m trials.cyclegan --data '/old/salon/my data' --judge=/old/salon/j.pt --score "
                    "/old/salon2/score.json --earlier /old/salon/runs",
    "experimentWorkingDirectory": "/old/salon/runs", "trialCodeDirectory": "/old/salon",
    "assessor": {"codeDirectory": "/old/salon"},
    "tuner": {"codeDirectory": "/old/salon", "classArgs": {"resumes": "/old/salon/runs/abcde"}},
}  # fmt: skip


@pytest.mark.parametrize("runs", ["/old/salon/runs", "/elsewhere/runs"])
def test_paths_in_a_moved_experiment_are_where_it_is_now(recorded, tmp_path, runs):
    old = json.loads(json.dumps(MOVED).replace("/old/salon/runs", runs))
    config = database.find_experiment(str(recorded("moved", old, []))).config
    root = str(database.ROOT.resolve())
    assert config == {
        "trialCommand": f"python -m trials.cyclegan --data '{root}/my data' --judge={root}/j.pt --score "
                        f"/old/salon2/score.json --earlier {tmp_path}",
        "experimentWorkingDirectory": str(tmp_path), "trialCodeDirectory": root,
        "assessor": {"codeDirectory": root}, "trainingService": {},
        "tuner": {"codeDirectory": root, "classArgs": {"resumes": f"{tmp_path}/abcde"}},
    }  # fmt: skip


def test_paths_of_an_experiment_that_was_not_moved_stay_also_of_code_elsewhere(recorded, tmp_path):
    old = MOVED | {"experimentWorkingDirectory": str(tmp_path)}
    assert database.find_experiment(str(recorded("here", old, []))).config == old | {"trainingService": {}}


def test_a_trial_is_found_by_its_number_or_id(search):
    experiment = database.find_experiment(str(search))
    assert database.find_trial(experiment, "1").id == database.find_trial(experiment, "bbbbb").id == "bbbbb"
    with pytest.raises(UserError, match="has no trial 2; there are 0 aaaaa, 1 bbbbb$"):
        database.find_trial(experiment, "2")


def test_a_free_port_has_a_free_one_after_it_and_is_not_in_the_range_of_outgoing_connections(monkeypatch):
    drawn, taken = secrets.randbelow, free_port()
    offered = [(taken - 10_000) // 2]
    monkeypatch.setattr(manager.secrets, "randbelow", lambda most: offered.pop() if offered else drawn(most))
    with socket.create_server(("127.0.0.1", taken + 1)):
        assert free_port() != taken and not offered
    lent = Path("/proc/sys/net/ipv4/ip_local_port_range")
    assert taken + 1 < (int(lent.read_text().split()[0]) if lent.exists() else 49_152)


def test_a_trial_that_its_user_stopped_is_that_in_whatever_order_nni_stores_the_two_events(recorded):
    trials = [("a", {}, "USER_CANCELED", [0.1], None)]
    folder = recorded("stopped", {"trialCommand": "python -m trials.gan"}, trials)
    with sqlite3.connect(folder / "db" / "nni.sqlite") as db:  # NNI asked for it, and stores that late
        db.execute("insert into TrialJobEvent values (9000, 'a', 'USER_TO_CANCEL', '', '', 0, '')")
    (trial,) = database.find_experiment(str(folder)).trials()
    assert trial.state == "USER_CANCELED" and trial.over and not trial.settled
