import pytest
import torch

from trials.losses import lsgan


def test_lsgan_is_the_mean_squared_distance_to_the_label():
    prediction = torch.tensor([[0.0, 1.0], [3.0, -1.0]])
    assert lsgan(prediction, real=True).item() == pytest.approx((1 + 0 + 4 + 4) / 4)
    assert lsgan(prediction, real=False).item() == pytest.approx((0 + 1 + 9 + 1) / 4)
