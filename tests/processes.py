"""Processes that tests start."""

from contextlib import suppress

import psutil


def runs(process: psutil.Process) -> bool:
    """Return whether a process runs. In a container nobody may collect the code of one that has ended."""
    with suppress(psutil.NoSuchProcess):  # it ends between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
