"""Random numbers as a function of seed and step, as in edm2: there is no state to save or restore."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def rng(*key: int | str) -> torch.Generator:
    """Return a new CPU generator that is seeded with `key`, for example (seed, "crops", step).

    Equal keys draw equal numbers, whatever was drawn before; different keys draw independent numbers.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator with `key` for the block, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng(*key).get_state())
        yield
