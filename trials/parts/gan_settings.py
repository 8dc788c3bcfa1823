"""The settings that the GANs share."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from judge.common.cli import Beta, Fraction, LearningRate, NonNegativeInt, PositiveInt
from judge.common.errors import UserError
from trials.session import Scheduled, fill_unset


@dataclass(frozen=True)
class GanSettings(Scheduled):
    """Settings of every GAN. A subclass adds its own, and may change defaults and help texts."""

    OLDER: ClassVar = {"ema": 0}  # of records that do not have it

    data: str = "auto"
    """Training data."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. To continue a trial, start it again with a larger share."""
    seed: int = 0
    """Seed of the initial weights, the batches and all that is drawn at random in a step."""

    generator_lr: LearningRate = 2e-4
    """Learning rate of G (1511.06434, section 4), for many thousand steps; short trials may need more."""
    discriminator_lr: LearningRate = 2e-4
    """Learning rate of D (1511.06434, section 4), likewise."""
    beta1: Beta = 0.5
    """Adam's first decay rate (1511.06434, section 4)."""
    batch_size: PositiveInt = 128
    """Real images a step, and as many generated ones (1511.06434, section 4)."""
    ema: NonNegativeInt = 0
    """Half-life in steps of a moving average of G's weights, which then makes all images that are scored and
    kept (Yazici et al. 2019, 1806.04498). 0, as published, uses the last weights."""
    reports: PositiveInt = 20
    """Reports over the budget; the score is a mean of the last eight."""
    steps: PositiveInt | None = None
    """Length of the full schedule in steps."""
    samples: PositiveInt | None = None
    """Generated images that are scored at a report."""

    def with_preset(self, preset: dict, **values: Any) -> Any:
        """Return these settings with `values`, and with `preset` in the fields that are still None."""
        from judge.score import MIN_IMAGES

        if self.samples is not None and self.samples < MIN_IMAGES:
            raise UserError(f"--samples {self.samples}: a score needs at least {MIN_IMAGES}")
        return fill_unset(replace(self, **values), preset)

    def describe_inputs(self) -> dict[str, str]:
        """Return the names of the training data and of the judge, for a reader."""
        from judge.labelled import describe_data

        return {"data": describe_data(self.data), "judge": "a classifier trained on the data"}
