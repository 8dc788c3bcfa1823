"""Claims about the score: each part measures what its name says, and is always finite."""

import hashlib
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from judge import model
from judge.common.errors import UserError
from judge.images import to_bytes, to_float
from judge.score import (
    DEFAULT_FORMULA,
    FORMULAS,
    PARTS,
    FinePatterns,
    Scorer,
    edge_correlation,
    extract_features,
    find_formula,
    kernel_inception_distance,
    precise_luma,
    scene_visibility,
    structure_similarity,
    vendi_score,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge(judge_file: Path) -> model.Judge:
    return model.load_judge(judge_file)[0]


def noise(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Images [count, 3, size, size] in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def normal(rows: int, seed: int) -> torch.Tensor:
    """Features [rows, 64]."""
    return torch.randn(rows, 64, generator=torch.Generator().manual_seed(seed))


def scenes(count: int) -> torch.Tensor:
    """Smooth images, each with its own structure, [count, 3, 64, 64] in [-1, 1]."""
    return interpolate(noise(count, 7, 8), size=(64, 64), mode="bicubic").clamp(-1, 1)


def test_structure_is_ssim_without_luminance_times_the_overall_correlation():
    """Against a plain transcription of Wang et al. 2004, equations 9 and 10, with C3 = C2 / 2."""
    images, sources = scenes(2) * 0.6 + 0.2 * noise(2, 1), scenes(2)
    x, y = (avg_pool2d(precise_luma(z), 2) for z in (images, sources))
    at = torch.arange(-5, 6).double()
    bell = torch.exp(-(at**2) / (2 * 1.5**2))
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2

    def mean(z):
        return conv2d(z, window)

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    local = ((2 * covariance + 0.06**2) / (variances + 0.06**2)).mean((1, 2, 3))
    overall = [np.corrcoef(a.ravel(), b.ravel())[0, 1]
               for a, b in zip(precise_luma(images).numpy(), precise_luma(sources).numpy())]
    expected = [float(a * b) for a, b in zip(local, overall)]
    assert structure_similarity(images, sources).tolist() == pytest.approx(expected, abs=0.02)  # borders


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_scene_is_there_or_not_at_any_size_however_much_of_the_photograph_is_kept(size):
    sources = interpolate(scenes(4), (size, size), mode="bicubic")
    grain, red = noise(4, 1, size), torch.tensor([0.9, 0.3, 0.1])[:, None, None]
    there = [sources, 0.4 * sources - 0.3, sources + 0.02 * grain]
    assert [scene_visibility(images, sources).min().item() for images in there] == [1] * 3
    assert scene_visibility(sources * red + 0.2, sources).min() > 0.7  # other colours, so other luma
    assert scene_visibility(0.02 * sources, 0.02 * sources).tolist() == [1] * 4  # as faint as the source
    absent = [-sources, 0.02 * sources, sources[[1, 2, 3, 0]],
              grain, sources.roll(size // 4, 3), torch.zeros_like(sources)]
    assert max(scene_visibility(images, sources).mean().item() for images in absent) < 0.1


def test_structure_is_1_for_equal_images_0_for_inverted_light_and_falls_as_noise_grows():
    sources = scenes(4)
    images = torch.stack([sources[0], -sources[1]])
    assert structure_similarity(images, sources[:2]).tolist() == pytest.approx([1, 0], abs=1e-4)
    kept = [structure_similarity(sources + level * noise(4, 1), sources).mean()
            for level in (0, 0.2, 0.5, 1, 3)]
    assert kept == sorted(kept, reverse=True) and kept[-1] < 0.3
    assert structure_similarity(0.5 * sources - 0.4, 0.5 * sources).min() > 0.999  # brightness is free
    grey = 0.5 * sources.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert structure_similarity(grey + torch.tensor([0.3, -0.1, 0.1])[:, None, None], grey).min() > 0.999


def test_edge_correlation_ignores_inversion_and_contrast():
    for images in (scenes(3), -0.3 * scenes(3) + 0.1):
        assert edge_correlation(images, scenes(3)).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


@pytest.mark.parametrize("measure", [structure_similarity, edge_correlation])
def test_one_colour_keeps_nothing_of_a_scene(measure):
    flat = torch.tensor([0.1, -0.37, 0.83])[:, None, None, None].expand(3, 3, 64, 64)
    assert measure(flat, scenes(3)).max() < 0.05


def test_the_vendi_score_counts_different_directions():
    same, other = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    assert vendi_score(torch.stack([same, 3 * same, same])) == pytest.approx(1)
    assert vendi_score(torch.stack([same, other, 5 * other, 2 * same])) == pytest.approx(2)
    assert vendi_score(torch.eye(3)) == pytest.approx(3)


def test_diversity_is_a_share_of_the_sources_at_most_1_and_lowest_for_a_collapsed_generator(judge):
    scorer = Scorer(judge, scenes(5), None)
    collapsed = scorer(scenes(1).expand(5, -1, -1, -1)).parts["diversity"]
    assert collapsed == pytest.approx(1 / vendi_score(extract_features(judge, scenes(5))), abs=1e-3)
    assert collapsed < scorer(0.8 * scenes(5)).parts["diversity"]
    assert scorer(scenes(5)).parts["diversity"] == pytest.approx(1)
    few_alike = torch.cat([scenes(1).expand(4, -1, -1, -1), scenes(2)[1:]])
    assert Scorer(judge, few_alike, None)(noise(5, 3) * scenes(5)).parts["diversity"] == 1


def test_paintings_as_bytes_give_the_same_score_to_the_last_digit(judge):
    photos, paintings = scenes(6), to_bytes(0.5 * noise(70, 4) * scenes(70))  # more than a batch
    for sources in (photos, None):
        scores = [Scorer(judge, sources, real)(0.8 * photos) for real in (paintings, to_float(paintings))]
        assert scores[0] == scores[1]
    assert extract_features(judge, paintings).equal(extract_features(judge, to_float(paintings)))


@pytest.mark.cuda
def test_the_judge_and_its_images_may_be_on_different_devices(judge_file):
    judge = model.load_judge(judge_file, "cuda")[0]
    features = extract_features(judge, to_bytes(scenes(5)))
    assert features.is_cuda and Scorer(judge, None, to_bytes(scenes(5)))(scenes(5).cuda()).parts["clean"] == 1


@pytest.mark.parametrize("formula", FORMULAS.values())
@pytest.mark.parametrize(("name", "worse", "better"), [
    ("style", 0.2, 0.3), ("content", 0.2, 0.3), ("scene", 0.2, 0.3), ("diversity", 0.2, 0.3),
    ("clean", 0.2, 0.3), ("kid", 0.3, 0.2)])
def test_a_formula_is_monotone_in_each_part_and_stays_between_0_and_1(formula, name, worse, better):
    parts = dict.fromkeys(PARTS, 0.5)
    low, high = (formula(parts | {name: value}) for value in (worse, better))
    assert 0 <= low <= high <= 1
    assert formula(dict.fromkeys(parts, 1.0) | {"kid": -0.1}) == 1
    assert name == "kid" or name not in formula.weights or formula(parts | {name: 0.0}) == 0


def test_the_combined_formula_is_the_published_product_to_the_last_digit():
    draw = np.random.default_rng(0)
    for style, content, diversity, clean, kid in zip(*draw.random((4, 200)), draw.normal(0.5, 2, 200)):
        parts = {"style": style, "content": content, "diversity": diversity, "clean": clean, "kid": kid}
        product = style * content**3 * diversity * clean / (1 + max(0.0, kid)) ** 2
        assert FORMULAS["combined"](parts) == product and FORMULAS["plain"](parts) == style
        assert FORMULAS["combined"]({"style": style, "content": content}) == style * content**3


def test_a_file_of_weights_is_a_formula_and_its_hash_is_recorded(judge, tmp_path):
    file, weights = tmp_path / "score.json", {"style": 2.0, "content": 0.5, "kid": 0}
    for name in weights:
        file.write_text(json.dumps({"format": "salon score 1", "weights": weights, "votes": 3}))
        score = Scorer(judge, noise(4, 0), noise(4, 1), str(file))(noise(4, 2))
        expected = math.prod(score.parts[part] ** weight for part, weight in weights.items() if weight)
        assert score.default == pytest.approx(expected, rel=1e-12)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert find_formula(str(file)).record() == {"score_file": {"file": str(file), "sha256": digest}}
        weights |= {name: 3.0}
    assert FORMULAS["combined"].record() == {}


@pytest.mark.parametrize(("content", "reason"), [
    (None, "neither style-and-scene nor combined nor plain, nor a file that can be read"),
    ("", "not a file"), ("[]", "not a file"),
    ("[" * 10**5, "not a file"), ('{"format": "salon score 1"}', "not a file"),
    ('{"format": "salon score 2", "weights": {"style": 1}}', "not a file"),
    ('{"format": "salon score 1", "weights": {"style": "1"}}', "not a file"),
    ('{"format": "salon score 1", "weights": {"style": -1}}', "'style' is -1; weights are from 0"),
    ('{"format": "salon score 1", "weights": {"style": NaN}}', "'style' is nan"),
    ('{"format": "salon score 1", "weights": {"kid": 1e9}}', "'kid' is 10"),
    ('{"format": "salon score 1", "weights": {"beauty": 1}}', "'beauty' is 1; .*content"),
    ('{"format": "salon score 1", "weights": {"style": 0}}', "all weights are 0")])
def test_a_wrong_file_of_weights_is_named_in_one_line(tmp_path, content, reason):
    file = tmp_path / "score.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=f"^--score {file}: .*{reason}") as error:
        find_formula(str(file))
    assert "\n" not in str(error.value)


def natural(count: int, seed: int) -> torch.Tensor:
    """Images with the spectrum of natural ones, [count, 3, 64, 64]."""
    draw = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)).clamp(min=1 / 64)
    spectrum = torch.fft.rfft2(torch.randn(count, 3, 64, 64, generator=draw)) / frequency**1.5
    images = torch.fft.irfft2(spectrum, s=(64, 64))
    return (images / images.abs().amax((1, 2, 3), keepdim=True)).clamp(-1, 1)


def lines(amplitude: float) -> torch.Tensor:
    """Vertical lines one pixel wide, of `amplitude` for values of 0 to 255."""
    return 2 * amplitude / 255 * (1 - 2 * (torch.arange(64) % 2)).expand(1, 3, 64, 64)


def test_an_invisible_pattern_is_found_in_proportion_to_its_amplitude():
    patterns = FinePatterns([natural(32, 0)], CPU)
    clean = [patterns.clean(natural(32, 2) + lines(amplitude)) for amplitude in (0, 3, 10, 30)]
    assert clean == sorted(clean, reverse=True) and clean[0] > 0.8 and clean[1] < 0.5
    assert clean[2] == pytest.approx(0.3 * clean[1], rel=0.2)


def test_real_images_coarse_waves_and_one_colour_are_clean():
    patterns = FinePatterns([natural(32, 0), natural(32, 1)], CPU)
    wave = torch.sin(2 * torch.pi * torch.arange(64) / 16).expand(1, 3, 64, 64)
    assert patterns.clean(natural(32, 0)) == patterns.clean(torch.zeros(32, 3, 64, 64)) == 1
    for images in (natural(32, 2), 0.3 * natural(32, 2) + 0.5 * wave, 0.3 * natural(32, 2) + 0.5):
        assert patterns.clean(images) > 0.8
    assert FinePatterns([natural(32, 0) + lines(10)], CPU).clean(natural(32, 2) + lines(10)) > 0.8


@pytest.mark.parametrize("count", [1, 2])
def test_few_real_images_are_enough_to_find_a_strong_pattern(count):
    patterns = FinePatterns([natural(count, 0)], CPU)
    assert patterns.clean(natural(4, 1) + lines(30)) < 0.3 * patterns.clean(natural(4, 1))


def unbiased_mmd(x: torch.Tensor, y: torch.Tensor) -> float:
    """The unbiased MMD of the cubic kernel over all rows, transcribed from the paper."""
    def kernel(a, b):
        return (a.double() @ b.double().T / a.shape[1] + 1) ** 3

    within = sum((kernel(a, a).sum() - kernel(a, a).trace()) / (len(a) * (len(a) - 1)) for a in (x, y))
    return (within - 2 * kernel(x, y).mean()).item()


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_the_distance_is_that_of_the_paper_within_its_error(shift):
    features, real = normal(100, 0) + shift, normal(60, 1)
    distance, error = kernel_inception_distance(features, real)
    assert distance == pytest.approx(unbiased_mmd(features, real), abs=3 * error)


def test_the_distance_is_reproducible_without_touching_global_generators_or_warning(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    first = kernel_inception_distance(normal(30, 0), normal(40, 1))
    torch.manual_seed(123)
    assert seeded == [123], "torch seeds GPUs in another way now: this test no longer sees it"
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel_inception_distance(normal(30, 0), normal(40, 1)) == first
    assert torch.equal(torch.get_rng_state(), before) and seeded == [123]


def test_a_distance_needs_four_images_on_each_side():
    assert all(map(math.isfinite, kernel_inception_distance(normal(4, 0), normal(4, 1))))
    for count, real_count in ((3, 9), (1, 9), (9, 3)):
        with pytest.raises(UserError, match="at least 4"):
            kernel_inception_distance(normal(count, 0), normal(real_count, 1))


def test_style_is_the_mean_probability_of_a_painting(judge):
    expected = torch.softmax(judge(noise(6, 0)), 1)[:, 1].mean().item()  # of a judge not yet calibrated
    assert judge.classes[1] == "painting"
    assert Scorer(judge, None, None)(noise(6, 0)).parts == {"style": pytest.approx(expected)}


@pytest.mark.parametrize("formula", FORMULAS)
def test_default_comes_first_and_is_the_chosen_formula_of_the_parts(judge, formula):
    score = Scorer(judge, noise(4, 0), noise(4, 1), formula)(noise(4, 2)).as_dict()
    assert list(score) == ["default", "style", "content", "scene", "diversity", "clean", "kid", "kid_error"]
    assert score["default"] == FORMULAS[formula](score)
    assert {type(value) for value in score.values()} == {float}


def test_parts_without_their_reference_images_are_left_out(judge):
    without_paintings = Scorer(judge, noise(4, 0), None)(noise(4, 1)).parts
    assert set(without_paintings) == {"style", "content", "scene", "diversity", "clean"}
    without_sources = Scorer(judge, None, noise(4, 0))(noise(4, 1)).parts
    assert set(without_sources) == {"style", "diversity", "clean", "kid", "kid_error"}


def test_images_without_sources_are_to_be_as_different_as_as_many_paintings(judge):
    paintings = noise(6, 0)
    scorer = Scorer(judge, None, paintings)
    assert scorer(paintings).parts["diversity"] == pytest.approx(1)
    same = scorer(paintings[:1].expand(12, -1, -1, -1))
    features = judge.features(paintings)
    assert same.parts["diversity"] == pytest.approx(1 / vendi_score(features), rel=1e-3)
    assert same.default == FORMULAS[DEFAULT_FORMULA](same.parts)


def test_equal_images_have_equal_scores_however_often_a_scorer_was_used(judge):
    scorer = Scorer(judge, noise(5, 0), noise(6, 1))
    first = scorer(noise(5, 2))
    scorer(noise(5, 3))
    assert scorer(noise(5, 2)) == first != scorer(noise(5, 3))


def test_every_part_is_finite_for_images_of_one_colour(judge):
    flat = torch.full((4, 3, 64, 64), -1.0)
    for sources, paintings in ((flat, flat), (noise(4, 0), noise(4, 1))):
        score = Scorer(judge, sources, paintings)(flat).as_dict()
        assert all(map(math.isfinite, score.values())), score
        assert 0 <= score["default"] <= 1
    with pytest.raises(UserError, match="^4 images for 5 sources: "):
        Scorer(judge, noise(5, 0), None)(flat)
