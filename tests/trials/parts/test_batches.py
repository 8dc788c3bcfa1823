"""Batches are a function of (seed, step), and drawn as the recipe says."""

import shutil

import pytest
import torch

from judge.common.errors import UserError
from judge.images import find_dataset
from trials.parts import batches
from trials.parts.batches import Domain, load_held_out, load_unpaired


def domain(count: int, defines_epoch: bool) -> Domain:
    """Images whose pixels are all their number."""
    numbers = torch.arange(count, dtype=torch.uint8)[:, None, None, None]
    return Domain(numbers.expand(count, 3, 9, 9).contiguous(), 8, "B", defines_epoch, {})


def numbers(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("batch", [1, 4])
def test_an_epoch_shows_every_image_of_the_larger_domain_once_in_an_order_of_its_own(batch):
    photos = domain(10, defines_epoch=True)
    shown, other_seed, again = (
        [number for step in range(20 // batch) for number in numbers(photos.batch(seed, step, batch))]
        for seed in (3, 4, 3))
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and shown[:10] != shown[10:]
    assert shown == again != other_seed


def test_the_smaller_domain_is_sampled_beside_it():
    paintings = domain(5, defines_epoch=False)
    seen = [numbers(paintings.batch(0, step, 1))[0] for step in range(200)]
    assert set(seen) == set(range(5))
    assert sorted(seen[:5]) != sorted(seen[5:10])  # with replacement, not in passes


def test_crops_vary_in_place_and_direction_and_from_domain_to_domain():
    ramp = torch.arange(12, dtype=torch.uint8).expand(1, 3, 12, 12).contiguous()
    domains = [Domain(ramp, 8, name, True, {}) for name in "AB"]
    rows = [[tuple(each.batch(0, step, 1)[0, 0, 0].tolist()) for step in range(100)] for each in domains]
    assert len(set(rows[0])) == len(set(rows[1])) == 10  # five places, two directions
    assert rows[0] != rows[1]


def test_training_images_are_a_little_larger_than_the_crops_and_held_out_ones_spread_evenly(sample_data):
    data, cpu = find_dataset(str(sample_data)), torch.device("cpu")
    paintings, photos = load_unpaired(data, 64, cpu)
    assert paintings.pixels.shape[1:] == photos.pixels.shape[1:] == (3, 72, 72)  # 64 x 286 / 256
    assert paintings.defines_epoch != photos.defines_epoch
    assert photos.batch(0, 0, 3).shape == (3, 3, 64, 64)
    assert photos.batch(0, 0, 3).abs().max() <= 1
    every_photo = load_held_out(data, 64, 100, cpu).photos
    assert len(every_photo) == 8
    assert load_held_out(data, 64, 5, cpu).photos.equal(every_photo[[0, 1, 3, 4, 6]])
    assert load_held_out(data, 64, 5, cpu).paintings.dtype == torch.uint8


def test_test_images_of_which_too_few_can_be_read_are_refused_before_training(tmp_path, sample_data):
    shutil.copytree(sample_data, tmp_path / "data")
    for number in range(5):
        (tmp_path / f"data/testA/00{number}.png").write_text("not an image")
    with pytest.raises(UserError, match="testA: 3 of 8 test images can be read, a score needs at least 4"):
        load_held_out(find_dataset(str(tmp_path / "data")), 64, 8, torch.device("cpu"))


META = torch.device("meta")  # stands for a GPU: a device that is not the CPU


@pytest.mark.parametrize(("free", "place"), [
    (4 * 24 * 3 * 72**2, "on the GPU"),  # 24 images, in a quarter of the memory
    (4 * 24 * 3 * 72**2 - 1, "in memory, sent at each step: the GPU has"),
    (None, "in memory"),  # there is no GPU
])
def test_training_images_are_on_a_gpu_only_if_a_quarter_of_its_free_memory_holds_them(
        sample_data, monkeypatch, capsys, free, place):
    monkeypatch.setattr(batches, "free_memory", lambda device: free)
    device = torch.device("cpu") if free is None else META
    domains = load_unpaired(find_dataset(str(sample_data)), 64, device)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"images: 0 MB {place}")
    for each in domains:
        assert each.pixels.is_meta == (place == "on the GPU")
        assert each.batch(0, 0, 2).device == device


@pytest.mark.cuda
def test_crops_from_memory_are_those_from_the_gpu():
    gpu, pixels = torch.device("cuda"), torch.randint(256, (9, 3, 72, 72), dtype=torch.uint8)
    crops = [Domain(each, 64, "A", True, {}, gpu).batch(0, 3, 4) for each in (pixels, pixels.to(gpu))]
    assert crops[0].device.type == "cuda" and crops[0].equal(crops[1])
