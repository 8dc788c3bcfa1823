"""Claims about the score: each part has the value that its name promises, and is always finite."""

import math
import warnings
from pathlib import Path

import pytest
import torch

from judge import model
from judge.command import UserError
from judge.score import Score, Scorer, features_of, kernel_distance, luminance_correlation


@pytest.fixture(scope="module")
def judge(judge_file: Path) -> model.Judge:
    return model.load(judge_file)[0]


def noise(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Images [N, 3, size, size] in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def normal(rows: int, seed: int, dimensions: int = 64) -> torch.Tensor:
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------
# Luminance


def test_luminance_is_one_for_equal_images_and_minus_one_for_inverted_ones():
    images = noise(3, 0)
    assert luminance_correlation(images, images).tolist() == pytest.approx([1, 1, 1])
    assert luminance_correlation(images, -images).tolist() == pytest.approx([-1, -1, -1])


def test_luminance_ignores_brightness_and_contrast():
    images = noise(3, 0)
    assert luminance_correlation(images * 0.3 + 0.5, images).tolist() == pytest.approx([1, 1, 1])


def test_luminance_of_a_small_case_is_what_numbers_on_paper_give():
    grey = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [2.0, 4.0]]])  # corr of these: 0.8
    images, sources = (x.expand(1, 3, 2, 2) for x in grey)
    assert luminance_correlation(images, sources).tolist() == pytest.approx([0.8])


def test_luminance_weighs_green_over_red_over_blue():
    ramp = torch.linspace(-1, 1, 16).view(4, 4)
    images = torch.zeros(3, 3, 4, 4)
    for channel in range(3):
        images[channel, channel] = ramp
        images[channel, (channel + 1) % 3] = -ramp  # R-G, G-B, B-R
    assert luminance_correlation(images, ramp.expand(3, 3, 4, 4)).tolist() == pytest.approx([-1, 1, -1])


@pytest.mark.parametrize("size", [64, 63])
def test_luminance_of_one_grey_is_zero_also_to_another_grey(size):
    """0.1 is not a binary fraction: the mean of equal pixels need not equal the pixels."""
    flat = torch.tensor([0.1, -0.37, 0.83])[:, None, None, None].expand(3, 3, size, size)
    for sources in (noise(3, 0, size), flat, flat.flip(0), torch.zeros(3, 3, size, size)):
        assert luminance_correlation(flat, sources).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_luminance_is_per_image():
    images, sources = noise(2, 0), noise(2, 0)
    sources[1] = -sources[1]
    assert luminance_correlation(images, sources).tolist() == pytest.approx([1, -1])


def test_luminance_keeps_in_bounds():
    images = noise(50, 1)
    assert luminance_correlation(images, images).max() <= 1 + 1e-12


def test_another_number_of_images_than_sources_is_refused(judge):
    with pytest.raises(UserError, match="^5 images for 4 sources: "):
        Scorer(judge, noise(4, 0), None)(noise(5, 0))


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
    distance, error = kernel_distance(normal(80, 2 * seed), normal(80, 2 * seed + 1))
    assert 0 < error and abs(distance) < 3 * error


def test_a_shifted_distribution_is_clearly_apart_and_further_when_shifted_further():
    near, far = (kernel_distance(normal(80, 0) + shift, normal(80, 1)) for shift in (0.5, 1.0))
    assert near[0] > 5 * near[1] and far[0] > near[0] + 5 * (near[1] + far[1])


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_the_distance_is_the_one_in_the_paper_within_its_error(shift):
    ours, real = normal(100, 0) + shift, normal(60, 1)
    distance, error = kernel_distance(ours, real)
    assert distance == pytest.approx(unbiased(ours, real), abs=3 * error)


def test_the_distance_is_equal_each_time_and_leaves_the_global_generator_alone():
    first = kernel_distance(normal(30, 0), normal(40, 1))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert kernel_distance(normal(30, 0), normal(40, 1)) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gpus_generators_are_left_alone_too(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(5)
    assert seeded == [5], "torch seeds GPUs in another way now: this test no longer sees it"
    kernel_distance(normal(30, 0), normal(40, 1))
    assert seeded == [5]


def test_the_distance_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel_distance(normal(10, 0), normal(10, 1))


@pytest.mark.parametrize(("ours", "real"), [(1, 9), (2, 9), (3, 9), (9, 3)])
def test_too_few_images_for_a_distance_are_refused_in_one_line(ours, real):
    with pytest.raises(UserError, match="at least 4"):
        kernel_distance(normal(ours, 0), normal(real, 1))


def test_four_images_are_enough_for_a_distance():
    assert all(map(math.isfinite, kernel_distance(normal(4, 0), normal(4, 1))))


# ---------------------------------------------------------------------------------------------
# The score


def test_style_is_the_mean_probability_of_a_painting(judge):
    images = noise(6, 0)
    expected = torch.softmax(judge(images) / judge.temperature, 1)[:, 1].mean().item()
    assert judge.classes[1] == "painting"
    assert Scorer(judge, None, None)(images).parts == {"style": pytest.approx(expected)}


def test_default_comes_first_and_is_the_style(judge):
    named = Scorer(judge, noise(4, 0), noise(4, 1))(noise(4, 2)).named()
    assert list(named) == ["default", "style", "luminance", "kid", "kid_error"]
    assert named["default"] == named["style"]


def test_named_keeps_every_part():
    assert Score(0.5, {"b": 1.0, "a": 2.0}).named() == {"default": 0.5, "b": 1.0, "a": 2.0}


def test_parts_that_nothing_is_known_for_are_left_out(judge):
    assert set(Scorer(judge, noise(4, 0), None)(noise(4, 1)).parts) == {"style", "luminance"}
    assert set(Scorer(judge, None, noise(4, 0))(noise(4, 1)).parts) == {"style", "kid", "kid_error"}


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
        named = Scorer(judge, sources, paintings)(flat).named()
        assert all(map(math.isfinite, named.values())), named
        assert named["luminance"] == pytest.approx(0, abs=1e-6)


def test_every_part_is_a_plain_number(judge):
    named = Scorer(judge, noise(4, 0), noise(4, 1))(noise(4, 2)).named()
    assert {type(value) for value in named.values()} == {float}


def test_batches_do_not_change_the_features(judge):
    images = noise(7, 0)
    whole, parts = features_of(judge, images), features_of(judge, images, batch=3)
    assert torch.allclose(whole, parts, atol=1e-5) and whole.shape == (7, 512)
    assert not whole.requires_grad
