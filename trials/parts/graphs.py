"""A training step as CUDA graphs: the GPU replays recorded kernels and does not wait for Python.

A CycleGAN step launches some two thousand kernels of a few microseconds each. Launched one by one from Python
they leave a large GPU idle most of the time. A graph launches them at once, always on the same memory: inputs
are copied there, outputs are read there, and weights and optimizer states must stay where they are.

Source: docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs".
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

WARM_UP_CALLS = 3  # eager calls before the recording, in which libraries choose and load their kernels


class Graph:
    """A function of tensors that is recorded once and then replayed.

    Args:
        function: takes tensors, and returns tensors in tuples and dicts. It must not wait for the GPU.
        inputs: tensors of the shapes, types and memory formats that all calls will have.

    Raises RuntimeError if CUDA cannot record the function.
    """

    def __init__(self, function: Callable[..., Any], *inputs: torch.Tensor):
        self._inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        self._replay, self._outputs = record(lambda: function(*self._inputs))

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """Return the function's outputs. The next call overwrites them."""
        for static, x in zip(self._inputs, inputs):
            static.copy_(x)
        self._replay()
        return self._outputs


def are_supported(device: torch.device) -> bool:
    """Return whether `device` can record graphs."""
    return device.type == "cuda"


def record(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Return a function that replays `function` on the GPU, and its outputs, valid after each replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()
    return graph.replay, outputs


@contextmanager
def state_restored(networks: list[nn.Module], optimizers: list[torch.optim.Optimizer]) -> Iterator[None]:
    """At the end of the `with` block, undo all changes of weights and optimizer states, in place.

    States that did not exist before the block become 0, with which Adam begins.
    """
    weights = [x for network in networks for x in network.state_dict(keep_vars=True).values()]
    before = {x: x.detach().clone() for x in weights + _states(optimizers)}
    try:
        yield
    finally:
        with torch.no_grad():
            for x in weights + _states(optimizers):
                x.copy_(before[x]) if x in before else x.zero_()


def _states(optimizers: list[torch.optim.Optimizer]) -> list[torch.Tensor]:
    return [x for optimizer in optimizers for state in optimizer.state.values()
            for x in state.values() if isinstance(x, torch.Tensor)]  # fmt: skip
