"""The moving average of a generator: it makes better images than the last weights, which follow D around."""

import copy
from typing import ClassVar

import torch
from torch import nn

from trials.session import Checkpointed

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


class Averaged(Checkpointed):
    """A model with `settings.ema`, the half-life of its generators' moving averages.

    `averages` names each average and its generator. Without --ema an average is the generator itself.
    """

    averages: ClassVar = {"G_average": "G"}

    def start_averages(self) -> None:
        """Make the averages of the generators, which are there already, and keep them in checkpoints."""
        for name, generator in self.averages.items():
            setattr(self, name, average_of(getattr(self, generator), self.settings.ema))
        if self.settings.ema:
            self.parts = (*self.parts, *self.averages)

    def end_step(self) -> None:
        """Count the step, and let the averages follow the generators."""
        self.step += 1
        for name, generator in self.averages.items():
            follow(getattr(self, name), getattr(self, generator), self.settings.ema, self.step)

    def use_averages(self) -> None:
        """Put the averages in the place of the generators. Then the model cannot be trained any more."""
        for name, generator in self.averages.items():
            setattr(self, generator, getattr(self, name))
