"""The options of the trainings, apart from these, which need torch."""

from dataclasses import dataclass
from pathlib import Path

from judge.common.cli import PositiveInt


@dataclass(frozen=True)
class Confirmation:
    """What is trained, and the judge that measures it."""

    pair: str
    """The pair of domains: the name of its data set."""
    halves: Path
    """The folder with the halves of its data set (python -m judge halves)."""
    judge: Path
    """The searches' judge, of the half `search`."""
    yardstick: Path
    """The independent judge, of the half `yardstick`."""
    out: Path = Path("runs/answer")
    """Folder of the trainings."""
    threads: PositiveInt = 1
    """CPU threads of a training."""
