"""Failures of the machine rather than of the trial: which of them pass, and what to say of them."""

import errno
from typing import Any

import torch

from judge.common.errors import is_out_of_memory, one_line

FIRST_BACKOFF = 10  # seconds before a new try, and three times as long before each next
OTHERS_SHARE = 0.1  # share of a GPU's memory from which its other users can be to blame
# Settings that memory goes with, the first to lower first.
MEMORY_SETTINGS = ("batch_size", "samples", "photos", "size", "edge", "ngf", "hidden")


def backoff_seconds(attempt: int) -> int:
    """Seconds to leave the machine to others after a failed try, 0 for the first."""
    return FIRST_BACKOFF * 3**attempt


def is_transient(error: BaseException, device: torch.device) -> bool:
    """Whether the same may succeed in a while: a busy port, or memory that others have taken. What a
    trial has not enough of with the GPU to itself, it will never have enough of."""
    if is_out_of_memory(error):
        return device.type == "cuda" and memory_used_by_others(device) > OTHERS_SHARE
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def memory_used_by_others(device: torch.device) -> float:
    """Share of a GPU's memory that is in use, but not by this process's tensors."""
    free, total = torch.cuda.mem_get_info(device)
    return (total - free - torch.cuda.memory_reserved(device)) / total


def describe_error(error: BaseException, settings: Any, device: torch.device) -> str:
    """One line that says what failed, and for want of memory what to lower."""
    if not is_out_of_memory(error):
        return f"{type(error).__name__}: {one_line(error)}"
    costly = " or ".join("--" + name.replace("_", "-") for name in MEMORY_SETTINGS if hasattr(settings, name))
    blame = ""
    if device.type == "cuda" and (others := memory_used_by_others(device)) > OTHERS_SHARE:
        blame = f", of which others use {others:.0%}"
    return f"out of memory on {device}{blame}: lower {costly or 'what the trial takes'} ({one_line(error)})"
