"""Translation of images of any size by a trained generator, whole or in tiles, and its export to ONNX."""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import resize, to_pil_image
from tqdm import tqdm

from judge.common.errors import UserError, is_out_of_memory, one_line, printable
from judge.common.files import as_user_error, atomic_write
from judge.folders import list_images, name_apart
from judge.images import read_full_size, to_bytes, to_float
from trials.inspection.adapters import load_networks
from trials.parts.networks import ResidualBlock
from trials.training.cyclegan import CycleGAN
from trials.training.stargan import StarGAN

if TYPE_CHECKING:
    from trials.translate import Options

MIN_PIXELS = 32  # width and height that reflection padding and instance normalisation need
MAX_ONNX_DIFFERENCE = 1 / 255  # share of the range of values


def describe_training(net: CycleGAN | StarGAN, record: dict) -> str:
    """Return how long the networks were trained and, if that is too little for pictures, say so."""
    settings, schedule = net.settings, (record.get("schedule") or {}).get("steps") or net.settings.steps
    pixels = settings.pixels if isinstance(net, CycleGAN) else settings.edge
    trained = f"a network of {pixels} px, trained for {net.step:,} step{'s' * (net.step > 1)}"
    if schedule:
        trained += f" of {schedule:,} ({net.step / schedule:.0%} of the schedule)"
    if settings.size == "paper" and net.step == schedule:
        return trained
    return f"{trained}: enough to compare settings; pictures come with --size paper, --budget 1, on a GPU"


def load_trained(folder: Path, device: torch.device) -> CycleGAN:
    """Return the CycleGAN in a trial's folder with the weights of its checkpoint."""
    net, record = load_networks(folder, device)
    if not isinstance(net, CycleGAN):
        raise UserError(f"{folder} is a trial of {record['system']}, not of a CycleGAN")
    return net


def find_images(photos: Path, out: Path) -> dict[Path, Path]:
    """Return the image `photos`, or those in this folder but not in `out` inside it, with the file for each's
    translation. Raises UserError if there is none, or a translation would replace an image."""
    # os.path.realpath: Path.resolve raises an error for a link to itself.
    folder, painted = (Path(os.path.realpath(path)) for path in (photos, out))
    if photos.is_file():
        targets = {photos: out / f"{photos.stem}.png"}
        replaces = os.path.realpath(targets[photos]) == str(folder)
    else:
        replaces, outside = folder == painted, folder.is_relative_to(painted)
        paths = [path for path in list_images([photos])
                 if outside or not Path(os.path.realpath(path)).is_relative_to(painted)]
        targets = {path: out / f"{name}.png" for name, path in name_apart(paths, photos).items()}
    if replaces:
        raise UserError(f"--out is the folder of --photos, {photos}: give another one")
    return targets


def translate_folder(generator: nn.Module, options: "Options", device: torch.device) -> int:
    """Translate a folder of images, and return the exit code: 1 if an image was skipped."""
    files, kept, skipped, painted = find_images(options.photos, options.out), 0, 0, set()
    for path, target in tqdm(files.items(), unit="image", disable=None):
        try:
            if (there := find_file(path, target)) in painted:
                raise UserError(f"{path} would replace another translation, {target}: rename it")
            if there:
                tqdm.write(f"kept, exists already: {printable(target)}")
                kept += 1
                continue
            picture = translate_file(generator, path, options, device)
        except UserError as error:
            tqdm.write(f"skipped: {one_line(error)}")
            skipped += 1
            continue
        with as_user_error(options.out):
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, partial(picture.save, format="PNG"))
            painted.add(find_file(path, target))
    print(f"{len(files) - kept - skipped} of {len(files)} images translated by {options.run}: {options.out}"
          + (f"; {kept} {'was' if kept == 1 else 'were'} there already" if kept else "")
          + (f"; {skipped} skipped" if skipped else ""))
    return 1 if skipped else 0


def find_file(path: Path, target: Path) -> tuple[int, int] | None:
    """Return what tells the file `target` from others, as names may not where case does not count; None if it
    does not exist. Raises UserError if no file can have that name."""
    try:
        state = os.stat(target)
        return state.st_dev, state.st_ino
    except FileNotFoundError:
        return None
    except OSError as error:  # it is too long, or the name of a folder is a file's
        raise UserError(f"{path} cannot be translated to {target}: {error.strerror}") from None


def translate_file(generator: nn.Module, path: Path, options: "Options", device: torch.device) -> Image.Image:
    """Return the translation of an image file. Raises UserError if it cannot be read or memory is short."""
    source = read_full_size(path)
    longest = max(source.shape[1:])
    if options.longest and longest > options.longest:
        size = [max(1, round(edge * options.longest / longest)) for edge in source.shape[1:]]
        source = resize(source, size, antialias=True)
    try:
        painted = translate_image(generator, source, options.tile, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = "x".join(map(str, source.shape[:0:-1]))
        raise UserError(f"{path}: out of memory for {size} pixels, try --longest {longest // 2} or --tile "
                        f"{options.tile // 2}") from None
    return to_pil_image(torch.cat([source, painted], 2) if options.side_by_side else painted)


def extend(images: torch.Tensor, stride: int) -> torch.Tensor:
    """Return [N, 3, H, W] with the last row and column repeated, to a multiple of `stride` from
    `MIN_PIXELS`."""
    for dimension in (2, 3):
        size = torch.as_tensor(images.shape[dimension])  # a tensor: ONNX then computes it for each image
        extended = ((size + stride - 1) // stride * stride).clamp(min=MIN_PIXELS)
        images = images.index_select(dimension, torch.arange(extended).minimum(size - 1).to(images.device))
    return images


class AnySize(nn.Module):
    """A generator for images [N, 3, H, W] of any height and width, for ONNX."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        return self.generator(extend(images, self.generator.stride))[:, :, :height, :width]


@torch.no_grad()
def translate_image(
    generator: nn.Module, source: torch.Tensor, tile: int, device: torch.device
) -> torch.Tensor:
    """Return the translation of `source`, both uint8 [3, H, W]; in tiles if a side is longer than `tile`."""
    height, width = source.shape[1:]
    image = extend(source[None], generator.stride)
    if max(image.shape[2:]) > tile:
        painted = translate_in_tiles(generator, image, tile, device)
    else:
        painted = to_bytes(generator(to_float(image.to(device)))).cpu()
    return painted[0, :, :height, :width]


def translate_in_tiles(
    generator: nn.Module, image: torch.Tensor, tile: int, device: torch.device
) -> torch.Tensor:
    """Return the translation of `image`, both uint8 [1, 3, H, W], computed in tiles of up to `tile` pixels.

    The generator sees each tile with a margin as wide as its receptive field, and normalises it by the
    statistics of a thumbnail of the whole image. Only a tile at a time is on the device, and made of floats.
    """
    stride, margin = generator.stride, tile_margin(generator)
    step = max(stride, tile // stride * stride)
    height, width = image.shape[2:]
    scale = tile / max(height, width)
    thumbnail_size = [max(MIN_PIXELS, round(size * scale / stride) * stride) for size in (height, width)]
    painted = torch.empty_like(image)
    thumbnail = resize(image, thumbnail_size, antialias=True)
    with shared_statistics(generator, to_float(thumbnail.to(device))):
        for y in range(0, height, step):
            for x in range(0, width, step):
                top, left = max(0, y - margin), max(0, x - margin)
                part = image[:, :, top : y + step + margin, left : x + step + margin]
                part = generator(to_float(part.to(device)))
                part = part[:, :, y - top : y - top + step, x - left : x - left + step]
                painted[:, :, y : y + step, x : x + step] = to_bytes(part)
    return painted


def tile_margin(generator: nn.Module) -> int:
    """Return at least the radius of the receptive field in pixels, a multiple of the stride: the two 3x3
    convolutions of a residual block take 2 strides, the other layers less than 5."""
    blocks = sum(isinstance(part, ResidualBlock) for part in generator.modules())
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
        output = (inputs[0] - mean) * torch.rsqrt(variance + norm.eps)
        return output * norm.weight[:, None, None] + norm.bias[:, None, None] if norm.affine else output

    with ExitStack() as hooks:  # it removes them at the end
        for part in generator.modules():
            if isinstance(part, nn.InstanceNorm2d):
                hooks.enter_context(part.register_forward_hook(normalise))
        generator(thumbnail)
        yield


def export(generator: nn.Module, file: Path) -> None:
    """Write `generator` to `file` for images of any number and size, and check the file."""
    # Since 1.31 onnxruntime reports its use to its makers, and leaves a file in /tmp.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx  # noqa: F401 (torch's exporter needs it)
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}: pip install onnx onnxruntime") from None
    generator = AnySize(generator.cpu()).eval()

    def write(part: Path) -> None:
        with as_user_error(file.parent), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of constants that are meant to be constant
            torch.onnx.export(
                generator, (torch.zeros(2, 3, 64, 96),), part, input_names=["image"],
                output_names=["painted"], dynamic_axes={"image": {0: "n", 2: "height", 3: "width"}},
                dynamo=False,
            )  # fmt: skip
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        for shape in ((1, 3, 64, 64), (2, 3, 127, 70), (1, 3, 9, 33)):
            image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
            (output,) = session.run(None, {"image": image.numpy()})
            difference = (torch.from_numpy(output) - generator(image)).abs().max().item() / 2
            if difference > MAX_ONNX_DIFFERENCE:
                raise UserError(f"not written: ONNX differs from PyTorch by {difference * 255:.1f}/255")

    with as_user_error(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, write)
