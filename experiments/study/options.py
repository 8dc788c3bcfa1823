"""The options of a study and of simulated searches, apart from what they do, which needs torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from judge.common.cli import NonNegativeFloat, NonNegativeInt, PositiveInt
from judge.common.constants import SIZES

SHIPPED_TABLE = Path("experiments/study/study.csv")
STYLE_WEIGHT = 0.4  # of style against content in final quality; chosen by eye


@dataclass(frozen=True)
class Study:
    """What a study trains, and the judges that measure it."""

    data: str
    """Data set to train on; the independent judge must have other images (python -m judge halves)."""
    judge: str
    """The judge whose score is studied."""
    yardstick: str | None = None
    """The independent judge, which measures final quality: of another architecture, seed and images. Without
    one, early scores are not compared with the end."""
    yardstick_data: str | None = None
    """Data set to whose test paintings the independent judge measures distances."""
    out: Path = Path("runs/study")
    """Folder of the trials."""
    table: Path = Path("runs/study.csv")
    """Table of results; trials that are in it are not trained again."""
    space: Path = Path("search_spaces/cyclegan.json")
    """Search space to sample settings from; the first setting is the published one."""
    size: Literal[("auto", *SIZES)] = "auto"
    """sketch, draft or paper; auto is the size that trials on the device have by default."""
    steps: PositiveInt | None = None
    """Steps of the full schedule; by default those of the size."""
    settings: PositiveInt = 17
    """Number of settings to train, with the published one."""
    seeds: PositiveInt = 1
    """Number of seeds to train every setting with."""
    again: NonNegativeInt = 4
    """Number of best settings, and of worst ones, to train with one more seed, if there is a yardstick."""
    photos: PositiveInt = 128
    """Number of test photographs to paint."""
    at_once: PositiveInt = 2
    """Trials at once; they share the cores and the GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and to measure; auto is the GPU if there is one."""


@dataclass(frozen=True)
class Simulation:
    """The searches to replay."""

    table: Path | None = None
    """Table of learning curves, instead of experiments: trial, step, score and its parts."""
    trials: PositiveInt = 8
    """The time of all searches: that of so many trials of full length."""
    searches: PositiveInt = 200
    """Number of searches, the same for each assessor; every five share a draw of settings, in five orders."""
    at_once: PositiveInt = 2
    """Trials at once."""
    overhead: NonNegativeFloat = 0.1
    """Time that NNI and the start of a trial take, as a share of a trial of full length."""
    score: str | None = None
    """Score by which trials are stopped and the best is chosen: a formula, or a file of `taste`; by default
    that of the searches."""
