"""Random numbers are a function of their key, and of nothing else."""

import torch

from judge.common.rng import rng, seeded


def draw(*key: int | str) -> list[int]:
    return torch.randint(2**62, (4,), generator=rng(*key)).tolist()


def test_equal_keys_draw_equal_numbers_and_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    first, state = draw(0, "crops", 3), torch.get_rng_state()
    torch.manual_seed(2)
    torch.rand(7, generator=rng(0, "crops", 3))
    assert draw(0, "crops", 3) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seeded_block_draws_a_keys_numbers_and_restores_the_global_generator():
    before = torch.get_rng_state()
    with seeded(0, "crops", 3):
        assert torch.randint(2**62, (4,)).tolist() == draw(0, "crops", 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_are_those_of_earlier_versions():
    """Checkpoints, judges and caches depend on them."""
    assert draw(0, "crops", 3)[:2] == [3797311587207728811, 3390976231380670724]


def test_different_keys_draw_different_numbers():
    keys = [(), (0,), (1,), (-1,), (1, 0), (0, 1), (1, 0, 0), (10,), (2**70,), ("1",), (1, "0"), ("1", 0),
            ("1, 0",), ("a", "bc"), ("ab", "c"), ("",), (0, "x", 1, 11), (0, "x", 11, 1)]  # fmt: skip
    assert len({number for key in keys for number in draw(*key)}) == 4 * len(keys)
