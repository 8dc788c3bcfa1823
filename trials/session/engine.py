"""The search engine as a trial sees it: parameters in, results out. Only this file knows NNI.

A trial that is started by hand runs without an engine, also where NNI is not installed.
"""

import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil


class NoEngine:
    """No engine: the trial was started by hand."""

    folder: Path | None = None
    threads: int | None = None
    """How many a trial takes that is not told: torch's own choice, all cores."""

    def get_parameters(self) -> dict:
        """Nothing is proposed: the command line says it all."""
        return {}

    def report_intermediate(self, values: dict[str, float]) -> None:
        """A result on the way; nobody listens."""

    def report_final(self, values: dict[str, float]) -> None:
        """The one result; nobody listens."""


class NniEngine:
    """NNI 2.10.1, which started this process (its `NNI_OUTPUT_DIR` is the trial's folder)."""

    threads = 1  # it does not say how many trials it runs at once, and single threads share cores best

    def __init__(self):
        import nni  # not above: by hand, a trial runs where NNI is not installed

        self._nni = nni
        self.folder = Path(os.environ["NNI_OUTPUT_DIR"])
        if os.environ["NNI_PLATFORM"] == "local":
            threading.Thread(target=_end_with_manager, daemon=True).start()
        elif os.environ["NNI_PLATFORM"] == "remote":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a cut connection: there is a checkpoint to save
            threading.Thread(target=_end_with_reader, daemon=True).start()

    def get_parameters(self) -> dict:
        """What the tuner proposes for this trial, by name of setting."""
        return dict(self._nni.get_next_parameter())

    def report_intermediate(self, values: dict[str, float]) -> None:
        """Report `values` with a numeric `default`, all finite: anything else stops NNI's tuner."""
        self._nni.report_intermediate_result(values)

    def report_final(self, values: dict[str, float]) -> None:
        """As `intermediate`, once a trial: a second final stops NNI's tuner."""
        self._nni.report_final_result(values)


def current_engine() -> NoEngine | NniEngine:
    """The engine that started this process."""
    return NniEngine() if "NNI_PLATFORM" in os.environ else NoEngine()


def _end_with_manager(interval: float = 1.0) -> None:
    """Ask this process to end, as NNI would, once NNI's manager is gone.

    A killed manager leaves its trials running, and a resumed search starts them a second time.
    """
    # trial <- the shell of NNI's run script <- the manager, a node process
    manager = next((p for p in psutil.Process().parents() if "node" in p.name()), None)
    with suppress(psutil.NoSuchProcess):
        # A killed manager may stay a zombie: in a container nobody reaps it.
        while manager and manager.is_running() and manager.status() != psutil.STATUS_ZOMBIE:
            time.sleep(interval)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_with_reader() -> None:
    """Ask this process to end once nobody reads what it prints: on another machine that is how results
    reach NNI, by a process of its own there, which ends when the connection is cut."""
    output = select.poll()
    output.register(1, 0)  # a pipe's lost reader is reported unasked
    output.poll()
    with open(os.devnull, "w") as nowhere:
        for standard in (1, 2):
            os.dup2(nowhere.fileno(), standard)
    os.kill(os.getpid(), signal.SIGTERM)
