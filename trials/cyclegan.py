"""CycleGAN, photographs to paintings and back (Zhu et al. 2017, 1703.10593).

    python -m trials.cyclegan --data data/monet2photo --judge models/judge.pt
    python -m trials.cyclegan --budget 0.1 --identity-weight 2    # the first tenth of the schedule

A is the paintings, B the photographs, as in `monet2photo`. The generator G_BA turns photographs into
paintings (the paper's F), G_AB paintings into photographs (the paper's G). The discriminator D_A tells real
paintings from generated ones, D_B real photographs from generated ones. For a painting a and a photograph b,
each step minimises first the generators' loss, then the discriminators':

    adversarial     (D_A(G_BA(b)) - 1)^2 + (D_B(G_AB(a)) - 1)^2                  equation 1, section 4
    cycle           |G_BA(G_AB(a)) - a| + |G_AB(G_BA(b)) - b|                    equation 2
    identity        |G_BA(a) - a| + |G_AB(b) - b|                                section 5.2
    generators      adversarial_weight x adversarial + cycle_weight x cycle      equation 3
                    + identity_weight x identity
    discriminators  ((D_A(a) - 1)^2 + D_A(new or earlier G_BA(b))^2) / 2         sections 4 and 7.1
                    + ((D_B(b) - 1)^2 + D_B(new or earlier G_AB(a))^2) / 2
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from judge.common.cli import Beta, Fraction, LearningRate, NonNegativeInt, PositiveInt, Range, Weight
from judge.common.constants import DEFAULT_FORMULA, DEFAULT_JUDGE, SIZES
from judge.common.errors import UserError
from judge.folders import check_data, check_judge, resolve_name
from trials.session import fill_unset, run

if TYPE_CHECKING:
    import torch

# `paper` is the published configuration. The others are smaller, and their schedules are counted in steps, so
# that a trial takes as long with any data. The pixels of a size are in SIZES. At 64 px two
# downsamplings leave too few features for a scene.
PRESETS = {
    "sketch": {"ngf": 24, "blocks": 4, "downsamplings": 1, "ndf": 16, "steps": 2_000, "photos": 64},
    "draft": {"ngf": 32, "blocks": 6, "downsamplings": 2, "ndf": 32, "steps": 12_000, "photos": 128},
    "paper": {"ngf": 64, "blocks": 9, "downsamplings": 2, "ndf": 64, "epochs": 200, "photos": 256},
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a trial computes. Defaults are the published ones; None is by size."""

    OLDER: ClassVar = {  # of records that do not have them
        "downsamplings": 2, "upsampling": "transposed", "ema": 0}

    data: str = "auto"
    """monet2photo, sample, or a folder with trainA testA (paintings) and trainB testB (photographs); auto is
    data/monet2photo if it exists, and the built-in sample otherwise."""
    judge: str = DEFAULT_JUDGE
    """File of the judge that scores the paintings (python -m judge train)."""
    score: str = DEFAULT_FORMULA
    """Score to maximise: style-and-scene is made of style, diversity, cleanness, distance, and whether the
    scene is there; combined asks how much of the photograph is kept instead; plain is only the judge's mean
    P(painting); or a file with your own weights (python -m experiments taste)."""
    size: Literal[("auto", *SIZES)] = "auto"
    """Pixels, networks and schedule: sketch 64 px, draft 128 px, paper 256 px as published; auto is sketch
    without a GPU and draft with one."""
    budget: Fraction = 1.0
    """Share of the full schedule to train for. The same trial with a larger budget continues."""
    seed: int = 0
    """Seed of the initial weights, batches, crops and pools."""

    identity_weight: Weight = 5.0
    """Weight of the identity loss: 0.5 x the cycle weight in section 5.2. It equals lambda_identity x
    lambda_cycle of the authors' code. 0 leaves the loss out."""
    cycle_weight: Weight = 10.0
    """Weight of the cycle consistency loss: lambda in equation 3 and section 4."""
    adversarial_weight: Weight = 1.0
    """Weight of the generators' adversarial loss (equation 3)."""
    generator_lr: LearningRate = 2e-4
    """Adam's learning rate for both generators (section 4)."""
    discriminator_lr: LearningRate = 2e-4
    """Adam's learning rate for both discriminators (section 4)."""
    beta1: Beta = 0.5
    """Adam's decay rate of the first moment (the authors' code)."""
    beta2: Beta = 0.999
    """Adam's decay rate of the second moment (the authors' code)."""
    batch_size: PositiveInt = 1
    """Images of each domain per step (section 4)."""
    pool_size: NonNegativeInt = 50
    """Earlier generated images kept for each discriminator (section 4). 0 shows only new ones."""
    discriminator_threshold: Weight = 0.0
    """A step does not update a discriminator whose loss is below this. 0 always updates."""
    ema: NonNegativeInt = 0
    """Half-life in steps of a moving average of the generators' weights, which then paint all that is
    scored, shown and translated (Yazici et al. 2019, 1806.04498). 0, as published, uses the last weights."""
    decay: Fraction = 0.5
    """Share of the schedule, at its end, over which the rates fall linearly to 0 (100 of 200 epochs)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the networks in training; auto is bf16 if the device computes in it natively. Weights,
    optimizers and paintings are always fp32. On a GPU, PyTorch computes the convolutions of fp32 in TF32."""
    graphs: Literal["auto", "off"] = "auto"
    """Run a step as CUDA graphs, which compute the same several times as fast; auto is on with a GPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the networks (torch.compile), which takes a minute or more; auto is off."""
    reports: PositiveInt = 20
    """Reports over the budget."""

    ngf: PositiveInt | None = None
    """Features of the first convolution of a generator."""
    blocks: PositiveInt | None = None
    """Residual blocks of a generator."""
    downsamplings: Annotated[int, Range("1, 2 or 3", lambda x: 1 <= x <= 3)] | None = None
    """Convolutions of stride 2 of a generator, and as many that upsample."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """How a generator upsamples: by transposed convolutions as published, or by the nearest neighbour and a
    convolution (resize), which leaves no grid."""
    ndf: PositiveInt | None = None
    """Features of the first convolution of a discriminator."""
    steps: PositiveInt | None = None
    """Length of the full schedule in steps."""
    epochs: PositiveInt | None = None
    """Length of the full schedule in passes over the larger domain, instead of steps."""
    photos: PositiveInt | None = None
    """Held-out photographs that are painted and scored at each report."""

    def check_paths(self) -> None:
        """Raise UserError if the judge or the data is missing. Needs no torch."""
        check_judge(self.judge)
        check_data(self.data)

    def complete(self, device: "torch.device") -> "Settings":
        """Return these settings with a value for everything that depends on the size or the device."""
        from judge import images
        from judge.common.device import supports_bf16
        from judge.score import MIN_IMAGES, find_formula

        if self.steps and self.epochs:
            raise UserError("--steps and --epochs both set the length of the schedule: give one of them")
        if self.photos is not None and self.photos < MIN_IMAGES:
            raise UserError(f"--photos {self.photos}: a score needs at least {MIN_IMAGES}")
        find_formula(self.score)  # raises a UserError if there is none
        size = images.default_size(device) if self.size == "auto" else self.size
        length = {"steps": None, "epochs": None} if self.steps or self.epochs else {}
        automatic = "bf16" if supports_bf16(device) else "fp32"
        precision = automatic if self.precision == "auto" else self.precision
        named = replace(self, size=size, data=resolve_name(self.data), precision=precision)
        return fill_unset(named, PRESETS[size] | length)

    @property
    def pixels(self) -> int:
        """Width and height of the images."""
        return SIZES[self.size]

    def schedule(self, larger: int) -> int:
        """Return the steps of the full schedule; `larger` is the number of images in the larger domain."""
        return self.steps or self.epochs * -(-larger // self.batch_size)

    def last_step(self, larger: int) -> int:
        """Return the step at which the budget ends."""
        return max(1, round(self.schedule(larger) * self.budget))

    def report_interval(self, larger: int) -> int:
        """Return the number of steps between reports."""
        return max(1, self.last_step(larger) // self.reports)

    def report_count(self) -> int:
        """Return the number of reports that a trial with this budget makes. Opens no image."""
        from judge import images

        larger = max(map(len, images.find_dataset(self.data).train.values()))
        return -(-self.last_step(larger) // self.report_interval(larger))

    def describe_inputs(self) -> dict[str, str]:
        """Return the data, the size and the judge as text, for titles."""
        from judge import images

        return {"data": images.find_dataset(self.data).description, "size": self.size, "judge": self.judge}


if __name__ == "__main__":
    run(Settings)
