"""Translates images of any size with a trained CycleGAN: photographs to paintings, or the reverse.

    python -m trials.translate --run runs/cyclegan-1a2b3c4d --photos DIR --out DIR
    python -m trials.translate --run FOLDER --reverse --photos PAINTINGS --out DIR
    python -m trials.translate --run FOLDER --onnx painter.onnx

Images keep their size unless --longest is given. Those larger than --tile are translated in overlapping
tiles. All tiles are normalised by the statistics of a thumbnail of the image (Chen et al. 2022, 2103.11784),
so that no seams are visible.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import resize, to_pil_image
from tqdm import tqdm

from judge.common.cli import Parser, PositiveInt, from_namespace, main
from judge.common.errors import UserError, one_line
from judge.common.files import as_user_error, atomic_write
from judge.images import list_images, read_full_size, to_bytes, to_float
from trials.cyclegan import CycleGAN
from trials.inspection.adapters import load_networks
from trials.parts.networks import ResidualBlock
from trials.session import RunOptions

MIN_PIXELS = 32  # width and height that reflection padding and instance normalisation need
MAX_ONNX_DIFFERENCE = 1 / 255  # share of the range of values


@dataclass(frozen=True)
class Options:
    """The generator, the images to translate, and the output."""

    run: Path
    """Folder of a CycleGAN trial; the trial prints it at its end."""
    photos: Path | None = None
    """Folder of images to translate, with its subfolders."""
    out: Path | None = None
    """Folder for the translations, PNG files. Existing files are kept."""
    reverse: bool = False
    """Translate paintings to photographs."""
    longest: PositiveInt | None = None
    """Shrink larger images so that the longer side has this many pixels; brush strokes then look larger."""
    tile: PositiveInt = 1024
    """Translate images with a longer side than this in tiles; a smaller value needs less memory."""
    side_by_side: bool = False
    """Put the source to the left of its translation."""
    onnx: Path | None = None
    """Write the generator to this file in ONNX format, checked against PyTorch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto is the GPU if there is one."""


def command(arguments: list[str]) -> int:
    """Run the command line, and return the exit code: 1 if an image could not be translated."""
    parser = Parser(__doc__, prog="python -m trials.translate")
    parser.add_fields(Options)
    options = from_namespace(Options, parser.parse_args(arguments))
    if bool(options.photos) != bool(options.out):
        raise UserError("--photos needs --out, and --out needs --photos: give both")
    if not options.photos and not options.onnx:
        raise UserError("give --photos and --out, or --onnx")
    device = RunOptions(device=options.device).torch_device()
    net = load_trained(options.run, device)
    generator = (net.G_AB if options.reverse else net.G_BA).eval().requires_grad_(False)
    if options.onnx:
        export(generator, options.onnx)
        print(f"wrote {options.onnx}: input and output float [N, 3, height, width] in [-1, 1]")
    return translate_folder(generator, options, device) if options.photos else 0


def load_trained(folder: Path, device: torch.device) -> CycleGAN:
    """Return the CycleGAN in a trial's folder with the weights of its checkpoint."""
    net, record = load_networks(folder, device)
    if not isinstance(net, CycleGAN):
        raise UserError(f"{folder} is a trial of {record['system']}, not of a CycleGAN")
    return net


def translate_folder(generator: nn.Module, options: Options, device: torch.device) -> int:
    """Translate a folder of images, and return the exit code: 1 if an image could not be read."""
    paths, skipped = list_images([options.photos]), 0
    targets = [options.out / path.relative_to(options.photos).with_suffix(".png") for path in paths]
    counts = Counter(targets)
    for path, target in tqdm(list(zip(paths, targets)), unit="image", disable=None):
        if counts[target] > 1:  # x.jpg and x.png
            target = target.with_name(f"{path.name}.png")
        if target.exists():
            tqdm.write(f"kept, exists already: {target}")
            continue
        try:
            source = read_full_size(path)
        except Exception as error:  # a decoder can fail in any way
            tqdm.write(f"skipped, cannot be read: {path}: {one_line(error) or type(error).__name__}")
            skipped += 1
            continue
        if options.longest and max(source.shape[1:]) > options.longest:
            source = resize(source, None, max_size=options.longest, antialias=True)
        painted = translate_image(generator, source, options.tile, device)
        picture = to_pil_image(torch.cat([source, painted], 2) if options.side_by_side else painted)
        with as_user_error(options.out):
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, partial(picture.save, format="PNG"))
    print(f"{len(paths) - skipped} of {len(paths)} images: {options.out}")
    return 1 if skipped else 0


@torch.no_grad()
def translate_image(
    generator: nn.Module, source: torch.Tensor, tile: int, device: torch.device
) -> torch.Tensor:
    """Return the translation of `source`, both uint8 [3, H, W]; in tiles if a side is longer than `tile`."""
    height, width = source.shape[1:]
    stride = generator.stride
    below, right = (max(MIN_PIXELS, -(-size // stride) * stride) - size for size in (height, width))
    image = pad(to_float(source)[None], (0, right, 0, below), mode="replicate").to(device)
    try:
        tiled = max(image.shape[2:]) > tile
        painted = translate_in_tiles(generator, image, tile) if tiled else generator(image)
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory for {width}x{height} pixels: try --tile {tile // 2}") from None
    return to_bytes(painted[0, :, :height, :width]).cpu()


def translate_in_tiles(generator: nn.Module, image: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the translation of `image`, both [1, 3, H, W], computed in tiles of up to `tile` pixels.

    The generator sees each tile with a margin as wide as its receptive field, and normalises it by the
    statistics of a thumbnail of the whole image.
    """
    stride, margin = generator.stride, tile_margin(generator)
    step = max(stride, tile // stride * stride)
    height, width = image.shape[2:]
    scale = tile / max(height, width)
    thumbnail_size = [max(MIN_PIXELS, round(size * scale / stride) * stride) for size in (height, width)]
    painted = torch.empty_like(image)
    with shared_statistics(generator, resize(image, thumbnail_size, antialias=True)):
        for y in range(0, height, step):
            for x in range(0, width, step):
                top, left = max(0, y - margin), max(0, x - margin)
                part = generator(image[:, :, top : y + step + margin, left : x + step + margin])
                part = part[:, :, y - top : y - top + step, x - left : x - left + step]
                painted[:, :, y : y + step, x : x + step] = part
    return painted


def tile_margin(generator: nn.Module) -> int:
    """Return at least the radius of the receptive field in pixels, a multiple of the stride: the two 3x3
    convolutions of a residual block take 2 strides, the other layers less than 5."""
    blocks = sum(isinstance(part, ResidualBlock) for part in generator)
    return (2 * blocks + 5) * generator.stride


@contextmanager
def shared_statistics(generator: nn.Module, thumbnail: torch.Tensor) -> Iterator[None]:
    """Inside the `with` block, normalise by the mean and variance that each layer has on `thumbnail`."""
    statistics = {}

    def normalise(norm: nn.Module, inputs: tuple, _: torch.Tensor) -> torch.Tensor | None:
        if norm not in statistics:  # the thumbnail, which comes first
            statistics[norm] = torch.var_mean(inputs[0], (2, 3), correction=0, keepdim=True)
            return None  # the layer's own output
        variance, mean = statistics[norm]
        return (inputs[0] - mean) * torch.rsqrt(variance + norm.eps)

    with ExitStack() as hooks:  # it removes them at the end
        for part in generator.modules():
            if isinstance(part, nn.InstanceNorm2d):
                hooks.enter_context(part.register_forward_hook(normalise))
        generator(thumbnail)
        yield


def export(generator: nn.Module, file: Path) -> None:
    """Write `generator` to `file` for any batch and any size that its stride divides, and check the file."""
    try:
        import onnx  # noqa: F401 (torch's exporter needs it)
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}: pip install onnx onnxruntime") from None
    generator = generator.cpu()
    part = file.with_name(f"{file.name}.part")
    with as_user_error(file.parent), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of constants that are meant to be constant
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            generator, (torch.zeros(2, 3, 64, 96),), part, input_names=["image"], output_names=["painted"],
            dynamic_axes={"image": {0: "n", 2: "height", 3: "width"}}, dynamo=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 64), (2, 3, 128, 96)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        (output,) = session.run(None, {"image": image.numpy()})
        difference = (torch.from_numpy(output) - generator(image)).abs().max().item() / 2
        if difference > MAX_ONNX_DIFFERENCE:
            part.unlink()
            raise UserError(f"not written: ONNX differs from PyTorch by {difference * 255:.1f}/255")
    part.replace(file)


if __name__ == "__main__":
    main("python -m trials.translate", command)
