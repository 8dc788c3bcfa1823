"""Claims about evaluation: the metrics are right, and each row of the table is about its image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from judge import evaluation
from judge.evaluation import evaluate
from judge.images import PAINTINGS, PHOTOS, DataSet
from judge.model import CLASSES, Judge

FIGURES = ("auc", "accuracy", "brier", "calibration_error", "painting_calibration_error")


class Brightness(Judge):
    """P(painting) is an image's brightness, from 0 for black to 1 for white."""

    def __init__(self):
        nn.Module.__init__(self)
        self.size, self.classes = 16, CLASSES

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return (images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] + 1) / 2

    def painting_probability_against_photo(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, 0]


@pytest.fixture
def greys(tmp_path) -> Callable[[list[int], list[int]], DataSet]:
    """Makes test images of one grey each."""
    def make(photos: list[int], paintings: list[int]) -> DataSet:
        test = {PHOTOS: photos, PAINTINGS: paintings}
        for domain, values in test.items():
            test[domain] = [tmp_path / f"{domain}{index}.png" for index in range(len(values))]
            for path, value in zip(test[domain], values):
                Image.new("L", (16, 16), value).save(path)
        return DataSet("greys", {}, test)

    return make


def test_the_metrics_are_those_calculated_by_hand(greys):
    # The painting of 60 and the photo of 56 share a calibration bin, below 4/15 of 255.
    photos, paintings = [56, 100, 150], [204, 128, 60]
    metrics, predictions = evaluate(Brightness(), greys(photos, paintings))
    p = [value / 255 for value in photos + paintings]
    assert predictions["p_painting"].tolist() == pytest.approx(p, abs=1e-6)
    assert predictions["label"].tolist() == [0, 0, 0, 1, 1, 1]
    names = [Path(path).name for path in predictions["file"]]
    assert names == ["B0.png", "B1.png", "B2.png", "A0.png", "A1.png", "A2.png"]
    # Correctly ordered pairs: 204 before three photos, 128 before two, 60 before one.
    assert metrics["auc"] == pytest.approx(6 / 9)
    assert metrics["confusion"] == [[2, 1], [1, 2]]  # 150 is a photo called a painting; 60 the reverse
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    brier = (p[0]**2 + p[1]**2 + p[2]**2 + (1 - p[3])**2 + (1 - p[4])**2 + (1 - p[5])**2) / 6
    assert metrics["brier"] == pytest.approx(brier, abs=1e-6)
    other_bins = p[1] + p[2] + (1 - p[3]) + (1 - p[4])
    shared_bin = 2 * abs((p[0] + p[5]) / 2 - 1 / 2)
    assert metrics["painting_calibration_error"] == pytest.approx((shared_bin + other_bins) / 6, abs=1e-6)
    # Of the predicted class: 150 and 60 are predicted wrongly; 56 and 60 share the bin from 11/15.
    shared_bin = abs((1 - p[0]) + (1 - p[5]) - 1)
    assert metrics["calibration_error"] == pytest.approx((shared_bin + other_bins) / 6, abs=1e-6)
    assert metrics["counts"]["photos"] == {"images": 3, "skipped": [], "enlarged": 0}
    assert {type(metrics[name]) for name in FIGURES} == {float}


def test_a_judge_that_looks_at_compression_is_found_out(greys, monkeypatch):
    """Re-encoding stands for whatever compression does to a judge: here it darkens."""
    data = greys([56, 102, 150], [204, 128, 60])
    assert evaluate(Brightness(), data)[0]["auc_reencoded"] == pytest.approx(6 / 9)
    monkeypatch.setattr(evaluation, "reencode_jpeg", lambda image: image // 4)
    # A quarter of 204, 128 and 60 lies below every photo; a quarter of the photos below every painting.
    assert evaluate(Brightness(), data)[0]["auc_reencoded"] == 0


@pytest.mark.parametrize(("photos", "paintings", "figures", "confusion"), [
    ([0, 0], [255, 255, 255], [1, 1, 0, 0, 0], [[2, 0], [0, 3]]),  # a perfect judge
    ([10, 20], [10, 20], [0.5, 0.5], [[2, 0], [2, 0]]),  # one that calls everything a photo
])
def test_extreme_judges_have_extreme_metrics(greys, photos, paintings, figures, confusion):
    metrics, _ = evaluate(Brightness(), greys(photos, paintings))
    assert [metrics[name] for name in FIGURES[:len(figures)]] == pytest.approx(figures, abs=1e-7)
    assert metrics["confusion"] == confusion


def test_a_broken_test_image_is_counted_and_left_out(greys):
    data = greys([10, 20, 30], [200, 210])
    data.test[PHOTOS][1].write_text("not an image")
    metrics, predictions = evaluate(Brightness(), data)
    assert [Path(path).name for path in predictions["file"]] == ["B0.png", "B2.png", "A0.png", "A1.png"]
    assert predictions["label"].tolist() == [0, 0, 1, 1]
    assert len(metrics["counts"]["photos"]["skipped"]) == 1
