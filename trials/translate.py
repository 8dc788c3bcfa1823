"""Translates images of any size with a trained CycleGAN or StarGAN.

    python -m trials.translate --run runs/cyclegan-1a2b3c4d --photos DIR --out DIR     # paints
    python -m trials.translate --run FOLDER --reverse --photos PAINTINGS --out DIR     # and back
    python -m trials.translate --run runs/stargan-1a2b3c4d --domain monet --photos me.jpg --out DIR
    python -m trials.translate --run FOLDER --onnx painter.onnx

Images keep their size unless --longest is given. Those larger than --tile are translated in overlapping
tiles. All tiles are normalised by the statistics of a thumbnail of the image (Chen et al. 2022, 2103.11784),
so that no seams are visible. Images in --out are not translated again. GANs of noise have trials.draw.
"""

from dataclasses import dataclass
from pathlib import Path

from judge.common.cli import ComputeOptions, Parser, PositiveInt, from_namespace, importing, main
from judge.common.errors import UserError


@dataclass(frozen=True)
class Options:
    """The generator, the images to translate, and the output."""

    run: Path
    """Folder of a trial of CycleGAN or StarGAN; the trial prints it at its end."""
    photos: Path | None = None
    """Image to translate, or folder of images, with its subfolders."""
    out: Path | None = None
    """Folder for the translations, PNG files with the images' names. Existing files are kept."""
    reverse: bool = False
    """Of a CycleGAN: translate paintings to photographs."""
    domain: str | None = None
    """Of a StarGAN: the domain to translate to, by the name that its data has."""
    longest: PositiveInt | None = None
    """Shrink larger images so that the longer side has this many pixels; brush strokes then look larger."""
    tile: PositiveInt = 1024
    """Translate images with a longer side than this in tiles; a smaller value needs less memory."""
    side_by_side: bool = False
    """Put the source to the left of its translation."""
    onnx: Path | None = None
    """Write the generator to this file in ONNX format, checked against PyTorch."""


def command(arguments: list[str]) -> int:
    """Run the command line, and return the exit code: 1 if an image could not be translated."""
    parser = Parser(__doc__, prog="python -m trials.translate")
    parser.add_fields(Options)
    parser.add_fields(ComputeOptions)
    parsed = parser.parse_args(arguments)
    options, compute = from_namespace(Options, parsed), from_namespace(ComputeOptions, parsed)
    if bool(options.photos) != bool(options.out):
        raise UserError("--photos needs --out, and --out needs --photos: give both")
    if not options.photos and not options.onnx:
        raise UserError("give --photos and --out, or --onnx")
    with importing():
        import torch

        from trials.inspection.adapters import find_generator, load_networks
        from trials.inspection.translation import describe_training, export, translate_folder
        from trials.parts.gan_base import NoiseGAN
    if compute.threads:
        torch.set_num_threads(compute.threads)
    device = compute.torch_device()
    net, record = load_networks(options.run, device)
    if isinstance(net, NoiseGAN):
        raise UserError(f"{options.run} is a trial of {record['system']}, which makes images of noise, not "
                        "of photographs: use python -m trials.draw")
    generator = find_generator(net, record, domain=options.domain, reverse=options.reverse)
    if options.photos:  # before the export, which moves the generator to the CPU
        code = translate_folder(generator, options, device)
        print(describe_training(net, record))
    if options.onnx:
        export(generator, options.onnx)
        print(f"wrote {options.onnx}: input and output float [N, 3, height, width] in [-1, 1], of any size")
    return code if options.photos else 0


if __name__ == "__main__":
    main("python -m trials.translate", command)
