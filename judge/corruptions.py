"""Random corruptions of images: training data for a judge's class "neither", and controls of the score.

A classifier with two classes must call every image a photo or a painting, so a search that maximises its
P(painting) ends at meaningless images that it calls paintings. A judge therefore learns a third class,
from real images corrupted by `TRAINING_CORRUPTIONS` and the outputs of barely trained generators
(`judge.undertrained`). No judge is trained with `HELD_OUT_CORRUPTIONS`: they measure how well it
recognises corruptions that it has never seen.

A corruption maps uint8 [3, H, W] to the same and draws from torch's global generator, like torchvision's
transforms.
"""

import io
import math
from collections.abc import Callable

import torch
from PIL import Image
from torch.nn.functional import conv2d
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from judge.images import to_bytes, to_float

Corruption = Callable[[torch.Tensor], torch.Tensor]


def between(low: float, high: float) -> float:
    """Draw a number uniformly from [low, high)."""
    return low + (high - low) * torch.rand(()).item()


def choice(*values):
    """Draw one of `values`."""
    return values[int(torch.randint(len(values), ()))]


def reencode_jpeg(image: torch.Tensor, quality: int = 75, chroma: str = "4:2:0") -> torch.Tensor:
    """Encode and decode uint8 [3, H, W] as JPEG; with Pillow, because torchvision is dropping its codecs."""
    encoded = io.BytesIO()
    F.to_pil_image(image).save(encoded, "JPEG", quality=quality, subsampling=chroma)
    return F.pil_to_tensor(Image.open(encoded))


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


TRAINING_CORRUPTIONS: dict[str, Corruption] = {
    "shuffled": _shuffle,  # the cells of a grid of 4 x 4 or 8 x 8: textures without a scene
    "rephased": _rephase,  # random phases of the spectrum: colours and grain stay, the scene is lost
    "convolved": _convolve,  # by a random filter, with the same mean and deviation
    "mixed": _mix,  # channels mixed at random, each scaled to the full range
    "regraded": _regrade,  # colours mapped through a random table
    "pixelated": _pixelate,  # to 6 x 6 up to 16 x 16 squares
    "striped": _stripe,  # a sine wave of random colour and direction, with a period of 2 to 10 pixels
    "rippled": _ripple,  # an almost invisible tile of 3 to 5 pixels: networks hide information in such
    "speckled": _speckle,  # 5 to 50 % of the pixels replaced, by one random colour or each by its own
    "holed": _cover,  # by 3 to 12 rectangles, each 15 to 50 % as wide and as high as the image
    "faded": lambda image: _blend(image, torch.rand(3, 1, 1) * 2 - 1, between(0.1, 0.2)),
    "overexposed": lambda image: to_bytes(to_float(image) * between(3, 8) + between(-2, 2)),
    "sharpened": lambda image: _add(image, _detail(image) * between(3, 9)),
    "edges": _edges,  # on grey or black
    "compressed": lambda image: reencode_jpeg(image, choice(1, 3)),  # at a quality that shows its blocks
    "duotone": _duotone,  # brightness mapped to a gradient through three random colours
    "curved": _curve,  # a random gamma for each channel: colours that no light produces
    "gaudy": lambda image: F.adjust_saturation(image, between(3, 8)),
    "stretched": _stretch,  # a band of 1 to 4 pixels over the whole image, horizontally or vertically
    "texture": _texture,  # coloured noise with a spectrum of 1 / f^a, a from 0 to 2.5, without the image
    "warped": lambda image: v2.ElasticTransform(image.shape[-1] * between(3, 8), between(2, 5))(image),
    "solarised": lambda image: F.solarize(image, choice(64, 96, 128)),
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


def corrupt(image: torch.Tensor) -> torch.Tensor:
    """Apply one of `TRAINING_CORRUPTIONS`, or two with a probability of 1/4."""
    for _ in range(choice(1, 1, 1, 2)):
        image = choice(*TRAINING_CORRUPTIONS.values())(image)
    return image
