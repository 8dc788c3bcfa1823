"""Claims about the Makefile, with a stand-in for the environment's Python."""

import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Notes what it is asked; when it trains it takes until it may end, and leaves a judge.
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
    """A folder with the Makefile and an environment that is up to date."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    for python in (tmp_path / ".venv/bin/python", tmp_path / ".venv/audit/bin/python"):
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
    (tmp_path / ".venv/installed").touch()
    yield tmp_path
    (tmp_path / "may_end").touch()  # whatever the test came to


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
    said = [lines.get(timeout=300)]
    while "another make is at work here: waiting for it\n" not in said:
        said.append(lines.get(timeout=300))
    (checkout / "may_end").touch()
    assert [each.wait(timeout=300) for each in makes] == [0, 0], said
    asked = log(checkout)
    assert sum("begin -m judge train" in line for line in asked) == 1
    assert sum("begin -m experiments run" in line for line in asked) == 2
    for reader in readers:
        reader.join()
    said += lines.queue
    assert sum("another make is at work here" in line for line in said) == 1


def test_what_fails_in_the_one_make_fails_it(checkout):
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\nexit 3\n")
    failed = make(checkout, "quickstart")
    output, _ = failed.communicate(timeout=300)
    assert failed.returncode == 2 and "waiting" not in output, output


def test_the_audit_asks_for_the_pinned_packages(checkout):
    audit = make(checkout, "audit")
    output, _ = audit.communicate(timeout=300)
    assert audit.returncode == 0, output
    assert log(checkout)[-1].startswith("end -m pip_audit") and "-r constraints.txt" in log(checkout)[-1]


def test_the_audit_is_skipped_in_one_line_where_nobody_can_be_asked(checkout):
    audit = make(checkout, "audit", UNREACHABLE="1")
    output, _ = audit.communicate(timeout=300)
    assert audit.returncode == 0 and output.splitlines() == [
        "audit: skipped, https://api.osv.dev cannot be reached from here"]
    assert not [line for line in log(checkout) if "pip" in line]
