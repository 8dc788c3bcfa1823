"""Only tests that are marked `cuda` see a GPU. The GPU here is pretended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# As CUDA, it reads the variable once, when it is first asked.
GPU = """
import functools, os, torch

@functools.cache
def is_available():
    return os.environ["CUDA_VISIBLE_DEVICES"] != ""

torch.cuda.is_available, torch.cuda.device_count = is_available, lambda: 1
"""
TESTS = """
import os, subprocess, sys
import pytest, torch

def seen():
    print_it = [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
    child = subprocess.run(print_it, capture_output=True, text=True).stdout.strip()
    return torch.cuda.is_available(), torch.cuda.device_count(), child

AT_IMPORT = seen()

@pytest.fixture(scope="module")
def of_the_module():
    return seen()

def test_before(of_the_module):
    assert AT_IMPORT == of_the_module == seen() == (False, 0, "")

@pytest.fixture
def of_a_test():
    return seen()

@pytest.mark.cuda
@pytest.mark.parametrize("number", range(2))
def test_cuda(of_a_test, number):
    assert of_a_test == seen() == (True, 1, "0")

def test_after():
    assert seen() == (False, 0, "")
"""


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
@pytest.mark.parametrize("gpu, outcome", [("0", "4 passed"), ("", "2 passed, 2 skipped")])
def test_only_a_test_of_cuda_sees_the_gpu_and_without_one_it_is_skipped(tmp_path, processes, gpu, outcome):
    (tmp_path / "pretended_gpu.py").write_text(GPU)
    (tmp_path / "test_of_the_gpu.py").write_text(TESTS)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "pretended_gpu", "-p", "tests.conftest", "-p",
         "no:cacheprovider", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, *processes, tmp_path],
        cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith(outcome), done.stdout + done.stderr
    assert ("tests of CUDA: 2 skipped, no GPU here" in lines) == (gpu == ""), done.stdout
