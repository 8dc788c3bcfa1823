"""Random corruptions of images: training data for a judge's class "neither", and controls of the score.

A classifier with two classes must call every image a photo or a painting, so a search that maximises its
P(painting) ends at meaningless images that it calls paintings. A judge therefore learns a third class,
from real images corrupted by `TRAINING_CORRUPTIONS` and the outputs of barely trained generators
(`judge.undertrained`). No judge is trained with `HELD_OUT_CORRUPTIONS`: they measure how well it
recognises corruptions that it has never seen.

A corruption maps uint8 [3, H, W] to the same and draws from torch's global generator, like torchvision's
transforms. The names of the functions in `TRAINING_CORRUPTIONS` are the names of the controls.
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


def _fill(tile: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Repeat `tile`, [C, h, w], over the height and width of `image`."""
    height, width = image.shape[1:]
    return tile.tile(1, -(-height // tile.shape[1]), -(-width // tile.shape[2]))[:, :height, :width]


# ---------------------------------------------------------------------------------------------
# Training


def shuffled(image: torch.Tensor) -> torch.Tensor:
    """Shuffle the cells of a grid of 4 x 4 or 8 x 8: textures without a scene."""
    cells = choice(4, 8)
    size = max(1, image.shape[-1] // cells)
    square = F.resize(image, [cells * size] * 2, antialias=True)
    patches = square.unfold(1, size, size).unfold(2, size, size).flatten(1, 2)  # [3, cells^2, size, size]
    grid = patches[:, torch.randperm(cells**2)].view(3, cells, cells, size, size)
    shuffled_square = grid.transpose(2, 3).reshape(3, cells * size, cells * size)
    return F.resize(shuffled_square, list(image.shape[1:]), antialias=True)


def rephased(image: torch.Tensor) -> torch.Tensor:
    """Randomise the phases of the spectrum: colours and grain stay, the scene is lost."""
    spectrum = torch.fft.rfft2(to_float(image))
    phases = torch.fft.rfft2(torch.randn(image.shape[1:])).angle()  # of a real image, shared by RGB
    mean = spectrum[:, :1, :1].clone()
    spectrum = spectrum.abs() * torch.exp(1j * (spectrum.angle() + phases))
    spectrum[:, :1, :1] = mean
    return to_bytes(torch.fft.irfft2(spectrum, s=image.shape[1:]))


def convolved(image: torch.Tensor) -> torch.Tensor:
    """Apply a random convolution and restore mean and deviation (RandConv: Xu et al. 2021, 2007.13003)."""
    x, size = to_float(image), choice(3, 5, 7)
    out = conv2d(x[None], torch.randn(3, 3, size, size), padding=size // 2)[0]
    out = (out - out.mean()) / (out.std() + 1e-6)
    return to_bytes(out * x.std() + x.mean())


def mixed(image: torch.Tensor) -> torch.Tensor:
    """Replace each channel by a random linear combination of all three, scaled to the full range."""
    x = torch.einsum("ij,jhw->ihw", torch.randn(3, 3), to_float(image))
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return to_bytes((x - low) / (high - low + 1e-6) * 2 - 1)


def regraded(image: torch.Tensor) -> torch.Tensor:
    """Move the corners of the RGB cube, except black and white, to random colours; interpolate the rest."""
    corners = torch.rand(2, 2, 2, 3)
    corners[0, 0, 0], corners[1, 1, 1] = 0, 1
    weights = torch.stack([1 - image / 255, image / 255])  # of the corners at 0 and at 1, [2, RGB, H, W]
    red, green, blue = weights.unbind(1)
    return (torch.einsum("rgbc,rhw,ghw,bhw->chw", corners, red, green, blue) * 255).round().byte()


def pixelated(image: torch.Tensor) -> torch.Tensor:
    """Average over the cells of a grid of 6 x 6 to 16 x 16."""
    cells = choice(6, 8, 12, 16)
    small = F.resize(image, [cells, cells], antialias=True)
    return F.resize(small, list(image.shape[1:]), F.InterpolationMode.NEAREST)


def striped(image: torch.Tensor) -> torch.Tensor:
    """Add a sine wave of random colour and direction, with a period of 2 to 10 pixels."""
    y, x = torch.meshgrid(*map(torch.arange, image.shape[1:]), indexing="ij")
    angle, frequency = between(0, math.pi), 2 * math.pi / between(2, 10)
    wave = torch.sin(frequency * (x * math.cos(angle) + y * math.sin(angle)) + between(0, 6))
    colour = torch.randn(3, 1, 1)
    return to_bytes(to_float(image) + between(0.2, 0.8) * wave * colour / colour.norm())


def rippled(image: torch.Tensor) -> torch.Tensor:
    """Add a repeated pattern of 3 to 5 pixels, of 1 to 15/256: hardly visible or invisible.

    Networks leave such patterns, and hide information for a judge or another network in them.
    """
    height, width = choice(3, 4, 5), choice(3, 4, 5)
    tile = torch.randn(choice(1, 3), height, width).sign()
    return to_bytes(to_float(image) + 2 / 256 * 15 ** between(0, 1) * _fill(tile, image))


def speckled(image: torch.Tensor) -> torch.Tensor:
    """Replace 5 to 50 % of the pixels, all by one random colour or each by its own."""
    replaced = torch.rand(image.shape[1:]) < between(0.05, 0.5)
    colour = torch.randint(256, (3, *choice((1, 1), image.shape[1:])), dtype=torch.uint8)
    return torch.where(replaced, colour, image)


def holed(image: torch.Tensor) -> torch.Tensor:
    """Draw 3 to 12 filled rectangles, each 15 to 50 % as wide and as high as the image."""
    image = image.clone()
    height, width = image.shape[1:]
    for _ in range(choice(3, 6, 12)):
        top, left = int(between(0, 0.8) * height), int(between(0, 0.8) * width)
        down, right = int(between(0.15, 0.5) * height), int(between(0.15, 0.5) * width)
        image[:, top : top + down, left : left + right] = torch.randint(256, (3, 1, 1), dtype=torch.uint8)
    return image


def faded(image: torch.Tensor) -> torch.Tensor:
    """Blend with a random colour until a tenth to a fifth of the contrast remains."""
    colour = torch.rand(3, 1, 1) * 2 - 1
    return to_bytes(torch.lerp(colour, to_float(image), between(0.1, 0.2)))


def overexposed(image: torch.Tensor) -> torch.Tensor:
    """Raise the contrast until most pixels are black or white."""
    return to_bytes(to_float(image) * between(3, 8) + between(-2, 2))


def sharpened(image: torch.Tensor) -> torch.Tensor:
    """Apply an unsharp mask so strong that edges get bright and dark borders."""
    x = to_float(image)
    blurred = F.gaussian_blur(x, [5, 5], [between(0.6, 1.5)])
    return to_bytes(x + between(3, 9) * (x - blurred))


def edges(image: torch.Tensor) -> torch.Tensor:
    """Keep only the difference to a blurred copy, on grey or black."""
    x = to_float(image)
    x = between(3, 8) * (x - F.gaussian_blur(x, [5, 5], [between(0.6, 1.5)]))
    return to_bytes(choice(x, 2 * x.abs() - 1))


def compressed(image: torch.Tensor) -> torch.Tensor:
    """Encode as JPEG at a quality that shows its blocks."""
    return reencode_jpeg(image, choice(1, 3))


def duotone(image: torch.Tensor) -> torch.Tensor:
    """Map brightness to a gradient through three random colours."""
    dark, middle, light = torch.rand(3, 3, 1, 1) * 2 - 1
    grey = to_float(F.rgb_to_grayscale(image))
    return to_bytes(torch.where(grey < 0, torch.lerp(middle, dark, -grey), torch.lerp(middle, light, grey)))


def curved(image: torch.Tensor) -> torch.Tensor:
    """Apply a random gamma to each channel: colours that no light produces."""
    gamma = (torch.tensor([-1.0, between(-1, 1), 1.0])[torch.randperm(3)] * between(0.8, 1.6)).exp()
    return ((image / 255) ** gamma[:, None, None] * 255).round().byte()


def gaudy(image: torch.Tensor) -> torch.Tensor:
    """Multiply the saturation by 3 to 8."""
    return F.adjust_saturation(image, between(3, 8))


def stretched(image: torch.Tensor) -> torch.Tensor:
    """Stretch a band of 1 to 4 pixels over the whole image, horizontally or vertically."""
    size = image.shape[-1]
    left, width = int(between(0, size - 4)), choice(1, 2, 4)
    streaks = F.resize(image[:, :, left : left + width], list(image.shape[1:]), antialias=True)
    return choice(streaks, F.rotate(streaks, 90.0))


def texture(image: torch.Tensor) -> torch.Tensor:
    """Return coloured noise with a spectrum of 1 / f^a, a from 0 to 2.5; the image is ignored."""
    height, width = image.shape[1:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    frequency[0, 0] = 1
    noise = torch.fft.rfft2(torch.randn(3, height, width)) / frequency ** between(0, 2.5)
    noise = torch.fft.irfft2(noise, s=(height, width))
    coloured = torch.einsum("ij,jhw->ihw", torch.randn(3, 3), noise)
    coloured = (coloured - coloured.mean((1, 2), keepdim=True)) / coloured.std()
    return to_bytes(coloured * between(0.1, 0.6) + torch.rand(3, 1, 1) * 1.4 - 0.7)


def warped(image: torch.Tensor) -> torch.Tensor:
    """Distort smoothly, by up to a fifth of the width."""
    return v2.ElasticTransform(alpha=image.shape[-1] * between(3, 8), sigma=between(2, 5))(image)


def solarised(image: torch.Tensor) -> torch.Tensor:
    """Invert all values above a random threshold."""
    return F.solarize(image, choice(64, 96, 128))


TRAINING_CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        shuffled, rephased, convolved, mixed, regraded, pixelated, striped, rippled, speckled, holed,
        faded, overexposed, sharpened, edges, compressed, duotone, curved, gaudy, stretched, texture,
        warped, solarised,
    )
}


def corrupt(image: torch.Tensor) -> torch.Tensor:
    """Apply one of `TRAINING_CORRUPTIONS`, or two with a probability of 1/4."""
    for _ in range(choice(1, 1, 1, 2)):
        image = choice(*TRAINING_CORRUPTIONS.values())(image)
    return image


# ---------------------------------------------------------------------------------------------
# Held out


def checkerboard(image: torch.Tensor) -> torch.Tensor:
    """Make every other pixel lighter and the rest darker, by 0.3 of [-1, 1]."""
    y, x = torch.meshgrid(*map(torch.arange, image.shape[1:]), indexing="ij")
    return to_bytes(to_float(image) + 0.3 * (1 - 2 * ((x + y) % 2)))


def constant(image: torch.Tensor) -> torch.Tensor:
    """Return the mean colour everywhere."""
    return image.float().mean((1, 2), keepdim=True).round().byte().expand_as(image)


def nearly_constant(image: torch.Tensor) -> torch.Tensor:
    """Keep a twentieth of the contrast."""
    x = to_float(image)
    return to_bytes(torch.lerp(x.mean((1, 2), keepdim=True), x, 0.05))


def noisy(sigma: float) -> Corruption:
    """Return a corruption that adds Gaussian noise of deviation `sigma`, for values in [0, 1]."""
    return lambda image: to_bytes(to_float(image) + 2 * sigma * torch.randn(image.shape))


def blurred(share: float) -> Corruption:
    """Return a Gaussian blur with a deviation of `share` times the image's width."""

    def blur(image: torch.Tensor) -> torch.Tensor:
        sigma = share * image.shape[-1]
        return F.gaussian_blur(image, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)

    return blur


def tiled(image: torch.Tensor) -> torch.Tensor:
    """Return a grid of 3 x 3 small copies."""
    return _fill(F.resize(image, [-(-image.shape[-1] // 3)] * 2, antialias=True), image)


def high_frequency(image: torch.Tensor) -> torch.Tensor:
    """Add vertical lines of 3/256: where CycleGANs hide the source (Chu et al. 2017, 1712.02950)."""
    sign = 1 - 2 * (torch.arange(image.shape[-1]) % 2)
    return (image.short() + 3 * sign).clamp(0, 255).byte()


def grid(image: torch.Tensor) -> torch.Tensor:
    """Add a repeated random tile of 4 x 4 pixels, as transposed convolutions leave."""
    return to_bytes(to_float(image) + 0.3 * _fill(torch.randn(3, 4, 4), image))


HELD_OUT_CORRUPTIONS: dict[str, Corruption] = {
    "checkerboard": checkerboard,
    "inverted": lambda image: 255 - image,
    "channels swapped": lambda image: image[[1, 2, 0]],
    "constant": constant,
    "nearly constant": nearly_constant,
    "noise 0.1": noisy(0.1),
    "noise 0.2": noisy(0.2),
    "noise 0.4": noisy(0.4),
    "blur 3 %": blurred(0.03),
    "blur 6 %": blurred(0.06),
    "posterised, 2 bits": lambda image: F.posterize(image, 2),
    "posterised, 1 bit": lambda image: F.posterize(image, 1),
    "tiled": tiled,
    "hue, a quarter": lambda image: F.adjust_hue(image, 0.25),
    "hue, half": lambda image: F.adjust_hue(image, 0.5),
    "high frequency 3/256": high_frequency,
    "grid": grid,
}
