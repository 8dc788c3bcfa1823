"""The built-in sample: a stand-in data set, so that a fresh machine can try Salon offline.

scikit-learn ships two photographs. Random crops of them become the photographs of the sample
(domain B); other random crops, unpaired, are repainted in brush strokes and become its paintings
(domain A). The brushwork is the one systematic difference between the domains: both are cut from
the same tiles, so that a judge cannot learn what is shown instead of how. The images held out are
cut from tiles of their own.

The brushwork is a simple form of two papers:

* A. Hertzmann, "Painterly Rendering with Curved Brush Strokes of Multiple Sizes", SIGGRAPH 1998:
  layers from large brush to small, curved strokes that end where their colour no longer fits,
  small brushes only where the coarse layer differs from the source.
* P. Litwinowicz, "Processing Images and Video for an Impressionist Effect", SIGGRAPH 1997:
  strokes across the gradient, smooth directions where there is none, jittered colour, random order.
"""

import tempfile
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from sklearn.datasets import load_sample_images

from judge.images import LUMA, STAND_IN

ROWS, COLUMNS = 4, 6  # tiles of each 427 x 640 photograph: 106 pixels square
BARE = 1.5  # mean gradient, grey levels a pixel, under which a tile is empty sky or backdrop

SHARPER = 3  # the canvas is painted this many times larger and reduced, for smooth stroke edges
REFERENCE = 96  # the edge, in pixels, of the image that brush widths are given for
BRUSHES = (8.0, 5.0, 3.2)  # widths in pixels, from the first layer to the last
STEPS = 5  # points a stroke is drawn through after its first
TOUCH_UP = 14.0  # grey levels of difference from the source that call for a smaller brush
HAND = 60.0  # the squared Sobel gradient under which strokes go the hand's own way
LIGHT = np.array([1.03, 1.00, 0.95])  # a warm light on the palette

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


def make(
    folder: Path, *, train: int = 240, test: int = 64, pixels: int = 96, seed: int = 0
) -> None:
    """Write the sample to `folder`, unless something is there already.

    Writes `trainA testA` (paintings) and `trainB testB` (photographs), holding `000.png`,
    `001.png` and so on: `train` or `test` RGB images of `pixels` x `pixels`, and `README.txt`
    with the credits. Equal arguments write equal images. `folder` appears complete or not at all;
    where another process was first, its images stay.

    Args:
        folder: where the sample goes; parents are made.
        train: images of each domain to train on, 1 or more.
        test: images of each domain held out, 1 or more.
        pixels: edge of the images, 16 or more.
        seed: 0 or more; crops, colours and strokes follow from it.

    Raises:
        ValueError: a number is out of its range.
        OSError: `folder` cannot be written.
    """
    if min(train, test) < 1 or pixels < 16 or seed < 0:
        raise ValueError(f"sample: {train=} {test=} {pixels=} {seed=} out of range")
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        whole = Path(scratch) / folder.name  # one deeper, for ordinary permissions
        _write(whole, {"train": train, "test": test}, pixels, seed)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first: keep its images
                raise


def _write(folder: Path, counts: dict[str, int], pixels: int, seed: int) -> None:
    pictures = load_sample_images().images
    for (split, found), domain in product(tiles(pictures).items(), "AB"):
        (folder / f"{split}{domain}").mkdir(parents=True)
        for index in range(counts[split]):
            rng = np.random.default_rng((seed, "AB".index(domain), split == "test", index))
            tile = found[index % len(found)]  # each equally often: both domains show the same mix
            image = _photograph(tile.of(pictures), pixels, rng)
            if domain == "A":
                image = paint(image, rng)
            Image.fromarray(image).save(folder / f"{split}{domain}" / f"{index:03}.png")
    (folder / "README.txt").write_text(README, encoding="utf-8")
    (folder / STAND_IN).touch()


# ---------------------------------------------------------------------------------------------
# Crops


class Tile(NamedTuple):
    """A rectangle of one of the photographs."""

    picture: int
    top: int
    left: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def of(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Its pixels, uint8 [height, width, 3]."""
        return pictures[self.picture][self.place]


def tiles(pictures: list[np.ndarray]) -> dict[str, list[Tile]]:
    """Tiles to cut `train` and `test` crops from; none overlaps another, every fourth is held out.

    Args:
        pictures: uint8 [height, width, 3] each.
    """
    every = [tile for number in range(len(pictures)) for tile in _worth_showing(pictures[number], number)]
    return {
        "train": [tile for index, tile in enumerate(every) if index % 4 != 2],
        "test": every[2::4],
    }


def _worth_showing(picture: np.ndarray, number: int) -> list[Tile]:
    """The tiles of `picture` that are not bare, row by row."""
    detail = ndimage.gaussian_gradient_magnitude(picture @ LUMA, 1.5)
    height, width = detail.shape[0] // ROWS, detail.shape[1] // COLUMNS
    every = [
        Tile(number, row * height, column * width, height, width)
        for row in range(ROWS) for column in range(COLUMNS)
    ]
    return [tile for tile in every if detail[tile.place].mean() >= BARE]


def _photograph(tile: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of `tile`, maybe mirrored, its colours a little changed: uint8 [p, p, 3]."""
    height, width = tile.shape[:2]
    edge = min(height, width) * rng.uniform(0.75, 1.0)
    left, top = rng.uniform(0, width - edge), rng.uniform(0, height - edge)
    # From the tile, not the picture: the filter reads beyond its box, into other tiles.
    image = Image.fromarray(tile).resize(
        (pixels, pixels), Image.Resampling.LANCZOS, box=(left, top, left + edge, top + edge)
    )
    light = np.asarray(image, np.float64)[:, :: rng.choice((-1, 1))] / 255
    light = light ** rng.uniform(0.85, 1.15) * rng.uniform(0.92, 1.08)
    return _bytes(255 * _saturated(light, rng.uniform(0.85, 1.15)))


def _saturated(colours: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """`colours` [..., 3] moved away from grey of their own luma."""
    grey = (colours @ LUMA)[..., None]
    return grey + (colours - grey) * factor


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------
# Brushwork


def paint(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` in brush strokes, in a warmer, lighter and more saturated palette.

    Args:
        image: uint8 [height, width, 3], RGB.
        rng: draws the order, the places, the directions and the colours of the strokes.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = image.shape[:2]
    source = _palette(image)
    ground = tuple(_bytes(source.mean((0, 1))).tolist())
    canvas = Image.new("RGB", (SHARPER * width, SHARPER * height), ground)
    pen = ImageDraw.Draw(canvas)
    for layer, brush in enumerate(BRUSHES):
        brush *= min(height, width) / REFERENCE
        model = ndimage.gaussian_filter(source, (brush / 3, brush / 3, 0))
        starts = _grid((height, width), brush * 0.6, rng)
        if layer:
            starts = starts[_differs(canvas, model, brush)[_at(starts, model)]]
        paths = _paths(starts, model, _directions(source, brush, rng), brush)
        colours = _jittered(model[_at(starts, model)], rng)
        _draw(pen, paths, colours, brush)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))


def _palette(image: np.ndarray) -> np.ndarray:
    """Float [H, W, 3], 0 to 255: no blacks, warm light, strong colour, as Impressionists chose."""
    lifted = 0.08 + 0.90 * (image / 255) ** 0.9
    return (255 * _saturated(lifted, 1.3) * LIGHT).clip(0, 255)


def _grid(shape: tuple[int, int], gap: float, rng: np.random.Generator) -> np.ndarray:
    """Places (y, x) about `gap` apart, in random order: float [N, 2]."""
    axes = [np.arange(gap / 2, length, gap) for length in shape]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return rng.permutation(places + rng.uniform(-gap / 2, gap / 2, places.shape))


def _at(places: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An index of `image` for `places` [N, 2], the nearest pixel where they lie outside it."""
    y, x = places.astype(int).T
    return y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)


def _differs(canvas: Image.Image, model: np.ndarray, brush: float) -> np.ndarray:
    """Where the painting so far is far from `model`, over about a brush's width: bool [H, W]."""
    painted = np.asarray(canvas.resize(model.shape[1::-1], Image.Resampling.BOX), np.float64)
    error = np.abs(painted - model).mean(2)
    return ndimage.uniform_filter(error, max(1, round(brush))) > TOUCH_UP


def _directions(source: np.ndarray, brush: float, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors (y, x) along the edges: float [H, W, 2].

    Opposite gradients mean the same edge, so squared complex gradients are averaged (the structure
    tensor's angle). Where there are none the hand decides, in one direction per layer.
    """
    luma = ndimage.gaussian_filter(source @ LUMA, brush / 4)
    squared = (ndimage.sobel(luma, 1) + 1j * ndimage.sobel(luma, 0)) ** 2
    near, far = (
        ndimage.gaussian_filter(squared.real, s) + 1j * ndimage.gaussian_filter(squared.imag, s)
        for s in (brush / 2, brush * 2)
    )
    hand = HAND * np.exp(2j * rng.normal(0.8, 0.5))
    angle = np.angle(near + 0.2 * far + hand) / 2 + np.pi / 2
    return np.stack((np.sin(angle), np.cos(angle)), -1)


def _paths(
    starts: np.ndarray, model: np.ndarray, directions: np.ndarray, brush: float
) -> np.ndarray:
    """Strokes that follow `directions` while their first colour fits `model`: [N, STEPS + 1, 2]."""
    colour = model[_at(starts, model)]
    points, heading = [starts], directions[_at(starts, model)]
    going = np.ones((len(starts), 1), bool)
    for step in range(STEPS):
        turn = directions[_at(points[-1], model)]
        turn = np.where((turn * heading).sum(1, keepdims=True) < 0, -turn, turn)  # never back
        heading = 0.5 * heading + 0.5 * turn
        ahead = points[-1] + 0.7 * brush * heading
        misfit = np.abs(model[_at(ahead, model)] - colour).mean(1, keepdims=True)
        going &= (misfit < 2 * TOUCH_UP) | (step == 0)  # a stroke is never a mere dot
        points.append(np.where(going, ahead, points[-1]))
    return np.stack(points, 1)


def _jittered(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each stroke's colour [N, 3] a little off in hue, saturation and value: uint8."""
    count = (len(colours), 1)
    hue = rng.normal(0, 5, colours.shape)
    value = rng.normal(1, 0.07, count)
    return _bytes(_saturated(colours + hue, rng.normal(1, 0.15, count)) * value)


def _draw(pen: ImageDraw.ImageDraw, paths: np.ndarray, colours: np.ndarray, brush: float) -> None:
    """Lay the strokes [N, P, 2] down in their order, round at both ends."""
    width = SHARPER * brush
    for path, colour in zip((SHARPER * paths[:, :, ::-1]).tolist(), colours.tolist()):
        colour = tuple(colour)
        pen.line([tuple(point) for point in path], fill=colour, width=round(width))
        for x, y in (path[0], path[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)
