"""Random views of the training images of a judge, in batches of all classes."""

import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch.nn.functional import conv2d, pad
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from judge.common.children import end_with
from judge.common.rng import seeded
from judge.corruptions import FAMILIES, between, choice, corrupt, reencode_jpeg
from judge.images import luma
from judge.model import NEITHER

SHARED_MEMORY = "/dev/shm"  # loader processes send batches through it; Docker gives a container 64 MB of it
BATCHES_PER_WORKER = 4  # in shared memory at once: two prefetched, one being made, one being read


def augment(images: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Return a random view of each image, uint8 [3, H, W], as uint8 [N, 3, size, size]; all classes alike.

    Photographs and paintings come with different compression, which a network would learn instead of style:
    so every image is resized by a random factor and re-encoded at a random quality, with or without halved
    chroma. Blur and colour shifts move a CNN from texture towards shape (Geirhos et al. 2019, 1811.12231).
    Whole batches are computed at once, apart from cropping and JPEG.
    """
    crop = v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(0.9, 1.1), antialias=True)
    views = torch.stack([crop(image) for image in images]).float()
    mirrored, blurred = torch.rand(len(views)) < 0.5, torch.rand(len(views)) < 0.2
    views[mirrored] = views[mirrored].flip(-1)
    views = jitter_colour(views)
    views[blurred] = blur(views[blurred])
    return torch.stack([reencode_jpeg(view, int(between(50, 101)), choice("4:4:4", "4:2:0"))
                        for view in views.clamp(0, 255).round().byte()])


def jitter_colour(x: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast and saturation of each image, float [N, 3, H, W], by up to 20 %, and turn
    its hue by up to 7 degrees."""
    grey = luma(x)
    colour, angle = x - grey, _draws(x, -0.126, 0.126)
    # A small rotation around the grey axis (1, 1, 1): the rolled colours are the cross product with it.
    colour = colour + angle / math.sqrt(3) * (colour.roll(1, 1) - colour.roll(2, 1))
    x = grey + _draws(x, 0.8, 1.2) * colour
    x = torch.lerp(grey.mean((2, 3), keepdim=True), x, _draws(x, 0.8, 1.2))
    return x * _draws(x, 0.8, 1.2)


def blur(x: torch.Tensor) -> torch.Tensor:
    """Blur each of float [N, 3, H, W] by 3 x 3 Gaussian weights of a deviation from 0.1 to 1 pixel."""
    side = torch.exp(-0.5 / _draws(x, 0.1, 1.0) ** 2)  # weight of a neighbour for a weight of 1 in the middle
    weights = torch.cat([side, torch.ones_like(side), side], 3) / (1 + 2 * side)  # [N, 1, 1, 3]
    kernels = (weights * weights.mT).repeat_interleave(3, 0)
    padded = pad(x, (1, 1, 1, 1), mode="reflect").flatten(0, 1)[None]
    return conv2d(padded, kernels, groups=len(kernels)).view(x.shape) if len(x) else x


def _draws(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Draw a number from [low, high) for each of N images, as [N, 1, 1, 1]."""
    return low + (high - low) * torch.rand(len(x), 1, 1, 1)


class AugmentedViews(Dataset):
    """Batches of random views, uint8 [N, 3, size, size], and their labels, [N]; equally many of each class.

    An epoch has as many views as there are photographs and paintings, in `len` batches; batches are numbered
    on from epoch to epoch. A batch is a function of seed and number, so that the number of worker processes
    does not change the judge.

    Args:
        real: photographs and paintings, uint8 [N, 3, H, W] each.
        families: of `judge.corruptions.FAMILIES`; the third class is real images corrupted by them.
            Without any there is no third class.
        neither: more images of the third class, each set with its share of the class's views.
    """

    def __init__(self, real: Sequence[torch.Tensor], size: int, batch_size: int, seed: int = 0,
                 families: Sequence[str] = tuple(FAMILIES),
                 neither: Sequence[tuple[float, torch.Tensor]] = ()):
        self.real, self.families = tuple(real), tuple(families)
        self.shares, self.neither = [share for share, _ in neither], [images for _, images in neither]
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.labels = torch.arange(sum(map(len, real))) % (NEITHER + bool(families))

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, batch = divmod(number, len(self))
        labels = self.labels[batch * self.batch_size : (batch + 1) * self.batch_size]
        with seeded(self.seed, "augment", epoch, batch):
            return self._views(labels), labels

    def _views(self, labels: torch.Tensor) -> torch.Tensor:
        limits = torch.tensor(self.shares).cumsum(0)
        source = torch.bucketize(torch.rand(labels.shape), limits, right=True)  # after the last: corrupted
        corrupted = (labels == NEITHER) & (source == len(self.neither))
        source = torch.where(labels == NEITHER, NEITHER + source, labels)
        source[corrupted] = torch.randint(NEITHER, (int(corrupted.sum()),))
        images = [*self.real, *self.neither]
        views = augment([self._draw(images[number]) for number in source.tolist()], self.size)
        for row in corrupted.nonzero()[:, 0].tolist():
            views[row] = corrupt(views[row], choice(*self.real), self.families)
        return views

    def _draw(self, images: torch.Tensor) -> torch.Tensor:
        return images[int(torch.randint(len(images), ()))]


def load_batches(views: AugmentedViews, epochs: int, device: torch.device, workers: int) -> DataLoader:
    """Return the batches of all epochs, made by so many processes."""
    return DataLoader(views, batch_size=None, sampler=range(epochs * len(views)), num_workers=workers,
                      pin_memory=device.type == "cuda", worker_init_fn=partial(end_with, os.getpid()))


def loader_workers(views: AugmentedViews, device: torch.device) -> int:
    """Return the number of processes that make batches: for a GPU up to 8, as shared memory has room."""
    if device.type != "cuda":
        return 0  # the images are in memory: processes only help where a GPU waits for the augmentation
    wanted, free = min(8, torch.get_num_threads()), shutil.disk_usage(SHARED_MEMORY).free
    # Processes that are not forked get the images through shared memory, too.
    pools = (*views.real, *views.neither)
    images = 0 if multiprocessing.get_start_method() == "fork" else sum(x.nbytes for x in pools)
    batch = views.batch_size * 3 * views.size**2
    workers = max(0, min(wanted, (free - images) // (BATCHES_PER_WORKER * batch)))
    if workers < wanted:
        print(f"{workers} processes prepare images instead of {wanted}: {SHARED_MEMORY} has only "
              f"{free / 1e6:.0f} MB free (docker run --shm-size gives more)", file=sys.stderr)
    return workers
