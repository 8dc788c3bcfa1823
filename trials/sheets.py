"""Sample sheets of generative networks."""

import torch
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

COLUMNS, ROWS = 16, 2
EDGE = 32  # pixels that an image of fewer is enlarged to


def sheet(real: torch.Tensor, made: torch.Tensor, columns: int = COLUMNS) -> torch.Tensor:
    """Real images above, what is made below, up to two rows of each: float [3, H, W] in [0, 1].

    Args:
        real, made: float [N, C, H, W] in [-1, 1], the first are shown, as many of each.
        columns: in a row.
    """
    columns = min(columns, len(real), len(made))
    count = columns * min(ROWS, len(real) // columns, len(made) // columns)
    images = torch.cat([real[:count], made[:count]])
    images = interpolate(images, scale_factor=max(1, EDGE // images.shape[-1]))
    return make_grid(images, nrow=columns, normalize=True, value_range=(-1, 1))
