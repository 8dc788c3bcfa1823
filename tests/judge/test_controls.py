"""Claims about images that are neither: each damage damages, and is the same for the same draw."""

import pytest
import torch

from judge import images, model
from judge.controls import controls_table
from judge.corruptions import HELD_OUT_CORRUPTIONS, TRAINING_CORRUPTIONS
from judge.images import to_bytes
from judge.undertrained import translate_with, undertrained_generators

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    """A smooth colourful picture, uint8 [3, 80, 80]."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return to_bytes(torch.nn.functional.interpolate(coarse, size=(80, 80), mode="bicubic"))[0]


def done_to(image: torch.Tensor, name: str, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return {**TRAINING_CORRUPTIONS, **HELD_OUT_CORRUPTIONS}[name](image.clone())


@pytest.mark.parametrize("name", [*TRAINING_CORRUPTIONS, *HELD_OUT_CORRUPTIONS])
def test_a_damage_returns_bytes_of_the_same_shape_and_leaves_its_input_alone(scene, name):
    before = scene.clone()
    for seed in range(8):
        out = done_to(scene, name, seed)
        assert out.shape == scene.shape and out.dtype == torch.uint8
    assert torch.equal(scene, before)


@pytest.mark.parametrize("name", [*TRAINING_CORRUPTIONS, *HELD_OUT_CORRUPTIONS])
def test_a_damage_changes_the_image_and_is_repeated_by_its_seed(scene, name):
    for seed in range(4):
        out = done_to(scene, name, seed)
        changed = (out.float() - scene.float()).abs().mean()
        assert changed > 0.8, changed
        assert torch.equal(out, done_to(scene, name, seed))


@pytest.mark.parametrize("size", [64, 63, 100])
@pytest.mark.parametrize("name", [*TRAINING_CORRUPTIONS, *HELD_OUT_CORRUPTIONS])
def test_a_damage_takes_any_size(name, size):
    noise = torch.randint(256, (3, size, size), dtype=torch.uint8)
    assert done_to(noise, name).shape == noise.shape


def test_no_kind_is_both_shown_and_held_out():
    shown, held = ({damage.__name__ for damage in table.values()} for table in (TRAINING_CORRUPTIONS, HELD_OUT_CORRUPTIONS))
    assert not shown & held and not set(TRAINING_CORRUPTIONS) & set(HELD_OUT_CORRUPTIONS)


def test_held_out_damages_do_what_their_names_say(scene):
    assert torch.equal(done_to(scene, "inverted"), 255 - scene)
    assert done_to(scene, "constant").flatten(1).unique(dim=1).shape[1] == 1
    assert done_to(scene, "posterised, 1 bit").unique().numel() == 2
    assert sorted(done_to(scene, "channels swapped").float().mean((1, 2)).tolist()) == \
        sorted(scene.float().mean((1, 2)).tolist())
    assert (done_to(scene, "high frequency 3/256").int() - scene.int()).abs().max() == 3
    tile = done_to(scene, "tiled")
    assert torch.equal(tile[:, :27, :27], tile[:, 27:54, 27:54])
    for weak, strong in (("noise 0.1", "noise 0.4"), ("blur 3 %", "blur 6 %")):
        assert (done_to(scene, weak).float() - scene).abs().mean() < \
            (done_to(scene, strong).float() - scene).abs().mean()


def test_generators_that_are_barely_trained_paint_and_differ(scene):
    photos = scene.expand(6, -1, -1, -1)
    networks = list(undertrained_generators(photos, 255 - photos, 0, CPU, count=3, longest=3))
    painted = [translate_with(network, photos, CPU) for network in networks]
    assert all(p.shape == photos.shape and p.dtype == torch.uint8 for p in painted)
    assert len({p.numpy().tobytes() for p in painted}) == 3


def test_the_same_seed_trains_the_same_generators_whatever_was_drawn_before(scene):
    def first(seed: int) -> torch.Tensor:
        torch.rand(7)
        photos = scene.expand(4, -1, -1, -1)
        *_, last = undertrained_generators(photos, photos, seed, CPU, count=2, longest=4)
        return last[0].weight

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


def test_the_table_has_every_control_and_keeps_its_bounds(judge_file, sample_data):
    judge, _ = model.load_judge(judge_file)
    found = images.find_dataset(str(sample_data))
    photos, paintings = (images.load_images(found.test[d], 64).pixels for d in (images.PHOTOS, images.PAINTINGS))
    table = controls_table(judge, photos, paintings)
    assert {"copy", "the same painting", *HELD_OUT_CORRUPTIONS, *TRAINING_CORRUPTIONS} == set(table.index)
    assert table["default"].between(0, 1).all() and table["painting"].between(0, 1).all()
    assert not table.loc[list(HELD_OUT_CORRUPTIONS), "shown"].any() and table.loc[list(TRAINING_CORRUPTIONS), "shown"].all()
    assert table.loc["the same painting", "diversity"] == table["diversity"].min()
    assert table.loc["copy", "kept"] == 1 and table.loc["copy", "content"] == pytest.approx(1)
    assert table.loc[["inverted", "constant"], "content"].to_numpy() == pytest.approx(0)
    again = controls_table(judge, photos, paintings)
    assert table.equals(again)
