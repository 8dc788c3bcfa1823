"""The pool of earlier generated images that CycleGAN shows its discriminators."""

import torch


class HistoryPool:
    """Up to `size` earlier fakes; a discriminator is shown one of them in place of every second new fake.

    Shrivastava et al. 2017 (1612.07828), section 2.3, with the swaps of CycleGAN's code.
    """

    def __init__(self, size: int):
        self.size, self.fakes = size, []

    def swap(self, fakes: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Return the new fakes [N, 3, H, W], each swapped for an earlier one with probability 0.5."""
        shown = []
        for fake in fakes:
            if len(self.fakes) < self.size:
                self.fakes.append(fake.clone())  # a view would keep the whole batch in memory
            elif self.size and torch.rand((), generator=draw) < 0.5:
                index = int(torch.randint(self.size, (), generator=draw))
                self.fakes[index], fake = fake.clone(), self.fakes[index]
            shown.append(fake)
        return torch.stack(shown)
