"""Everything that knows NNI 2.10.1: its files, ports, processes and quirks.

NNI is no longer maintained: no release has followed 3.0 of 2023, which gives parameters to the wrong trial
(`tests/experiments/test_search.py` shows it). Salon stays on 2.10.1 for its web UI, its tuners, and its
scheduling on GPUs and over SSH. Trials know NNI in one file, `trials/session/engine.py`.

Each workaround here and in `experiments/tuner.py` (named so in users' files) names the line of NNI that it
answers, as `file:line` in the packages nni and nni_node, and how one sees that it is no longer needed.
"""

import os


def bypass_proxies() -> None:
    """Let what goes to this machine go through no proxy: our requests to NNI's manager, and those of programs
    that we start (nnictl, NNI's tuner, a browser), which inherit the variables."""
    hosts = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
    if "*" not in hosts:  # which holds for all hosts only if it stands alone
        listed = ",".join(dict.fromkeys([*filter(None, hosts), "127.0.0.1", "localhost"]))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = listed  # both spellings are in use


bypass_proxies()
