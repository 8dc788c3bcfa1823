"""Time per call of a function, and the matrix product that stands for a device's peak rate."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns; large enough to reach the device's full rate


def matmul(device: torch.device, precision: str) -> tuple[Callable[[], torch.Tensor], int]:
    """Return a function that multiplies two square matrices of `bf16` or `fp32`, and its number of
    floating-point operations."""
    size, dtype = MATRIX_SIZE[device.type], torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.linspace(-1, 1, size**2, device=device).view(size, size).to(dtype)
    return lambda: x @ x, 2 * size**3


@contextmanager
def tf32_as_convolutions(device: torch.device) -> Iterator[None]:
    """Let fp32 matrix products use TF32 if fp32 convolutions may: PyTorch's defaults for the two differ."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def seconds_per_call(function: Callable, count: int, device: torch.device) -> float:
    """Return the mean time of `count` calls; wait for the device before the first and after the last only."""
    synchronize = torch.get_device_module(device).synchronize
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        function()
    synchronize()
    return (time.perf_counter() - start) / count
