"""The ways in which a trial ends early, and which failures of the machine are worth a retry."""

import errno
from typing import Any

import torch

from judge.common.errors import UserError, is_out_of_memory, one_line

MAX_OTHERS_SHARE = 0.1  # share of a GPU's memory up to which its other users cannot be the cause
# Most that CUDA, its libraries and captured graphs take in this process, which torch does not count. The list
# of a GPU's processes would be exact, but in a container it lacks this one, or all of them.
OWN_OVERHEAD = 2**30
# Settings that need memory, in the order in which to reduce them.
MEMORY_SETTINGS = ("batch_size", "samples", "photos", "size", "edge", "ngf", "hidden")


class Diverged(Exception):
    """A loss or the score is no longer finite or is far too large: the trial ends with the worst score."""


class Stopped(Exception):
    """A signal stopped the trial: from NNI, from Ctrl-C, or because NNI's manager has ended."""


def is_transient(error: BaseException, device: torch.device) -> bool:
    """Return whether a retry may succeed: a port is busy, or other programs use the GPU's memory."""
    if is_out_of_memory(error):
        return memory_used_by_others(device) > MAX_OTHERS_SHARE
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def memory_used_by_others(device: torch.device) -> float:
    """Return the share of a GPU's memory that other processes use at least; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # this process holds nothing: there is no room even for CUDA itself
        return 1.0
    return max(0.0, total - free - torch.cuda.memory_reserved(device) - OWN_OVERHEAD) / total


def describe_error(error: BaseException, settings: Any, device: torch.device) -> str:
    """Return one line that says what failed and, if memory ran out, which settings to reduce."""
    if isinstance(error, UserError):
        return one_line(error)
    if not is_out_of_memory(error):
        return f"{type(error).__name__}: {one_line(error)}"
    names = [f"--{name.replace('_', '-')}" for name in MEMORY_SETTINGS if hasattr(settings, name)]
    others = memory_used_by_others(device)
    used = f", other programs use {others:.0%} of it" if others > MAX_OTHERS_SHARE else ""
    options = " or ".join(names) or "the size of the trial"
    return f"out of memory on {device}{used}: reduce {options} ({one_line(error)})"
