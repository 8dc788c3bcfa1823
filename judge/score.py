"""What a judge thinks of translations: named parts, and the one number that the tuner sees."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.functional import avg_pool2d, normalize

from judge.common.errors import UserError
from judge.images import DataSet, luma
from judge.model import Judge

WORST_SCORE = 0.0  # the score of a trial that diverged: no score is lower

MIN_IMAGES = 4  # images that can be scored: the distance draws halves of them
CONTENT_POWER, DISTANCE_POWER = 3, 2  # powers of content and of 1 + kid in the combined formula
FINE_FREQUENCY = 0.2  # cycles a pixel, down or across, from which a pattern is a network's rather than a scene's
KID_SUBSETS = 20  # draws whose mean and spread are the KID's value and error


def combined(parts: Mapping[str, float]) -> float:
    """style x content^3 x diversity x clean / (1 + kid)^2, in [0, 1]; a part that was not measured is
    left out.

    A product as ArtFID's (Wright and Ommer 2022, 2207.12280, equation 4), which multiplies a term of
    content with a term of style so that neither makes up for the other; monotone in each part. The
    power of content is its weight against style, fixed by looking at 60 pairs, that of the distance is
    what it takes for damaged photographs to score less than the published setting trained to the end
    (judge/README.md).
    """
    kept = parts["style"] * parts.get("content", 1.0) ** CONTENT_POWER * parts.get("diversity", 1.0)
    return kept * parts.get("clean", 1.0) / (1 + max(0.0, parts.get("kid", 0.0))) ** DISTANCE_POWER


def plain(parts: Mapping[str, float]) -> float:
    """The formula that Salon grew from: mean P(painting) and nothing else. Easily fooled."""
    return parts["style"]


# What a search can maximise, by the name that --score takes.
FORMULAS: dict[str, Callable[[Mapping[str, float]], float]] = {"combined": combined, "plain": plain}
DEFAULT_FORMULA = "combined"


@dataclass(frozen=True)
class Score:
    """Parts by name and their combination `default`, all finite; a higher `default` is better."""

    default: float
    parts: dict[str, float]
    extras: dict[str, float] = field(default_factory=dict)
    """What a trial records beside the parts, and no tuner sees."""

    def as_dict(self) -> dict[str, float]:
        """`default` first, then the parts: the form in which it is reported."""
        return {"default": self.default, **self.parts}


def check_test_images(data: DataSet) -> None:
    """Find out before training whether there are test images enough. Opens none.

    Raises:
        UserError: fewer than `FEWEST` in a domain.
    """
    for files in data.test.values():
        if len(files) < MIN_IMAGES:
            raise UserError(f"{files[0].parent}: {len(files)} test images, a score takes at least {MIN_IMAGES}")


class Scorer:
    """Scores translations of the same photographs again and again, as a trial does.

    Args:
        judge: see `judge.model.load`.
        sources: the photographs, float [N, 3, size, size] in [-1, 1], None when unknown.
        paintings: real paintings to measure the distance to, float [M, 3, size, size].
        formula: of `FORMULAS`, what `default` is.
    """

    def __init__(
        self, judge: Judge, sources: torch.Tensor | None, paintings: torch.Tensor | None,
        formula: str = DEFAULT_FORMULA,
    ):
        self.judge, self.sources, self.formula = judge, sources, FORMULAS[formula]
        self.real = None if paintings is None else extract_features(judge, paintings)
        self.varied = None if sources is None else vendi_score(extract_features(judge, sources))
        real = [images for images in (sources, paintings) if images is not None]
        self.patterns = FinePatterns(real) if real else None

    def __call__(self, images: torch.Tensor) -> Score:
        """The score of `images`, float [N, 3, size, size] in [-1, 1], in the sources' order.

        Parts:
            style: mean calibrated P(painting), in [0, 1].
            content: mean structure kept of the source, in [0, 1] (`structure`); with sources.
            diversity: how many different images there are in the judge's features, as a share of
                the sources' and at most 1 (`vendi`, 1 / N for one image again and again); with
                sources.
            clean: 1 without patterns of a few pixels that no real image has, down to 0 (`Patterns`);
                with sources or paintings.
            kid: distance to the real paintings in the judge's features, and `kid_error`; with
                paintings.

        Raises:
            UserError: there are not as many images as sources.
        """
        features = extract_features(self.judge, images)
        parts = {"style": self.judge.painting(features).mean().item()}
        if self.sources is not None:
            parts["content"] = structure_similarity(images, self.sources).mean().item()
            parts["diversity"] = min(1.0, vendi_score(features) / self.varied)
        if self.patterns:
            parts["clean"] = self.patterns.clean(images)
        if self.real is not None:
            parts["kid"], parts["kid_error"] = kernel_inception_distance(features, self.real)
        return Score(self.formula(parts), parts)


@torch.no_grad()
def extract_features(judge: Judge, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """The judge's features of many images, [N, features], computed in batches."""
    return torch.cat([judge.features(part) for part in images.split(batch)])


def structure_similarity(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """How much of each source's structure its image keeps, [N] in [0, 1].

    The contrast and structure term of SSIM (Wang et al. 2004, equations 9 and 10 multiplied, as
    MS-SSIM uses it) of luma at half the resolution, where brush strokes weigh less than what they
    depict; times the correlation of luma over the whole image, which is where inverted light shows
    in flat areas too: there both count as 0. Colour and brightness are free to change.

    Raises:
        UserError: there are not as many images as sources.
    """
    # Not above: takes a second.
    from torchmetrics.functional.image import structural_similarity_index_measure

    if images.shape != sources.shape:
        raise UserError(f"{len(images)} images for {len(sources)} sources: one each, in the same order")
    _, local = structural_similarity_index_measure(
        avg_pool2d(luma(images), 2), avg_pool2d(luma(sources), 2), data_range=2.0,
        return_contrast_sensitivity=True, reduction="none",
    )
    whole = correlation(precise_luma(images), precise_luma(sources))[:, 0]
    return local.clamp(0, 1) * whole.clamp(0, 1)


class FinePatterns:
    """The fine patterns that real images have, to find those that only a network paints.

    Upsampling layers leave grids, and generators hide their source in patterns that nobody sees: both
    are peaks in the spectrum (Zhang et al. 2019, 1907.06515, section 3; Chu et al. 2017, 1712.02950).

    Args:
        real: sets of real images, float [N, 3, H, W] in [-1, 1] each.
    """

    def __init__(self, real: list[torch.Tensor]):
        self.power = torch.stack([fine_spectrum(images) for images in real]).amax(0)
        halves = [(fine_spectrum(images[::2]), fine_spectrum(images[1::2]))
                  for images in real if len(images) > 1]
        self.chance = max([1.0, *(max(peak_ratio(a, b), peak_ratio(b, a)) for a, b in halves)])

    def clean(self, images: torch.Tensor) -> float:
        """How much weaker, in amplitude, the strongest foreign pattern would have to be to pass for
        chance between one half of the real images and the other, in [0, 1]; 1 where there is none."""
        return math.sqrt(self.chance / max(self.chance, peak_ratio(fine_spectrum(images), self.power)))


def fine_spectrum(images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """Mean power of luma at the frequencies from `FINE` up, [F], of [N, 3, H, W], under a Hann window."""
    height, width = images.shape[-2:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    frequency = torch.maximum(torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width))
    total = sum(
        torch.fft.rfft2((grey - grey.mean((2, 3), keepdim=True)) * window.to(grey)).abs().square().sum((0, 1))
        for grey in map(precise_luma, images.split(batch)))
    return total[(frequency >= FINE_FREQUENCY).to(images.device)] / len(images)


def peak_ratio(power: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest ratio of two spectra."""
    return (power / reference.clamp(min=1e-9)).max().item()


def edge_correlation(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of the strength of edges, image and source, [N] in [-1, 1]; 0 where one of
    them has none. Blind to inversion: a yardstick for content, not a part of the score."""
    ours, theirs = (gradients(precise_luma(x)).norm(dim=1, keepdim=True) for x in (images, sources))
    return correlation(ours, theirs)[:, 0]


def gradients(grey: torch.Tensor) -> torch.Tensor:
    """Differences to the right and downwards, [N, 1, H, W] to [N, 2, H - 1, W - 1]."""
    corner = grey[..., :-1, :-1]
    return torch.cat([grey[..., :-1, 1:] - corner, grey[..., 1:, :-1] - corner], 1)


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pearson's, for each image and channel of two [N, C, H, W]: [N, C], 0 where one is constant."""
    centred = [z.flatten(2) - z.flatten(2).mean(2, keepdim=True) for z in (x, y)]
    return torch.cosine_similarity(*centred, dim=2)


def precise_luma(images: torch.Tensor) -> torch.Tensor:
    """`luma` in double: float's rounding would leave edges in a constant image."""
    return luma(images.double())


def vendi_score(features: torch.Tensor) -> float:
    """Vendi score of [N, features]: how many different images there are in effect, from 1, all the
    same, to N. Friedman and Dieng 2023 (2210.02410), definition 3.1, with cosine similarity."""
    rows = normalize(features.double(), dim=1)
    shares = torch.linalg.eigvalsh(rows @ rows.T / len(rows)).clamp(min=0)
    return torch.special.entr(shares).sum().exp().item()


def kernel_inception_distance(features: torch.Tensor, real: torch.Tensor) -> tuple[float, float]:
    """Kernel Inception Distance between two sets of features, and its error; unbiased, so around
    0 (also below) for equal distributions. Binkowski et al. 2018 (1801.01401), section 4.

    Mean and standard deviation over draws of half the smaller set. The spread over halves is the
    standard error of the whole (delete-half jackknife, Shao and Wu 1989), a little more where the
    sets differ in size. The draws are the same each time: equal images have equal scores.

    Raises:
        UserError: either set has fewer than `FEWEST` rows.
    """
    from torchmetrics.image.kid import KernelInceptionDistance  # not above: takes a second

    if min(len(features), len(real)) < MIN_IMAGES:
        raise UserError(f"{len(features)} images and {len(real)} paintings are too few to measure a "
                        f"distance between: give at least {MIN_IMAGES} of each")
    # torchmetrics warns of the memory that features take: these are a few hundred rows.
    warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
    metric = KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=KID_SUBSETS, subset_size=min(len(features), len(real)) // 2,
        sync_on_compute=False,  # a score is one process's, whatever others do meanwhile
    ).to(features.device)
    metric.update(real, real=True)
    metric.update(features, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs, for good
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()
