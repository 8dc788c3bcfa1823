"""What commands import before they answer: torch, pandas and NNI take seconds."""

import subprocess
import sys

import pytest

from tests.experiments.helpers import ROOT

SLOW = ("torch", "torchvision", "pandas", "nni", "sklearn", "scipy", "optuna")


@pytest.mark.parametrize("command", [
    "experiments --help", "experiments run --help", "experiments list --json", "judge --help",
    "judge train --help", "judge controls --help", "experiments check missing.yml",
    "experiments run pyproject.toml", "experiments run experiments/gan.yml --trails 3",
    "judge score --imges x", "experiments report nosuchid", "experiments note nosuchid text",
    "experiments resume nosuchid", "experiments promote nosuchid",
])  # fmt: skip
def test_help_lists_and_refusals_need_no_slow_package(command):
    module, *arguments = command.split()
    code = ("import runpy, sys\n"
            f"sys.argv = {['', *arguments]}\n"
            f"try: runpy.run_module({module!r}, run_name='__main__')\n"
            f"finally: print('imported:', *[name for name in {SLOW} if name in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "imported:", result
    assert "Traceback" not in result.stderr and result.returncode in (0, 2)
