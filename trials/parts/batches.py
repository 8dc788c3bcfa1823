"""Training batches as a function of (seed, step), and the test images of a data set of two domains."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from judge.common.rng import rng
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images, to_float

LOAD_SIZE, CROP_SIZE = 286, 256  # pixels: the published pipeline resizes and then crops; so do other sizes


@dataclass(frozen=True)
class Domain:
    """Training images of one domain."""

    pixels: torch.Tensor  # uint8 [N, 3, L, L] on the device that trains; L is size x 286 / 256
    size: int  # side of the crops in pixels
    name: str  # A or B; the two have different random crops
    defines_epoch: bool  # the larger domain does: an epoch is a pass over it
    counts: dict  # of images read and skipped, for run.json

    def batch(self, seed: int, step: int, count: int) -> torch.Tensor:
        """Return random crops for a `step` (from 0), float [count, 3, size, size] in [-1, 1], mirrored with
        probability 0.5. The smaller domain is sampled with replacement, as in the published loader."""
        if self.defines_epoch:
            indices = epoch_indices(seed, self.name, step, count, len(self.pixels))
        else:
            draw = rng(seed, "order", self.name, step)
            indices = torch.randint(len(self.pixels), (count,), generator=draw).tolist()
        draw = rng(seed, "views", self.name, step)
        margin = self.pixels.shape[-1] - self.size + 1
        corners = torch.randint(margin, (count, 2), generator=draw).tolist()
        mirrored = (torch.rand(count, generator=draw) < 0.5).tolist()
        crops = [
            self.pixels[i, :, y : y + self.size, x : x + self.size].flip(-1 if flip else ())
            for i, (y, x), flip in zip(indices, corners, mirrored)
        ]
        return to_float(torch.stack(crops))


def epoch_indices(seed: int, name: str, step: int, count: int, total: int) -> list[int]:
    """Return the indices, below `total`, of the images of step `step` (from 0): each image once an epoch."""
    positions = range(step * count, (step + 1) * count)
    return [epoch_order(seed, name, p // total, total)[p % total] for p in positions]


@lru_cache(maxsize=2)  # a batch may span two epochs
def epoch_order(seed: int, name: str, epoch: int, total: int) -> list[int]:
    """Return the indices of the domain `name` in the order of `epoch`."""
    return torch.randperm(total, generator=rng(seed, "order", name, epoch)).tolist()


def load_unpaired(data: DataSet, size: int, device: torch.device) -> tuple[Domain, Domain]:
    """Return the training images of `data` for crops of `size` pixels: paintings, photographs."""
    load_size = round(size * LOAD_SIZE / CROP_SIZE)
    loaded = {name: load_images(data.train[name], load_size) for name in (PAINTINGS, PHOTOS)}
    larger = max(loaded, key=lambda name: len(loaded[name].paths))
    return tuple(Domain(images.pixels.to(device), size, name, name == larger, images.counts())
                 for name, images in loaded.items())  # fmt: skip


@dataclass(frozen=True)
class HeldOut:
    """Test images of both domains, not cropped."""

    paintings: torch.Tensor  # float [M, 3, size, size] in [-1, 1]
    photos: torch.Tensor  # float [N, 3, size, size] in [-1, 1], evenly spread over the test folder
    counts: dict  # of images read and skipped, for run.json


def load_held_out(data: DataSet, size: int, photos: int, device: torch.device) -> HeldOut:
    """Return the test paintings, and `photos` of the test photographs, or all if there are fewer."""
    files = data.test[PHOTOS]
    count = min(photos, len(files))
    chosen = [files[i * len(files) // count] for i in range(count)]
    paintings, sources = load_images(data.test[PAINTINGS], size), load_images(chosen, size)
    return HeldOut(
        to_float(paintings.pixels).to(device), to_float(sources.pixels).to(device),
        {"paintings": paintings.counts(), "photos": sources.counts()},
    )  # fmt: skip
