"""Searches from Python, and the notebook that shows it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient

from experiments import load, trial_command
from judge.common.errors import UserError
from tests.experiments.helpers import ROOT, TINY
from trials.session import Session
from trials.session.engine import NoEngine
from trials.training import cyclegan

NOTEBOOK = ROOT / "experiments" / "search.ipynb"
COMMAND = f"python -m trials.cyclegan {TINY} --steps 12 --budget 0.5 --reports 3"
PARAMETERS = [{"cycle_weight": 10.0, "identity_weight": 5.0},  # published
              *({"cycle_weight": 2.0 + at, "identity_weight": 3.0 + at % 2} for at in range(9))]
SCORES = [0.3, 0.1, 0.2, 0.25, 0.4, 0.5, 0.8, 0.6, 0.9, 0.7]
STOPPED, DIVERGED = 8, 9


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sample_data, judge_file) -> Path:
    """The folder of a tiny trial that was trained for half of its schedule."""
    folder = tmp_path_factory.mktemp("trained") / "trial"
    _, settings, options = trial_command.parse(
        f"{COMMAND} --data {sample_data} --judge {judge_file} --device cpu --out {folder}")
    session = Session("cyclegan", settings.complete(torch.device("cpu")), options, NoEngine(), {})
    assert session.run(cyclegan.train) == 0
    return folder


@pytest.fixture
def searched(recorded, trained) -> Path:
    """The folder of a search of ten trials, one stopped early and one diverged, all with the same files."""
    ends = {STOPPED: "EARLY_STOPPED"}
    folder = recorded("searched", {"trialCommand": COMMAND, "experimentName": "A search"}, [
        (f"t{at}", parameters, ends.get(at, "SUCCEEDED"), [score / 2, score],
         None if at in ends else 0.0 if at == DIVERGED else score)
        for at, (parameters, score) in enumerate(zip(PARAMETERS, SCORES))])  # fmt: skip
    for at, parameters in enumerate(PARAMETERS):
        trial = folder / "trials" / f"t{at}"
        shutil.copytree(trained, trial)
        record = json.loads((trial / "run.json").read_text())
        record["settings"] |= parameters
        record["status"] = "diverged" if at == DIVERGED else record["status"]
        (trial / "run.json").write_text(json.dumps(record))
    return folder


def test_a_search_is_tables_of_its_trials_its_curves_and_its_importances(searched):
    search = load(str(searched))
    table = search.trials
    assert table.index.tolist() == [8, 6, 7, 5, 4, 0, 3, 2, 1, 9]
    assert table.loc[6, ["id", "state", "score", "style", "cycle_weight", "identity_weight"]].tolist() == [
        "t6", "succeeded", 0.8, 0.8, 7.0, 4.0]
    assert table["state"].value_counts().to_dict() == {"succeeded": 8, "early stopped": 1, "diverged": 1}
    assert table["published"][table["published"]].index.tolist() == [0]
    assert table.loc[6, "folder"] == searched / "trials" / "t6" and table.loc[6, "seconds"] == 1.0
    assert search.parameters == ["cycle_weight", "identity_weight"]
    curves = search.curves
    assert list(curves.columns[:3]) == ["trial", "step", "score"] and "style" in curves
    assert curves.loc[curves["trial"] == 6, "step"].tolist() == [2, 4, 6]
    assert search.importance["importance"].sum() == pytest.approx(1) and len(search.importance) == 2
    assert repr(search) == "<Search searched 'A search': 10 trials, best: trial 6, score 0.800>"
    assert repr(search.best) == "<Trial 6 't6': succeeded, score 0.800>"
    assert (search.best.number, search.best.id, search.best.score) == (6, "t6", 0.8)


def test_a_trial_has_its_settings_its_pictures_and_its_generator(searched):
    trial = load(str(searched)).trial("t6")
    assert trial.parameters == {"cycle_weight": 7.0, "identity_weight": 4.0}
    assert trial.settings["ngf"] == 4 and trial.settings["steps"] == 12 and trial.scores["default"] == 0.8
    assert (trial.number, trial.state, trial.steps) == (6, "succeeded", [2, 4, 6])
    pictures = trial.pictures()
    assert pictures.step == 6 and trial.pictures(2).step == 2
    assert [len(images) for images in pictures[1:]] == [8, 8]
    assert {image.size for image in pictures.sources + pictures.paintings} == {(64, 64)}
    assert pictures.sources == trial.pictures(2).sources and pictures.paintings != trial.pictures(2).paintings


def test_the_generator_of_a_trial_paints_as_the_trial_did(searched, trained):
    record = json.loads((trained / "run.json").read_text())["settings"]
    trial = load(str(searched)).trial(0)  # with the settings that it was trained with
    net = cyclegan.CycleGAN(cyclegan.Settings(**record), 1, torch.device("cpu"))
    net.load_state_dict(torch.load(trained / "checkpoint.pt", weights_only=True))
    photographs = torch.rand(2, 3, 64, 64) * 2 - 1
    generator = trial.generator()
    assert not generator.training
    torch.testing.assert_close(generator(photographs), net.paint(photographs))
    assert not torch.allclose(trial.generator(reverse=True)(photographs), generator(photographs))


def test_a_note_is_in_the_table(searched):
    search = load(str(searched))
    search.note("the best so far", trial=6)
    search.note("all of it")
    assert search.trials["note"].to_dict()[6] == "the best so far" and not search.trials["pinned"].any()
    assert json.loads((searched / "notes.json").read_text())["search"]["note"] == "all of it"


def test_another_score_ranks_the_trials_anew(searched):
    search = load(str(searched), score="plain")
    styles = {trial: curve["style"] for trial, curve in search.curves.groupby("trial")}
    assert search.curves["score"].equals(search.curves["style"])
    assert search.trials.loc[6, "score"] == pytest.approx(styles[6].prod() ** (1 / 3))


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda search: search.trial(77), "experiment searched has no trial 77"),
    (lambda search: search.trial(6).pictures(5), "no readable pictures of step 5: there are 2, 4, 6"),
    (lambda search: search.trial(6).generator(domain="monet"), "only a StarGAN has domains"),
    (lambda search: search.note("x", trial="none"), "has no trial none"),
    (lambda search: load(str(search.folder), score="pretty"), "neither style-and-scene"),
    (lambda search: load("/nowhere"), "no experiment /nowhere"),
])
def test_what_is_not_there_is_one_line(searched, wrong: Callable, words):
    with pytest.raises(UserError, match=words) as caught:
        wrong(load(str(searched)))
    assert "\n" not in str(caught.value)


def test_a_search_without_trials_is_empty_tables(recorded):
    search = load(str(recorded("empty", {"trialCommand": COMMAND}, [])))
    assert search.best is None and search.trials.empty and search.curves.empty and search.importance.empty
    assert repr(search) == "<Search empty 'empty': 0 trials>"
    assert isinstance(search.trials, pd.DataFrame) and "score" in search.curves


def test_import_experiments_is_light():
    code = "import sys, experiments; sys.exit(any(name in sys.modules for name in ('torch', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_notebook_runs_and_is_saved_without_outputs(searched, tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert sum('load("latest")' in cell.source for cell in cells) == 1
    for cell in cells:
        cell.source = cell.source.replace('load("latest")', f"load({str(searched)!r})")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=tmp_path)
    assert all(cell.outputs for cell in cells[1:])
