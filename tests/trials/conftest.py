"""What tests of trials share."""

import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def signals():
    """Trials take signals over; give them back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., subprocess.CompletedProcess]:
    """Runs `python -m MODULE ...` in this process: one of its own takes seconds to start."""
    def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, *capsys.readouterr())

    return run
