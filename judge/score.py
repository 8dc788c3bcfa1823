"""The score of translations: one number for each part, and the combined number that the tuner maximises."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, normalize

from judge.common.constants import DEFAULT_FORMULA
from judge.common.errors import UserError
from judge.common.schema import NUMBER, matches
from judge.images import DataSet, float_batches, luma
from judge.model import Judge

WORST_SCORE = 0.0  # the score of a trial that diverged: no score is lower

MIN_IMAGES = 4  # smallest set that can be scored: the distance draws halves of it
FINE_FREQUENCY = 0.2  # cycles per pixel, in either direction, above which only networks leave strong patterns
SCENE_GRID = 32  # pixels: a scene is to be seen at this size, whatever that of the images
NO_SCENE, CLEAR_SCENE = 0.6, 0.8  # correlations of the differences of luma
VISIBLE_CONTRAST = 0.04  # root mean square of them, luma in [-1, 1]: slightly less than the faintest Monet
KID_SUBSETS = 20  # draws whose mean and deviation are the KID and its error


@dataclass(frozen=True)
class Formula:
    """Combines the parts of a score: the product of each part to the power of its weight.

    A product like ArtFID's (Wright and Ommer 2022, 2207.12280, equation 4), in which a good style cannot make
    up for lost content, or the reverse. The distance counts as 1 / (1 + kid), so a score is in [0, 1].
    """

    name: str  # for --score: a name in `FORMULAS`, or a file
    weights: Mapping[str, float]  # by part, from 0
    sha256: str | None = None  # of the file

    def __call__(self, parts: Mapping[str, float]) -> float:
        """Return the score; missing parts are left out."""
        score = 1.0
        for name, weight in self.weights.items():
            if name == "kid":
                score /= (1 + max(0.0, parts.get(name, 0.0))) ** weight
            else:
                score *= parts.get(name, 1.0) ** weight
        return score

    @property
    def weighed(self) -> set[str]:
        """The parts that change the score."""
        return {name for name, weight in self.weights.items() if weight}

    def __str__(self) -> str:
        """Return the formula for a reader, for example style × scene³ / (1 + KID)."""
        powers = {name: "" if weight == 1 else f"{weight:g}".translate(RAISED)
                  for name, weight in self.weights.items() if weight}  # fmt: skip
        product = " × ".join(f"{name}{power}" for name, power in powers.items() if name != "kid") or "1"
        return product + (f" / (1 + KID){powers['kid']}" if "kid" in powers else "")

    def record(self) -> dict[str, dict]:
        """Return what run.json has of the formula beside its name: the file with its hash, if it is one."""
        return {"score_file": {"file": self.name, "sha256": self.sha256}} if self.sha256 else {}


RAISED = str.maketrans("0123456789.-", "⁰¹²³⁴⁵⁶⁷⁸⁹·⁻")  # digits as exponents
# judge/RESULTS.md says how the weights were chosen.
style_and_scene = Formula("style-and-scene", {"style": 1, "scene": 3, "diversity": 1, "clean": 1, "kid": 1})
combined = Formula("combined", {"style": 1, "content": 3, "diversity": 1, "clean": 1, "kid": 2})  # the first
plain = Formula("plain", {"style": 1})  # searches exploit it easily
FORMULAS = {formula.name: formula for formula in (style_and_scene, combined, plain)}

FILE_FORMAT = "salon score 1"
FILE_FORM = {"format": str, "weights": {"*": NUMBER}}  # of a file with weights
PARTS = ("style", "content", "scene", "diversity", "clean", "kid")  # that a formula may weigh
MAX_WEIGHT = 50  # more would overflow where the distance is large


class Meaning(NamedTuple):
    """What a reader of a table needs to know of a part of a score."""

    label: str
    better: Literal["higher", "lower"] | None
    help: str


MEANINGS = {  # of every number that a trial reports, also those of judge.class_score and of single systems
    "default": Meaning("score", "higher", "what the search maximises, the mean of the last reports"),
    "style": Meaning("style", "higher", "how sure the judge is that the images are paintings, 0 to 1"),
    "content": Meaning("content", "higher", "how much of its photograph an image keeps, 0 to 1"),
    "scene": Meaning("scene", "higher", "whether one still sees what the photograph shows, 0 to 1"),
    "diversity": Meaning("diversity", "higher", "how different the images are from each other, compared with "
                         "the real ones, 0 to 1; low if all look alike"),
    "clean": Meaning("clean", "higher", "1 without fine grids and patterns that only networks make"),
    "kid": Meaning("KID", "lower", "Kernel Inception Distance: how far all images together are from real "
                   "ones in the judge's features; about 0 for real ones"),
    "kid_error": Meaning("KID error", None, "standard error of the KID: how much of it may be chance"),
    "right": Meaning("right", "higher", "share of images in which a classifier sees the class asked for"),
    "domain": Meaning("domain", "higher", "share of images in which a classifier sees the domain asked for"),
    "confidence": Meaning("confidence", "higher", "how sure the classifier is of the class that it sees"),
    "inception": Meaning("inception", "higher", "Inception Score, 1 if every image is clearly of a class and "
                         "all classes are equally frequent"),
    "coverage": Meaning("coverage", "higher", "share of the classes that occur"),
    "distance": Meaning("distance", "lower", "mean distance of the numbers from the pattern"),
    "style_distance": Meaning("style distance", "lower", "style loss: the photograph has 1, the painting 0"),
    "content_distance": Meaning("content distance", "lower", "content loss: the photograph has 0, the "
                                "painting 1"),
}  # fmt: skip


def find_formula(name: str) -> Formula:
    """Return the formula of this name in `FORMULAS`, or the one in this file of `experiments taste`.

    Raises UserError if there is neither, or the file is not of that form.
    """
    if name in FORMULAS:
        return FORMULAS[name]
    try:
        content = Path(name).read_bytes()
        value = json.loads(content)
    except OSError as error:
        raise UserError(f"--score {name}: neither {' nor '.join(FORMULAS)}, nor a file that can be read "
                        f"({error.strerror})") from None
    except (ValueError, RecursionError):  # a null byte in the name, no JSON, or brackets nested too deep
        value = None
    weights = value["weights"] if matches(value, FILE_FORM) and value["format"] == FILE_FORMAT else {}
    if not weights:
        raise UserError(f"--score {name}: not a file that python -m experiments taste wrote")
    for part, weight in weights.items():
        if part not in PARTS or not 0 <= weight <= MAX_WEIGHT:
            raise UserError(f"--score {name}: the weight of {part!r} is {weight}; weights are from 0 to "
                            f"{MAX_WEIGHT} of {', '.join(PARTS)}")
    if not any(weights.values()):
        raise UserError(f"--score {name}: all weights are 0, so that all images would be equal")
    return Formula(name, weights, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Score:
    """A score and its parts by name, all finite."""

    default: float  # the combination of the parts that the tuner maximises
    parts: dict[str, float]
    extras: dict[str, float] = field(default_factory=dict)  # recorded; the tuner does not get them

    def as_dict(self) -> dict[str, float]:
        """Return `default` and the parts, as a trial reports them."""
        return {"default": self.default, **self.parts}


def check_test_images(data: DataSet) -> None:
    """Raise UserError, before training, if a domain has fewer than `MIN_IMAGES` test images."""
    for files in data.test.values():
        if len(files) < MIN_IMAGES:
            raise UserError(
                f"{files[0].parent}: {len(files)} test images, a score needs at least {MIN_IMAGES}")


class Scorer:
    """Scores translations of the same photographs, at each report of a trial.

    Args:
        sources: the photographs, float [N, 3, size, size] in [-1, 1], or None if unknown.
        paintings: real paintings to measure the distance to, [M, 3, size, size], uint8 or float in [-1, 1]
            on any device, or None. They are not kept.
        formula: the one that computes `default`, as for `find_formula`.
    """

    def __init__(self, judge: Judge, sources: torch.Tensor | None, paintings: torch.Tensor | None,
                 formula: str = DEFAULT_FORMULA):
        self.judge, self.sources, self.formula = judge, sources, find_formula(formula)
        self.painting_features = None if paintings is None else extract_features(judge, paintings)
        # Generated images have no sources: they are to be as different as real paintings.
        self.varied = self.painting_features if sources is None else extract_features(judge, sources)
        self._real_diversity: dict[int, float] = {}  # by number of real images: the same at every report
        real = [images for images in (sources, paintings) if images is not None]
        self.patterns = FinePatterns(real, device_of(judge, real[0])) if real else None

    def __call__(self, images: torch.Tensor) -> Score:
        """Return the score of `images`, float [N, 3, size, size] in [-1, 1], in the order of the sources.

        Parts, as far as there are sources or paintings to compare with:
            style: mean calibrated P(painting), in [0, 1].
            content: mean `structure_similarity` to the sources, in [0, 1].
            scene: mean `scene_visibility` of the sources, in [0, 1].
            diversity: `vendi_score` of the judge's features, divided by that of as many sources or, without
                sources, paintings, at most 1.
            clean: 1 without fine patterns that real images do not have, down to 0 (`FinePatterns`).
            kid, kid_error: `kernel_inception_distance` to the paintings in the judge's features.
        """
        features = extract_features(self.judge, images)
        parts = {"style": self.judge.painting_probability(features).mean().item()}
        if self.sources is not None:
            parts["content"] = structure_similarity(images, self.sources).mean().item()
            parts["scene"] = scene_visibility(images, self.sources).mean().item()
        if self.varied is not None:
            count = min(len(features), len(self.varied))
            if count not in self._real_diversity:
                self._real_diversity[count] = vendi_score(self.varied[:count])
            parts["diversity"] = min(1.0, vendi_score(features[:count]) / self._real_diversity[count])
        if self.patterns:
            parts["clean"] = self.patterns.clean(images)
        if self.painting_features is not None:
            parts["kid"], parts["kid_error"] = kernel_inception_distance(features, self.painting_features)
        return Score(self.formula(parts), parts)


@torch.no_grad()
def extract_features(judge: Judge, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """Return the judge's features of `images`, [N, features], on its device.

    The images are uint8 or float in [-1, 1], [N, 3, size, size], on any device; they are moved a batch at a
    time.
    """
    parts = float_batches(images, device_of(judge, images), batch)
    return torch.cat([judge.features(part) for part in parts])


def device_of(network: nn.Module, images: torch.Tensor) -> torch.device:
    """Return the device of a network's weights; if it has none, that of `images`."""
    return next(chain(network.parameters(), network.buffers()), images).device


def structure_similarity(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Return how much of its source's structure each image keeps, [N] in [0, 1].

    The product of two terms, both clipped at 0; colour and brightness may change freely:
    - the contrast and structure terms of SSIM (Wang et al. 2004, equations 9 and 10 multiplied, as in
      MS-SSIM) of luma at half the resolution, where brush strokes weigh less than the scene;
    - the correlation of luma over the whole image, which also detects inverted light in flat areas.

    Raises UserError if there are not as many images as sources.
    """
    # Imported here because it takes a second.
    from torchmetrics.functional.image import structural_similarity_index_measure

    if images.shape != sources.shape:
        raise UserError(f"{len(images)} images for {len(sources)} sources: give one source for each image, "
                        "in the same order")
    _, local = structural_similarity_index_measure(
        avg_pool2d(luma(images), 2), avg_pool2d(luma(sources), 2), data_range=2.0,
        return_contrast_sensitivity=True, reduction="none",
    )
    overall = correlation(precise_luma(images), precise_luma(sources))
    return local.clamp(0, 1) * overall.clamp(0, 1)


def scene_visibility(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Return whether each image shows its source's scene, [N]: 0 for no, 1 for yes, between for partly.

    The correlation of the differences of luma to the right and down, at `SCENE_GRID` pixels: below `NO_SCENE`
    it is 0, from `CLEAR_SCENE` up 1, linear between. It saturates, because a painting that shows the scene is
    not better if it copies more of the photograph. Differences fainter than `VISIBLE_CONTRAST`, and than the
    source's own, count in proportion. judge/RESULTS.md says how the limits were chosen.
    """
    differences = []
    for grey in (precise_luma(images), precise_luma(sources)):
        grey = interpolate(grey, (SCENE_GRID, SCENE_GRID), mode="area")
        differences.append(torch.cat([grey.diff(dim=2).flatten(1), grey.diff(dim=3).flatten(1)], 1))
    similarity = torch.cosine_similarity(*differences, dim=1)
    visible, available = (values.square().mean(1).sqrt() for values in differences)
    contrast = visible / available.clamp(1e-6, VISIBLE_CONTRAST)
    return ((similarity - NO_SCENE) / (CLEAR_SCENE - NO_SCENE)).clamp(0, 1) * contrast.clamp(max=1)


def edge_correlation(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Return the Pearson correlation of edge strength (the gradient's norm) with the sources, [N] in [-1, 1].

    0 where one has no edges. Inversion does not change it. Another measure of content, to check the score.
    """
    strengths = []
    for grey in (precise_luma(images), precise_luma(sources)):
        corner = grey[..., :-1, :-1]
        gradient = torch.cat([grey[..., :-1, 1:] - corner, grey[..., 1:, :-1] - corner], 1)
        strengths.append(gradient.norm(dim=1, keepdim=True))
    return correlation(*strengths)


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the Pearson correlation of each pair of [N, 1, H, W] images, [N]; 0 where one is constant."""
    centred = [z.flatten(2) - z.flatten(2).mean(2, keepdim=True) for z in (x, y)]
    return torch.cosine_similarity(*centred, dim=2)[:, 0]


def precise_luma(images: torch.Tensor) -> torch.Tensor:
    """Return `luma` in double precision: float's rounding would leave edges in a constant image."""
    return luma(images.double())


class FinePatterns:
    """The spectrum of sets of real images at high frequencies, to detect patterns that only networks leave.

    Upsampling layers leave grids, and generators hide information in invisible patterns. Both are peaks in
    the spectrum (Zhang et al. 2019, 1907.06515, section 3; Chu et al. 2017, 1712.02950).

    `real` are sets of images, uint8 or float in [-1, 1], whose spectra are computed and kept on `device`.
    """

    def __init__(self, real: list[torch.Tensor], device: torch.device):
        self.spectrum = torch.stack([fine_spectrum(images, device) for images in real]).amax(0)
        halves = [[fine_spectrum(half, device) for half in (images[::2], images[1::2])]
                  for images in real if len(images) > 1]
        self.chance_ratio = max([1.0, *(max(peak_ratio(a, b), peak_ratio(b, a)) for a, b in halves)])

    def clean(self, images: torch.Tensor) -> float:
        """Return the factor, in [0, 1], that would reduce the amplitude of the strongest pattern to what
        occurs by chance between the two halves of the real images; 1 if it is no stronger."""
        ratio = peak_ratio(fine_spectrum(images, self.spectrum.device), self.spectrum)
        return math.sqrt(self.chance_ratio / max(self.chance_ratio, ratio))


def fine_spectrum(images: torch.Tensor, device: torch.device, batch: int = 64) -> torch.Tensor:
    """Return the mean power of luma at frequencies from `FINE_FREQUENCY`, [F], under a Hann window.

    Computed on `device`, from images that are uint8 or float in [-1, 1].
    """
    height, width = images.shape[-2:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    frequency = torch.maximum(torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width))
    total = sum(
        torch.fft.rfft2((grey - grey.mean((2, 3), keepdim=True)) * window.to(grey)).abs().square().sum((0, 1))
        for grey in map(precise_luma, float_batches(images, device, batch)))
    return total[(frequency >= FINE_FREQUENCY).to(device)] / len(images)


def peak_ratio(power: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the largest ratio of two spectra."""
    return (power / reference.clamp(min=1e-9)).max().item()


def vendi_score(features: torch.Tensor) -> float:
    """Return the Vendi score of [N, features]: the effective number of different rows, from 1 to N.

    Friedman and Dieng 2023 (2210.02410), definition 3.1, with cosine similarity.
    """
    rows = normalize(features.double(), dim=1)
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T / len(rows)).clamp(min=0)
    return torch.special.entr(eigenvalues).sum().exp().item()


def kernel_inception_distance(features: torch.Tensor, real: torch.Tensor) -> tuple[float, float]:
    """Return the Kernel Inception Distance between two sets of features, and its standard error.

    Unbiased: around 0, also below, for equal distributions. Binkowski et al. 2018 (1801.01401), section 4.
    The error is the deviation over random halves (delete-half jackknife, Shao and Wu 1989), which are the
    same in every call. Raises UserError if a set has fewer than `MIN_IMAGES` rows.
    """
    from torchmetrics.image.kid import KernelInceptionDistance  # here because it takes a second

    if min(len(features), len(real)) < MIN_IMAGES:
        raise UserError(f"{len(features)} images and {len(real)} paintings are too few to measure a "
                        f"distance between them: give at least {MIN_IMAGES} of each")
    # torchmetrics warns of the memory that features need: these are a few hundred rows.
    warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
    metric = KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=KID_SUBSETS, subset_size=min(len(features), len(real)) // 2,
        sync_on_compute=False,  # a score is of this process alone
    ).to(features.device)
    metric.update(real, real=True)
    metric.update(features, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the GPUs, permanently
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()
