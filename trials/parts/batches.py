"""Batches as a function of (seed, step): of two unpaired domains, and passes over any images."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from judge.common.rng import rng
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images, to_float

LOAD_SIZE, CROP_SIZE = 286, 256  # the published pipeline resizes to 286 and cuts 256 out, at every size alike


@dataclass(frozen=True)
class Domain:
    """Training images of one domain, kept as bytes on the device that trains."""

    pixels: torch.Tensor
    """uint8 [N, 3, L, L], L the size times 286/256."""
    size: int
    """Edge of the crops, in pixels."""
    name: str
    """A or B: the two draw different crops."""
    defines_epoch: bool
    """Whether this is the larger domain, whose passes are the epochs."""
    counts: dict
    """What was read and what was not, for `run.json`."""

    def batch(self, seed: int, step: int, count: int) -> torch.Tensor:
        """The images of training step `step` (from 0), float [count, 3, size, size] in [-1, 1].

        Random crop and flip of each. The larger domain shows every image once an epoch, the
        smaller is sampled at random beside it, as the published loader does; a plain `zip` of
        the two would drop most of the larger.
        """
        draw = rng(seed, "views", self.name, step)
        margin = self.pixels.shape[-1] - self.size + 1
        at = torch.randint(margin, (count, 2), generator=draw).tolist()
        flip = (torch.rand(count, generator=draw) < 0.5).tolist()
        views = [
            self.pixels[i, :, y : y + self.size, x : x + self.size].flip(-1 if flipped else ())
            for i, (y, x), flipped in zip(self._indices(seed, step, count), at, flip)
        ]
        return to_float(torch.stack(views))

    def _indices(self, seed: int, step: int, count: int) -> list[int]:
        if not self.defines_epoch:
            draw = rng(seed, "order", self.name, step)
            return torch.randint(len(self.pixels), (count,), generator=draw).tolist()
        return epoch_indices(seed, self.name, step, count, len(self.pixels))


def epoch_indices(seed: int, name: str, step: int, count: int, total: int) -> list[int]:
    """Which of `total` images step `step` (from 0) shows: every image once an epoch."""
    positions = range(step * count, (step + 1) * count)
    return [epoch_order(seed, name, p // total, total)[p % total] for p in positions]


@lru_cache(maxsize=2)  # a batch may end one epoch and begin the next
def epoch_order(seed: int, name: str, epoch: int, total: int) -> list[int]:
    """The images of the domain `name` in the order in which `epoch` shows them."""
    return torch.randperm(total, generator=rng(seed, "order", name, epoch)).tolist()


def load_unpaired(data: DataSet, size: int, device: torch.device) -> tuple[Domain, Domain]:
    """The training images of `data` for crops of `size` pixels: paintings, photographs.

    Raises:
        UserError: a domain's images cannot be read.
    """
    loaded = {name: load_images(data.train[name], round(size * LOAD_SIZE / CROP_SIZE)) for name in (PAINTINGS, PHOTOS)}
    larger = max(loaded, key=lambda name: len(loaded[name].paths))
    paintings, photos = (
        Domain(found.pixels.to(device), size, name, name == larger, found.counts())
        for name, found in loaded.items()
    )
    return paintings, photos


@dataclass(frozen=True)
class HeldOut:
    """Test images of both domains, whole."""

    paintings: torch.Tensor
    """float [M, 3, size, size] in [-1, 1]."""
    photos: torch.Tensor
    """float [N, 3, size, size] in [-1, 1], evenly spread over the test folder."""
    counts: dict


def load_held_out(data: DataSet, size: int, photos: int, device: torch.device) -> HeldOut:
    """The test paintings, and `photos` of the test photographs (all, if there are fewer).

    Raises:
        UserError: a domain's images cannot be read.
    """
    files = data.test[PHOTOS]
    count = min(photos, len(files))
    chosen = [files[i * len(files) // count] for i in range(count)]
    paintings, sources = load_images(data.test[PAINTINGS], size), load_images(chosen, size)
    return HeldOut(
        to_float(paintings.pixels).to(device), to_float(sources.pixels).to(device),
        {"paintings": paintings.counts(), "photos": sources.counts()},
    )  # fmt: skip
