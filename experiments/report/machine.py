"""How busy this machine is."""

import shutil
import subprocess
import threading
import time

import psutil

GIB = 2**30
PAUSE = 5  # seconds between two looks: nvidia-smi takes a part of one
QUERY = "index,name,utilization.gpu,memory.used,memory.total"

_lock = threading.Lock()
_seen: tuple[float, list[str]] = (float("-inf"), [])  # when, and what
_times = psutil.cpu_times()  # when it was seen


def describe() -> list[str]:
    """Return texts on the processors, the memory and each GPU, at most `PAUSE` seconds old."""
    global _seen
    with _lock:
        if time.monotonic() >= _seen[0] + PAUSE:
            memory = psutil.virtual_memory()
            used = f"memory {(memory.total - memory.available) / GIB:.1f} of {memory.total / GIB:.0f} GiB"
            _seen = time.monotonic(), [f"cpu {processors():.0f} %", used, *gpus()]
        return _seen[1]


def processors() -> float:
    """Return how busy the processors were since the last call, in percent of all of them.

    psutil.cpu_percent counts from the last call in the same thread, and each request is a thread of its own.
    """
    global _times
    before, _times = _times, psutil.cpu_times()
    passed = sum(_times) - sum(before)
    idle = _times.idle - before.idle + getattr(_times, "iowait", 0) - getattr(before, "iowait", 0)
    return 100 * (1 - idle / passed) if passed > 0 else 0.0


def gpus() -> list[str]:
    """Return a text on each GPU of NVIDIA's; none if `nvidia-smi` is not there or does not answer."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        lines = subprocess.run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
                               capture_output=True, text=True, timeout=PAUSE).stdout.splitlines()
        return [f"GPU {index} {name}: {busy} %, {float(used) / 1024:.1f} of {float(total) / 1024:.0f} GiB"
                for index, name, busy, used, total in (line.split(", ") for line in lines)]
    except (subprocess.SubprocessError, OSError, ValueError):  # ValueError: [N/A] of a part of a GPU
        return []
