"""Training batches as a function of (seed, step), and the test images of a data set of two domains."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import PAINTINGS, PHOTOS, DataSet, Images, load_images, to_float
from judge.score import MIN_IMAGES

LOAD_SIZE, CROP_SIZE = 286, 256  # pixels: the published pipeline resizes and then crops; so do other sizes
GPU_SHARE = 0.25  # of a GPU's free memory; training images that take more stay in the CPU's memory


@dataclass(frozen=True)
class Domain:
    """Training images of one domain."""

    pixels: torch.Tensor  # uint8 [N, 3, L, L] on any device; L is size x 286 / 256
    size: int  # side of the crops in pixels
    name: str  # A or B; the two have different random crops
    defines_epoch: bool  # the larger domain does: an epoch is a pass over it
    counts: dict  # of images read and skipped, for run.json
    device: torch.device | None = None  # on which `batch` returns crops; None is that of the pixels

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
        return to_float(send(torch.stack(crops), self.device or self.pixels.device))


def send(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `pixels` on `device`, without waiting for what a GPU is computing."""
    if pixels.device == device or device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


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
    loaded = {name: load_images(data.train[name], load_size(size)) for name in (PAINTINGS, PHOTOS)}
    larger = max(loaded, key=lambda name: len(loaded[name].paths))
    placed = place([images.pixels for images in loaded.values()], device)
    return tuple(Domain(pixels, size, name, name == larger, images.counts(), device)
                 for pixels, (name, images) in zip(placed, loaded.items()))


def load_size(size: int) -> int:
    """Return the side of the training images that crops of `size` pixels are cut from."""
    return round(size * LOAD_SIZE / CROP_SIZE)


def place(tensors: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return training images on `device` if they fit there (`GPU_SHARE`), else as they are; print which."""
    count, free = sum(pixels.nbytes for pixels in tensors), free_memory(device)
    amount = f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
    if free is None:
        print(f"images: {amount} in memory")
        return tensors
    if count > GPU_SHARE * free:
        print(f"images: {amount} in memory, sent at each step: the GPU has {free / 1e9:.2g} GB free")
        return tensors
    print(f"images: {amount} on the GPU")
    return [pixels.to(device) for pixels in tensors]


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU; None for a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


@dataclass(frozen=True)
class HeldOut:
    """Test images of both domains, not cropped."""

    paintings: torch.Tensor  # uint8 [M, 3, size, size] on the CPU: only their features are needed, once
    photos: torch.Tensor  # float [N, 3, size, size] in [-1, 1], evenly spread over the test folder
    counts: dict  # of images read and skipped, for run.json


def load_held_out(data: DataSet, size: int, photos: int, device: torch.device) -> HeldOut:
    """Return the test paintings, and `photos` of the test photographs, or all if there are fewer."""
    paintings, sources = (
        load_enough(paths, size) for paths in (data.test[PAINTINGS], held_out_photos(data, photos)))
    return HeldOut(
        paintings.pixels, to_float(sources.pixels).to(device),
        {"paintings": paintings.counts(), "photos": sources.counts()},
    )  # fmt: skip


def load_enough(paths: list[Path], size: int) -> Images:
    """Return `load_images`. Raises UserError, before training, if too few of them can be read for a score."""
    loaded = load_images(paths, size)
    if len(loaded.paths) < min(MIN_IMAGES, len(paths)):
        raise UserError(f"{paths[0].parent}: {len(loaded.paths)} of {len(paths)} test images can be read, a "
                        f"score needs at least {MIN_IMAGES}")
    return loaded


def held_out_photos(data: DataSet, count: int) -> list[Path]:
    """Return the files of `count` test photographs, evenly spread, or of all if there are fewer."""
    files = data.test[PHOTOS]
    count = min(count, len(files))
    return [files[i * len(files) // count] for i in range(count)]
