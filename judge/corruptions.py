"""Random corruptions of images: training data for a judge's class "neither", and controls of the score.

A classifier with two classes must call every image a photo or a painting, so a search that maximises its
P(painting) ends at meaningless images that it calls paintings. A judge therefore learns a third class,
from real images corrupted by the kinds in `FAMILIES` and the outputs of barely trained generators
(`judge.undertrained`). Kinds that resemble each other are one family, because a judge that has not seen one
of them has seen its twins: `judge.leave_out` measures families that a judge was never shown. No judge is
trained with `HELD_OUT_CORRUPTIONS`, the controls of the score.

A corruption maps uint8 [3, H, W] to the same and draws from torch's global generator, like torchvision's
transforms. Those of the family `MIXTURES` also take other images.
"""

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import conv2d, grid_sample
from torchvision.transforms.v2 import functional as F

from judge.common.rng import seeded
from judge.images import to_bytes, to_float

Corruption = Callable[..., torch.Tensor]


def between(low: float, high: float) -> float:
    """Draw a number uniformly from [low, high)."""
    return low + (high - low) * torch.rand(()).item()


def choice(*values):
    """Draw one of `values`."""
    return values[int(torch.randint(len(values), ()))]


def reencode_jpeg(image: torch.Tensor, quality: int = 75, chroma: str = "4:2:0") -> torch.Tensor:
    """Encode and decode uint8 [3, H, W] as JPEG; with Pillow, because torchvision is dropping its codecs."""
    encoded = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "JPEG", quality=quality, subsampling=chroma)
    return torch.from_numpy(np.array(Image.open(encoded))).permute(2, 0, 1)


def _resize(x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Resize `x` to the height and width of `image`."""
    return F.resize(x, list(image.shape[1:]), antialias=True)


def _repeat(tile: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Repeat `tile`, [C, h, w], over the height and width of `image`."""
    height, width = image.shape[1:]
    return tile.tile(1, -(-height // tile.shape[1]), -(-width // tile.shape[2]))[:, :height, :width]


def _coordinates(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the row and the column of each pixel, [H, W] each."""
    return torch.meshgrid(*map(torch.arange, image.shape[1:]), indexing="ij")


def _add(image: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Add `change` to `image` scaled to [-1, 1]."""
    return to_bytes(to_float(image) + change)


def _blend(image: torch.Tensor, colour: torch.Tensor, contrast: float) -> torch.Tensor:
    """Blend with `colour`, [3, 1, 1] in [-1, 1], until `contrast` remains."""
    return to_bytes(torch.lerp(colour, to_float(image), contrast))


def _draw(others: torch.Tensor, count: int, image: torch.Tensor) -> torch.Tensor:
    """Draw `count` of `others`, and return them as float [count, 3, H, W] in [-1, 1], as large as `image`."""
    return to_float(_resize(others[torch.randint(len(others), (count,))], image))


def _shift(image: torch.Tensor, share: float) -> torch.Tensor:
    """Shift by up to `share` of the height and of the width; what leaves on one side enters on the other."""
    return image.roll([int(between(-share, share) * edge) for edge in image.shape[-2:]], (-2, -1))


def _direction() -> tuple[float, float]:
    """Draw a direction, and return its cosine and sine."""
    angle = between(0, math.pi)
    return math.cos(angle), math.sin(angle)


def _field(image: torch.Tensor, channels: int, cells: int) -> torch.Tensor:
    """Return soft random patches, `cells` along each side: float [channels, H, W], mostly in [-1, 1]."""
    coarse = torch.randn(channels, cells + 1, cells + 1) / 2
    return F.resize(coarse, list(image.shape[1:]), F.InterpolationMode.BICUBIC)


def _displace(image: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move each pixel by `offsets`, [2 (right, down), H, W], as a share of half the width and height."""
    down, right = torch.meshgrid(*(torch.linspace(-1, 1, edge) for edge in image.shape[1:]), indexing="ij")
    places = (torch.stack([right, down]) + offsets).permute(1, 2, 0)[None]
    moved = grid_sample(to_float(image)[None], places, padding_mode="reflection", align_corners=True)
    return to_bytes(moved[0])


def _mix_channels(x: torch.Tensor) -> torch.Tensor:
    """Replace each channel by a random linear combination of all three."""
    return torch.einsum("ij,jhw->ihw", torch.randn(3, 3), x)


def _detail(image: torch.Tensor) -> torch.Tensor:
    """Return the difference to a blurred copy, in [-2, 2]."""
    x = to_float(image)
    return x - F.gaussian_blur(x, [5, 5], [between(0.6, 1.5)])


def _blur(image: torch.Tensor, share: float) -> torch.Tensor:
    """Blur with a deviation of `share` times the image's width."""
    sigma = share * image.shape[-1]
    return F.gaussian_blur(image, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)


def _noise(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Add Gaussian noise of deviation `sigma`, for values in [0, 1]."""
    return _add(image, 2 * sigma * torch.randn(image.shape))


def _shuffle(image: torch.Tensor) -> torch.Tensor:
    cells = choice(4, 8)
    size = max(1, image.shape[-1] // cells)
    square = F.resize(image, [cells * size] * 2, antialias=True)
    patches = square.unfold(1, size, size).unfold(2, size, size).flatten(1, 2)  # [3, cells^2, size, size]
    grid = patches[:, torch.randperm(cells**2)].view(3, cells, cells, size, size)
    return _resize(grid.transpose(2, 3).reshape(3, cells * size, cells * size), image)


def _rephase(image: torch.Tensor) -> torch.Tensor:
    spectrum = torch.fft.rfft2(to_float(image))
    phases = torch.fft.rfft2(torch.randn(image.shape[1:])).angle()  # of a real image, shared by RGB
    mean = spectrum[:, :1, :1].clone()
    spectrum = spectrum.abs() * torch.exp(1j * (spectrum.angle() + phases))
    spectrum[:, :1, :1] = mean
    return to_bytes(torch.fft.irfft2(spectrum, s=image.shape[1:]))


def _convolve(image: torch.Tensor) -> torch.Tensor:
    """Apply RandConv: Xu et al. 2021, 2007.13003."""
    x, size = to_float(image), choice(3, 5, 7)
    out = conv2d(x[None], torch.randn(3, 3, size, size), padding=size // 2)[0]
    out = (out - out.mean()) / (out.std() + 1e-6)
    return to_bytes(out * x.std() + x.mean())


def _mix(image: torch.Tensor) -> torch.Tensor:
    x = _mix_channels(to_float(image))
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return to_bytes((x - low) / (high - low + 1e-6) * 2 - 1)


def _regrade(image: torch.Tensor) -> torch.Tensor:
    """Move the corners of the RGB cube, except black and white, to random colours; interpolate the rest."""
    corners = torch.rand(2, 2, 2, 3)
    corners[0, 0, 0], corners[1, 1, 1] = 0, 1
    weights = torch.stack([1 - image / 255, image / 255])  # of the corners at 0 and at 1, [2, RGB, H, W]
    red, green, blue = weights.unbind(1)
    return (torch.einsum("rgbc,rhw,ghw,bhw->chw", corners, red, green, blue) * 255).round().byte()


def _pixelate(image: torch.Tensor) -> torch.Tensor:
    small = F.resize(image, [choice(6, 8, 12, 16)] * 2, antialias=True)
    return F.resize(small, list(image.shape[1:]), F.InterpolationMode.NEAREST)


def _stripe(image: torch.Tensor) -> torch.Tensor:
    y, x = _coordinates(image)
    angle, frequency = between(0, math.pi), 2 * math.pi / between(2, 10)
    wave = torch.sin(frequency * (x * math.cos(angle) + y * math.sin(angle)) + between(0, 6))
    colour = torch.randn(3, 1, 1)
    return _add(image, between(0.2, 0.8) * wave * colour / colour.norm())


def _ripple(image: torch.Tensor) -> torch.Tensor:
    height, width = choice(3, 4, 5), choice(3, 4, 5)
    tile = torch.randn(choice(1, 3), height, width).sign()
    return _add(image, 2 / 256 * 15 ** between(0, 1) * _repeat(tile, image))


def _speckle(image: torch.Tensor) -> torch.Tensor:
    replaced = torch.rand(image.shape[1:]) < between(0.05, 0.5)
    colour = torch.randint(256, (3, *choice((1, 1), image.shape[1:])), dtype=torch.uint8)
    return torch.where(replaced, colour, image)


def _cover(image: torch.Tensor) -> torch.Tensor:
    image = image.clone()
    height, width = image.shape[1:]
    for _ in range(choice(3, 6, 12)):
        top, left = int(between(0, 0.8) * height), int(between(0, 0.8) * width)
        down, right = int(between(0.15, 0.5) * height), int(between(0.15, 0.5) * width)
        image[:, top : top + down, left : left + right] = torch.randint(256, (3, 1, 1), dtype=torch.uint8)
    return image


def _edges(image: torch.Tensor) -> torch.Tensor:
    x = between(3, 8) * _detail(image)
    return to_bytes(choice(x, 2 * x.abs() - 1))


def _duotone(image: torch.Tensor) -> torch.Tensor:
    dark, middle, light = torch.rand(3, 3, 1, 1) * 2 - 1
    grey = to_float(F.rgb_to_grayscale(image))
    return to_bytes(torch.where(grey < 0, torch.lerp(middle, dark, -grey), torch.lerp(middle, light, grey)))


def _curve(image: torch.Tensor) -> torch.Tensor:
    gamma = (torch.tensor([-1.0, between(-1, 1), 1.0])[torch.randperm(3)] * between(0.8, 1.6)).exp()
    return ((image / 255) ** gamma[:, None, None] * 255).round().byte()


def _stretch(image: torch.Tensor) -> torch.Tensor:
    left, width = int(between(0, image.shape[-1] - 4)), choice(1, 2, 4)
    streaks = _resize(image[:, :, left : left + width], image)
    return choice(streaks, F.rotate(streaks, 90.0))


def _texture(image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape[1:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    frequency[0, 0] = 1
    noise = torch.fft.rfft2(torch.randn(3, height, width)) / frequency ** between(0, 2.5)
    coloured = _mix_channels(torch.fft.irfft2(noise, s=(height, width)))
    coloured = (coloured - coloured.mean((1, 2), keepdim=True)) / coloured.std()
    return to_bytes(coloured * between(0.1, 0.6) + torch.rand(3, 1, 1) * 1.4 - 0.7)


def _average(image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    drawn = _draw(others, choice(1, 1, 2, 3, 5, 7), image)
    return to_bytes(torch.cat([to_float(image)[None], drawn]).mean(0))


def _double_expose(image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    share, other = between(0.3, 0.7), _draw(others, 1, image)[0]
    return to_bytes(torch.lerp(to_float(image), _shift(other, 0.5), share))


def _ghost(image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    copy = _shift(choice(image, image.flip(-1), image.flip(-2)), 0.25)
    far = between(0.08, 0.25) * image.shape[-1]  # a smaller shift looks like a blur
    copy = copy.roll(choice(-1, 1) * int(far), -1)
    return to_bytes(torch.lerp(to_float(image), to_float(copy), between(0.35, 0.65)))


def _pale(image: torch.Tensor) -> torch.Tensor:
    colour = choice(to_float(image).mean((1, 2), keepdim=True), torch.rand(1, 1, 1) * 1.6 - 0.8)
    return _blend(image, colour, between(0.3, 0.7))


def _scatter(image: torch.Tensor) -> torch.Tensor:
    """Arrange the image's own pixels, sorted by light, as blots or strokes."""
    height, width = image.shape[1:]
    noise = _field(image, 1, choice(4, 8, 16)) + _field(image, 1, choice(8, 16, 32))
    noise = choice(noise, _resize(noise[:, : max(1, height // 4)], image))  # blots, or long ones
    scattered = torch.empty_like(image).flatten(1)
    by_light = F.rgb_to_grayscale(image).flatten().argsort()
    scattered[:, noise.flatten().argsort()] = image.flatten(1)[:, by_light]
    return scattered.view(3, height, width)


def _tile_detail(image: torch.Tensor) -> torch.Tensor:
    height, width = (max(2, int(between(0.15, 0.35) * edge)) for edge in image.shape[1:])
    top, left = (int(between(0, 1) * (edge - part)) for edge, part in zip(image.shape[1:], (height, width)))
    detail = image[:, top : top + height, left : left + width]
    detail = torch.cat([detail, detail.flip(1)], 1)  # mirrored, so that no edge shows where copies meet
    return _repeat(torch.cat([detail, detail.flip(2)], 2), image)


def _shear(image: torch.Tensor) -> torch.Tensor:
    image, slope = choice(image, image.mT), choice(-1, 1) * between(0.7, 4)
    y, x = _coordinates(image)
    sheared = image.gather(2, ((x + slope * y).long() % image.shape[2]).expand_as(image))
    return _resize(choice(sheared, sheared.mT), image)


def _streak(image: torch.Tensor) -> torch.Tensor:
    """Draw each pixel's colour from a line of the image by its place across a direction: streaks only."""
    y, x = _coordinates(image)
    across, along = _direction()
    place = (x * across + y * along) * between(0.5, 1.5) + choice(0, between(1, 4)) * _field(image, 1, 4)[0]
    line = image[:, int(between(0, image.shape[1]))]
    streaks = line[:, place.long() % line.shape[1]]
    return to_bytes(torch.lerp(to_float(streaks), to_float(image), choice(0, between(0, 0.4))))


def _slip(image: torch.Tensor) -> torch.Tensor:
    """Move each row on from the one above by a random step, so that the picture runs into slanted streaks."""
    image = choice(image, image.mT)
    steps = torch.randn(image.shape[1]) * between(1, 4) + between(-2, 2)
    places = torch.arange(image.shape[2]) + steps.cumsum(0).long()[:, None]
    moved = image.gather(2, (places % image.shape[2]).expand_as(image))
    return _resize(moved, image)


def _grid(image: torch.Tensor) -> torch.Tensor:
    """Add lines of two directions at right angles, of random period and angle."""
    y, x = _coordinates(image)
    across, along = choice((1.0, 0.0), _direction())
    waves = torch.stack([torch.cos(2 * math.pi * place / between(2, 12) + between(0, 6))
                         for place in (x * across + y * along, y * across - x * along)])
    lines = choice(waves[0], waves.mean(0), waves.prod(0))
    colour = choice(torch.ones(3, 1, 1), torch.randn(3, 1, 1))
    return _add(image, 0.05 * 12 ** between(0, 1) * choice(lines, lines.sign()) * colour)


def _tile_noise(image: torch.Tensor) -> torch.Tensor:
    tile = torch.randn(choice(1, 3), *torch.randint(2, 13, (2,)).tolist())
    return _add(image, 0.05 * 12 ** between(0, 1) * _repeat(tile, image))


def _wash(image: torch.Tensor) -> torch.Tensor:
    """Cover with soft patches of colour."""
    colours = 1.2 * _field(image, 3, choice(1, 2, 3, 4))
    return to_bytes(torch.lerp(to_float(image), colours, between(0.4, 0.9)))


def _tint(image: torch.Tensor) -> torch.Tensor:
    """Give large soft areas other colours, at the same light."""
    tint = _field(image, 3, choice(1, 2, 3, 4))
    return _add(image, between(0.7, 1.6) * (tint - tint.mean(0)))


def _bleed(image: torch.Tensor) -> torch.Tensor:
    """Blur the colours, strengthen them and shift them away from what they belong to."""
    x = to_float(image)
    light = F.rgb_to_grayscale(x)
    blurred = _resize(F.resize(x - light, [choice(3, 5, 8)] * 2, antialias=True), image)
    return to_bytes(light + between(1.5, 3.5) * _shift(blurred, 0.4))


def _smear(image: torch.Tensor) -> torch.Tensor:
    """Blur along a direction, as a camera that moves does."""
    (down, right), length = _direction(), between(0.08, 0.35) * image.shape[-1]
    shares = torch.linspace(0, length, 24).tolist()
    shifted = [image.roll((round(down * share), round(right * share)), (1, 2)) for share in shares]
    return torch.stack(shifted).float().mean(0).round().byte()


def _drag(image: torch.Tensor) -> torch.Tensor:
    """Drag colours over each other: everything moves far along one direction, each area by its own length."""
    along = torch.tensor(_direction())[:, None, None]
    return _displace(image, between(0.3, 0.9) * along * _field(image, 1, choice(6, 10, 16)))


def _warp(image: torch.Tensor) -> torch.Tensor:
    return _displace(image, between(0.15, 0.5) * _field(image, 2, choice(3, 5, 8)))


MIXTURES = "blends"  # the family whose corruptions take (image, others), others uint8 [M, 3, height, width]
FAMILIES: dict[str, dict[str, Corruption]] = {
    "blends": {
        "averaged": _average,  # with 1 to 7 others
        "double exposure": _double_expose,  # with another image, shifted
        "ghost": _ghost,  # over a shifted copy of itself, as it is or mirrored
    },
    "low contrast": {
        "faded": lambda image: _blend(image, torch.rand(3, 1, 1) * 2 - 1, between(0.1, 0.2)),
        "pale": _pale,  # 0.3 to 0.7 of the contrast, around its mean colour or a grey
    },
    "textures": {
        "shuffled": _shuffle,  # the cells of a grid of 4 x 4 or 8 x 8: textures without a scene
        "rephased": _rephase,  # random phases of the spectrum: colours and grain stay, the scene is lost
        "texture": _texture,  # coloured noise with a spectrum of 1 / f^a, a from 0 to 2.5, without the image
        "scattered": _scatter,  # its own pixels as blots
        "tiled detail": _tile_detail,  # a detail and its mirror images, over and over
    },
    "streaks": {
        "stretched": _stretch,  # a band of 1 to 4 pixels over the whole image, horizontally or vertically
        "streaked": _streak,  # the colours of one row, in streaks of any direction, nearly straight
        "sheared": _shear,  # by 35 to 76 degrees
        "slipped": _slip,  # each row or column slips on from the one before
    },
    "grids": {
        "striped": _stripe,  # a sine wave of random colour and direction, with a period of 2 to 10 pixels
        "rippled": _ripple,  # an almost invisible tile of 3 to 5 pixels: networks hide information in such
        "lined": _grid,  # lines, squares or dots of any angle, with periods of 2 to 12 pixels
        "tile of noise": _tile_noise,  # repeated, 2 to 12 pixels wide and high
    },
    "washes": {
        "washed": _wash,  # large soft patches of colour over it
        "tinted": _tint,  # large soft areas in other colours, at the same light
        "bled": _bleed,  # colours blurred, strengthened and shifted
    },
    "colours": {
        "mixed": _mix,  # channels mixed at random, each scaled to the full range
        "regraded": _regrade,  # colours mapped through a random table
        "overexposed": lambda image: to_bytes(to_float(image) * between(3, 8) + between(-2, 2)),
        "duotone": _duotone,  # brightness mapped to a gradient through three random colours
        "curved": _curve,  # a random gamma for each channel: colours that no light produces
        "gaudy": lambda image: F.adjust_saturation(image, between(3, 8)),
        "solarised": lambda image: F.solarize(image, choice(64, 96, 128)),
    },
    "smears": {
        "motion blur": _smear,  # over 8 to 35 % of the width
        "dragged": _drag,  # each area along the same direction, by its own length
        "warped": _warp,  # each area in its own direction
    },
    "filters": {
        "convolved": _convolve,  # by a random filter, with the same mean and deviation
        "sharpened": lambda image: _add(image, _detail(image) * between(3, 9)),
        "edges": _edges,  # on grey or black
    },
    "noise": {
        "speckled": _speckle,  # 5 to 50 % of the pixels replaced, by one random colour or each by its own
    },
    "blocks": {
        "pixelated": _pixelate,  # to 6 x 6 up to 16 x 16 squares
        "holed": _cover,  # by 3 to 12 rectangles, each 15 to 50 % as wide and as high as the image
        "compressed": lambda image: reencode_jpeg(image, choice(1, 3)),  # at a quality that shows its blocks
    },
}

HELD_OUT_CORRUPTIONS: dict[str, Corruption] = {
    "checkerboard": lambda image: _add(image, 0.3 * (1 - 2 * (sum(_coordinates(image)) % 2))),
    "inverted": lambda image: 255 - image,
    "channels swapped": lambda image: image[[1, 2, 0]],
    "constant": lambda image: image.float().mean((1, 2), keepdim=True).round().byte().expand_as(image),
    "nearly constant": lambda image: _blend(image, to_float(image).mean((1, 2), keepdim=True), 0.05),
    "noise 0.1": lambda image: _noise(image, 0.1),
    "noise 0.2": lambda image: _noise(image, 0.2),
    "noise 0.4": lambda image: _noise(image, 0.4),
    "blur 3 %": lambda image: _blur(image, 0.03),
    "blur 6 %": lambda image: _blur(image, 0.06),
    "posterised, 2 bits": lambda image: F.posterize(image, 2),
    "posterised, 1 bit": lambda image: F.posterize(image, 1),
    "tiled": lambda image: _repeat(F.resize(image, [-(-image.shape[-1] // 3)] * 2, antialias=True), image),
    "hue, a quarter": lambda image: F.adjust_hue(image, 0.25),
    "hue, half": lambda image: F.adjust_hue(image, 0.5),
    # Vertical lines of 3/256, where CycleGANs hide the source (Chu et al. 2017, 1712.02950).
    "high frequency 3/256": lambda image: (
        image.short() + 3 - 6 * (torch.arange(image.shape[-1]) % 2)).clamp(0, 255).byte(),
    # A repeated random tile of 4 x 4 pixels, as transposed convolutions leave.
    "grid": lambda image: _add(image, 0.3 * _repeat(torch.randn(3, 4, 4), image)),
}


KINDS: dict[str, Corruption] = {
    kind: corruption for family in (HELD_OUT_CORRUPTIONS, *FAMILIES.values())
    for kind, corruption in family.items()}


def apply(kind: str, image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Apply one of `KINDS` to `image`; `others`, uint8 [M, 3, height, width], may be of another size."""
    return KINDS[kind](image, others) if kind in FAMILIES[MIXTURES] else KINDS[kind](image)


def corrupt(
    image: torch.Tensor, others: torch.Tensor, families: Sequence[str] = tuple(FAMILIES)
) -> torch.Tensor:
    """Apply a random kind of a random one of `families`, or two with a probability of 1/4."""
    for _ in range(choice(1, 1, 1, 2)):
        image = apply(choice(*FAMILIES[choice(*families)]), image, others)
    return image


def corrupt_all(kind: str, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Apply one of `KINDS` to each of uint8 [N, 3, H, W]; equal kinds and seeds draw equal numbers."""
    with seeded(seed, "controls", kind):
        return torch.stack([apply(kind, image, images) for image in images])
