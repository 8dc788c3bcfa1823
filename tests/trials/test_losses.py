import pytest
import torch

from trials.losses import bce, lsgan


def test_lsgan_is_the_mean_squared_distance_to_the_label():
    prediction = torch.tensor([[0.0, 1.0], [3.0, -1.0]])
    assert lsgan(prediction, real=True).item() == pytest.approx((1 + 0 + 4 + 4) / 4)
    assert lsgan(prediction, real=False).item() == pytest.approx((0 + 1 + 9 + 1) / 4)


def test_bce_is_minus_the_log_of_the_probability_of_what_is_asked():
    logits = torch.tensor([0.0, 2.0])  # probabilities 0.5 and 0.8808
    assert bce(logits, real=True).item() == pytest.approx((0.693147 + 0.126928) / 2, abs=1e-5)
    assert bce(logits, real=False).item() == pytest.approx((0.693147 + 2.126928) / 2, abs=1e-5)
