"""A finished generator at work: photographs of any size to paintings, or back.

    python -m trials.translate --run runs/cyclegan-1a2b3c4d --photos DIR --out DIR
    python -m trials.translate --run FOLDER --reverse --photos PAINTINGS --out DIR
    python -m trials.translate --run FOLDER --onnx painter.onnx

Images keep their size unless --longest says otherwise. Those larger than --tile are painted in
overlapping tiles that share the normalisation of a thumbnail of the whole (Chen et al. 2022,
2103.11784), so that no seam shows.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import resize, to_pil_image
from tqdm import tqdm

from judge.common.cli import Parser, PositiveInt, from_namespace, main
from judge.common.errors import UserError, one_line
from judge.common.files import as_user_error, atomic_write
from judge.images import list_images, read_full_size, to_bytes, to_float
from trials.cyclegan import CycleGAN, Settings
from trials.inspection.trained import restore, settings_of
from trials.parts.networks import ResidualBlock
from trials.session.records import read_record
from trials.session.session import RunOptions

STRIDE = 4  # of a generator: sizes are padded to what it divides
SMALLEST = 32  # px; less leaves reflection and normalisation nothing to work with


@dataclass(frozen=True)
class Options:
    """What to translate with what, and where to."""

    run: Path
    """Folder of a CycleGAN trial (what its last lines name)."""
    photos: Path | None = None
    """Folder of images to translate, with its subfolders."""
    out: Path | None = None
    """Folder for the translations, PNG files; what is already there is kept."""
    reverse: bool = False
    """From paintings to photographs instead."""
    longest: PositiveInt | None = None
    """Scale images down so that the longer edge has at most so many pixels: strokes grow with it."""
    tile: PositiveInt = 1024
    """Images with a longer edge than this are painted in tiles; less takes less memory."""
    side_by_side: bool = False
    """Put the source to the left of its translation."""
    onnx: Path | None = None
    """Write the generator to this file in ONNX format, checked against PyTorch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto is the GPU where there is one."""


def command(arguments: list[str]) -> int:
    """Carry out the command line; returns the exit code, 1 if a file could not be translated."""
    parser = Parser(__doc__, prog="python -m trials.translate")
    parser.add_fields(Options)
    options = from_namespace(Options, parser.parse_args(arguments))
    if not options.onnx and not (options.photos and options.out):
        raise UserError("give --photos and --out, or --onnx")
    device = RunOptions(device=options.device).torch_device()
    net = trained(options.run, device)
    generator = (net.G_AB if options.reverse else net.G_BA).eval().requires_grad_(False)
    if options.onnx:
        export(generator, options.onnx)
        print(f"wrote {options.onnx}: input and output float [N, 3, height, width] in [-1, 1]")
    return translate(generator, options, device) if options.photos else 0


def trained(folder: Path, device: torch.device) -> CycleGAN:
    """The networks of the CycleGAN in a trial's folder, as far as they were trained.

    Raises:
        UserError: there is no such trial, or its checkpoint cannot be read.
    """
    record = read_record(folder)
    if record.get("system") != "cyclegan":
        raise UserError(f"{folder} is not the folder of a CycleGAN trial: it has no such run.json")
    net = CycleGAN(settings_of(Settings, record, folder), 1, device)  # it takes no step
    restore(net, folder, device)
    return net


# ---------------------------------------------------------------------------------------------
# Folders


def translate(generator: nn.Module, options: Options, device: torch.device) -> int:
    """Translate a folder; what cannot be is said in one line each and the rest done all the same.

    Raises:
        UserError: no images, or `out` cannot be written.
    """
    paths, refused = list_images([options.photos]), 0
    for path, target in tqdm(list(zip(paths, targets(paths, options))), unit="image", disable=None):
        if target.exists():
            tqdm.write(f"kept, it is already there: {target}")
            continue
        try:
            source = read_full_size(path)
        except Exception as error:  # each format's decoder fails in its own ways, all with one meaning
            tqdm.write(f"left out: {path}: {one_line(error) or type(error).__name__}")
            refused += 1
            continue
        if options.longest and max(source.shape[1:]) > options.longest:
            source = resize(source, None, max_size=options.longest, antialias=True)
        painted = translated(generator, source, options.tile, device)
        shown = torch.cat([source, painted], 2) if options.side_by_side else painted
        with as_user_error(options.out):
            target.parent.mkdir(parents=True, exist_ok=True)
            save(to_pil_image(shown), target)
    print(f"{len(paths) - refused} of {len(paths)} images: {options.out}")
    return 1 if refused else 0


def targets(paths: list[Path], options: Options) -> Iterator[Path]:
    """Where each translation goes: the same subfolder and name with .png, the old ending kept
    between where two files would be one."""
    plain = [options.out / path.relative_to(options.photos).with_suffix(".png") for path in paths]
    for path, target in zip(paths, plain):
        yield target.with_name(f"{path.name}.png") if plain.count(target) > 1 else target


def save(picture: Image.Image, target: Path) -> None:
    """As PNG, whole or not at all."""
    atomic_write(target, lambda part: picture.save(part, "PNG"))


# ---------------------------------------------------------------------------------------------
# Images


@torch.no_grad()
def translated(generator: nn.Module, source: torch.Tensor, tile: int, device: torch.device) -> torch.Tensor:
    """uint8 [3, H, W] to the same, in tiles where an edge is longer than `tile`.

    Raises:
        UserError: the device has not the memory.
    """
    height, width = source.shape[1:]
    below, right = (max(SMALLEST, -(-edge // STRIDE) * STRIDE) - edge for edge in (height, width))
    image = pad(to_float(source)[None], (0, right, 0, below), mode="replicate").to(device)
    try:
        painted = in_tiles(generator, image, tile) if max(image.shape[2:]) > tile else generator(image)
    except torch.OutOfMemoryError:
        raise UserError(f"not enough memory for {width}x{height} pixels: --tile {tile // 2}") from None
    return to_bytes(painted[0, :, :height, :width]).cpu()


def in_tiles(generator: nn.Module, image: torch.Tensor, tile: int) -> torch.Tensor:
    """[1, 3, H, W] to the same, computed in tiles of at most `tile` pixels and what surrounds them.

    A tile is seen with all that its pixels depend on, and normalised by the statistics of a
    thumbnail of the whole image rather than by its own.
    """
    margin, step = reach(generator), max(STRIDE, tile // STRIDE * STRIDE)
    height, width = image.shape[2:]
    share = tile / max(height, width)
    small = [max(SMALLEST, round(edge * share / STRIDE) * STRIDE) for edge in (height, width)]
    painted = torch.empty_like(image)
    with shared_statistics(generator, resize(image, small, antialias=True)):
        for y in range(0, height, step):
            for x in range(0, width, step):
                top, left = max(0, y - margin), max(0, x - margin)
                part = generator(image[:, :, top : y + step + margin, left : x + step + margin])
                part = part[:, :, y - top : y - top + step, x - left : x - left + step]
                painted[:, :, y : y + step, x : x + step] = part
    return painted


def reach(generator: nn.Module) -> int:
    """How far, in pixels, an output pixel depends on the input, rounded up to `STRIDE`: 15 for the
    convolutions at the ends and 8 for each residual block (two of 3x3 at a quarter of the size)."""
    blocks = sum(isinstance(part, ResidualBlock) for part in generator)
    return 16 + 8 * blocks


@contextmanager
def shared_statistics(generator: nn.Module, thumbnail: torch.Tensor) -> Iterator[None]:
    """Within, every instance normalisation uses mean and variance of what `thumbnail` gave it."""
    norms = [part for part in generator.modules() if isinstance(part, nn.InstanceNorm2d)]
    found: dict[nn.Module, tuple] = {}

    def record(norm: nn.Module, inputs: tuple, _) -> None:
        variance, mean = torch.var_mean(inputs[0], (2, 3), correction=0, keepdim=True)
        found[norm] = mean, variance

    def use(norm: nn.Module, inputs: tuple, _) -> torch.Tensor:
        mean, variance = found[norm]
        return (inputs[0] - mean) * torch.rsqrt(variance + norm.eps)

    hooks = [norm.register_forward_hook(record) for norm in norms]
    generator(thumbnail)
    for hook in hooks:
        hook.remove()
    hooks = [norm.register_forward_hook(use) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------------------------------------
# ONNX


def export(generator: nn.Module, file: Path) -> None:
    """Write `generator` to `file` for any batch and size that divides by 4, and compare.

    Raises:
        UserError: the ONNX packages are missing, the file cannot be written, or what onnxruntime
            computes from it differs by more than 1/255 of the range.
    """
    try:
        import onnx  # noqa: F401 (torch's exporter needs it)
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--onnx takes packages that are not here ({error.name}): "
                        "pip install onnx onnxruntime") from None
    generator = generator.cpu()
    part = file.with_name(f"{file.name}.part")
    with as_user_error(file.parent), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants that stay as they are, none of them ours to mend
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            generator, (torch.zeros(2, 3, 64, 96),), part, input_names=["image"], output_names=["painted"],
            dynamic_axes={"image": {0: "n", 2: "height", 3: "width"}}, dynamo=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 64), (2, 3, 128, 96)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        (theirs,) = session.run(None, {"image": image.numpy()})
        gap = (torch.from_numpy(theirs) - generator(image)).abs().max().item() / 2
        if gap > 1 / 255:
            part.unlink()
            raise UserError(f"the ONNX file computes something else, by {gap * 255:.1f}/255: not written")
    part.replace(file)


if __name__ == "__main__":
    main("python -m trials.translate", command)
