"""Claims about seeds: a generator is a function of its key, and of nothing else."""

from itertools import combinations

import torch

from judge.common.rng import rng


def drawn(*key: int | str) -> list[int]:
    return torch.randint(2**62, (4,), generator=rng(*key)).tolist()


def test_equal_keys_draw_equal_numbers_whatever_was_drawn_before():
    first = drawn(0, "crops", 3)
    torch.rand(7)
    torch.rand(7, generator=rng(0, "crops", 3))
    assert drawn(0, "crops", 3) == first


def test_different_keys_draw_different_numbers():
    keys = [
        (), (0,), (1,), (-1,), (1, 0), (0, 1), (1, 0, 0), (10,), (2**70,),
        ("1",), (1, "0"), ("1", 0), ("10",), ("1", "0"), ("1, 0",), ("a", "bc"), ("ab", "c"), ("",),
        (0, "augment", 1, 11), (0, "augment", 11, 1), (0, "init"), (0, "split"),
    ]
    numbers = {key: drawn(*key) for key in keys}
    for ours, theirs in combinations(keys, 2):
        assert not set(numbers[ours]) & set(numbers[theirs]), (ours, theirs)


def test_neighbouring_seeds_are_uncorrelated():
    rows = torch.stack([torch.randn(4000, generator=rng(seed, "z")) for seed in range(8)])
    off_diagonal = torch.corrcoef(rows) - torch.eye(8)
    assert off_diagonal.abs().max() < 0.08  # five standard errors


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    ours = drawn(5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert drawn(5) == ours
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_key_means_the_same_in_another_process():
    """Python's own `hash` of a string would not: it is salted in each process."""
    assert rng(0, "crops", 1).initial_seed() == 5847029909310678691
