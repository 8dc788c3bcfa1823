"""The programs that NNI starts: one file per system."""

import judge  # noqa: F401 (first of all: it makes Ctrl-C quiet while the program's imports run)

# `python -m trials.inspect` is found in inspection/command/. A file or folder trials/inspect would hide the
# standard library's `inspect` from a program started by its path (`python trials/cyclegan.py`): Python then
# searches trials/ first.
__path__.append(f"{__path__[0]}/inspection/command")
