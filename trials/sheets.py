"""Sample sheets of generative networks."""

import torch
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

COLUMNS, ROWS = 16, 2
EDGE = 32  # pixels that an image of fewer is enlarged to


def sheet(real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Real images above, what is made below, two rows of sixteen each: float [3, H, W] in [0, 1].

    Args:
        real, made: float [N, C, H, W] in [-1, 1], the first are shown.
    """
    count = COLUMNS * ROWS
    images = torch.cat([real[:count], made[:count]])
    times = max(1, EDGE // images.shape[-1])
    return make_grid(interpolate(images, scale_factor=times), nrow=COLUMNS, normalize=True, value_range=(-1, 1))
