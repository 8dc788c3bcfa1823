"""Claims about corruptions and undertrained generators: they change images, as their seed says."""

import pytest
import torch

from judge.corruptions import HELD_OUT_CORRUPTIONS, TRAINING_CORRUPTIONS
from judge.images import to_bytes
from judge.undertrained import translate_with, undertrained_generators

CPU = torch.device("cpu")
CORRUPTIONS = {**TRAINING_CORRUPTIONS, **HELD_OUT_CORRUPTIONS}


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    """A smooth colourful picture, uint8 [3, 80, 80]."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return to_bytes(torch.nn.functional.interpolate(coarse, size=(80, 80), mode="bicubic"))[0]


def corrupted(image: torch.Tensor, name: str, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return CORRUPTIONS[name](image)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_a_copy_and_its_seed_repeats_it(scene, name):
    original = scene.clone()
    assert (name in TRAINING_CORRUPTIONS) != (name in HELD_OUT_CORRUPTIONS)
    for seed in range(8):
        out = corrupted(scene, name, seed)
        assert out.shape == scene.shape and out.dtype == torch.uint8
        assert (out.float() - original.float()).abs().mean() > 0.8
        assert torch.equal(out, corrupted(scene, name, seed))
    assert torch.equal(scene, original)
    for size in (64, 63, 100):
        noise = torch.randint(256, (3, size, size), dtype=torch.uint8)
        assert corrupted(noise, name).shape == noise.shape


def test_held_out_corruptions_do_what_their_names_say(scene):
    assert torch.equal(corrupted(scene, "inverted"), 255 - scene)
    assert corrupted(scene, "constant").flatten(1).unique(dim=1).shape[1] == 1
    assert corrupted(scene, "posterised, 1 bit").unique().numel() == 2
    assert sorted(corrupted(scene, "channels swapped").float().mean((1, 2)).tolist()) == \
        sorted(scene.float().mean((1, 2)).tolist())
    assert (corrupted(scene, "high frequency 3/256").int() - scene.int()).abs().max() == 3
    tiles = corrupted(scene, "tiled")
    assert torch.equal(tiles[:, :27, :27], tiles[:, 27:54, 27:54])
    for weak, strong in (("noise 0.1", "noise 0.4"), ("blur 3 %", "blur 6 %")):
        weaker, stronger = ((corrupted(scene, name).float() - scene).abs().mean() for name in (weak, strong))
        assert weaker < stronger


def test_undertrained_generators_differ_and_are_a_function_of_their_seed(scene):
    photos = scene.expand(4, -1, -1, -1)

    def outputs(seed: int) -> list[torch.Tensor]:
        torch.rand(7)  # whatever was drawn before
        generators = undertrained_generators(photos, 255 - photos, seed, CPU, count=3, max_steps=3)
        return [translate_with(generator, photos, CPU) for generator in generators]

    first, again, other = outputs(0), outputs(0), outputs(1)
    assert all(images.shape == photos.shape and images.dtype == torch.uint8 for images in first)
    assert all(map(torch.equal, first, again))
    assert len({images.numpy().tobytes() for images in first + other}) == 6
