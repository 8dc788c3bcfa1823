"""What commands import before they answer: torch, pandas and NNI take seconds."""

import subprocess
import sys

import pytest
import yaml

from tests.experiments.helpers import ROOT
from tests.test_endings import COMMANDS, ELSEWHERE, SUBCOMMANDS, SYSTEMS

SLOW = ("torch", "torchvision", "pandas", "nni", "sklearn", "scipy", "optuna")
# Runs a program's command lines, and prints after each what it has imported.
CODE = """if True:
    import runpy, sys
    for sys.argv[1:] in {lines}:
        try:
            runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            assert ended.code in (None, 0, 2)
        print("imported:", *[name for name in {slow} if name in sys.modules], flush=True)
"""
HELPED = {*SUBCOMMANDS, *ELSEWHERE, *(command.name for command in COMMANDS),
          *(f"experiments.answer {name}" for name in (
              "searches", "confirm", "sizes", "pairs", "votes", "results", "figures"))}  # fmt: skip
REFUSED = [
    "experiments check missing.yml", "experiments run pyproject.toml",
    "experiments run experiments/gan.yml --trails 3", "experiments check experiments/gan.yml --set wings=2",
    "judge score --imges x", "experiments report nosuchid",
    "experiments note nosuchid text", "experiments resume nosuchid", "experiments promote nosuchid",
    "experiments simulate --trials 0", "experiments.answer confirm", "experiments.gpu_check --size huge",
    *(f"{name} --{option}" for name in (*SYSTEMS, "trials.bench") for option in ("stepz 3", "steps none")),
    "trials.gan --like nowhere", "trials.bench --against wings=2", "trials.translate --run r --photos p",
    "trials.draw --out o", "trials.inspect walk r --steps 0",
]  # fmt: skip
LINES = [*(f"{name} --help" for name in sorted(HELPED)), *REFUSED, "experiments list --json"]


@pytest.mark.parametrize("module", sorted({line.split()[0] for line in LINES}))
def test_help_lists_and_refusals_need_no_slow_package(module):
    run(module, [words for program, *words in map(str.split, LINES) if program == module])


def test_a_missing_judge_and_missing_data_are_refused_without_a_slow_package(judge_file):
    experiment = ["check", "experiments/cyclegan.yml"]
    assert "no judge at nowhere.pt" in run("experiments", [[*experiment, "--judge", "nowhere.pt"]])
    assert "no data folder" in run("experiments", [[*experiment, "--judge", str(judge_file), "--data", "no"]])


def test_what_nni_cannot_read_is_refused_without_torch(tmp_path):
    content = yaml.safe_load((ROOT / "experiments/gan.yml").read_text()) | {
        "trialCodeDirectory": str(ROOT), "searchSpaceFile": str(ROOT / "search_spaces/gan.json")}
    for changes, said in (({"maxTrialNumber": "many"}, "max_trial_number ('many')"),
                          ({"trainingService": {"platform": "lokal"}}, "type of training_service")):
        (tmp_path / "search.yml").write_text(yaml.safe_dump(content | changes))
        assert said in run("experiments", [["check", str(tmp_path / "search.yml")]], ("nni", "pandas"))


@pytest.mark.parametrize("changes, said", [
    ({"trialCommand": "python -m trials.gan --stepz 3"}, "unrecognized arguments: --stepz 3"),
    ({"searchSpace": {"wings": {"_type": "choice", "_value": [2]}}}, "wings is not a setting of trials.gan"),
])
def test_misspelt_names_in_an_experiment_are_refused_without_a_slow_package(tmp_path, changes, said):
    content = yaml.safe_load((ROOT / "experiments/gan.yml").read_text()) | changes
    (tmp_path / "search.yml").write_text(yaml.safe_dump(content | {"trialCodeDirectory": str(ROOT)}))
    assert said in run("experiments", [["check", str(tmp_path / "search.yml")]])


def run(module: str, lines: list[list[str]], allowed: tuple = ()) -> str:
    """Run command lines of a program in one process, in which none may import a slow package but those that
    are allowed; return what is on stderr."""
    code = CODE.format(lines=lines, module=module, slow=[name for name in SLOW if name not in allowed])
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    said = [line for line in result.stdout.splitlines() if line.startswith("imported:")]
    assert dict(zip(map(" ".join, lines), said)) == {" ".join(words): "imported:" for words in lines}, result
    assert "Traceback" not in result.stderr and result.returncode == 0
    return result.stderr
