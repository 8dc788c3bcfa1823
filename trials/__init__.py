"""What NNI runs: one program per system."""

# `python -m trials.inspect` lies in inspection/command/. In a file or folder trials/inspect it would hide the standard
# library's module from every program that is started by its path: Python then looks into trials/ first.
__path__.append(f"{__path__[0]}/inspection/command")
