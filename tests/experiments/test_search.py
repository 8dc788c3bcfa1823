"""Whole searches through the real nnictl, with tiny networks."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests
import torch
import yaml

from experiments.nni_adapter import database, manager
from experiments.nni_adapter.manager import ENDED, create, free_port, status, stop
from tests.experiments import long_run
from tests.experiments.long_run import manager_of
from trials.cyclegan import Settings
from trials.session.records import read_json, read_lines

ROOT = Path(__file__).parents[2]
ENOUGH = 600  # seconds for anything that a search does, on a machine that is slow and busy
TINY = "--size sketch --ngf 4 --blocks 1 --ndf 4 --photos 8"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """NNI's list of experiments is the user's; ours goes elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(database, "NNI_HOME", tmp_path / "nni-experiments")


@pytest.fixture
def started():
    """Starts experiments and ends them, whatever happens."""
    ids = []

    def start(file: Path) -> tuple[database.Experiment, int]:
        experiment, port = create(file)
        ids.append(experiment.id)
        return experiment, port

    yield start
    for id_ in ids:
        stop(id_)


def until(condition, seconds: float = ENOUGH, run: subprocess.Popen | None = None):
    """The first true value of `condition()`; fails after `seconds`, or once the command `run` has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        if run and run.poll() is not None:
            pytest.fail(f"ended with {run.returncode}: {run.communicate()[0]}")
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:.0f} s: {condition}")


def processes_of(folder: Path, word: str = "") -> list[psutil.Process]:
    """Everything that works in or for an experiment's folder, with this word in its command."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            command = " ".join(process.cmdline())
            place = command + process.environ().get("NNI_OUTPUT_DIR", "")
            if folder.name in place and word in command and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def listening(process: psutil.Process) -> list:
    """The (address, port) pairs that a process listens on; of one that has ended none."""
    with suppress(psutil.Error):
        return [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    return []


@pytest.fixture
def tensorboard(tmp_path_factory):
    """Has NNI show trials in TensorBoard as its button does; returns where that listens.

    A test at a time: NNI takes the first port from 6006 on at which nobody listens yet.
    """

    def show(folder: Path, port: int, *trials: str) -> list:
        with open(tmp_path_factory.getbasetemp().parent / "tensorboard.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            url = f"http://127.0.0.1:{port}/api/v1/nni/tensorboard"
            assert requests.post(url, json={"trials": ",".join(trials)}, timeout=ENOUGH).ok
            return until(lambda: [place for process in processes_of(folder, "bin/tensorboard")
                                  for place in listening(process)])

    return show


def newest(runs: Path) -> Path:
    """The folder of the experiment that NNI began last; of a try that failed it leaves one, too."""
    return (runs / "_latest").resolve()


def test_every_trial_gets_its_own_parameters_though_others_crash(experiment, started):
    """The guard against NNI 3.0, which hands them to whichever trial asks first."""
    file = experiment(
        program="tests.experiments.crashing_cyclegan", options=f"{TINY} --steps 20 --reports 2",
        maxTrialNumber=8, trialConcurrency=4, assessor={"classArgs": {"start_step": 999}},
    )  # fmt: skip
    running, port = started(file)
    assert until(lambda: (state := status(port)) in ENDED and state) == "DONE"
    trials = running.trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert {t.number for t in trials if t.state == "FAILED"} == {3, 5}
    assert all(trial.state == "SUCCEEDED" for trial in trials if trial.number not in (3, 5))

    for trial in trials:
        record = read_json(trial.folder / "run.json")
        handed = json.loads((trial.folder / "parameter.cfg").read_text())["parameters"]
        assert handed == trial.parameters
        if trial.number == 3:  # never asked
            assert record == {} and trial.final is None
            continue
        assert record["parameters"] == trial.parameters
        assert {key: record["settings"][key] for key in trial.parameters} == trial.parameters
        if trial.number == 5:
            assert record["reason"] == "RuntimeError: crashed after asking" and trial.final is None
            continue
        lines = read_lines(trial.folder / "stats.jsonl")
        assert [line["score"] for line in lines] == trial.reports and len(lines) == 2
        assert trial.final == record["score"] == trial.reports[-1]
        assert list((trial.folder / "tensorboard").glob("events*"))  # where the UI's button looks
    assert len({json.dumps(trial.parameters) for trial in trials}) == 8
    defaults = vars(Settings())
    assert trials[0].parameters == {key: defaults[key] for key in trials[0].parameters}


def test_a_port_that_another_took_in_between_only_costs_a_try(experiment, started, monkeypatch):
    free = free_port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = [taken]
        monkeypatch.setattr(manager, "free_port", lambda: ports.pop() if ports else free())
        _, port = started(experiment(options=f"{TINY} --steps 20 --reports 2", maxTrialNumber=1))
    assert port != taken and not ports


def test_where_nni_starts_slowly_it_is_waited_for(experiment, started, tmp_path, monkeypatch):
    """It gives its manager 3 s and its tuner 10."""
    (tmp_path / "slow.js").write_text("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6000);")
    monkeypatch.setenv("NODE_OPTIONS", f"--require {tmp_path / 'slow.js'}")
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(
        "import sys, time\nif '--exp_params' in sys.orig_argv: time.sleep(14)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    running, port = started(experiment(options=f"{TINY} --steps 4 --reports 2", maxTrialNumber=1))
    assert until(lambda: (state := status(port)) in ENDED and state) == "DONE"
    assert running.trials()[0].final


def test_a_killed_manager_leaves_a_whole_checkpoint_and_no_process(experiment, started):
    file = experiment(options=f"{TINY} --steps 100000 --reports 5000", maxTrialNumber=2)
    running, _ = started(file)
    until(lambda: len(list((running.folder / "trials").glob("*/checkpoint.pt"))) == 2)
    manager_of(running.id).send_signal(signal.SIGKILL)
    until(lambda: not processes_of(running.folder))
    for file in (running.folder / "trials").glob("*/checkpoint.pt"):
        assert torch.load(file, weights_only=True)["step"] > 0
        record = read_json(file.parent / "run.json")
        assert record["status"] == "stopped" and "SIGTERM" in record["reason"]
        assert not list(file.parent.glob("*.part"))


def test_a_search_takes_no_more_from_trial_to_trial(tmp_path):
    """Of 300 trials, experiments/SCALE.md: the same program, with a larger number."""
    found = long_run.carried_out(tmp_path / "long", trials=12, every=3)
    assert found["over"].max() >= 10
    grown = long_run.growth(found)
    assert {"run_files", "manager_threads", "tuner_rss", "children", "zombies"} <= set(grown.index)
    leaks = [name for name, each in grown.items() if not each < (2 if name.endswith("_rss") else 0.25)]
    assert not leaks, found[["over", *leaks]].to_csv(index=False)
    leak = found.assign(manager_files=found["manager_files"] + found["over"] // 2)
    assert long_run.growth(leak)["manager_files"] > 0.25


SMI = """#!/bin/sh
echo '<log><gpu><utilization><gpu_util>0 %</gpu_util><memory_util>0 %</memory_util></utilization>'
echo '<processes></processes></gpu></log>'
"""


def test_two_experiments_at_once_with_a_gpu_keep_out_of_each_other_s_way(tmp_path, monkeypatch):
    """The one that ends first leaves the other its port, its files and its view of the GPUs (here one,
    of a stand-in for nvidia-smi)."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    files = []
    for name, trials in (("short", 1), ("long", 6)):
        (tmp_path / name / "runs").mkdir(parents=True)
        files.append(long_run.described(tmp_path / name, trials, 1, trialGpuNumber=1, trainingService={
            "platform": "local", "useActiveGpu": True, "maxTrialNumberPerGpu": 1}))  # fmt: skip
    with ThreadPoolExecutor() as pool:  # both start at the same moment
        begun = list(pool.map(create, files))
    try:
        (short, first), (long, second) = begun
        assert first != second
        until(lambda: status(first) == "DONE")
        assert status(second) in ("RUNNING", "NO_MORE_TRIAL")
        stop(short.id)
        until(lambda: status(second) == "DONE")
    finally:
        for experiment, _ in begun:
            stop(experiment.id)
    assert [trial.state for trial in short.trials()] == ["SUCCEEDED"]
    assert [trial.state for trial in long.trials()] == ["SUCCEEDED"] * 6
    until(lambda: not processes_of(tmp_path))
    log = (long.folder / "log" / "nnimanager.log").read_text()
    assert "gpu_metrics" not in log.split("submitTrialJob", 2)[2]  # from the second trial on it is there


@pytest.fixture
def run_command():
    """Starts `experiments run` or `promote`, and ends it as Ctrl-C would, whatever happens."""
    running = []

    def start(what: Path, *options: str, command: str = "run") -> subprocess.Popen:
        running.append(subprocess.Popen(
            [sys.executable, "-u", "-m", "experiments", command, str(what), *options], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        ))  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                print(process.communicate(timeout=60)[0])  # for whoever reads why a test failed
            finally:
                process.kill()


def folder_of(file: Path, run: subprocess.Popen) -> Path:
    """The folder of the experiment that `run` started from `file`, once it has a trial."""
    runs = file.parent / "runs"
    return until(lambda: next((p for p in runs.glob("[!_]*/trials/*")), None), run=run).parents[1]


def test_run_shows_the_search_to_its_end_on_loopback_only(experiment, run_command, tensorboard):
    file = experiment(
        options=f"{TINY} --steps 20 --reports 2", maxTrialNumber=3,
        tuner={"classArgs": {"reference": "trials.cyclegan", "optimize_mode": "maximize",
                             "tpe_args": {"n_startup_jobs": 2}}},
        assessor={"classArgs": {"start_step": 1}},
    )  # fmt: skip
    run = run_command(file)
    folder = folder_of(file, run)
    (manager,) = listening(manager_of(folder.name))
    assert manager.ip == "127.0.0.1"
    trial = next(folder.glob("trials/*")).name
    assert {address.ip for address in tensorboard(folder, manager.port, trial)} == {"127.0.0.1"}
    name = database.find_experiment(str(folder)).config["experimentName"]
    assert "built-in stand-in" in name and "| sketch |" in name and "judge.pt" in name
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 0, output
    assert "built-in stand-in" in output
    assert "0 published" in output
    assert "repeat it: python -m trials.cyclegan" in output and "--budget 1.0" in output
    assert not processes_of(folder)

    report = subprocess.run(
        [sys.executable, "-m", "experiments", "report", str(folder), "--csv"], cwd=ROOT, text=True,
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert len(report.splitlines()) == 4 and report.startswith("trial,id,data,state,reports,score")
    assert "(stand-in)" in report


def test_ctrl_c_stops_the_search_and_all_its_processes(experiment, run_command):
    file = experiment(options=f"{TINY} --steps 100000 --reports 5000", maxTrialNumber=9)
    run = run_command(file)
    folder = folder_of(file, run)
    until(lambda: list(folder.glob("trials/*/checkpoint.pt")), run=run)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 130, output
    assert "Traceback" not in output
    until(lambda: not processes_of(folder))


@pytest.mark.parametrize("everything", [False, True], ids=["manager", "machine"])
def test_a_search_that_was_killed_goes_on_where_it_was(experiment, run_command, everything):
    """NNI's manager alone, or all its processes at once, as when the machine restarts. Kept: what is
    finished. Gone on with: what was training. Done in the end: as many as asked for."""
    space = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
    tuner = {"classArgs": {"reference": "trials.cyclegan", "optimize_mode": "maximize",
                           "tpe_args": {"n_startup_jobs": 2}}}
    file = experiment(space, options=f"{TINY} --steps 120 --reports 12", maxTrialNumber=3, assessor=None,
                      trialConcurrency=1, tuner=tuner)
    run = run_command(file)
    folder = folder_of(file, run)
    search = database.find_experiment(str(folder))
    until(lambda: [t.final is None and len(t.reports) > 3 for t in search.trials()] == [False, True],
          run=run)
    if everything:
        for process in [psutil.Process(run.pid), *processes_of(folder)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        run.communicate(timeout=ENOUGH)
    else:
        manager_of(folder.name).kill()
        output, _ = run.communicate(timeout=ENOUGH)
        assert run.returncode == 1 and f"python -m experiments resume {folder.name}" in output, output
    until(lambda: not processes_of(folder))
    first, cut = search.trials()

    resume = run_command(folder, command="resume")
    output, _ = resume.communicate(timeout=ENOUGH)
    assert resume.returncode == 0, output
    rest = database.find_experiment(str(newest(folder.parent)))
    assert rest.folder != folder
    trials = rest.trials()
    assert len(trials) == 3 and all(trial.final for trial in trials)
    assert trials[0] == first and trials[1].parameters == cut.parameters
    record = read_json(trials[1].folder / "run.json")
    assert record["continues"] == str(cut.folder) and record["resumed_at"] >= 40
    assert len({trial.parameters["cycle_weight"] for trial in trials}) == 3
    assert len(read_lines(trials[1].folder / "stats.jsonl")) == 12


def test_a_disk_that_fills_under_a_search_ends_it_in_lines_and_loses_nothing(
    experiment, run_command, small_disk,
):
    runs = small_disk(100_000) / "runs"
    runs.mkdir()
    space = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
    tuner = {"classArgs": {"reference": "trials.cyclegan", "optimize_mode": "maximize",
                           "tpe_args": {"n_startup_jobs": 1}}}
    file = experiment(space, options=f"{TINY} --steps 4000 --reports 40", maxTrialNumber=2, tuner=tuner,
                      trialConcurrency=1, experimentWorkingDirectory=str(runs), assessor=None)
    run = run_command(file)
    checkpoint = until(lambda: next(runs.glob("[!_]*/trials/*/checkpoint.pt"), None), run=run)
    with open(runs.parent / "full", "wb", buffering=0) as full:
        with suppress(OSError):
            while full.write(bytes(10_000)):
                pass
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode and "Traceback" not in output and "No space left" in output, output
    assert torch.load(checkpoint, weights_only=True)["step"] >= 100
    until(lambda: not processes_of(checkpoint.parents[2]))


def test_a_refused_experiment_starts_nothing(experiment, run_command):
    run = run_command(experiment(trialConcurrency=1000))
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 2
    assert len(output.splitlines()) == 1 and "cores" in output


def test_a_promotion_trains_the_best_and_the_published_setting_on_to_the_end(
    experiment, run_command, judge_file, sample_data,
):
    space = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
    file = experiment(
        space, options=f"{TINY} --steps 20 --reports 2 --budget 0.5", maxTrialNumber=3, assessor=None,
        tuner={"classArgs": {"reference": "trials.cyclegan", "optimize_mode": "maximize",
                             "tpe_args": {"n_startup_jobs": 2}}},
    )  # fmt: skip
    search = run_command(file)
    folder = folder_of(file, search)
    output, _ = search.communicate(timeout=ENOUGH)
    assert search.returncode == 0, output
    yardstick = ("--yardstick", str(judge_file), "--yardstick-data", str(sample_data))
    promote = run_command(folder, "--top", "1", "--seeds", "2", *yardstick, command="promote")
    output, _ = promote.communicate(timeout=ENOUGH)
    assert promote.returncode == 0, output
    assert "Traceback" not in output and "quality" in output and "published" in output
    assert output.count("95 % over 2 seeds") == 1
    promotion = newest(folder.parent)
    assert promotion != folder
    records = [read_json(file) for file in promotion.glob("trials/*/run.json")]
    assert len(records) == 4 and all(r["schedule"] == {"steps": 20, "until": 20} for r in records)
    continued = [r for r in records if "continues" in r]
    assert len(continued) == 2 and all(r["settings"]["seed"] == 0 for r in continued)
    assert all(r["resumed_at"] == 10 and str(folder) in r["continues"] for r in continued)


def test_in_a_browser_nni_shows_trials_and_parts_and_its_tensorboard_scalars_and_paintings(
    experiment, started, browser, tensorboard,
):
    """NNI's own pages, from a real search: what each trial scored, in every part, and its pictures."""
    space = {"cycle_weight": {"_type": "uniform", "_value": [5, 20]}}
    tuner = {"classArgs": {"reference": "trials.cyclegan", "optimize_mode": "maximize",
                           "tpe_args": {"n_startup_jobs": 1}}}
    search, port = started(experiment(space, options=f"{TINY} --steps 20 --reports 2", maxTrialNumber=2,
                                      assessor=None, tuner=tuner))
    until(lambda: status(port) == "DONE")
    trials = search.trials()
    tab, complaints = browser(f"http://127.0.0.1:{port}/detail")
    for trial in trials:
        tab.get_by_text(trial.id, exact=True).first.wait_for()
    tab.get_by_text("Default metric", exact=True).first.wait_for()
    tab.screenshot(path=search.folder / "detail.png")
    assert not [words for words in complaints if "ERR_NAME_NOT_RESOLVED" not in words
                and "ERR_INTERNET_DISCONNECTED" not in words and "Failed to load resource" not in words]
    parts = set(trials[0].final)
    assert {"default", "style", "content", "diversity", "clean", "kid"} <= parts
    selector = tab.get_by_text("default", exact=True).first
    selector.click()
    for part in parts - {"default"}:
        tab.get_by_role("option", name=part, exact=True).first.wait_for()
    (place,) = tensorboard(search.folder, port, *(trial.id for trial in trials))
    address = f"http://127.0.0.1:{place.port}"

    def runs_with(kind: str, tags: set[str]) -> int:
        """TensorBoard reads one run after the other, while it answers."""
        found = requests.get(f"{address}/data/plugin/{kind}/tags", timeout=ENOUGH).json()
        return sum(tags <= set(run) for run in found.values())

    until(lambda: runs_with("scalars", {f"score/{part}" for part in parts}) == 2)
    until(lambda: runs_with("images", {"samples"}) == 2)
    board, _ = browser(f"{address}/#images")
    board.locator("img[src*='individualImage']").first.wait_for()
    board.screenshot(path=search.folder / "tensorboard.png")


@pytest.mark.parametrize("system, options", [
    ("gan", "--data digits --steps 60 --reports 3"),
    ("dcgan", "--data digits --steps 20 --reports 2 --ngf 8 --ndf 8"),
    ("conditional_gan", "--data digits --steps 20 --reports 2 --ngf 8 --ndf 8"),
    ("style_transfer", "--data {data} --judge {judge} --features judge --photos 4 --steps 6 --reports 2"),
    ("stargan", "--data sample --size sketch --edge 32 --steps 6 --reports 2 --ngf 8 --ndf 8"),
])
def test_a_search_of_each_other_system_runs_on_its_built_in_sample_to_its_end(
    system, options, tmp_path, run_command, sample_data, judge_file,
):
    options = options.format(data=sample_data, judge=judge_file)
    config = yaml.safe_load((ROOT / f"experiments/{system}.yml").read_text()) | {
        "trialCodeDirectory": str(ROOT), "experimentWorkingDirectory": str(tmp_path / "runs"),
        "searchSpaceFile": str(ROOT / f"search_spaces/{system}.json"), "maxTrialNumber": 6,
        "trialCommand": f"python -m trials.{system} --threads 1 {options}",
    }  # fmt: skip
    config["tuner"] |= {"codeDirectory": str(ROOT)}
    config["tuner"]["classArgs"]["tpe_args"]["n_startup_jobs"] = 3
    (tmp_path / "runs").mkdir()
    (tmp_path / "experiment.yml").write_text(yaml.safe_dump(config))
    run = run_command(tmp_path / "experiment.yml")
    output, _ = run.communicate(timeout=ENOUGH)
    assert run.returncode == 0, output
    assert "0 published" in output and f"repeat it: python -m trials.{system}" in output
    folder = newest(tmp_path / "runs")
    experiment = database.find_experiment(str(folder))
    trials = experiment.trials()
    assert [trial.state for trial in trials] == ["SUCCEEDED"] * 6
    assert all(0 <= trial.final["default"] <= 1 for trial in trials)
    assert len({json.dumps(trial.parameters) for trial in trials}) == 6
    page = next(folder.glob("*.html")).read_text()
    assert page.count("data:image/webp;base64,") == 1 + 6 * len(trials[0].reports)
    assert not processes_of(folder)
