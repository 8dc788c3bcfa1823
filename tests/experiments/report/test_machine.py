"""How busy this machine is, with and without a GPU."""

import threading
import time

import pytest

from experiments.report import machine

SMI = """#!/bin/sh
[ "$1" = "--query-gpu=index,name,utilization.gpu,memory.used,memory.total" ] && echo "{line}"
"""


@pytest.fixture(autouse=True)
def unseen(monkeypatch):
    monkeypatch.setattr(machine, "_seen", (float("-inf"), []))


def test_processors_and_memory_are_measured_in_whatever_thread_asks():
    end = time.monotonic() + 0.3
    while time.monotonic() < end:  # one processor at least is busy
        pass
    seen = []
    asking = threading.Thread(target=lambda: seen.extend(machine.describe()))
    asking.start()
    asking.join()
    cpu, memory = seen[:2]
    assert 0 < float(cpu.split()[1]) <= 100 and cpu.endswith(" %")
    assert memory.startswith("memory ") and memory.endswith(" GiB")


@pytest.mark.parametrize("line, expected", [
    ("0, NVIDIA H100 80GB HBM3, 64, 3174, 81559", ["GPU 0 NVIDIA H100 80GB HBM3: 64 %, 3.1 of 80 GiB"]),
    ("No devices were found", []), ("0, A part, [N/A], [N/A], [N/A]", []),
])
def test_gpus_are_described_by_nvidias_program_where_it_is(tmp_path, monkeypatch, line, expected):
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.gpus() == []
    (tmp_path / "nvidia-smi").write_text(SMI.format(line=line))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert machine.gpus() == expected


def test_the_machine_is_asked_once_in_some_seconds(monkeypatch):
    calls = []
    monkeypatch.setattr(machine, "gpus", lambda: calls.append(1) or [])
    assert machine.describe() == machine.describe() and len(calls) == 1
