"""Everything that knows NNI 2.10.1: its files, ports, processes and quirks.

NNI is no longer maintained: its owner has archived the repository. The last release, 3.0 of 2023, must not be
used, because it gives parameters to the wrong trial (`tests/experiments/test_search.py` shows it); 2.10.1 is
pinned. Searches stay on it because it is the given engine, with a web UI, tuners, and scheduling on GPUs and
by SSH. Trials know it in one file, `trials/session/engine.py`, so another engine changes that file and this
folder.

Each workaround here and in `experiments/tuner.py` names the line of NNI that it answers, as `file:line` in
the installed packages nni and nni_node, and how one sees that it is no longer needed.
"""
