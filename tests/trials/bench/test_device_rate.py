"""A device's rate, and that to measure it leaves no trace."""

import pytest
import torch

from trials.bench import device_rate

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_rate_is_that_of_a_product_of_matrices(precision, monkeypatch):
    monkeypatch.setitem(device_rate.EDGE, "cpu", 256)
    monkeypatch.setattr(device_rate.time, "perf_counter", iter([10.0, 12.0]).__next__)
    drawn, allowed = torch.get_rng_state(), torch.get_float32_matmul_precision()
    assert device_rate.matmul_rate(CPU, precision) == pytest.approx(device_rate.PRODUCTS * 2 * 256**3 / 2)
    multiply, flop = device_rate.matmul(CPU, precision)
    assert multiply().shape == (256, 256) and flop == 2 * 256**3
    assert multiply().dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert torch.equal(drawn, torch.get_rng_state()) and allowed == torch.get_float32_matmul_precision()
