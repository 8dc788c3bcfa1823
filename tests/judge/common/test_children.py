"""Processes that end with the one that started them, and that every process is started so."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from judge.common.children import bound, end_with
from tests.processes import runs

ROOT = Path(__file__).parents[3]
STARTERS = {"run", "Popen", "call", "check_call", "check_output"}  # functions of `subprocess`
PARENT = """
import subprocess, sys, threading, time
from judge.common.children import bound
def start(words=sys.argv[1:]):
    print(subprocess.Popen(bound(words)).pid, flush=True)
    time.sleep(1000)
threading.Thread(target=start, daemon=True).start()
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_is_ended_with_its_parent_also_one_of_another_thread(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "sleep", "1000"], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE)
    command = psutil.Process(int(parent.stdout.readline()))
    assert runs(command)
    parent.send_signal(number)
    parent.communicate()
    deadline = time.monotonic() + 60
    while runs(command):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_command_whose_parent_has_ended_already_does_not_begin():
    words = bound(["touch", "never"])
    words[words.index(str(os.getpid()))] = str(os.getppid())
    assert subprocess.run(words).returncode == -signal.SIGTERM


def test_a_command_is_the_one_that_was_asked_for_with_its_process_and_its_code():
    shell = subprocess.Popen(bound(["sh", "-c", "kill -s PIPE $$; echo here"]), stdout=subprocess.PIPE)
    assert shell.communicate() == (b"", None) and shell.returncode == -signal.SIGPIPE  # not ignored
    shell = subprocess.Popen(bound(["sh", "-c", "echo $$; exit 7"]), stdout=subprocess.PIPE, text=True)
    assert shell.communicate()[0] == f"{shell.pid}\n" and shell.returncode == 7
    missing = subprocess.run(bound(["no-such-program"]), capture_output=True, text=True)
    assert missing.returncode == 1 and missing.stderr == "no-such-program: No such file or directory\n"


def test_a_process_that_was_forked_can_bind_itself(killed_with):
    def work():
        parent = os.getpid()
        if not os.fork():
            end_with(parent)
        time.sleep(1000)

    killed_with(work, 1)


def starts() -> list[tuple[str, ast.Call]]:
    """Return the calls in our code that start a process, each with its place."""
    found = []
    for package in ("judge", "trials", "experiments"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(ast.Name("subprocess"), name)) if name in STARTERS:
                        found.append((f"{file.relative_to(ROOT)}:{node.lineno}", node))
                    case ast.Attribute(ast.Name("os"), name) if name.startswith(("fork", "spawn", "system")):
                        pytest.fail(f"{file}:{node.lineno}: a process that is not bound")
    return found


def test_every_process_is_bound_or_ends_by_itself_or_with_the_pipe_that_it_reads():
    loose = []
    for place, call in starts():
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        is_bound = isinstance(call.args[0], ast.Call) and ast.unparse(call.args[0].func) == "bound"
        if not (is_bound or "timeout" in options or options.get("stdin") == "subprocess.PIPE"):
            loose.append(place)
    assert len(starts()) > 10 and not loose
