"""Everything that knows NNI 2.10.1: its files, ports, processes and quirks.

NNI is no longer maintained; its last release, 3.0, gives parameters to the wrong trial
(`tests/experiments/test_search.py` shows it). Trials know NNI in one file, `trials/session/engine.py`.

Each workaround here and in `experiments/tuner.py` names the line of NNI that it answers, as `file:line` in
the installed packages nni and nni_node, and how one sees that it is no longer needed.
"""
