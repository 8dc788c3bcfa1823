"""Images that are neither photograph nor painting: what a judge learns as its third class, and the
controls that a score is tested with.

A classifier of two kinds must call every image one of them, and a search that maximises its word
finds the mush that it calls painting. So a judge is shown the third kind in training: real images
damaged in many ways (`SHOWN`), textures without a source, and what generators paint that have
learnt nothing or next to nothing (`barely_trained`). The damages in `HELD_OUT` are shown to no
judge: they measure whether it knows damage, or only the damages that it was shown.

A damage takes and returns uint8 [3, H, W] and draws from torch's global generator, as torchvision's
transforms do, so that it can stand among them.
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
    """A number drawn uniformly from [low, high)."""
    return low + (high - low) * torch.rand(()).item()


def choice(*values):
    """One of `values`."""
    return values[int(torch.randint(len(values), ()))]


# ---------------------------------------------------------------------------------------------
# Shown in training


def shuffled(image: torch.Tensor) -> torch.Tensor:
    """Cut into a grid of squares, put together in another order: textures without a scene."""
    patches = _patches(image, cells := choice(4, 8))
    mixed = _unpatched(patches[torch.randperm(cells**2)], cells)
    return F.resize(mixed, list(image.shape[1:]), antialias=True)


def _patches(image: torch.Tensor, cells: int) -> torch.Tensor:
    """[cells^2, 3, edge, edge], row by row, of the image resized to what divides."""
    edge = max(1, image.shape[-1] // cells)
    image = F.resize(image, [edge * cells, edge * cells], antialias=True)
    parts = image.unfold(1, edge, edge).unfold(2, edge, edge)
    return parts.permute(1, 2, 0, 3, 4).reshape(-1, image.shape[0], edge, edge)


def _unpatched(patches: torch.Tensor, cells: int) -> torch.Tensor:
    edge = patches.shape[-1]
    grid = patches.view(cells, cells, -1, edge, edge).permute(2, 0, 3, 1, 4)
    return grid.reshape(-1, cells * edge, cells * edge)


def rephased(image: torch.Tensor) -> torch.Tensor:
    """The same spectrum with random phases: the colours and the grain of an image that is gone."""
    spectrum = torch.fft.rfft2(to_float(image))
    phases = torch.fft.rfft2(torch.randn(image.shape[1:])).angle()  # of a real image, shared by RGB
    mean = spectrum[:, :1, :1].clone()
    spectrum = spectrum.abs() * torch.exp(1j * (spectrum.angle() + phases))
    spectrum[:, :1, :1] = mean
    return to_bytes(torch.fft.irfft2(spectrum, s=image.shape[1:]))


def convolved(image: torch.Tensor) -> torch.Tensor:
    """Through one random convolution, brought back to its mean and deviation (RandConv: Xu et al.
    2021, 2007.13003): false colours, false edges."""
    x, edge = to_float(image), choice(3, 5, 7)
    out = conv2d(x[None], torch.randn(3, 3, edge, edge), padding=edge // 2)[0]
    out = (out - out.mean()) / (out.std() + 1e-6)
    return to_bytes(out * x.std() + x.mean())


def mixed(image: torch.Tensor) -> torch.Tensor:
    """Each channel a random mixture of all three, within the image's own range of light."""
    x = torch.einsum("ij,jhw->ihw", torch.randn(3, 3), to_float(image))
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return to_bytes((x - low) / (high - low + 1e-6) * 2 - 1)


def regraded(image: torch.Tensor) -> torch.Tensor:
    """Through a table of colours: black and white stay, every other corner of the RGB cube goes to a
    random colour, and what lies between them to what lies between those."""
    corners = torch.rand(2, 2, 2, 3)
    corners[0, 0, 0], corners[1, 1, 1] = 0, 1
    near = torch.stack([1 - image / 255, image / 255])  # to 0 and to 1, [2, RGB, H, W]
    red, green, blue = near.unbind(1)
    return (torch.einsum("rgbc,rhw,ghw,bhw->chw", corners, red, green, blue) * 255).round().byte()


def pixelated(image: torch.Tensor) -> torch.Tensor:
    """Averaged over coarse squares."""
    height, width = image.shape[1:]
    cells = choice(6, 8, 12, 16)
    small = F.resize(image, [cells, cells], antialias=True)
    return F.resize(small, [height, width], F.InterpolationMode.NEAREST)


def striped(image: torch.Tensor) -> torch.Tensor:
    """Under waves of a random colour, direction and period of 2 to 10 pixels."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angle, turns = between(0, math.pi), 2 * math.pi / between(2, 10)
    wave = torch.sin(turns * (x * math.cos(angle) + y * math.sin(angle)) + between(0, 6))
    colour = torch.randn(3, 1, 1)
    return to_bytes(to_float(image) + between(0.2, 0.8) * wave * colour / colour.norm())


def rippled(image: torch.Tensor) -> torch.Tensor:
    """A pattern a few pixels wide all over it, of 1 to 15/256: hardly or not to be seen. Networks
    paint such patterns, and hide in them what a judge or another network is to read."""
    height, width = image.shape[1:]
    down, across = choice(3, 4, 5), choice(3, 4, 5)
    tile = torch.randn(choice(1, 3), down, across).sign()
    pattern = tile.tile(1, -(-height // down), -(-width // across))[:, :height, :width]
    return to_bytes(to_float(image) + 2 / 256 * 15 ** between(0, 1) * pattern)


def speckled(image: torch.Tensor) -> torch.Tensor:
    """A share of the pixels lost: black, white or of any colour."""
    lost = torch.rand(image.shape[1:]) < between(0.05, 0.5)
    colour = torch.randint(256, (3, *choice((1, 1), image.shape[1:])), dtype=torch.uint8)
    return torch.where(lost, colour, image)


def holed(image: torch.Tensor) -> torch.Tensor:
    """Rectangles of one colour over a third of it and more."""
    image = image.clone()
    height, width = image.shape[1:]
    for _ in range(choice(3, 6, 12)):
        top, left = int(between(0, 0.8) * height), int(between(0, 0.8) * width)
        down, right = int(between(0.15, 0.5) * height), int(between(0.15, 0.5) * width)
        image[:, top : top + down, left : left + right] = torch.randint(256, (3, 1, 1), dtype=torch.uint8)
    return image


def faded(image: torch.Tensor) -> torch.Tensor:
    """A tenth to a fifth of its contrast left, towards one colour."""
    to = torch.rand(3, 1, 1) * 2 - 1
    return to_bytes(torch.lerp(to, to_float(image), between(0.1, 0.2)))


def overexposed(image: torch.Tensor) -> torch.Tensor:
    """Most of it black or white."""
    return to_bytes(to_float(image) * between(3, 8) + between(-2, 2))


def sharpened(image: torch.Tensor) -> torch.Tensor:
    """Edges with bright and dark rims, as an unsharp mask turned all the way up leaves them."""
    x = to_float(image)
    blurred = F.gaussian_blur(x, [5, 5], [between(0.6, 1.5)])
    return to_bytes(x + between(3, 9) * (x - blurred))


def edges(image: torch.Tensor) -> torch.Tensor:
    """Nothing but differences between neighbours, on grey or black."""
    x = to_float(image)
    x = between(3, 8) * (x - F.gaussian_blur(x, [5, 5], [between(0.6, 1.5)]))
    return to_bytes(choice(x, 2 * x.abs() - 1))


def reencode_jpeg(image: torch.Tensor, quality: int = 75, chroma: str = "4:2:0") -> torch.Tensor:
    """uint8 [3, H, W] through JPEG. By Pillow, because torchvision gives its own codecs up."""
    encoded = io.BytesIO()
    F.to_pil_image(image).save(encoded, "JPEG", quality=quality, subsampling=chroma)
    return F.pil_to_tensor(Image.open(encoded))


def compressed(image: torch.Tensor) -> torch.Tensor:
    """JPEG at a quality that shows its blocks."""
    encoded = io.BytesIO()
    F.to_pil_image(image).save(encoded, "JPEG", quality=choice(1, 3))
    return F.pil_to_tensor(Image.open(encoded))


def duotone(image: torch.Tensor) -> torch.Tensor:
    """Its light through a map of three random colours."""
    dark, middle, light = torch.rand(3, 3, 1, 1) * 2 - 1
    grey = to_float(F.rgb_to_grayscale(image))
    return to_bytes(torch.where(
        grey < 0, torch.lerp(middle, dark, -grey), torch.lerp(middle, light, grey)))


def curved(image: torch.Tensor) -> torch.Tensor:
    """Each channel through a curve of its own: colours that no light makes."""
    bend = torch.tensor([-1.0, between(-1, 1), 1.0])[torch.randperm(3)] * between(0.8, 1.6)
    return ((image / 255) ** bend.exp()[:, None, None] * 255).round().byte()


def gaudy(image: torch.Tensor) -> torch.Tensor:
    """Colours driven three to eight times away from grey."""
    return F.adjust_saturation(image, between(3, 8))


def stretched(image: torch.Tensor) -> torch.Tensor:
    """A band of a few pixels drawn out into streaks, along or across."""
    size = image.shape[-1]
    at, width = int(between(0, size - 4)), choice(1, 2, 4)
    streaks = F.resize(image[:, :, at : at + width], list(image.shape[1:]), antialias=True)
    return choice(streaks, F.rotate(streaks, 90.0))


def texture(image: torch.Tensor) -> torch.Tensor:
    """No source at all: coloured noise with a spectrum of 1 / f^a, a from 0 to 2.5."""
    height, width = image.shape[1:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    frequency[0, 0] = 1
    noise = torch.fft.rfft2(torch.randn(3, height, width)) / frequency ** between(0, 2.5)
    noise = torch.fft.irfft2(noise, s=(height, width))
    mixed = torch.einsum("ij,jhw->ihw", torch.randn(3, 3), noise)
    mixed = (mixed - mixed.mean((1, 2), keepdim=True)) / mixed.std()
    return to_bytes(mixed * between(0.1, 0.6) + torch.rand(3, 1, 1) * 1.4 - 0.7)


def warped(image: torch.Tensor) -> torch.Tensor:
    """Pulled about by a fifth of its width, smoothly."""
    return v2.ElasticTransform(alpha=image.shape[-1] * between(3, 8), sigma=between(2, 5))(image)


def solarised(image: torch.Tensor) -> torch.Tensor:
    """Everything lighter than a threshold inverted."""
    return F.solarize(image, choice(64, 96, 128))


TRAINING_CORRUPTIONS: dict[str, Corruption] = {
    damage.__name__: damage
    for damage in (
        shuffled, rephased, convolved, mixed, regraded, pixelated, striped, rippled, speckled, holed,
        faded, overexposed, sharpened, edges, compressed, duotone, curved, gaudy, stretched, texture,
        warped, solarised,
    )
}  # fmt: skip


def corrupt(image: torch.Tensor) -> torch.Tensor:
    """One of the damages in `SHOWN`, and now and then a second on top."""
    for _ in range(choice(1, 1, 1, 2)):
        image = choice(*TRAINING_CORRUPTIONS.values())(image)
    return image


# ---------------------------------------------------------------------------------------------
# Held out


def checkerboard(image: torch.Tensor) -> torch.Tensor:
    """Every other pixel lighter, those between darker, by a seventh of the range."""
    y, x = torch.meshgrid(*map(torch.arange, image.shape[1:]), indexing="ij")
    return to_bytes(to_float(image) + 0.3 * (1 - 2 * ((x + y) % 2)))


def inverted(image: torch.Tensor) -> torch.Tensor:
    """The negative."""
    return 255 - image


def swapped(image: torch.Tensor) -> torch.Tensor:
    """Red, green and blue as green, blue and red."""
    return image[[1, 2, 0]]


def constant(image: torch.Tensor) -> torch.Tensor:
    """Its mean colour everywhere."""
    return image.float().mean((1, 2), keepdim=True).round().byte().expand_as(image)


def nearly_constant(image: torch.Tensor) -> torch.Tensor:
    """A twentieth of its contrast left."""
    x = to_float(image)
    return to_bytes(torch.lerp(x.mean((1, 2), keepdim=True), x, 0.05))


def noisy(sigma: float) -> Corruption:
    """Gaussian noise of `sigma`, of a range of 0 to 1."""
    return lambda image: to_bytes(to_float(image) + 2 * sigma * torch.randn(image.shape))


def blurred(share: float) -> Corruption:
    """Gaussian blur with a deviation of `share` of its edge."""

    def blur(image: torch.Tensor) -> torch.Tensor:
        sigma = share * image.shape[-1]
        return F.gaussian_blur(image, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)

    return blur


def posterised(bits: int) -> Corruption:
    """`bits` bits a channel left."""
    return lambda image: F.posterize(image, bits)


def tiled(image: torch.Tensor) -> torch.Tensor:
    """Nine small copies of it."""
    size = image.shape[-1]
    small = F.resize(image, [-(-size // 3)] * 2, antialias=True)
    return small.tile(1, 3, 3)[:, :size, :size]


def hue(turn: float) -> Corruption:
    """Hue turned by `turn` of the circle."""
    return lambda image: F.adjust_hue(image, turn)


def high_frequency(image: torch.Tensor) -> torch.Tensor:
    """Vertical lines of 3/256, at which CycleGANs hide their source (Chu et al. 2017, 1712.02950)."""
    sign = 1 - 2 * (torch.arange(image.shape[-1]) % 2)
    return (image.short() + 3 * sign).clamp(0, 255).byte()


def grid(image: torch.Tensor) -> torch.Tensor:
    """A random tile of 4 x 4 pixels all over it, as transposed convolutions leave one."""
    height, width = image.shape[1:]
    tile = torch.randn(3, 4, 4).tile(1, -(-height // 4), -(-width // 4))[:, :height, :width]
    return to_bytes(to_float(image) + 0.3 * tile)


HELD_OUT_CORRUPTIONS: dict[str, Corruption] = {
    "checkerboard": checkerboard,
    "inverted": inverted,
    "channels swapped": swapped,
    "constant": constant,
    "nearly constant": nearly_constant,
    "noise 0.1": noisy(0.1),
    "noise 0.2": noisy(0.2),
    "noise 0.4": noisy(0.4),
    "blur 3 %": blurred(0.03),
    "blur 6 %": blurred(0.06),
    "posterised, 2 bits": posterised(2),
    "posterised, 1 bit": posterised(1),
    "tiled": tiled,
    "hue, a quarter": hue(0.25),
    "hue, half": hue(0.5),
    "high frequency 3/256": high_frequency,
    "grid": grid,
}
