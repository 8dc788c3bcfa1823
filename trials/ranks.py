"""Several processes as one trial, a GPU each, started by torchrun:

    torchrun --nproc-per-node 4 -m trials.cyclegan --batch-size 4

The first is the trial: it alone reports, saves and knows the engine. The others follow its word step by
step, and every process computes its slice of each batch, which is a function of (seed, step). What one
process would compute over the batch is made of the slices: means by averaging, pools by gathering.
Started without torchrun, a trial is the only process, and all of this is nothing.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from judge.command import UserError

RANK, COUNT = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # torchrun's names


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Among the other processes, from meeting them on; each takes the GPU of its number on this machine."""
    if COUNT == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if RANK:  # torchrun signals all of them: the first says when it ends
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        dist.destroy_process_group()  # or gloo's threads abort the interpreter as it ends, one in eight


def check(batch_size: int) -> None:
    """Slices of a batch are equal, or means of their means would not be the batch's.

    Raises:
        UserError: the batch cannot be divided so.
    """
    if batch_size % COUNT:
        raise UserError(f"--batch-size {batch_size} cannot be shared by {COUNT} processes: "
                        f"take a multiple of {COUNT}")


# ---------------------------------------------------------------------------------------------
# The first's word


def tell(word: Any) -> Any:
    """What the first process says, to all; the others' own is of no account. Does not wait for a GPU."""
    words = [word]
    if COUNT > 1:
        dist.broadcast_object_list(words, src=0, device=torch.device("cpu"))
    return words[0]


def followed(model: Any, device: torch.device) -> Iterator[None]:
    """The steps that the first process takes until it ends; `model` goes on from its checkpoint."""
    while word := tell(None):
        if word is True:
            yield
        else:
            model.load_state_dict(torch.load(word, map_location=device, weights_only=True))


# ---------------------------------------------------------------------------------------------
# A batch in slices


def own(batch: torch.Tensor) -> torch.Tensor:
    """This process's slice of `batch`, [N, ...] to [N / COUNT, ...]."""
    return batch.chunk(COUNT)[RANK]


def whole(part: torch.Tensor) -> torch.Tensor:
    """The batch of which each process has the slice `part`: `own` the other way round."""
    if COUNT == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(COUNT)]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over the processes, element by element."""
    if COUNT == 1:
        return values
    values = values.detach() / COUNT
    dist.all_reduce(values)
    return values


def average_gradients(*networks: nn.Module) -> None:
    """Give every process the gradients of the mean loss: one message for all of them."""
    if COUNT == 1:
        return
    gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    if gradients:
        flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))
