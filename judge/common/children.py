"""Processes that end when the one that started them has ended, in any way: also by kill -9.

    subprocess.run(bound([sys.executable, "-m", "trials.gan"]))

Every command that may take long is started so, unless it reads from a pipe and ends with that. This file runs
between the two as a program: a function of Python's in a process that was just forked (`preexec_fn`) may wait
for ever for a lock of another thread.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # of prctl(2)


def bound(words: Sequence[object]) -> list[str]:
    """Return the command that becomes the command `words`, and that SIGTERM ends when its parent has ended.

    Linux takes the end of the thread that starts it for the parent's: that thread must wait for it.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *map(str, words)]


def end_with(parent: int, *_: object) -> None:
    """Let SIGTERM end this process when the process `parent`, which has started it, ends or has ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    parent, *words = sys.argv[1:]
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and `words` would ignore, too
        signal.signal(number, signal.SIG_DFL)
    end_with(int(parent))
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.exit(f"{words[0]}: {error.strerror}")
