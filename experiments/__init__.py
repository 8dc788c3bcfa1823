"""Searches: experiment files (YAML), the commands that run and read them, NNI's tuner and assessor.

From Python, `load` reads a search:

    from experiments import load

    search = load("latest")
    print(search.trials)
"""

from typing import TYPE_CHECKING

import judge  # noqa: F401 (first of all: it makes Ctrl-C quiet while the program's imports run)

if TYPE_CHECKING:
    from experiments.api import Search


def load(name: str, *, score: str | None = None) -> "Search":
    """Return a search, as it is on the disk now; load it again to see what has come since.

    Args:
        name: its id, its name or its folder, or `latest`.
        score: rank the trials by another score: the name of a formula, or a file as `taste` writes it. None
            keeps the search's own.

    Raises UserError if there is no such search or score, or the trials lack parts that the score weighs.

    Example:
        search = load("latest")
        search.best.pictures().paintings[0].save("painting.png")
    """
    from experiments import api  # here: it imports torch, and most commands do not need it

    return api.load(name, score)
