"""The check of a machine's GPU, on a CPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from experiments import gpu_check
from experiments.gpu_check import Check, Failed, Skipped
from tests.experiments.helpers import ROOT, TIMEOUT, until
from tests.processes import runs

SOON = float("inf")  # an end that does not come


@pytest.fixture
def check(tmp_path, judge_file):
    """A check with a judge."""
    (tmp_path / "judge.pt").write_bytes(judge_file.read_bytes())
    return Check("cpu", "sketch", 400, tmp_path)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "experiments.gpu_check", *arguments], cwd=ROOT, text=True,
                          capture_output=True, env=os.environ | environment, timeout=TIMEOUT)


def test_without_a_gpu_the_check_is_one_line():
    done = run()
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "torch finds no GPU here; --device cpu" in done.stderr


@pytest.mark.slow
def test_the_check_runs_on_a_cpu_to_its_table(tmp_path, nni_home):
    done = run("--device", "cpu", "--size", "sketch", "--steps", "20", OUT=str(tmp_path),
               TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "gpu-check.md").read_text()
    assert text in done.stdout and "torch" in text.splitlines()[0] and "commit" in text.splitlines()[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:]]
    assert [(name, result) for name, result, *_ in rows] == [
        ("speed, sketch", "ok"), ("tests of CUDA", "skipped"), ("judge", "ok"),
        ("resume after kill -9", "ok"), ("search through NNI", "ok")]
    assert "times the plain loop's" in rows[0][2] and "ended at 20" in rows[3][2]
    assert "4 trials of 20 steps, 2 at once" in rows[4][2]
    assert not [*tmp_path.glob("gpu-check-*")]


def test_a_part_that_fails_stops_no_other_and_each_is_a_row(check, monkeypatch, tmp_path, capsys):
    def fail(error: Exception):
        def part(check, until):
            raise error
        return 10, part

    monkeypatch.setenv("OUT", str(tmp_path))
    parts = {"good": (10, lambda check, until: "44 steps/s"), "absent": fail(Skipped("no NNI")),
             "bad": fail(Failed("a | b\n" + "word " * 100)), "broken": fail(KeyError("peers"))}
    rows = gpu_check.run_parts(check, parts, "a card")
    assert [result for _, result, *_ in rows] == ["ok", "skipped", "failed", "failed"]
    lines = (tmp_path / "gpu-check.md").read_text().splitlines()
    assert lines[0] == "a card" and lines[4:6] == ["| good | ok | 44 steps/s | 0 |",
                                                   "| absent | skipped | no NNI | 0 |"]
    assert lines[6].startswith("| bad | failed | a / b word word") and len(lines[6]) < 250
    assert lines[7] == "| broken | failed | KeyError('peers') | 0 |"
    assert "\n".join(lines) in capsys.readouterr().out
    monkeypatch.setattr(gpu_check, "TOTAL_SECONDS", 0)
    ((_, result, figures, _),) = gpu_check.run_parts(check, {"late": parts["good"]}, "a card")
    assert (result, figures) == ("failed", "no time was left of 0 s")


@pytest.mark.parametrize("failed, code", [(False, 0), (True, 1)])
def test_the_exit_code_says_whether_a_part_failed_and_only_then_files_stay(
    failed, code, monkeypatch, tmp_path, capsys,
):
    def part(check, until):
        (check.folder / "file").touch()
        if failed:
            raise Failed("why")
        raise Skipped("why")

    monkeypatch.setattr(gpu_check.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_check, "parts", lambda sizes: {"part": (10, part)})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_check.command(["--device", "cpu"]) == code
    assert len([*tmp_path.glob("gpu-check-*/file")]) == failed
    assert ("files and logs of the parts: " in capsys.readouterr().out) == failed


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that writes a module which `python -m` finds, and returns its name."""
    def write(text: str) -> str:
        (tmp_path / "a_program.py").write_text(text)
        return "a_program"

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return write


def test_a_commands_long_lines_are_cut_and_its_last_is_the_reason_of_a_failure(check, program, capsys):
    name = program("import sys; print('x' * 9000); print('half', end=''); sys.exit('no capture')")
    with pytest.raises(Failed, match="a_program ended with 1: .*no capture"):
        gpu_check.succeed(check, [name], SOON)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "x" * 200 and "no capture" in printed[-1]


def test_a_command_that_takes_too_long_is_ended_with_its_children(check, program, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE_SECONDS", 0.5)
    name = program(f"""import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
with open({str(tmp_path / "pids.part")!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(tmp_path / "pids.part")!r}, {str(tmp_path / "pids")!r})
time.sleep(600)
""")

    class Patience(float):  # it ends when the child runs, however slow the machine is
        def __lt__(self, now):
            return (tmp_path / "pids").exists()

    with pytest.raises(Failed, match="a_program took too long"):
        gpu_check.call(check, [name], Patience())
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    until(lambda: not any(runs(process) for process in psutil.process_iter() if process.pid in pids))


def test_the_figures_of_the_speed_are_the_benchmarks_or_its_error(check, program, monkeypatch, capsys):
    result = {
        "settings": {"size": "draft", "batch_size": 1, "precision": "bf16"}, "device": "a card",
        "threads": 16, "steps_per_second": 112.0, "step": "as CUDA graphs", "peak_memory": 2**29, "rounds": 5,
        "peers": {"plain loop": {"steps_per_second": 19.2, "ratio": 5.83, "ratio_quartiles": [5.8, 5.9],
                                 "step": "eager", "peak_memory": 2**30}},
    }  # fmt: skip
    monkeypatch.setattr(gpu_check, "call", lambda *arguments: (0, ["a warning", json.dumps(result)]))
    figures = gpu_check.measure_speed(check, SOON, "draft")
    assert figures == ("112 steps/s, 5.83 times the plain loop's 19.2; as CUDA graphs, "
                       "0.50 GiB of GPU memory at the peak")
    assert "plain loop 19.2: ours is 5.83 times as fast" in capsys.readouterr().out
    result["peers"]["plain loop"] = {"error": "out of memory"}
    with pytest.raises(Failed, match="the plain loop cannot run: out of memory"):
        gpu_check.measure_speed(check, SOON, "draft")


@pytest.mark.parametrize("code, summary, outcome, said", [
    (0, "12 passed, 500 deselected in 40.0s", None, "12 passed, 500 deselected in 40.0s"),
    (0, "12 skipped, 500 deselected in 9.0s", Skipped, "no GPU: 12 skipped"),
    (5, "512 deselected in 9.0s", Skipped, "no test is marked"),
    (1, "1 failed, 11 passed in 40.0s", Failed, "1 failed, 11 passed"),
])
def test_tests_that_were_all_skipped_are_not_passed(check, monkeypatch, code, summary, outcome, said):
    monkeypatch.setattr(gpu_check, "call", lambda *arguments: (code, [summary]))
    if outcome is None:
        assert gpu_check.run_tests(check, SOON) == said
    else:
        with pytest.raises(outcome, match=said):
            gpu_check.run_tests(check, SOON)


@pytest.fixture
def small_trial(check, monkeypatch):
    """Make the trials of a check those of a small GAN."""
    words = ["trials.gan", "--data", "pattern", "--steps", "400", "--reports", "40", "--device", "cpu"]
    monkeypatch.setattr(Check, "trial", lambda check: words)


def test_a_killed_trial_continues_from_its_checkpoint(check, small_trial):
    figures = gpu_check.kill_and_resume(check, SOON)
    assert figures.startswith("killed after step ") and figures.endswith("ended at 400")


def test_a_trial_that_begins_anew_has_failed(check, small_trial, monkeypatch):
    call, folder = gpu_check.call, check.folder / "killed"

    def without_checkpoint(*arguments):
        for name in ("checkpoint.pt", "stats.jsonl"):
            (folder / name).unlink()
        return call(*arguments)

    monkeypatch.setattr(gpu_check, "call", without_checkpoint)
    with pytest.raises(Failed, match="continued at 0, and reported at the steps"):
        gpu_check.kill_and_resume(check, SOON)


def test_a_trial_that_ends_before_it_can_be_killed_says_why(check, monkeypatch):
    monkeypatch.setattr(Check, "trial", lambda check: ["trials.gan", "--steps", "none"])
    with pytest.raises(Failed, match="no 3 reports to kill the trial at: .*--steps: 'none'"):
        gpu_check.kill_and_resume(check, SOON)


def test_a_trial_on_another_device_than_the_checks_has_failed(check):
    (check.folder / "run.json").write_text(json.dumps({"device": "cpu (x86_64, 2 cores)"}))
    assert check.record(check.folder)
    with pytest.raises(Failed, match="a trial ran on cpu .*, not on cuda"):
        replace(check, device="cuda").record(check.folder)


@pytest.mark.parametrize("packages, program, said", [
    (("nni",), True, "not installed: nni"), (("nni", "plotly"), True, "not installed: nni, plotly"),
    ((), False, "no nvidia-smi"),
])
def test_what_a_search_needs_and_a_bare_machine_lacks_is_named(check, monkeypatch, packages, program, said):
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec",
                        lambda name: None if name in packages else object())
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: "/bin/nvidia-smi" if program else None)
    with pytest.raises(Skipped, match=said):
        gpu_check.search(replace(check, device="cuda"), SOON)


def test_without_a_judge_trials_are_skipped(check):
    check.judge.unlink()
    with pytest.raises(Skipped, match="no judge"):
        gpu_check.kill_and_resume(check, SOON)
