"""The built-in sample: a stand-in data set, so that Salon can be tried offline.

Random crops of scikit-learn's two photographs are the photographs (domain B); other random crops, repainted
in brush strokes, are the paintings (domain A). Both are cut from the same tiles, so that the brushwork is
their only systematic difference. Test images are cut from tiles of their own.

The brushwork follows Hertzmann, SIGGRAPH 1998 (layers from large brush to small, where the coarse layer
differs from the source; curved strokes that end where their colour no longer fits) and Litwinowicz, SIGGRAPH
1997 (strokes across the gradient, jittered colour, random order).
"""

import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from sklearn.datasets import load_sample_images

from judge.common.constants import LUMA, STAND_IN

ROWS, COLUMNS = 4, 6  # tiles of each 427 x 640 photograph: 106 pixels square
MIN_TILE_GRADIENT = 1.5  # mean, in grey levels a pixel: tiles below it are empty sky or backdrop

SUPERSAMPLING = 3  # the canvas is painted this many times larger and then reduced, for smooth stroke edges
REFERENCE_PIXELS = 96  # side of the image that brush widths are given for
BRUSHES = (8.0, 5.0, 3.2)  # widths in pixels, from the first layer to the last
STROKE_STEPS = 5  # points of a stroke after its first
REPAINT_ERROR = 14.0  # difference from the source, in grey levels, from which a smaller brush is used
DEFAULT_GRADIENT = 60.0  # squared Sobel gradient below which strokes follow their layer's default direction
LIGHT = np.array([1.03, 1.00, 0.95])  # warm light: factors of R, G and B

README = """\
Salon's built-in sample: a stand-in, not real paintings. Results on it mean only that Salon runs.

trainA testA   "paintings": crops of the photographs below, repainted in brush strokes by a program
trainB testB   photographs: other crops of the same photographs

The photographs are the sample images of scikit-learn, which credits them as follows. Both are
under a Creative Commons licence, https://creativecommons.org/licenses/by/2.0/; they were cropped,
resized and recoloured here, and those in trainA and testA repainted.

china.jpg    Some rights reserved by danielbuechele
             https://www.flickr.com/photos/danielbuechele/6061409035/sizes/z/in/photostream/
flower.jpg   Some rights reserved by danielbuechele (so scikit-learn; its links name vultilion)
             https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/
"""


def make(folder: Path, *, train: int = 240, test: int = 64, pixels: int = 96) -> None:
    """Write the sample to `folder`, unless that exists already.

    Equal arguments write equal images. `folder` appears complete or not at all; if another process has
    written it first, its images stay.

    Args:
        train, test: number of images of each domain.
        pixels: side of the images, 16 or more.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        part = Path(scratch) / folder.name  # one level deeper, for ordinary permissions
        _write(part, {"train": train, "test": test}, pixels)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first: keep its images
                raise


def _write(folder: Path, counts: dict[str, int], pixels: int) -> None:
    for (split, tiles), domain in product(cut_tiles(load_sample_images().images).items(), "AB"):
        (folder / f"{split}{domain}").mkdir(parents=True)
        for index in range(counts[split]):
            rng = np.random.default_rng((0, "AB".index(domain), split == "test", index))
            # Each tile equally often, so that both domains show the same subjects.
            image = _random_crop(tiles[index % len(tiles)], pixels, rng)
            if domain == "A":
                image = paint(image, rng)
            Image.fromarray(image).save(folder / f"{split}{domain}" / f"{index:03}.png")
    (folder / "README.txt").write_text(README, encoding="utf-8")
    (folder / STAND_IN).touch()


def cut_tiles(pictures: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return the tiles that `train` and `test` crops are cut from: views of `pictures`, uint8 [H, W, 3]."""
    tiles = []
    for picture in pictures:
        gradient = ndimage.gaussian_gradient_magnitude(picture @ LUMA, 1.5)
        height, width = gradient.shape[0] // ROWS, gradient.shape[1] // COLUMNS
        for y, x in product(range(0, ROWS * height, height), range(0, COLUMNS * width, width)):
            place = slice(y, y + height), slice(x, x + width)
            if gradient[place].mean() >= MIN_TILE_GRADIENT:
                tiles.append(picture[place])
    return {"train": [tile for index, tile in enumerate(tiles) if index % 4 != 2], "test": tiles[2::4]}


def _random_crop(tile: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random square of `tile`, uint8 [pixels, pixels, 3], maybe mirrored, its colours varied."""
    height, width = tile.shape[:2]
    side = min(height, width) * rng.uniform(0.75, 1.0)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    box = left, top, left + side, top + side
    image = Image.fromarray(tile).resize((pixels, pixels), Image.Resampling.LANCZOS, box)
    light = np.asarray(image, np.float64)[:, :: rng.choice((-1, 1))] / 255
    light = light ** rng.uniform(0.85, 1.15) * rng.uniform(0.92, 1.08)
    return _to_uint8(255 * _saturate(light, rng.uniform(0.85, 1.15)))


def _saturate(colours: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """Scale the distance of `colours` [..., 3] from the grey of equal luma."""
    grey = (colours @ LUMA)[..., None]
    return grey + (colours - grey) * factor


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def paint(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `image`, uint8 [H, W, 3], in brush strokes of warmer, lighter and stronger colours."""
    height, width = image.shape[:2]
    source = (255 * _saturate(0.08 + 0.90 * (image / 255) ** 0.9, 1.3) * LIGHT).clip(0, 255)  # no blacks
    background = tuple(_to_uint8(source.mean((0, 1))).tolist())
    canvas = Image.new("RGB", (SUPERSAMPLING * width, SUPERSAMPLING * height), background)
    pen = ImageDraw.Draw(canvas)
    for layer, brush in enumerate(BRUSHES):
        brush *= min(height, width) / REFERENCE_PIXELS
        blurred = ndimage.gaussian_filter(source, (brush / 3, brush / 3, 0))
        starts = _jittered_grid((height, width), brush * 0.6, rng)
        if layer:
            starts = starts[_needs_repainting(canvas, blurred, brush)[_nearest_pixels(starts, blurred)]]
        strokes = _strokes(starts, blurred, _directions(source, brush, rng), brush)
        colours = blurred[_nearest_pixels(starts, blurred)] + rng.normal(0, 5, (len(starts), 3))
        value, saturation = rng.normal(1, 0.07, (len(starts), 1)), rng.normal(1, 0.15, (len(starts), 1))
        _draw(pen, strokes, _to_uint8(_saturate(colours, saturation) * value), brush)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))


def _jittered_grid(shape: tuple[int, int], gap: float, rng: np.random.Generator) -> np.ndarray:
    """Return places (y, x) about `gap` apart, in random order: float [N, 2]."""
    axes = [np.arange(gap / 2, length, gap) for length in shape]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return rng.permutation(places + rng.uniform(-gap / 2, gap / 2, places.shape))


def _nearest_pixels(places: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of `image` for `places` [N, 2], which may lie outside."""
    y, x = places.astype(int).T
    return y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)


def _needs_repainting(canvas: Image.Image, blurred: np.ndarray, brush: float) -> np.ndarray:
    """Return where the painting so far differs from `blurred`, averaged over a brush's width: bool [H, W]."""
    painted = np.asarray(canvas.resize(blurred.shape[1::-1], Image.Resampling.BOX), np.float64)
    error = np.abs(painted - blurred).mean(2)
    return ndimage.uniform_filter(error, max(1, round(brush))) > REPAINT_ERROR


def _directions(source: np.ndarray, brush: float, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors (y, x) along the edges: float [H, W, 2].

    Opposite gradients mean the same edge, so squared complex gradients are averaged. Where there is no
    gradient, strokes follow a random direction, one per layer.
    """
    grey = ndimage.gaussian_filter(source @ LUMA, brush / 4)
    squared = (ndimage.sobel(grey, 1) + 1j * ndimage.sobel(grey, 0)) ** 2
    near, far = (ndimage.gaussian_filter(squared, sigma) for sigma in (brush / 2, brush * 2))
    default = DEFAULT_GRADIENT * np.exp(2j * rng.normal(0.8, 0.5))
    angle = np.angle(near + 0.2 * far + default) / 2 + np.pi / 2
    return np.stack((np.sin(angle), np.cos(angle)), -1)


def _strokes(starts: np.ndarray, blurred: np.ndarray, directions: np.ndarray, brush: float) -> np.ndarray:
    """Return strokes [N, STROKE_STEPS + 1, 2] that follow `directions` while their first colour fits."""
    colour = blurred[_nearest_pixels(starts, blurred)]
    points, heading = [starts], directions[_nearest_pixels(starts, blurred)]
    going = np.ones((len(starts), 1), bool)
    for step in range(STROKE_STEPS):
        turn = directions[_nearest_pixels(points[-1], blurred)]
        turn = np.where((turn * heading).sum(1, keepdims=True) < 0, -turn, turn)  # never back
        heading = 0.5 * heading + 0.5 * turn
        ahead = points[-1] + 0.7 * brush * heading
        misfit = np.abs(blurred[_nearest_pixels(ahead, blurred)] - colour).mean(1, keepdims=True)
        going &= (misfit < 2 * REPAINT_ERROR) | (step == 0)  # a stroke is never a mere dot
        points.append(np.where(going, ahead, points[-1]))
    return np.stack(points, 1)


def _draw(pen: ImageDraw.ImageDraw, strokes: np.ndarray, colours: np.ndarray, brush: float) -> None:
    """Draw the strokes [N, points, 2] in their order, round at both ends."""
    width = SUPERSAMPLING * brush
    for stroke, colour in zip((SUPERSAMPLING * strokes[:, :, ::-1]).tolist(), colours.tolist()):
        colour = tuple(colour)
        pen.line([tuple(point) for point in stroke], fill=colour, width=round(width))
        for x, y in (stroke[0], stroke[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)
