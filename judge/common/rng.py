"""Random numbers as a function of seed and step, as in edm2: there is no state to save or restore."""

import hashlib

import torch


def rng(*key: int | str) -> torch.Generator:
    """Return a new CPU generator that is seeded with `key`, for example (seed, "crops", step).

    Equal keys draw equal numbers, whatever was drawn before; different keys draw independent numbers.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
