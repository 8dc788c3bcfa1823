"""Paths through the space of noise vectors z from which a generator makes images."""

import torch

NEIGHBOURHOOD_RADIUS = 0.25  # largest change of each number in z (1511.06434, section 6.3.2)


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the points [T, F] on the great circle from `a` to `b`, [F] each, at `t`, [T] in [0, 1] (White
    2016, 1609.04468, section 2.1).

    They keep the length that noise has, while a line passes near the origin, where noise never is. For
    vectors of equal or opposite direction, which define no circle, return the line.
    """
    # In double precision: for small angles the arc cosine magnifies rounding errors.
    angle = torch.acos(torch.cosine_similarity(a.double(), b.double(), dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, t[:, None])
    shares = torch.stack([((1 - t) * angle).sin(), (t * angle).sin()], 1) / angle.sin()
    return shares.to(a) @ torch.stack([a, b])


def interpolate(a: torch.Tensor, b: torch.Tensor, count: int) -> dict[str, torch.Tensor]:
    """Return `count` points [count, F] from `a` to `b`, both included, on the line and the great circle."""
    t = torch.linspace(0, 1, count, device=a.device)
    return {"linear": torch.lerp(a, b, t[:, None]), "spherical": slerp(a, b, t)}


def neighbourhood(z: torch.Tensor, count: int, draw: torch.Generator) -> torch.Tensor:
    """Return `z`, [F], and then points that differ from it by up to `NEIGHBOURHOOD_RADIUS`: [count, F]."""
    change = (torch.rand(count, len(z), generator=draw) * 2 - 1) * NEIGHBOURHOOD_RADIUS
    change[0] = 0
    return z + change.to(z.device)
