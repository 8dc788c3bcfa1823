"""Find running processes, also those of which only the environment tells whose they are."""

from contextlib import suppress

import psutil


def with_variable(name: str, value: str) -> list[psutil.Process]:
    """Return the processes whose environment has this variable with this value, but no zombies."""
    matching = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is somebody else's
            if process.environ().get(name) == value:
                matching.append(process)
    return matching


def with_word(processes: list[psutil.Process], word: str) -> list[psutil.Process]:
    """Return those of the processes that run and whose command has this word."""
    matching = []
    for process in processes:
        with suppress(psutil.Error):  # it has ended
            if any(word in argument for argument in process.cmdline()):
                matching.append(process)
    return matching
