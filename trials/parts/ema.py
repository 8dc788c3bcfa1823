"""The moving average of a generator: it makes better images than the last weights, which follow D around."""

import copy

import torch
from torch import nn

RAMP_UP = 0.05  # the half-life is at most this share of the steps so far, as in StyleGAN2-ADA (2006.06676)


def average_of(network: nn.Module, half_life: int) -> nn.Module:
    """Return a copy of `network` for its average, in eval mode; the network itself if there is to be none."""
    return copy.deepcopy(network).eval().requires_grad_(False) if half_life else network


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, half_life: int, step: int) -> None:
    """Move `average` towards `network` after a step, the `step`th: the weight of what was is halved after
    `half_life` steps. Nothing to do if both are the same.

    Also the running means of batch normalisation are averaged. Source: Yazici et al. 2019 (1806.04498),
    equation 2; in half-lives: Karras et al. 2018 (1710.10196), section 6.
    """
    if average is network:
        return
    share = 1 - 0.5 ** (1 / min(half_life, RAMP_UP * step))
    pairs = zip(average.state_dict().values(), network.state_dict().values())
    averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()))  # but counts of batches
    torch._foreach_lerp_(averages, values, share)
