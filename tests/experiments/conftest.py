"""Experiments for tests: the shipped file, changed, and a database as NNI leaves one."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PATIENCE = 120_000  # milliseconds, for anything that a browser does on a machine that is slow and busy


@pytest.fixture
def experiment(tmp_path, sample_data, judge_file) -> Callable[..., Path]:
    """Writes cyclegan.yml with changes, on the small sample and the untrained judge."""

    def write(space=None, program: str = "trials.cyclegan", options: str = "", **changes) -> Path:
        config = yaml.safe_load((ROOT / "experiments/cyclegan.yml").read_text())
        inputs = f"--data {sample_data} --judge {judge_file} --size sketch --threads 1"
        config |= {
            "trialCodeDirectory": str(ROOT), "experimentWorkingDirectory": str(tmp_path / "runs"),
            "searchSpaceFile": str(ROOT / "search_spaces/cyclegan.json"),
            "trialCommand": f"python -m {program} {inputs} {options}",
        }  # fmt: skip
        config["tuner"]["codeDirectory"] = str(ROOT)
        (tmp_path / "runs").mkdir(exist_ok=True)
        if space is not None:
            (tmp_path / "space.json").write_text(json.dumps(space))
            config["searchSpaceFile"] = str(tmp_path / "space.json")
        for key, value in changes.items():
            config[key] = config[key] | value if isinstance(value, dict) else value
        file = tmp_path / "experiment.yml"
        file.write_text(yaml.safe_dump(config))
        return file

    return write


@pytest.fixture
def recorded(tmp_path) -> Callable[..., Path]:
    """Writes what NNI stores of an experiment; trials are (id, parameters, end or None, scores, final)."""

    def write(id_: str, config: dict, trials: list[tuple]) -> Path:
        folder = tmp_path / id_
        (folder / "db").mkdir(parents=True)
        with sqlite3.connect(folder / "db" / "nni.sqlite") as db:
            db.executescript(
                "create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text,"
                " logPath text, sequenceId integer, message text);"
                "create table MetricData (timestamp integer, trialJobId text, parameterId text, type text,"
                " sequence integer, data text);"
                "create table ExperimentProfile (params text, id text, execDuration integer,"
                " startTime integer, endTime integer, logDir text, nextSequenceId integer, revision integer);"
            )
            for revision, params in enumerate(({}, config)):  # NNI writes it anew at each change
                db.execute("insert into ExperimentProfile values (?, ?, 0, 0, 0, '', 0, ?)",
                           (json.dumps(params), id_, revision))
            for number, (trial, parameters, end, scores, final) in enumerate(trials):
                proposal = json.dumps({"parameter_id": number, "parameters": parameters})
                events = [("WAITING", proposal), ("RUNNING", None)] + ([(end, None)] if end else [])
                for at, (event, data) in enumerate(events):
                    db.execute("insert into TrialJobEvent values (?,?,?,?,'',?,'')",
                               (1000 * at, trial, event, data, number))
                results = [("PERIODICAL", score) for score in scores]
                for kind, score in results + ([("FINAL", final)] if final is not None else []):
                    parts = {"default": score, "style": score, "content": 1 - score, "kid_error": 0.1}
                    value = json.dumps(json.dumps(parts))  # JSON in JSON
                    db.execute("insert into MetricData values (0,?,?,?,0,?)",
                               (trial, str(number), kind, value))
        return folder

    return write


@pytest.fixture
def browser():
    """Opens a file or an address in a real headless Chromium (.ci/browser installs it): the page, and
    a list that fills with what its console complains of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium here: .ci/browser installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        program = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=PATIENCE)

        def opened(where: Path | str, width: int = 1400):
            tab, complaints = program.new_page(viewport={"width": width, "height": 900}), []
            tab.set_default_timeout(PATIENCE)
            tab.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.goto(where.resolve().as_uri() if isinstance(where, Path) else where)
            return tab, complaints

        yield opened
        program.close()
