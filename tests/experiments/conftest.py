"""Fixtures: changed experiment files, databases as NNI writes them, running searches, and a browser."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from experiments.nni_adapter import database
from experiments.nni_adapter.manager import create, new_id, stop
from tests.experiments.helpers import ROOT, write_experiment

BROWSER_TIMEOUT = 120_000  # milliseconds for anything that a browser does, on a slow and busy machine


@pytest.fixture
def experiment(tmp_path, sample_data, judge_file) -> Callable[..., Path]:
    """Return a function that writes a shipped file with changes; cyclegan.yml for the small sample."""

    def write(space=None, system: str = "cyclegan", options: str = "", **changes) -> Path:
        config = yaml.safe_load((ROOT / f"experiments/{system}.yml").read_text())
        if system == "cyclegan":
            options = f"--data {sample_data} --judge {judge_file} --size sketch {options}"
        config |= {
            "trialCodeDirectory": str(ROOT), "experimentWorkingDirectory": str(tmp_path / "runs"),
            "searchSpaceFile": str(ROOT / f"search_spaces/{system}.json"),
            "trialCommand": f"python -m trials.{system} --threads 1 {options}",
        }  # fmt: skip
        config["tuner"]["codeDirectory"] = str(ROOT)
        (tmp_path / "runs").mkdir(exist_ok=True)
        if space is not None:
            (tmp_path / "space.json").write_text(json.dumps(space))
            config["searchSpaceFile"] = str(tmp_path / "space.json")
        for key, value in changes.items():
            if isinstance(value, dict):
                value = {k: v for k, v in (config[key] | value).items() if v is not None}
            config[key] = value
        file = tmp_path / "experiment.yml"
        file.write_text(yaml.safe_dump(config))
        return file

    return write


@pytest.fixture
def recorded(tmp_path) -> Callable[..., Path]:
    """Return a function that writes an experiment (`write_experiment`) and returns its folder."""

    return partial(write_experiment, tmp_path)


@pytest.fixture
def nni_home(tmp_path, monkeypatch):
    """Put NNI's list of experiments elsewhere than in the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(database, "NNI_HOME", tmp_path / "nni-experiments")


@pytest.fixture
def started(nni_home):
    """Return a function that starts an experiment; all are stopped at the end."""
    ids = []

    def start(file: Path) -> tuple[database.Experiment, int]:
        ids.append(new_id())
        return create(file, ids[-1])

    yield start
    for id_ in ids:
        stop(id_)


@pytest.fixture
def run_command(nni_home):
    """Return a function that starts `experiments COMMAND`; at the end, all end as by Ctrl-C.

    What starts NNI is started with --unmeasured.
    """
    running = []

    def start(argument: Path, *options: str, command: str = "run") -> subprocess.Popen:
        unmeasured = ["--unmeasured"] if command in ("run", "resume", "promote") else []
        running.append(subprocess.Popen(
            [sys.executable, "-u", "-m", "experiments", command, str(argument), *unmeasured, *options],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                print(process.communicate(timeout=60)[0])  # shown if the test has failed
            finally:
                process.kill()


@pytest.fixture
def browser():
    """Return a function that opens a file or URL in headless Chromium, installed by .ci/browser.

    It returns the page, and a list that fills with the errors in its console.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium here: .ci/browser installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        program = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"],
                                       timeout=BROWSER_TIMEOUT)

        def opened(where: Path | str, width: int = 1400):
            tab, errors = program.new_page(viewport={"width": width, "height": 900}), []
            tab.set_default_timeout(BROWSER_TIMEOUT)
            tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.goto(where.resolve().as_uri() if isinstance(where, Path) else where)
            return tab, errors

        yield opened
        program.close()
