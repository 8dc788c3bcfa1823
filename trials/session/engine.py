"""The search engine, as a trial uses it: parameters in, results out. Only this file imports NNI."""

import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil


class NoEngine:
    """Stands for the engine of a trial that is started by hand: it proposes nothing and ignores results."""

    folder: Path | None = None
    threads: int | None = None  # of a trial without --threads; None is torch's default, all cores
    diverged_code = 1  # exit code of a trial that diverged

    def get_parameters(self) -> dict:
        return {}

    def report_intermediate(self, values: dict[str, float]) -> None:
        pass

    def report_final(self, values: dict[str, float]) -> None:
        pass


class NniEngine:
    """NNI 2.10.1, which started this process. Its tuner stops at a result that is not made of finite numbers
    by name, one of them `default`, and at a second final result of a trial."""

    diverged_code = 0  # else NNI would call the trial failed, and drop its score, the worst one
    threads = 1  # NNI does not say how many trials it runs at once; single threads share the cores best

    def __init__(self):
        import nni  # not above: it need not be installed for a trial that is started by hand

        self._nni = nni
        self.folder = Path(os.environ["NNI_OUTPUT_DIR"])
        platform = os.environ["NNI_PLATFORM"]
        if platform == "local":
            threading.Thread(target=_stop_with_manager, daemon=True).start()
        elif platform == "remote":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a lost connection: save a checkpoint first
            threading.Thread(target=_stop_with_reader, daemon=True).start()

    def get_parameters(self) -> dict:
        """Return the parameters that the tuner proposes for this trial, by name of setting."""
        return dict(self._nni.get_next_parameter())

    def report_intermediate(self, values: dict[str, float]) -> None:
        self._nni.report_intermediate_result(values)

    def report_final(self, values: dict[str, float]) -> None:
        self._nni.report_final_result(values)


def current_engine() -> NoEngine | NniEngine:
    """Return the engine that started this process."""
    return NniEngine() if "NNI_PLATFORM" in os.environ else NoEngine()


def _stop_with_manager() -> None:
    """Wait until NNI's manager has ended, then stop this process by SIGTERM, as NNI does.

    A manager that is killed leaves its trials running, and a resumed search starts them a second time.
    """
    # trial <- the shell of NNI's run script <- the manager, a node process
    manager = next((p for p in psutil.Process().parents() if "node" in p.name()), None)
    with suppress(psutil.NoSuchProcess):
        # In a container a killed manager may stay a zombie: no process collects its exit status.
        while manager and manager.is_running() and manager.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _stop_with_reader() -> None:
    """Wait until no process reads this one's output, then stop this process by SIGTERM.

    On another machine the reader is a process that sends results to NNI; it ends when the connection is lost.
    """
    output = select.poll()
    output.register(1, 0)  # poll always reports that a pipe has lost its reader
    output.poll()
    with open(os.devnull, "w") as null:
        for descriptor in (1, 2):
            os.dup2(null.fileno(), descriptor)
    os.kill(os.getpid(), signal.SIGTERM)
