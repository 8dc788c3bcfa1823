"""The scores of generated images of classes, and of translations between domains."""

import math

import pytest
import torch
from torch import nn

from judge.class_score import ClassScorer, TranslationScorer, class_scorer, inception_score
from judge.images import to_float
from judge.labelled import LabelledImages, load_labelled

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_labelled("digits")


@pytest.fixture(scope="module")
def scorer(digits) -> ClassScorer:
    return class_scorer(digits, CPU)[0]


def test_inception_score_is_exp_of_the_mean_kl_divergence():
    assert inception_score(torch.eye(2).double()) == pytest.approx(2)
    assert inception_score(torch.full((2, 2), 0.5).double()) == pytest.approx(1)
    p = torch.tensor([[0.9, 0.1], [0.4, 0.6]]).double()
    by_hand = sum(q * math.log(q / m) for row in p.tolist() for q, m in zip(row, (0.65, 0.35))) / 2
    assert inception_score(p) == pytest.approx(math.exp(by_hand))


def test_real_digits_score_high_and_noise_and_collapse_low(digits, scorer):
    real = to_float(digits.pixels[::3])
    noise = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert scorer(real).default > 0.85 and scorer(real).parts["coverage"] == 1
    assert scorer(noise).default < 0.3
    same = scorer(real[:1].expand(400, -1, -1, -1))
    assert same.default < 0.1 and same.parts["coverage"] == 0.1 and same.parts["confidence"] > 0.9


def test_right_is_the_share_of_the_class_asked_for_and_an_extra_for_each_class(digits, scorer):
    real, labels = to_float(digits.test_pixels), digits.test_labels
    accuracy = class_scorer(digits, CPU)[1]["accuracy"]
    assert scorer(real, labels).parts["right"] == pytest.approx(accuracy)
    assert scorer(real, (labels + 1) % 10).parts["right"] < 0.02
    right = scorer(real, torch.where(labels == 3, 4, labels)).extras
    assert right["right_0"] > 0.9 and right["right_4"] < 0.7
    shares = scorer(real).extras
    assert list(shares) == [f"class_{n}" for n in range(10)] and sum(shares.values()) == pytest.approx(1)


def test_many_copies_of_one_right_digit_of_each_class_are_not_diverse(digits, scorer):
    chosen = torch.stack([(digits.labels == label).nonzero()[0, 0] for label in range(10)]).repeat(36)
    copies = scorer(to_float(digits.pixels[chosen]), digits.labels[chosen])
    varied = scorer(to_float(digits.pixels[::4]), digits.labels[::4])
    assert copies.parts["right"] > 0.95 and copies.parts["coverage"] == 1
    assert copies.parts["diversity"] < 0.6 and varied.parts["diversity"] > 0.9


@pytest.fixture
def shades() -> tuple[TranslationScorer, torch.Tensor]:
    """Return a scorer of translations between dark and light images, classified by their mean, and these."""

    class Mean(nn.Module):
        def features(self, x):
            return torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)

        def head(self, features):
            return features

    noise = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 2
    sources = noise - labels.logical_not()[:, None, None, None].float()
    return TranslationScorer(Mean(), sources, labels, 1 - labels, ("dark", "light")), sources


def test_a_translation_is_of_the_domain_asked_for_and_keeps_its_source(shades):
    scorer, sources = shades
    lightness = torch.tensor([1.0, -1.0]).repeat(8)[:, None, None, None]
    good, same = scorer(sources + lightness), scorer(sources)
    assert good.parts["domain"] == 1 and same.parts["domain"] == 0 and same.default == 0
    assert good.parts["content"] == pytest.approx(1, abs=1e-3) and good.default > 0.8
    assert good.parts["diversity"] > 0.9 and good.parts["kid"] < same.parts["kid"]
    stranger = scorer((sources + lightness).roll(2, 0))
    assert stranger.parts["domain"] == 1 and stranger.parts["content"] < 0.1
    assert scorer(sources[:2].flip(0).repeat(8, 1, 1, 1)).parts["diversity"] < 0.2  # one image for all


def test_what_is_given_is_counted_by_what_was_asked_for(shades):
    scorer, sources = shades
    nothing_done = {"dark": {"dark": 0, "light": 8}, "light": {"dark": 8, "light": 0}}
    assert scorer.count_given(sources) == nothing_done


def test_each_domain_has_equal_weight_and_an_extra_and_default_is_combined_with_domain_for_style(shades):
    scorer, sources = shades
    score = scorer(sources.abs() * 0.9)  # all are light
    assert score.extras == {"domain_dark": 0.0, "domain_light": 1.0} and score.parts["domain"] == 0.5
    p = score.parts
    assert score.default == pytest.approx(
        p["domain"] * p["content"] ** 3 * p["diversity"] * p["clean"] / (1 + max(0, p["kid"])) ** 2)
