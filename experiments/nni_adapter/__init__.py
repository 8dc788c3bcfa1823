"""Everything that knows NNI 2.10.1: its files, ports, processes and quirks.

NNI is no longer maintained: no release has followed 3.0 of 2023, which gives parameters to the wrong trial
(`tests/experiments/test_search.py` shows it). Salon stays on 2.10.1 for its web UI, its tuners, and its
scheduling on GPUs and over SSH. Trials know NNI in one file, `trials/session/engine.py`.

Each workaround here and in `experiments/tuner.py` (named so in users' files) names the line of NNI that it
answers, as `file:line` in the packages nni and nni_node, and how one sees that it is no longer needed.
"""
