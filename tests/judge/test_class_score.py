"""Images by class, and the classifier that scores what pretends to be of them."""

import math

import pytest
import torch
from torch import nn
from torchvision.utils import save_image

from judge import class_score, classifier
from judge.class_score import ClassScorer, TranslationScorer, inception_score
from judge.classifier import load_or_train
from judge.common.errors import UserError
from judge.images import to_float
from judge.labelled import LabelledImages, load_domains, load_labelled

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_labelled("digits")


@pytest.fixture(scope="module")
def scorer(digits) -> ClassScorer:
    return class_score.class_scorer(digits, CPU)[0]


def test_the_built_in_digits_are_parted_and_none_is_in_both(digits):
    assert digits.shape == (1, 8, 8) and digits.stand_in
    assert (len(digits.pixels), len(digits.test_pixels)) == (1437, 360)
    assert digits.pixels.max() == 255 and set(digits.test_labels.tolist()) == set(range(10))
    train = {image.numpy().tobytes() for image in digits.pixels}
    assert sum(image.numpy().tobytes() in train for image in digits.test_pixels) == 0


def test_a_folder_has_a_class_for_each_subfolder_and_every_tenth_image_is_held_out(tmp_path):
    for name, level in (("apples", 0.2), ("pears", 0.8)):
        (tmp_path / name).mkdir()
        for number in range(20):
            save_image(torch.full((3, 20, 20), level), tmp_path / name / f"{number:02}.png")
    data = load_labelled(str(tmp_path), 16)
    assert data.classes == ("apples", "pears") and data.shape == (3, 16, 16)
    assert data.labels.tolist() == [0] * 18 + [1] * 18 and data.test_labels.tolist() == [0, 0, 1, 1]
    assert data.pixels[0].unique().item() == 51 and data.pixels[-1].unique().item() == 204


def test_a_folder_without_subfolders_is_one_class_and_of_domains_the_paintings(tmp_path, sample_data):
    for number in range(40):
        save_image(torch.rand(3, 20, 20), tmp_path / f"{number}.png")
    assert load_labelled(str(tmp_path), 16).classes == (tmp_path.name,)
    paintings = load_labelled(str(sample_data), 64)
    assert (len(paintings.classes), len(paintings.pixels), len(paintings.test_pixels)) == (1, 12, 8)


@pytest.mark.parametrize("data", ["/nowhere", "nothing-of-this-name"])
def test_data_that_is_not_there_is_one_line(data):
    with pytest.raises(UserError, match="no data folder"):
        load_labelled(data, 64)


def test_the_classifier_knows_digits_it_never_saw_and_is_trained_once(digits, monkeypatch):
    trained = load_or_train(digits, CPU)
    assert trained.accuracy >= 0.97
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("trained again"))
    again = load_or_train(digits, CPU)
    assert again.accuracy == trained.accuracy
    assert all(a.equal(b) for a, b in zip(again.network.parameters(), trained.network.parameters()))


def test_inception_is_the_formula():
    """exp E KL(p(y|x) || p(y)), by hand: two sure of two classes, and two that know nothing."""
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


def test_right_is_the_share_in_the_class_asked_for(digits, scorer):
    real, labels = to_float(digits.test_pixels), digits.test_labels
    assert scorer(real, labels).parts["right"] == pytest.approx(load_or_train(digits, CPU).accuracy)
    assert scorer(real, (labels + 1) % 10).parts["right"] < 0.02


def test_many_copies_of_one_digit_of_each_class_are_not_diverse(digits, scorer):
    """All are of the class asked for, and all classes are there."""
    chosen = torch.stack([(digits.labels == label).nonzero()[0, 0] for label in range(10)]).repeat(36)
    copies = scorer(to_float(digits.pixels[chosen]), digits.labels[chosen])
    varied = scorer(to_float(digits.pixels[::4]), digits.labels[::4])
    assert copies.parts["right"] > 0.95 and copies.parts["coverage"] == 1
    assert copies.parts["diversity"] < 0.6 and varied.parts["diversity"] > 0.9


def test_facts_are_the_shares_of_classes_or_what_is_right_in_each(digits, scorer):
    real, labels = to_float(digits.test_pixels), digits.test_labels
    shares = scorer(real).extras
    assert list(shares) == [f"class_{n}" for n in range(10)] and sum(shares.values()) == pytest.approx(1)
    right = scorer(real, torch.where(labels == 3, 4, labels)).extras
    assert right["right_0"] > 0.9 and right["right_4"] < 0.7


def test_too_few_test_images_are_refused(tmp_path):
    for number in range(10):
        save_image(torch.rand(3, 20, 20), tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="1 test images, a score takes at least 4"):
        load_labelled(str(tmp_path), 16)


# ---------------------------------------------------------------------------------------------
# Translations


def test_domains_are_subfolders_or_paintings_and_photos_and_one_is_refused(tmp_path, sample_data):
    both = load_domains(str(sample_data), 32)
    assert both.classes == ("paintings", "photos") and both.stand_in
    assert both.labels.tolist() == [0] * 12 + [1] * 12 and both.test_labels.tolist() == [0] * 8 + [1] * 8
    assert load_labelled(str(sample_data), 32).classes == (sample_data.name,)
    for name in ("apples", "pears", "plums"):
        (tmp_path / name).mkdir()
        for number in range(40):
            save_image(torch.rand(3, 32, 32), tmp_path / name / f"{number:02}.png")
    assert load_domains(str(tmp_path), 32).classes == ("apples", "pears", "plums")
    with pytest.raises(UserError, match="has one domain"):
        load_domains(str(tmp_path / "pears"), 32)


@pytest.fixture
def shades() -> tuple[TranslationScorer, torch.Tensor]:
    """Dark and light images whose domain is told by their mean, and what scores their translations."""

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


def test_each_domain_is_worth_as_much_and_is_a_fact(shades):
    scorer, sources = shades
    score = scorer(sources.abs())  # all are light
    assert score.extras == {"domain_dark": 0.0, "domain_light": 1.0} and score.parts["domain"] == 0.5


def test_one_image_for_every_source_is_not_diverse(shades):
    scorer, sources = shades
    assert scorer(sources[:2].flip(0).repeat(8, 1, 1, 1)).parts["diversity"] < 0.2


def test_the_score_of_translations_is_combined_with_domain_for_style(shades):
    scorer, sources = shades
    score = scorer(sources.abs() * 0.9)
    p = score.parts
    assert score.default == pytest.approx(
        p["domain"] * p["content"] ** 3 * p["diversity"] * p["clean"] / (1 + max(0, p["kid"])) ** 2)
