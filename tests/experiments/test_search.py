"""Whole searches through the real NNI, with tiny networks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
import requests
import torch
import yaml

from experiments.nni_adapter import manager
from experiments.nni_adapter.database import find_experiment
from experiments.nni_adapter.manager import create, free_port, new_id, port_of, status, stop
from experiments.nni_adapter.processes import with_variable, with_word
from experiments.search import TITLE
from judge.common.files import last_line_of
from tests.experiments import long_run, raising
from tests.experiments.helpers import (
    FEW,
    ROOT,
    SPACE,
    TIMEOUT,
    TINY,
    Forked,
    finish,
    folder_of,
    listening,
    manager_of,
    newest,
    processes_of,
    snapshot,
    until,
    write_experiment,
)  # fmt: skip
from trials.session.records import read_json, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nni_home")]


def test_every_trial_gets_its_own_parameters_though_others_crash(tmp_path, started):
    """NNI 3.0 gives them to whichever trial asks first."""
    running, port = started(long_run.write_experiment(
        tmp_path / "search", trials=8, at_once=4, trialCommand="python -m tests.experiments.tiny --crash"))
    until(lambda: status(port)[0] == "DONE")
    trials = running.trials()
    assert [trial.number for trial in trials] == list(range(8))
    for trial in trials:
        assert json.loads((trial.folder / "parameter.cfg").read_text())["parameters"] == trial.parameters
        if trial.number in (3, 5):
            assert trial.state == "FAILED" and trial.final is None
            continue
        record = read_json(trial.folder / "run.json")
        assert trial.state == "SUCCEEDED" and trial.parameters.items() <= record["settings"].items()
        assert trial.final == record["score"] and trial.reports == [trial.final] * 2
    assert len({json.dumps(trial.parameters) for trial in trials}) == 8
    assert trials[0].parameters == {"x": 0.5, "y": 0.5}


def test_nni_waits_for_a_slow_start_and_a_port_taken_meanwhile_costs_one_retry(
    experiment, started, tmp_path, monkeypatch,
):
    """By itself it gives its manager 3 s and its tuner 10 s."""
    (tmp_path / "slow.js").write_text("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6000);")
    monkeypatch.setenv("NODE_OPTIONS", f"--require {tmp_path / 'slow.js'}")
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(
        "import sys, time\nif '--exp_params' in sys.orig_argv: time.sleep(14)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [other.getsockname()[1]]
        monkeypatch.setattr(manager, "free_port", lambda: ports.pop() if ports else free_port())
        running, port = started(experiment(options=f"{TINY} --steps 4 --reports 2", maxTrialNumber=1))
        assert port != other.getsockname()[1] and not ports
    until(lambda: status(port)[0] == "DONE")
    assert running.trials()[0].final


def test_no_process_of_a_search_grows_from_trial_to_trial(tmp_path):
    rows = long_run.measure_search(tmp_path / "long", trials=12, every=3)
    assert rows["over"].max() >= 10
    growth = long_run.growth(rows)
    assert {"run_files", "manager_threads", "tuner_rss", "children", "zombies"} <= set(growth.index)
    leaks = [name for name, each in growth.items() if not each < (2 if name.endswith("_rss") else 0.25)]
    assert not leaks, rows[["over", *leaks]].to_csv(index=False)
    leak = rows.assign(manager_files=rows["manager_files"] + rows["over"] // 2)
    assert long_run.growth(leak)["manager_files"] > 0.25


NVIDIA_SMI = """#!/bin/sh
echo '<log><gpu><utilization><gpu_util>0 %</gpu_util><memory_util>0 %</memory_util></utilization>'
echo '<processes></processes></gpu></log>'
"""


def test_two_searches_at_once_on_one_gpu_do_not_disturb_each_other(tmp_path, monkeypatch):
    """The one that ends first leaves the other its port, its files and its view of the GPU."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(NVIDIA_SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    service = {"platform": "local", "useActiveGpu": True, "maxTrialNumberPerGpu": 1}
    files = [long_run.write_experiment(tmp_path / name, trials, 1, trialGpuNumber=1, trainingService=service)
             for name, trials in (("short", 1), ("long", 4))]
    ids = [new_id(), new_id()]
    with ThreadPoolExecutor() as pool:  # both start at the same moment
        searches = list(pool.map(create, files, ids))
    try:
        (short, first), (long, second) = searches
        assert first != second
        until(lambda: status(first)[0] == "DONE")
        assert status(second)[0] in ("RUNNING", "NO_MORE_TRIAL")
        stop(short.id)
        until(lambda: status(second)[0] == "DONE")
    finally:
        for id_ in ids:
            stop(id_)
    assert [trial.state for trial in short.trials() + long.trials()] == ["SUCCEEDED"] * 5
    until(lambda: not processes_of(tmp_path))
    log = (long.folder / "log" / "nnimanager.log").read_text()
    assert "gpu_metrics" not in log.split("submitTrialJob", 2)[2]  # which is there from the second trial on


def test_a_search_runs_to_its_end_on_loopback_and_its_promotion_trains_the_best_on(
    experiment, run_command, judge_file, sample_data,
):
    output = finish(run_command(experiment(trialConcurrency=1000)), 2)
    assert len(output.splitlines()) == 1 and "cores" in output

    file = experiment(SPACE, options=f"{TINY} --steps 20 --reports 2 --budget 0.5", maxTrialNumber=3, **FEW)
    run = run_command(file)
    folder = folder_of(file, run)
    assert listening(manager_of(folder.name))
    addresses = [address for process in processes_of(folder) for address in listening(process)]
    assert {address.ip for address in addresses} == {"127.0.0.1"}
    output = finish(run)
    for text in ("built-in stand-in", "0 published", "python -m trials.cyclegan --like", "--budget 1.0"):
        assert text in output
    assert not processes_of(folder)
    name = find_experiment(str(folder)).config["experimentName"]
    assert len(name) <= TITLE and output.startswith("page: http://127.0.0.1:")
    assert (folder / "experiment.yml").read_text() == file.read_text()
    table = subprocess.check_output(
        [sys.executable, "-m", "experiments", "report", str(folder), "--csv"], cwd=ROOT, text=True)
    assert len(table.splitlines()) == 4 and table.startswith("trial,id,data,state,reports,score")
    assert "(stand-in)" in table

    yardstick = ("--yardstick", str(judge_file), "--yardstick-data", str(sample_data))
    output = finish(run_command(folder, "--top", "1", "--seeds", "2", *yardstick, command="promote"))
    assert "quality" in output and "published" in output and output.count("95 %, 2 seeds") == 1
    promotion = newest(folder.parent)
    assert promotion != folder
    records = [read_json(file) for file in promotion.glob("trials/*/run.json")]
    assert len(records) == 4 and all(r["schedule"] == {"steps": 20, "until": 20} for r in records)
    assert sorted(r["settings"]["seed"] for r in records) == [1, 1, 2, 2]  # the search's seed is 0
    assert not any("continues" in r for r in records)


@pytest.fixture
def forked(tmp_path, nni_home):
    """Return a function that forks `run`, or another command that starts NNI, for a search of tiny trials;
    what is left is killed. Of the search that the others go on from, one trial of three has ended."""
    running = []

    def start(command: str = "run", terminal: bool = False, **changes) -> Forked:
        source = long_run.write_experiment(tmp_path / "search", trials=3, at_once=1, **changes)
        if command != "run":
            source = write_experiment(source.parent / "runs", "earlier", yaml.safe_load(source.read_text()), [
                ("t0", {"x": 0.3, "y": 0.7}, "SUCCEEDED", [0.9], 1.0)])
        running.append(Forked(command, str(source), *OPTIONS[command], "--unmeasured", terminal=terminal))
        return running[-1]

    yield start
    for process in (*running, *with_variable("HOME", str(tmp_path))):
        with suppress(OSError, psutil.Error):
            os.kill(process.pid, signal.SIGKILL)


INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
HELD = {"trialCommand": "python -m tests.experiments.tiny --hold"}  # its first trial never ends
CLOSED = "the terminal is closed"


OPTIONS = {"run": (), "resume": (), "promote": ("--top", "1", "--seeds", "2")}
# A phase has begun when a line has its words, or the command of a process of NNI's.
EARLY = ("page: ", "disk: ", "nnictl", "--experiment-id", "web UI: ")
STOPS = ((INT,), (INT, INT), (TERM,), (HUP,), (CLOSED,))
ENDS = [  # each early phase is stopped in each way, each command at each phase and in each way
    *((list(OPTIONS)[(row + column) % 3], phase, stop)
      for row, phase in enumerate(EARLY) for column, stop in enumerate(STOPS)),
    ("run", "1 reports", (KILL,)), ("run", "1 reports", (INT, TERM, INT)), ("run", "succeeded", (INT,)),
    ("resume", "trial   1  running", (INT,)), ("promote", "1 reports", (INT, INT)),
    ("promote", "1 reports", (KILL,)), ("promote", "succeeded", (TERM,)),
]


@pytest.mark.parametrize("command, phase, stop", ENDS)
def test_whatever_stops_a_search_at_whatever_time_nothing_of_it_is_left(
    command, phase, stop, forked, tmp_path,
):
    run = forked(command, CLOSED in stop, **({} if phase == "succeeded" else HELD))
    source = tmp_path / "search/runs/earlier"
    before = snapshot(source)

    def of_nni() -> list[psutil.Process]:
        return with_variable("HOME", str(tmp_path))

    until(lambda: phase in run.text() or with_word(of_nni(), phase), run)
    for way in stop:
        run.close() if way == CLOSED else run.send_signal(way)
        time.sleep(0.3)
    if stop == (KILL,):  # a lock is left, which nobody has
        finish(run, -KILL)
        until(lambda: not of_nni())
        return
    output = finish(run, 128 + (HUP if stop == (CLOSED,) else stop[0]))
    until(lambda: not of_nni())
    assert snapshot(source) == before
    if CLOSED not in stop:
        assert output.count(f"stopped by {stop[0].name}") == 1 and "still running" not in output
        again = "to continue it: the same command" if command == "promote" else "python -m experiments resume"
        assert again in output or phase in EARLY
        assert again not in output or phase not in EARLY[:2]


@pytest.mark.parametrize("changes, last", [
    ({"tuner": raising.tuner(fails_at=0, leaves=True)}, "RuntimeError: SystemExit('the tuner leaves')"),
    ({"assessor": raising.ASSESSOR}, "ValueError: the assessor raises"), (HELD, ""),
])
def test_a_search_whose_tuner_or_assessor_raises_or_is_killed_ends_and_says_so_with_its_log(
    changes, last, forked, tmp_path,
):
    run = forked(**changes)
    if changes is HELD:
        until(lambda: "trial   0" in run.text(), run)
        for process in with_word(with_variable("HOME", str(tmp_path)), manager.TUNER):
            process.kill()
    output = finish(run, 1)
    line = next(line for line in output.splitlines() if line.startswith("the search failed: "))
    assert f"NNI's tuner or assessor has ended, its last line: {last}" in line
    assert line.endswith("log/dispatcher.log)")
    until(lambda: not with_variable("HOME", str(tmp_path)))


def test_a_tensorboard_that_ends_is_told_and_one_whose_manager_is_killed_with_run_ends(forked, tmp_path):
    def of_nni(word: str = "") -> list[psutil.Process]:
        return with_word(with_variable("HOME", str(tmp_path)), word)

    run = forked(**HELD)
    until(lambda: "1 reports" in run.text(), run)
    search = find_experiment(str(newest(tmp_path / "search/runs")))
    start = f"http://127.0.0.1:{port_of(search)}/api/v1/nni/tensorboard"  # as NNI's button does
    for _ in range(2):
        assert requests.post(start, json={"trials": search.trials()[0].id}, timeout=TIMEOUT).ok
    first, _ = until(lambda: len(boards := of_nni("--logdir_spec")) == 2 and boards)
    first.kill()
    until(lambda: "has ended: NNI's web UI starts another" in run.text(), run)
    assert len(of_nni("--logdir_spec")) == 1 and not search.trials()[0].over
    for process in (*of_nni("--experiment-id"), run):
        os.kill(process.pid, KILL)
    until(lambda: not of_nni())


def test_plain_nnictl_refuses_what_check_refuses(tmp_path, nni_home):
    """The tuner runs `check`; the line is in its log, and NNI's state is ERROR."""
    file = long_run.write_experiment(
        tmp_path / "search", trials=3, at_once=1,
        searchSpace={"x": {"_type": "uniform", "_value": [0.6, 1]}})  # without the published value
    port = free_port()
    try:
        created = subprocess.run(
            ["nnictl", "create", "--config", str(file), "--port", str(port)], text=True, cwd=ROOT,
            capture_output=True, env=os.environ | {"PATH": manager.search_path()})
        assert created.returncode == 0, created.stdout
        until(lambda: status(port)[0] == "ERROR")
        log = newest(tmp_path / "search" / "runs") / "log" / "dispatcher.log"
        assert "does not contain the published value 0.5" in last_line_of(log)
    finally:
        for process in with_variable("HOME", str(tmp_path)):
            process.terminate()
    until(lambda: not with_variable("HOME", str(tmp_path)))


def test_a_search_whose_manager_or_all_of_whose_processes_are_killed_is_resumed(experiment, run_command):
    """Finished trials are kept, interrupted ones continue, and in the end there are as many as asked for."""
    file = experiment(SPACE, options=f"{TINY} --steps 400 --reports 40", maxTrialNumber=3, trialConcurrency=1,
                      **FEW)

    def interrupt(run, folder, number: int, everything: bool) -> list:
        """Kill the search while trial `number` trains, and return its trials."""
        search = find_experiment(str(folder))
        until(lambda: [not t.final and len(t.reports) > 3 for t in search.trials()][number:] == [True], run)
        if everything:  # as when the machine restarts
            for process in [psutil.Process(run.pid), *processes_of(folder)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            run.communicate(timeout=TIMEOUT)
        else:
            manager_of(folder.name).kill()
            output = finish(run, 1)
            assert f"python -m experiments resume {folder.name}" in output
            assert "the search failed: NNI's manager has ended, its last line: [" in output
        until(lambda: not processes_of(folder))
        return search.trials()

    run = run_command(file)
    first = folder_of(file, run)
    finished, cut = interrupt(run, first, 1, everything=False)
    record = read_json(cut.folder / "run.json")
    assert record["status"] == "stopped" and "SIGTERM" in record["reason"]
    assert torch.load(cut.folder / "checkpoint.pt", weights_only=True)["step"] >= 40
    assert not list(cut.folder.glob("*.part"))

    run = run_command(first, command="resume")
    second = until(lambda: (p := newest(first.parent)) != first and list(p.glob("trials/*")) and p, run)
    interrupt(run, second, 1, everything=True)
    finish(run_command(second, command="resume"))
    rest = find_experiment(str(newest(first.parent)))
    assert rest.folder not in (first, second)
    trials = rest.trials()
    assert len(trials) == 3 and all(trial.final for trial in trials)
    assert trials[0] == finished and cut.parameters in [trial.parameters for trial in trials]
    assert len({trial.parameters["cycle_weight"] for trial in trials}) == 3
    names = [find_experiment(str(folder)).config["experimentName"] for folder in (first, rest.folder)]
    assert names[0] == names[1]
    continued = next(trial for trial in trials if trial.parameters == cut.parameters)
    record = read_json(continued.folder / "run.json")
    assert record["resumed_at"] >= 40 and len(read_lines(continued.folder / "stats.jsonl")) == 40


def test_a_disk_that_fills_ends_the_search_in_lines_and_loses_no_checkpoint(
    experiment, run_command, small_disk,
):
    runs = small_disk(100_000) / "runs"
    runs.mkdir()
    run = run_command(experiment(
        SPACE, options=f"{TINY} --steps 4000 --reports 40", maxTrialNumber=2, trialConcurrency=1,
        experimentWorkingDirectory=str(runs), **FEW))
    checkpoint = until(lambda: next(runs.glob("[!_]*/trials/*/checkpoint.pt"), None), run)
    with open(runs.parent / "full", "wb", buffering=0) as full, suppress(OSError):
        while full.write(bytes(10_000)):
            pass
    output, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode and "Traceback" not in output and "No space left" in output, output
    assert torch.load(checkpoint, weights_only=True)["step"] >= 100
    until(lambda: not processes_of(checkpoint.parents[2]))


def test_nnis_pages_show_all_parts_of_scores_and_its_tensorboard_scalars_and_paintings(
    experiment, started, browser,
):
    search, port = started(
        experiment(SPACE, options=f"{TINY} --steps 20 --reports 2", maxTrialNumber=2, **FEW))
    until(lambda: status(port)[0] == "DONE")
    trials = search.trials()
    tab, errors = browser(f"http://127.0.0.1:{port}/detail")
    for trial in trials:
        tab.get_by_text(trial.id, exact=True).first.wait_for()
    tab.get_by_text("Default metric", exact=True).first.wait_for()
    offline = ("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "Failed to load resource")
    assert not [error for error in errors if not any(words in error for words in offline)]
    parts = set(trials[0].final)
    assert {"default", "style", "content", "diversity", "clean", "kid"} <= parts
    tab.get_by_text("default", exact=True).first.click()
    for part in parts - {"default"}:
        tab.get_by_role("option", name=part, exact=True).first.wait_for()
    ids = ",".join(trial.id for trial in trials)
    start = f"http://127.0.0.1:{port}/api/v1/nni/tensorboard"  # as NNI's button does
    assert requests.post(start, json={"trials": ids}, timeout=TIMEOUT).ok
    (address,) = until(lambda: [address for process in processes_of(search.folder, "bin/tensorboard")
                                for address in listening(process)])
    assert address.ip == "127.0.0.1"
    url = f"http://127.0.0.1:{address.port}"

    def runs_with(kind: str, tags: set[str]) -> int:
        """Return how many runs TensorBoard has read so far that have these tags."""
        runs = requests.get(f"{url}/data/plugin/{kind}/tags", timeout=TIMEOUT).json()
        return sum(tags <= set(run) for run in runs.values())

    scalars = {f"score/{part}" for part in parts - {"error"}}  # of each report, not their mean
    until(lambda: runs_with("scalars", scalars) == 2)
    until(lambda: runs_with("images", {"samples"}) == 2)
    board, _ = browser(f"{url}/#images")
    board.locator("img[src*='individualImage']").first.wait_for()


@pytest.mark.parametrize("system, options", [
    ("gan", "--data digits --steps 60 --reports 3"),
    ("dcgan", "--data digits --steps 20 --reports 2 --ngf 8 --ndf 8"),
    ("conditional_gan", "--data digits --steps 20 --reports 2 --ngf 8 --ndf 8"),
    ("style_transfer", "--data {data} --judge {judge} --features judge --photos 4 --steps 6 --reports 2"),
    ("stargan", "--data sample --size sketch --edge 32 --steps 6 --reports 2 --ngf 8 --ndf 8"),
])
def test_a_search_of_each_other_system_runs_on_its_built_in_sample_to_its_end(
    system, options, experiment, tmp_path, run_command, sample_data, judge_file,
):
    arguments = {"reference": f"trials.{system}", "seed": 0, "tpe_args": {"n_startup_jobs": 2}}
    output = finish(run_command(experiment(
        system=system, options=options.format(data=sample_data, judge=judge_file), maxTrialNumber=2,
        tuner={"classArgs": arguments})))
    assert "0 published" in output and f"Repeat the best trial: python -m trials.{system} --like" in output
    folder = newest(tmp_path / "runs")
    trials = find_experiment(str(folder)).trials()
    assert [trial.state for trial in trials] == ["SUCCEEDED"] * 2
    assert all(0 <= trial.final["default"] <= 1 for trial in trials)
    assert trials[0].parameters != trials[1].parameters
    page = next(folder.glob("*.html")).read_text()
    assert page.count("data:image/webp;base64,") == 1 + 2 * len(trials[0].reports)
    assert not processes_of(folder)
