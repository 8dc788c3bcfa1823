"""Trials as a user starts them: in a process of their own."""

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

ROOT = Path(__file__).parents[2]
TINY = ["--size", "sketch", "--ngf", "4", "--blocks", "1", "--ndf", "4", "--photos", "4", "--threads", "1"]


def started(*options: object) -> list[str]:
    return [sys.executable, "-m", "trials.cyclegan", *TINY, *map(str, options)]


def run(*options: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        started(*options), cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def inputs(sample_data, judge_file) -> list:
    return ["--data", sample_data, "--judge", judge_file, "--reports", 6]


def test_a_trial_runs_where_nni_is_not_installed(tmp_path, inputs):
    (tmp_path / "nni.py").write_text("raise ImportError('not installed')")
    done = run(*inputs, "--steps", 20, "--out", tmp_path / "run", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "built-in stand-in" in done.stdout
    facts = record(tmp_path / "run")
    assert facts["status"] == "finished" and facts["data"]["stand_in"] is True
    assert facts["data"]["train"]["photos"]["images"] == 12
    assert facts["settings"]["identity_weight"] == 5.0 and len(facts["judge"]["sha256"]) == 64
    assert set(facts["score"]) == {"default", "style", "content", "diversity", "clean", "kid", "kid_error"}


def test_a_search_gives_a_trial_one_thread_unless_told_and_a_hand_gives_it_all(tmp_path, sample_data):
    proposed = {"parameter_id": 0, "parameters": {"cycle_weight": 3.0}}
    (tmp_path / "parameter.cfg").write_text(json.dumps(proposed))
    nni = {"NNI_PLATFORM": "test", "NNI_TRIAL_JOB_ID": "x", "NNI_EXP_ID": "x", "NNI_TRIAL_SEQ_ID": "0",
           "NNI_SYS_DIR": str(tmp_path), "NNI_OUTPUT_DIR": str(tmp_path / "nni")}
    ended_early = ["--data", str(sample_data), "--judge", "nowhere.pt"]
    for name, options, environment, threads in (
        ("nni", [], nni, 1), ("nni", ["--threads", "2"], nni, 2),
        ("hand", ["--out", str(tmp_path / "hand")], {}, 3),
    ):
        subprocess.run(
            [sys.executable, "-m", "trials.cyclegan", *ended_early, *options],
            cwd=ROOT, capture_output=True,
            env=os.environ | environment | {"OMP_NUM_THREADS": "3", "MKL_DYNAMIC": "false"})
        assert record(tmp_path / name)["threads"] == threads
        assert record(tmp_path / name)["parameters"] == ({"cycle_weight": 3.0} if environment else {})


def test_the_plain_formula_is_the_judges_word_alone(tmp_path, inputs):
    assert run(*inputs, "--steps", 6, "--score", "plain", "--out", tmp_path / "run").returncode == 0
    facts = record(tmp_path / "run")
    assert facts["score"]["default"] == facts["score"]["style"] and 0 < facts["scoring_share"] < 1


def test_a_trial_that_was_stopped_anywhere_continues_bit_for_bit(tmp_path, inputs):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    options = [*inputs, "--steps", 60, "--pool-size", 5]
    assert run(*options, "--out", straight).returncode == 0
    arguments = started(*options, "--out", stopped)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not (stopped / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert record(stopped)["status"] == "stopped"
    assert 10 <= torch.load(stopped / "checkpoint.pt", weights_only=True)["step"] < 60

    assert run(*options, "--out", stopped).returncode == 0
    expected, got = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (straight, stopped))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert record(stopped)["score"] == record(straight)["score"]


def test_the_same_command_twice_trains_once(tmp_path, inputs):
    options = [*inputs, "--steps", 10, "--out", tmp_path / "run"]
    first, second = run(*options), run(*options)
    assert "continues at step 10" in second.stdout
    assert first.stdout.splitlines()[-1].split()[:3] == second.stdout.splitlines()[-1].split()[:3]


def test_broken_and_small_images_are_named_counted_and_survived(tmp_path, inputs, sample_data):
    data = tmp_path / "mine"
    shutil.copytree(sample_data, data)
    good = (data / "trainB/000.png").read_bytes()
    (data / "trainB/broken.png").write_bytes(good[: len(good) // 2])
    (data / "trainB/text.jpg").write_text("not an image")
    done = run("--data", data, *inputs[2:], "--steps", 10, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stdout and "text.jpg" in done.stdout
    assert "the judge learnt from sample, not from mine" in done.stdout
    photos = record(tmp_path / "run")["data"]["train"]["photos"]
    assert photos["images"] == 12 and len(photos["skipped"]) == 2


@pytest.mark.parametrize(
    "options, said",
    [
        (["--data", "/nowhere"], "no data folder /nowhere"),
        (["--judge", "/nowhere.pt"], "no judge at /nowhere.pt"),
        (["--judge", "README.md"], "README.md is not a judge's file"),
        (["--identity-weight", "-1"], "identity-weight"),
        (["--identity-weight", "much"], "identity-weight"),
        (["--identiy-weight", "1"], "identiy-weight"),
        (["--budget", "0"], "budget"),
        (["--out", "README.md"], "cannot write to README.md"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, inputs, command, monkeypatch, options, said):
    monkeypatch.chdir(ROOT)
    where = [] if "--out" in options else ["--out", tmp_path / "run"]
    done = command("trials.cyclegan", *TINY, *inputs, "--steps", 10, *where, *options)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
