"""The pool of earlier fakes that CycleGAN shows its discriminators."""


import torch


class HistoryPool:
    """Earlier fakes, shown to a discriminator in place of half of the new ones.

    Shrivastava et al. 2017 (1612.07828), section 2.3, with the swaps of CycleGAN's code.
    """

    def __init__(self, size: int):
        self.size, self.fakes = size, []

    def swap(self, fakes: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """[N, 3, H, W] of new fakes, each kept, or with probability 0.5 swapped for an older."""
        shown = []
        for fake in fakes:
            if len(self.fakes) < self.size:
                self.fakes.append(fake.clone())  # not a view, which would keep its whole batch
            elif self.size and torch.rand((), generator=draw) < 0.5:
                at = int(torch.randint(self.size, (), generator=draw))
                self.fakes[at], fake = fake.clone(), self.fakes[at]
            shown.append(fake)
        return torch.stack(shown)
