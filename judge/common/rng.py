"""Randomness as a function of a seed and a place, as in edm2: nothing to save, nothing to restore."""

import hashlib

import torch


def rng(*key: int | str) -> torch.Generator:
    """A fresh CPU generator for `key`, for example (seed, "crops", step).

    Equal keys draw equal numbers, whatever was drawn before; different ones independent numbers.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
