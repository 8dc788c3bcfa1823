"""What share of a device's arithmetic a training reaches: of its rate in a product of large matrices."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

EDGE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the device's rate
PRODUCTS = 3  # that are timed


def matmul(device: torch.device, precision: str) -> tuple[Callable[[], object], int]:
    """A product of two matrices, of `bf16` or `fp32`, on `device`, and its floating-point operations."""
    edge, dtype = EDGE[device.type], torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.linspace(-1, 1, edge**2, device=device).view(edge, edge).to(dtype)
    return lambda: x @ x, 2 * edge**3


@contextmanager
def tf32_as_convolutions(device: torch.device) -> Iterator[None]:
    """Products of fp32 matrices as a GPU computes convolutions of fp32: in TF32, where that is allowed."""
    if device.type != "cuda" or not torch.backends.cudnn.allow_tf32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def matmul_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of `device` in a product of matrices; takes some tenths of one."""
    multiply, flop = matmul(device, precision)
    with tf32_as_convolutions(device):
        multiply()  # the first is slower
        return flop / seconds_per_call(multiply, PRODUCTS, device)


def seconds_per_call(work: Callable, count: int, device: torch.device) -> float:
    """Seconds a call, over `count` calls; the device is waited for at both ends only."""
    wait = torch.get_device_module(device).synchronize
    wait()
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return (time.perf_counter() - began) / count
