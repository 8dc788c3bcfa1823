"""Claims about the score: each part has the value that its name promises, and is always finite."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from judge import model
from judge.common.errors import UserError
from judge.score import (
    FORMULAS,
    FinePatterns,
    Score,
    Scorer,
    edge_correlation,
    extract_features,
    kernel_inception_distance,
    precise_luma,
    structure_similarity,
    vendi_score,
)


@pytest.fixture(scope="module")
def judge(judge_file: Path) -> model.Judge:
    return model.load_judge(judge_file)[0]


def noise(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Images [N, 3, size, size] in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def normal(rows: int, seed: int, dimensions: int = 64) -> torch.Tensor:
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------
# Content


def scenes(count: int, size: int = 64) -> torch.Tensor:
    """Smooth images with a structure of their own each, [count, 3, size, size] in [-1, 1]."""
    coarse = noise(count, 7, 8)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("measure", [structure_similarity, edge_correlation])
def test_content_is_one_for_equal_images(measure):
    assert measure(scenes(3), scenes(3)).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_structure_of_inverted_light_is_nothing():
    assert structure_similarity(-scenes(3), scenes(3)).tolist() == [0, 0, 0]


def test_structure_is_ssim_without_its_brightness_times_the_correlation_of_the_whole():
    """Against a plain transcription of Wang et al. 2004, equations 9 and 10, with C3 = C2 / 2."""
    images, sources = scenes(2) * 0.6 + 0.2 * noise(2, 1), scenes(2)
    x, y = (avg_pool2d(precise_luma(z), 2) for z in (images, sources))
    at = torch.arange(-5, 6).double()
    bell = torch.exp(-(at**2) / (2 * 1.5**2))
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2

    def mean(z):
        return torch.nn.functional.conv2d(z, window)

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    local = ((2 * covariance + 0.06**2) / (variances + 0.06**2)).mean((1, 2, 3))
    whole = [np.corrcoef(a.ravel(), b.ravel())[0, 1]
             for a, b in zip(precise_luma(images).numpy(), precise_luma(sources).numpy())]
    expected = [float(a * b) for a, b in zip(local, whole)]
    assert structure_similarity(images, sources).tolist() == pytest.approx(expected, abs=0.02)  # borders


def test_structure_falls_as_noise_grows():
    kept = [structure_similarity(scenes(4) + level * noise(4, 1), scenes(4)).mean() for level in (0, 0.2, 0.5, 1, 3)]
    assert kept == sorted(kept, reverse=True) and kept[-1] < 0.3


def test_structure_is_free_of_brightness_and_nearly_of_colour():
    images, sources = 0.5 * scenes(3) - 0.4, 0.5 * scenes(3)
    assert structure_similarity(images, sources).min() > 0.999
    coloured = sources.mean(1, keepdim=True) + torch.tensor([0.3, -0.1, 0.1])[:, None, None]
    assert structure_similarity(coloured, sources.mean(1, keepdim=True).expand(-1, 3, -1, -1)).min() > 0.999


def test_edges_are_blind_to_inversion_and_ignore_contrast():
    assert edge_correlation(-0.3 * scenes(3) + 0.1, scenes(3)).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


@pytest.mark.parametrize("measure", [structure_similarity, edge_correlation])
def test_one_colour_keeps_nothing_of_a_scene(measure):
    flat = torch.tensor([0.1, -0.37, 0.83])[:, None, None, None].expand(3, 3, 64, 64)
    assert measure(flat, scenes(3)).max() < 0.05


def test_content_is_per_image():
    sources = scenes(2)
    images = torch.stack([sources[0], -sources[1]])
    assert structure_similarity(images, sources).tolist() == pytest.approx([1, 0], abs=1e-4)


# ---------------------------------------------------------------------------------------------
# Diversity


def test_vendi_counts_the_different_ones():
    same, other = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    assert vendi_score(torch.stack([same, 3 * same, same])) == pytest.approx(1)
    assert vendi_score(torch.stack([same, other, 5 * other, 2 * same])) == pytest.approx(2)
    assert vendi_score(torch.eye(3)) == pytest.approx(3)


def test_a_generator_that_always_paints_the_same_has_least_diversity(judge):
    scorer = Scorer(judge, scenes(5), None)
    collapsed = scorer(scenes(1).expand(5, -1, -1, -1)).parts["diversity"]
    assert collapsed == pytest.approx(1 / vendi_score(extract_features(judge, scenes(5))), abs=1e-3)
    assert collapsed < scorer(0.8 * scenes(5)).parts["diversity"]


def test_diversity_is_a_share_of_the_sources_and_at_most_one(judge):
    scorer = Scorer(judge, 0.5 * scenes(5), None)
    assert scorer(0.5 * scenes(5)).parts["diversity"] == pytest.approx(1)
    assert scorer(noise(5, 3)).parts["diversity"] <= 1


# ---------------------------------------------------------------------------------------------
# Formulas


@pytest.mark.parametrize("formula", FORMULAS.values())
@pytest.mark.parametrize(("name", "worse", "better"), [
    ("style", 0.2, 0.3), ("content", 0.2, 0.3), ("diversity", 0.2, 0.3), ("clean", 0.2, 0.3),
    ("kid", 0.3, 0.2)])
def test_a_formula_is_monotone_in_each_part_and_stays_between_0_and_1(formula, name, worse, better):
    parts = {"style": 0.5, "content": 0.5, "diversity": 0.5, "clean": 0.5, "kid": 0.5}
    low, high = (formula(parts | {name: value}) for value in (worse, better))
    assert 0 <= low <= high <= 1
    for end in (dict.fromkeys(parts, 0.0), dict.fromkeys(parts, 1.0) | {"kid": -0.1}):
        assert 0 <= formula(end) <= 1


def test_no_part_makes_up_for_another_that_is_nothing():
    perfect = {"style": 1.0, "content": 1.0, "diversity": 1.0, "clean": 1.0, "kid": 0.0}
    for name in ("style", "content", "diversity", "clean"):
        assert FORMULAS["combined"](perfect | {name: 0.0}) == 0
    assert FORMULAS["combined"](perfect) == 1


def test_another_number_of_images_than_sources_is_refused(judge):
    with pytest.raises(UserError, match="^5 images for 4 sources: "):
        Scorer(judge, noise(4, 0), None)(noise(5, 0))


# ---------------------------------------------------------------------------------------------
# Patterns


def natural(count: int, seed: int) -> torch.Tensor:
    """Images whose spectrum falls as natural ones' does, [count, 3, 64, 64]."""
    draw = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)).clamp(min=1 / 64)
    noise = torch.fft.rfft2(torch.randn(count, 3, 64, 64, generator=draw)) / frequency**1.5
    images = torch.fft.irfft2(noise, s=(64, 64))
    return (images / images.abs().amax((1, 2, 3), keepdim=True)).clamp(-1, 1)


def lines(amplitude: float) -> torch.Tensor:
    """Vertical lines a pixel wide, of `amplitude` on a scale of 0 to 255."""
    return 2 * amplitude / 255 * (1 - 2 * (torch.arange(64) % 2)).expand(1, 3, 64, 64)


def test_real_images_and_others_of_their_kind_are_clean():
    patterns = FinePatterns([natural(32, 0), natural(32, 1)])
    assert patterns.clean(natural(32, 0)) == 1
    assert patterns.clean(natural(32, 2)) > 0.8
    assert patterns.clean(torch.zeros(32, 3, 64, 64)) == 1


def test_a_pattern_that_no_eye_sees_is_found_and_a_stronger_one_is_worse():
    patterns = FinePatterns([natural(32, 0)])
    found = [patterns.clean(natural(32, 2) + lines(amplitude)) for amplitude in (0, 3, 10, 30)]
    assert found == sorted(found, reverse=True) and found[0] > 0.8 and found[1] < 0.5
    assert found[2] == pytest.approx(0.3 * found[1], rel=0.2)  # in proportion to its amplitude


def test_a_pattern_that_the_real_images_have_too_is_none():
    patterns = FinePatterns([natural(32, 0) + lines(10)])
    assert patterns.clean(natural(32, 2) + lines(10)) > 0.8


def test_what_is_coarse_or_one_colour_is_no_pattern():
    patterns = FinePatterns([natural(32, 0)])
    wave = torch.sin(2 * torch.pi * torch.arange(64) / 16).expand(1, 3, 64, 64)
    assert patterns.clean(0.3 * natural(32, 2) + 0.5 * wave) > 0.8
    assert patterns.clean(0.3 * natural(32, 2) + 0.5) > 0.8


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_real_images_find_less_but_never_fail(count):
    found = FinePatterns([natural(count, 0)]).clean(natural(4, 1) + lines(3))
    assert 0 < found <= 1


# ---------------------------------------------------------------------------------------------
# Kernel distance


def unbiased(x: torch.Tensor, y: torch.Tensor) -> float:
    """The unbiased MMD of the cubic kernel over all rows, written out from the paper."""
    def kernel(a, b):
        return (a.double() @ b.double().T / a.shape[1] + 1) ** 3

    within = sum(
        (kernel(a, a).sum() - kernel(a, a).trace()) / (len(a) * (len(a) - 1)) for a in (x, y)
    )
    return (within - 2 * kernel(x, y).mean()).item()


@pytest.mark.parametrize("seed", range(3))
def test_samples_of_one_distribution_are_no_distance_apart(seed):
    distance, error = kernel_inception_distance(normal(80, 2 * seed), normal(80, 2 * seed + 1))
    assert 0 < error and abs(distance) < 3 * error


def test_a_shifted_distribution_is_clearly_apart_and_further_when_shifted_further():
    near, far = (kernel_inception_distance(normal(80, 0) + shift, normal(80, 1)) for shift in (0.5, 1.0))
    assert near[0] > 5 * near[1] and far[0] > near[0] + 5 * (near[1] + far[1])


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_the_distance_is_the_one_in_the_paper_within_its_error(shift):
    ours, real = normal(100, 0) + shift, normal(60, 1)
    distance, error = kernel_inception_distance(ours, real)
    assert distance == pytest.approx(unbiased(ours, real), abs=3 * error)


def test_the_distance_is_equal_each_time_and_leaves_the_global_generator_alone():
    first = kernel_inception_distance(normal(30, 0), normal(40, 1))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert kernel_inception_distance(normal(30, 0), normal(40, 1)) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gpus_generators_are_left_alone_too(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(5)
    assert seeded == [5], "torch seeds GPUs in another way now: this test no longer sees it"
    kernel_inception_distance(normal(30, 0), normal(40, 1))
    assert seeded == [5]


def test_the_distance_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel_inception_distance(normal(10, 0), normal(10, 1))


@pytest.mark.parametrize(("ours", "real"), [(1, 9), (2, 9), (3, 9), (9, 3)])
def test_too_few_images_for_a_distance_are_refused_in_one_line(ours, real):
    with pytest.raises(UserError, match="at least 4"):
        kernel_inception_distance(normal(ours, 0), normal(real, 1))


def test_four_images_are_enough_for_a_distance():
    assert all(map(math.isfinite, kernel_inception_distance(normal(4, 0), normal(4, 1))))


# ---------------------------------------------------------------------------------------------
# The score


def test_style_is_the_mean_probability_of_a_painting(judge):
    images = noise(6, 0)
    expected = torch.softmax(judge(images), 1)[:, 1].mean().item()  # of a judge not calibrated yet
    assert judge.classes[1] == "painting"
    assert Scorer(judge, None, None)(images).parts == {"style": pytest.approx(expected)}


@pytest.mark.parametrize("name", FORMULAS)
def test_default_comes_first_and_is_the_formula_asked_for(judge, name):
    named = Scorer(judge, noise(4, 0), noise(4, 1), name)(noise(4, 2)).as_dict()
    assert list(named) == ["default", "style", "content", "diversity", "clean", "kid", "kid_error"]
    assert named["default"] == FORMULAS[name](named)


def test_named_keeps_every_part():
    assert Score(0.5, {"b": 1.0, "a": 2.0}).as_dict() == {"default": 0.5, "b": 1.0, "a": 2.0}


def test_parts_that_nothing_is_known_for_are_left_out(judge):
    without_paintings = Scorer(judge, noise(4, 0), None)(noise(4, 1)).parts
    assert set(without_paintings) == {"style", "content", "diversity", "clean"}
    without_sources = Scorer(judge, None, noise(4, 0))(noise(4, 1)).parts
    assert set(without_sources) == {"style", "clean", "kid", "kid_error"}


def test_a_scorer_scores_equal_images_equally_again_and_again(judge):
    scorer = Scorer(judge, noise(5, 0), noise(6, 1))
    first = scorer(noise(5, 2))
    scorer(noise(5, 3))
    assert scorer(noise(5, 2)) == first != scorer(noise(5, 3))


def test_the_paintings_themselves_are_nearer_than_noise(judge):
    ramp = torch.linspace(-1, 1, 64).expand(8, 3, 64, 64) * torch.linspace(0.2, 1, 8)[:, None, None, None]
    scorer = Scorer(judge, None, ramp)
    assert scorer(ramp).parts["kid"] < scorer(noise(8, 0)).parts["kid"]


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_every_part_is_finite_for_images_of_one_colour(judge, value):
    flat = torch.full((4, 3, 64, 64), value)
    for sources, paintings in ((flat, flat), (noise(4, 0), noise(4, 1))):
        named = Scorer(judge, sources, paintings)(flat).as_dict()
        assert all(map(math.isfinite, named.values())), named
        assert 0 <= named["default"] <= 1


def test_every_part_is_a_plain_number(judge):
    named = Scorer(judge, noise(4, 0), noise(4, 1))(noise(4, 2)).as_dict()
    assert {type(value) for value in named.values()} == {float}


def test_batches_do_not_change_the_features(judge):
    images = noise(7, 0)
    whole, parts = extract_features(judge, images), extract_features(judge, images, batch=3)
    assert torch.allclose(whole, parts, atol=1e-5) and whole.shape == (7, 512)
    assert not whole.requires_grad
