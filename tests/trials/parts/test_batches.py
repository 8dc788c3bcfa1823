"""Batches are a function of (seed, step), and drawn as the recipe says."""

import pytest
import torch

from judge.images import find_dataset
from trials.parts.batches import Domain, load_held_out, load_unpaired


def domain(count: int, defines_epoch: bool) -> Domain:
    """Images whose pixels are all their number."""
    numbers = torch.arange(count, dtype=torch.uint8)[:, None, None, None]
    return Domain(numbers.expand(count, 3, 9, 9).contiguous(), 8, "B", defines_epoch, {})


def numbers(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_an_epoch_shows_every_image_of_the_larger_domain_once_in_another_order(batch):
    photos, shown = domain(10, defines_epoch=True), []
    for step in range(20 // batch):
        shown += numbers(photos.batch(0, step, batch))
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and shown[:10] != shown[10:]


def test_the_smaller_domain_is_sampled_beside_it():
    paintings = domain(5, defines_epoch=False)
    seen = [numbers(paintings.batch(0, step, 1))[0] for step in range(200)]
    assert set(seen) == set(range(5))
    assert sorted(seen[:5]) != sorted(seen[5:10])  # with replacement, not in passes


def test_a_batch_depends_on_seed_and_step_alone():
    photos = domain(20, defines_epoch=True)
    again = photos.batch(3, 7, 2)
    photos.batch(3, 8, 2)
    assert photos.batch(3, 7, 2).equal(again)
    assert not photos.batch(4, 7, 2).equal(again)


def test_crops_vary_in_place_and_direction_and_from_domain_to_domain():
    ramp = torch.arange(12, dtype=torch.uint8).expand(1, 3, 12, 12).contiguous()
    domains = [Domain(ramp, 8, name, True, {}) for name in "AB"]
    rows = [[tuple(each.batch(0, step, 1)[0, 0, 0].tolist()) for step in range(100)] for each in domains]
    assert len(set(rows[0])) == len(set(rows[1])) == 10  # five places, two directions
    assert rows[0] != rows[1]


def test_unpaired_reads_both_domains_a_little_larger_than_the_crops(sample_data):
    paintings, photos = load_unpaired(find_dataset(str(sample_data)), 64, torch.device("cpu"))
    assert paintings.pixels.shape[1:] == photos.pixels.shape[1:] == (3, 72, 72)  # 64 x 286 / 256
    assert paintings.defines_epoch != photos.defines_epoch
    assert photos.batch(0, 0, 3).shape == (3, 3, 64, 64)
    assert photos.batch(0, 0, 3).abs().max() <= 1


def test_held_out_photographs_are_as_many_as_asked_or_all_and_spread_over_the_whole_folder(sample_data):
    data = find_dataset(str(sample_data))
    photos = load_held_out(data, 64, 100, torch.device("cpu")).photos
    assert len(photos) == 8
    assert load_held_out(data, 64, 5, torch.device("cpu")).photos.equal(photos[[0, 1, 3, 4, 6]])
