"""Ways through the space of noise that a generator makes images of."""

from collections.abc import Callable

import torch

NEIGHBOURHOOD_RADIUS = 0.25  # of the numbers in z: how far around a sum is looked (1511.06434, section 6.3.2)


def lerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """From `a` to `b`, [F] both, along a line: [T, F] at `t`, [T] from 0 to 1."""
    return torch.lerp(a, b, t[:, None])


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """As `lerp`, along a great circle: lengths stay those that noise has, where a line passes through
    the middle that noise never visits. White 2016 (1609.04468), section 2.1. Vectors of one direction
    or of opposite ones have no circle of their own: along a line, then."""
    # In double: near its ends the arc cosine would make much of float's rounding.
    angle = torch.acos(torch.cosine_similarity(a.double(), b.double(), dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return lerp(a, b, t)
    shares = torch.stack([((1 - t) * angle).sin(), (t * angle).sin()], 1) / angle.sin()
    return shares.to(a) @ torch.stack([a, b])


PATHS: dict[str, Callable] = {"linear": lerp, "spherical": slerp}


def interpolate(a: torch.Tensor, b: torch.Tensor, count: int) -> dict[str, torch.Tensor]:
    """`count` points from `a` to `b`, ends included, along each of `PATHS`: [count, F]."""
    t = torch.linspace(0, 1, count, device=a.device)
    return {name: path(a, b, t) for name, path in PATHS.items()}


def neighbourhood(z: torch.Tensor, count: int, draw: torch.Generator) -> torch.Tensor:
    """`z`, [F], and then what lies around it, up to `NEAR` away in each number: [count, F]."""
    away = (torch.rand(count, len(z), generator=draw) * 2 - 1) * NEIGHBOURHOOD_RADIUS
    away[0] = 0
    return z + away.to(z.device)
