"""The Makefile, with a script in place of the environment's Python."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.experiments.helpers import snapshot

ROOT = Path(__file__).parents[1]
# Logs its arguments; "judge train" waits for the file may_end, and writes a judge.
PYTHON = """#!/bin/sh
echo "begin $*" >> log
case "$*" in
*"judge train"*) until [ -e may_end ]; do sleep 0.1; done; mkdir -p models; touch models/sample.pt;;
*requests*) exit ${UNREACHABLE:-0};;
esac
echo "end $*" >> log
"""


@pytest.fixture
def checkout(tmp_path) -> Iterator[Path]:
    """Return a folder with the Makefile and an environment that is up to date."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    for python in (tmp_path / ".venv/bin/python", tmp_path / ".venv/audit/bin/python"):
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
    (tmp_path / ".venv/installed").touch()
    yield tmp_path
    (tmp_path / "may_end").touch()  # also if the test has failed


def make(checkout: Path, target: str, output, **variables: str) -> subprocess.Popen:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.Popen(["make", target], cwd=checkout, env=clean | variables, stdout=output,
                            stderr=subprocess.STDOUT)


def test_of_two_quickstarts_at_once_one_trains_the_judge_and_the_other_waits(checkout):
    with open(checkout / "output", "a") as output:
        makes = [make(checkout, "quickstart", output) for _ in range(2)]
    deadline = time.monotonic() + 300
    while "another make is at work" not in (checkout / "output").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (checkout / "may_end").touch()
    assert [each.wait(timeout=300) for each in makes] == [0, 0], (checkout / "output").read_text()
    log = (checkout / "log").read_text()
    assert log.count("begin -m judge train") == 1 and log.count("begin -m experiments run") == 2
    assert (checkout / "output").read_text().count("another make is at work here: waiting for it") == 1


def test_an_error_in_make_is_its_exit_code(checkout):
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\nexit 3\n")
    process = make(checkout, "quickstart", subprocess.PIPE)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and b"waiting" not in output, output


@pytest.mark.parametrize("name, python, said", [
    ("salon(1)", sys.executable, r"salon: the repository '.*/salon\(1\)': NNI cannot run in a path with"),
    ("salon", "false", "Salon needs Python 3.10 or newer with its venv module, as 'false'"),
])
@pytest.mark.parametrize("target", ["quickstart", "test", "lint"])
def test_what_cannot_be_installed_is_refused_in_one_line(tmp_path, name, python, said, target):
    for package in ("judge", "experiments"):
        shutil.copytree(ROOT / package, tmp_path / name / package, ignore=lambda folder, names: [
            each for each in names if not each.endswith(".py") and Path(folder, each).is_file()])
    shutil.copy2(ROOT / "Makefile", tmp_path / name)
    before = snapshot(tmp_path)
    process = make(tmp_path / name, target, subprocess.PIPE, PYTHON=python, PYTHONDONTWRITEBYTECODE="1")
    output = process.communicate(timeout=300)[0].decode()
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {said}.*  Stop\.\n", output) and process.returncode == 2
    assert snapshot(tmp_path) == before
    assert make(tmp_path / name, "clean", subprocess.DEVNULL, PYTHON=python).wait(timeout=300) == 0


def test_the_check_of_the_gpu_is_a_command_that_a_machine_without_make_can_run(checkout):
    assert make(checkout, "gpu-check", subprocess.DEVNULL).wait(timeout=300) == 0
    assert (checkout / "log").read_text().splitlines()[-1] == "end -m experiments.gpu_check"


def test_the_audit_reads_the_pinned_packages_and_is_skipped_in_one_line_offline(checkout):
    audit = make(checkout, "audit", subprocess.PIPE, UNREACHABLE="1")
    output, _ = audit.communicate(timeout=300)
    assert audit.returncode == 0
    assert output == b"audit: skipped, https://api.osv.dev cannot be reached from here\n"
    assert "pip" not in (checkout / "log").read_text()
    assert make(checkout, "audit", subprocess.DEVNULL).wait(timeout=300) == 0
    last = (checkout / "log").read_text().splitlines()[-1]
    assert last.startswith("end -m pip_audit") and "-r constraints.txt" in last
