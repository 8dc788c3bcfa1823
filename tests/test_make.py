"""The Makefile, with a script in place of the environment's Python."""

import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def make(checkout: Path, target: str, **variables: str) -> subprocess.Popen:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.Popen(["make", target], cwd=checkout, env=clean | variables, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def log(checkout: Path) -> list[str]:
    return (checkout / "log").read_text().splitlines()


def test_of_two_quickstarts_at_once_one_trains_the_judge_and_the_other_waits(checkout):
    makes = [make(checkout, "quickstart") for _ in range(2)]
    lines = queue.Queue()
    readers = [threading.Thread(target=lambda out=each.stdout: [*map(lines.put, out)]) for each in makes]
    for reader in readers:
        reader.start()
    printed = [lines.get(timeout=300)]
    while "another make is at work here: waiting for it\n" not in printed:
        printed.append(lines.get(timeout=300))
    (checkout / "may_end").touch()
    assert [each.wait(timeout=300) for each in makes] == [0, 0], printed
    assert sum("begin -m judge train" in line for line in log(checkout)) == 1
    assert sum("begin -m experiments run" in line for line in log(checkout)) == 2
    for reader in readers:
        reader.join()
    assert sum("another make is at work here" in line for line in [*printed, *lines.queue]) == 1


def test_an_error_in_make_is_its_exit_code(checkout):
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\nexit 3\n")
    process = make(checkout, "quickstart")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and "waiting" not in output, output


def test_the_audit_reads_the_pinned_packages_and_is_skipped_in_one_line_offline(checkout):
    audit = make(checkout, "audit", UNREACHABLE="1")
    output, _ = audit.communicate(timeout=300)
    assert audit.returncode == 0 and output.splitlines() == [
        "audit: skipped, https://api.osv.dev cannot be reached from here"]
    assert not [line for line in log(checkout) if "pip" in line]
    audit = make(checkout, "audit")
    output, _ = audit.communicate(timeout=300)
    assert audit.returncode == 0, output
    assert log(checkout)[-1].startswith("end -m pip_audit") and "-r constraints.txt" in log(checkout)[-1]
