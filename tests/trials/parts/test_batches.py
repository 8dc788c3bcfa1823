"""Batches are a function of (seed, step), and drawn as the recipe says."""

import pytest
import torch

from judge.images import find_dataset
from trials.parts.batches import Domain, load_held_out, load_unpaired


def domain(count: int, leads: bool, name: str = "B") -> Domain:
    """Images that are all of their own number."""
    numbers = torch.arange(count, dtype=torch.uint8)[:, None, None, None]
    return Domain(numbers.expand(count, 3, 9, 9).contiguous(), 8, name, leads, {})


def numbers(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_an_epoch_shows_every_image_of_the_larger_domain_once(batch):
    photos = domain(6, leads=True)
    for epoch in range(2):
        steps = range(epoch * 6 // batch, (epoch + 1) * 6 // batch)
        seen = [n for step in steps for n in numbers(photos.batch(0, step, batch))]
        assert sorted(seen) == list(range(6))


def test_epochs_come_in_different_orders():
    photos = domain(50, leads=True)
    first, second = (numbers(photos.batch(0, step, 50)) for step in (0, 1))
    assert first != second


def test_the_smaller_domain_is_sampled_beside_it():
    paintings = domain(5, leads=False)
    seen = [numbers(paintings.batch(0, step, 1))[0] for step in range(200)]
    assert set(seen) == set(range(5))
    assert sorted(seen[:5]) != sorted(seen[5:10])  # with replacement, not in passes


def test_a_batch_depends_on_seed_and_step_alone():
    photos = domain(20, leads=True)
    again = photos.batch(3, 7, 2)
    photos.batch(3, 8, 2)
    assert photos.batch(3, 7, 2).equal(again)
    assert not photos.batch(4, 7, 2).equal(again)


def test_crops_vary_in_place_and_direction():
    ramp = torch.arange(12, dtype=torch.uint8).expand(1, 3, 12, 12).contiguous()
    photos = Domain(ramp, 8, "B", True, {})
    rows = {tuple(photos.batch(0, step, 1)[0, 0, 0].tolist()) for step in range(100)}
    assert len(rows) == 10  # five places, two directions


def test_the_two_domains_are_cropped_differently():
    ramp = torch.arange(144, dtype=torch.uint8).reshape(1, 1, 12, 12).expand(1, 3, 12, 12).contiguous()
    a, b = (Domain(ramp, 8, name, True, {}) for name in "AB")
    assert any(not a.batch(0, step, 1).equal(b.batch(0, step, 1)) for step in range(5))


def test_unpaired_reads_both_domains_a_little_larger_than_the_crops(sample_data):
    paintings, photos = load_unpaired(find_dataset(str(sample_data)), 64, torch.device("cpu"))
    assert paintings.pixels.shape[1:] == photos.pixels.shape[1:] == (3, 72, 72)  # 64 x 286 / 256
    assert paintings.defines_epoch != photos.defines_epoch
    assert photos.batch(0, 0, 3).shape == (3, 3, 64, 64)
    assert photos.batch(0, 0, 3).abs().max() <= 1


def test_held_out_photographs_are_as_many_as_asked_or_all(sample_data):
    data = find_dataset(str(sample_data))
    assert len(load_held_out(data, 64, 3, torch.device("cpu")).photos) == 3
    assert len(load_held_out(data, 64, 100, torch.device("cpu")).photos) == 8


def test_held_out_photographs_are_spread_over_the_whole_folder(sample_data):
    data = find_dataset(str(sample_data))
    whole = load_held_out(data, 64, 8, torch.device("cpu")).photos
    assert load_held_out(data, 64, 5, torch.device("cpu")).photos.equal(whole[[0, 1, 3, 4, 6]])
