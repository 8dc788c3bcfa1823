"""Trials as a user starts them, in a process of their own where that matters."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trials.session.records import read_lines

ROOT = Path(__file__).parents[2]
TINY = ["--size", "sketch", "--ngf", "4", "--blocks", "1", "--ndf", "4", "--photos", "4", "--threads", "1"]


def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)  # fmt: skip


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def inputs(sample_data, judge_file) -> list:
    return [*TINY, "--data", sample_data, "--judge", judge_file, "--reports", 6]


@pytest.mark.parametrize(("words", "folder"), [(["cyclegan.py"], "trials"), (["-m", "trials.inspect"], ".")])
def test_a_program_starts_by_its_path_or_its_module(words, folder):
    """By its path Python searches trials/ first: nothing in it may hide the standard library."""
    process = run(*words, "--help", cwd=ROOT / folder)
    assert process.returncode == 0 and "usage: python -m trials." in process.stdout, process.stderr


def test_a_trial_by_hand_needs_no_nni_and_stopped_anywhere_continues_bit_for_bit(tmp_path, inputs):
    (tmp_path / "nni.py").write_text("raise ImportError('not installed')")
    straight, stopped, path = tmp_path / "straight", tmp_path / "stopped", f"{tmp_path}:{ROOT}"
    command = ["-m", "trials.cyclegan", *inputs, "--steps", 60, "--pool-size", 5, "--score", "plain", "--out"]
    first = run(*command, straight, PYTHONPATH=path)
    assert first.returncode == 0 and "built-in stand-in" in first.stdout, first.stderr
    facts = record(straight)
    assert facts["status"] == "finished" and facts["data"]["stand_in"] is True
    assert facts["data"]["train"]["photos"]["images"] == 12
    assert facts["settings"]["identity_weight"] == 5.0 and len(facts["judge"]["sha256"]) == 64
    parts = {"style", "content", "scene", "diversity", "clean", "kid", "kid_error"}
    assert set(facts["score"]) == {"default", "error"} | parts
    last = read_lines(straight / "stats.jsonl")[-1]["score"]
    assert last["default"] == last["style"]  # plain is the judge's probability alone
    assert 0 < facts["scoring_share"] < 1
    again = run(*command, straight)
    assert "continues at step 60" in again.stdout
    assert again.stdout.splitlines()[-1].split()[:3] == first.stdout.splitlines()[-1].split()[:3]

    process = subprocess.Popen([sys.executable, *map(str, command), stopped], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    while not (stopped / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert record(stopped)["status"] == "stopped"
    assert 10 <= torch.load(stopped / "checkpoint.pt", weights_only=True)["step"] < 60
    assert run(*command, stopped).returncode == 0
    expected, got = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (straight, stopped))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert record(stopped)["score"] == facts["score"]


def test_the_file_of_the_score_is_recorded_and_another_one_of_the_same_name_is_noticed(tmp_path, inputs):
    file, folder = tmp_path / "mine.json", tmp_path / "trial"
    command = ["-m", "trials.cyclegan", *inputs, "--steps", 6, "--score", file, "--out", folder]
    refused = run(*command)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not folder.exists()
    assert f"--score {file}: neither style-and-scene nor combined nor plain, nor a file" in refused.stderr
    file.write_text('{"format": "salon score 1", "weights": {"style": 2, "clean": 0.5}}')
    assert run(*command).returncode == 0
    facts = record(folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts["score_file"] == {"file": str(file), "sha256": digest}
    score = read_lines(folder / "stats.jsonl")[-1]["score"]
    assert score["default"] == pytest.approx(score["style"] ** 2 * score["clean"] ** 0.5, rel=1e-12)
    file.write_text('{"format": "salon score 1", "weights": {"style": 3}}')
    other = run(*command)
    assert other.returncode and "trained with another score_file" in other.stderr


@pytest.mark.parametrize(("options", "searched", "threads"), [
    ([], True, 1), (["--threads", 2], True, 2), ([], False, 3),
])  # fmt: skip
def test_a_search_gives_a_trial_one_thread_by_default(tmp_path, inputs, options, searched, threads):
    parameters = {"cycle_weight": 3.0} if searched else {}
    (tmp_path / "parameter.cfg").write_text(json.dumps({"parameter_id": 0, "parameters": parameters}))
    nni = {"NNI_PLATFORM": "test", "NNI_TRIAL_JOB_ID": "x", "NNI_EXP_ID": "x", "NNI_TRIAL_SEQ_ID": "0",
           "NNI_SYS_DIR": str(tmp_path), "NNI_OUTPUT_DIR": str(tmp_path / "run")}
    wrong = ["--judge", "nowhere.pt"] if searched else []  # by hand it would leave no record
    given = [*TINY[:-2], *inputs[len(TINY):]]  # without --threads
    run("-m", "trials.cyclegan", *given, "--steps", 4, "--out", tmp_path / "run", *wrong, *options,
        OMP_NUM_THREADS="3", MKL_DYNAMIC="false", **(nni if searched else {}))
    facts = record(tmp_path / "run")
    assert facts["threads"] == threads and facts["parameters"] == parameters
    assert facts["status"] == ("failed" if searched else "finished")
    assert not searched or "no judge at nowhere.pt" in facts["reason"]


def test_images_that_cannot_be_read_are_named_and_counted(tmp_path, inputs, sample_data, command):
    data = tmp_path / "mine"
    shutil.copytree(sample_data, data)
    (data / "trainB/broken.png").write_bytes((data / "trainB/000.png").read_bytes()[:500])
    (data / "trainB/text.jpg").write_text("not an image")
    done = command("trials.cyclegan", *inputs, "--data", data, "--steps", 10, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stderr and "text.jpg" in done.stderr
    assert "the judge was trained on sample, not on mine" in done.stdout
    photos = record(tmp_path / "run")["data"]["train"]["photos"]
    assert photos["images"] == 12 and len(photos["skipped"]) == 2


@pytest.mark.parametrize(("options", "words"), [
    (["--data", "/nowhere"], "no data folder /nowhere"),
    (["--judge", "README.md"], "README.md is not a judge's file"),
    (["--identity-weight", "-1"], "identity-weight"),
    (["--identiy-weight", "1"], "identiy-weight"),
    (["--out", "README.md"], "cannot write to README.md"),
])  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, inputs, command, monkeypatch, options, words):
    monkeypatch.chdir(ROOT)
    done = command("trials.cyclegan", *inputs, "--steps", 10, "--out", tmp_path / "run", *options)
    assert done.returncode == 2
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
