"""Claims about corruptions and undertrained generators: they change images, as their seed says."""

import pytest
import torch

from judge.corruptions import FAMILIES, HELD_OUT_CORRUPTIONS, KINDS, apply, corrupt, corrupt_all
from judge.images import to_bytes
from judge.undertrained import translate_with, undertrained_generators

CPU = torch.device("cpu")
OTHERS = torch.randint(256, (5, 3, 96, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    """A smooth colourful picture, uint8 [3, 80, 80]."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return to_bytes(torch.nn.functional.interpolate(coarse, size=(80, 80), mode="bicubic"))[0]


def corrupted(image: torch.Tensor, name: str, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return apply(name, image, OTHERS)


@pytest.mark.parametrize("name", KINDS)
def test_a_corruption_changes_a_copy_and_its_seed_repeats_it(scene, name):
    original = scene.clone()
    assert sum(name in kinds for kinds in (HELD_OUT_CORRUPTIONS, *FAMILIES.values())) == 1
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


def test_families_are_drawn_equally_often_and_only_those_that_are_given(scene, monkeypatch):
    drawn = []
    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, lambda image, *others, kind=kind: drawn.append(kind) or image)
    torch.manual_seed(0)
    for _ in range(400):
        corrupt(scene, OTHERS, ["noise", "grids"])
    assert set(drawn) == {*FAMILIES["noise"], *FAMILIES["grids"]}
    assert 450 < len(drawn) < 550  # a quarter of the images twice
    assert drawn.count("speckled") == pytest.approx(len(drawn) / 2, rel=0.2)


def test_images_corrupted_by_a_kind_are_a_function_of_their_seed(scene):
    images = torch.stack([scene, scene])
    first = corrupt_all("holed", images)
    torch.rand(5)
    assert torch.equal(first, corrupt_all("holed", images)) and not torch.equal(first[0], first[1])
    assert not torch.equal(first, corrupt_all("holed", images, seed=1))


def test_blends_are_of_other_images_or_of_shifted_copies(scene):
    white = torch.full((4, 3, 96, 72), 255, dtype=torch.uint8)
    dark = torch.zeros(3, 80, 80, dtype=torch.uint8)
    torch.manual_seed(0)
    shares = sorted({apply("averaged", dark, white).float().mean().item() / 255 for _ in range(60)})
    assert shares == pytest.approx([1 / 2, 2 / 3, 3 / 4, 5 / 6, 7 / 8], abs=0.01)  # 1, 2, 3, 5 or 7 others
    levels = [apply("double exposure", dark, white).float().mean().item() / 255 for _ in range(40)]
    assert 0.3 <= min(levels) < 0.4 and 0.6 < max(levels) <= 0.7
    dot = dark.clone()
    dot[:, 40:44, 40:44] = 255
    bright = (apply("ghost", dot, white)[0] > 60).nonzero()
    assert (bright[:, 1].max() - bright[:, 1].min()) >= 6, "a copy beside the original"


@pytest.mark.parametrize(("kind", "least", "most"), [("pale", 0.3, 0.7), ("faded", 0.1, 0.2)])
def test_low_contrast_is_within_its_bounds(scene, kind, least, most):
    contrasts = torch.stack([corrupted(scene, kind, seed).float().std((1, 2)) for seed in range(40)])
    kept = contrasts / scene.float().std((1, 2))
    assert least - 0.02 < kept.min() and kept.max() < most + 0.02


@pytest.mark.parametrize("kind", ["scattered", "tiled detail", "streaked"])
def test_textures_and_streaks_have_the_images_colours(scene, kind):
    palette = {tuple(colour) for colour in scene.flatten(1).T.tolist()}
    textures = [corrupted(scene, kind, seed) for seed in range(6)]
    own = [{tuple(colour) for colour in texture.flatten(1).T.tolist()} <= palette for texture in textures]
    assert all(own) if kind != "streaked" else any(own)  # some streaks let the image shine through


def test_grids_have_every_period_from_2_to_12_pixels_and_slanted_lines():
    grey = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    peaks = []
    for seed in range(60):
        light = corrupted(grey, "lined", seed).float().mean(0)
        power = torch.fft.rfft2(light - light.mean()).abs()
        down, right = divmod(int(power.argmax()), power.shape[1])
        peaks.append((min(down, 96 - down), right))
    periods = [96 / (down**2 + right**2) ** 0.5 for down, right in peaks]
    assert min(periods) < 3 and max(periods) > 9 and sum(4 < period < 8 for period in periods) > 5
    assert sum(down > 3 and right > 3 for down, right in peaks) > 15


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
