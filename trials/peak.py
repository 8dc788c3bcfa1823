"""What share of a device's arithmetic a training reaches: of its rate in a product of large matrices."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

EDGE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the device's rate
PRODUCTS = 3  # that are timed


def product(device: torch.device, precision: str) -> tuple[Callable[[], object], int]:
    """A product of two matrices, of `bf16` or `fp32`, on `device`, and its floating-point operations."""
    edge, dtype = EDGE[device.type], torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.linspace(-1, 1, edge**2, device=device).view(edge, edge).to(dtype)
    return lambda: x @ x, 2 * edge**3


@contextmanager
def as_convolutions(device: torch.device) -> Iterator[None]:
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


def rate(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of `device` in a product of matrices; takes some tenths of one."""
    multiply, flop = product(device, precision)
    with as_convolutions(device):
        multiply()  # the first is slower
        return flop / timed(multiply, PRODUCTS, device)


def timed(work: Callable, count: int, device: torch.device) -> float:
    """Seconds a call, over `count` calls; the device is waited for at both ends only."""
    wait = torch.get_device_module(device).synchronize
    wait()
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return (time.perf_counter() - began) / count


class Progress(tqdm):
    """A bar of training steps: how many a second, and what share of the device's rate they compute at.

    Shown on a terminal only, and nothing is measured or counted where it is not shown.
    """

    def __init__(self, first: int, last: int, device: torch.device, precision: str):
        super().__init__(initial=first, total=last, unit="step", disable=None)
        self._rate = None if self.disable else rate(device, precision)
        self._flop, self._counting = None, ExitStack()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step and what follows it; the first has its arithmetic counted."""
        counter = None
        with self._counting:
            if self._rate and self._flop is None:
                counter = self._counting.enter_context(FlopCounterMode(display=False))
            yield
        if counter:
            self._flop = counter.get_total_flops()
        if self._rate and (steps := self.format_dict["rate"]):
            self.set_postfix_str(f"{steps * self._flop / self._rate:.0%} of peak", refresh=False)
        self.update()

    def computed(self) -> None:
        """The step is computed: what follows, a report perhaps, is not counted with it."""
        self._counting.close()
