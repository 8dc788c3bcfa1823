"""Draws images from a trained GAN: PNG files, and all of them on a sheet.

    python -m trials.draw --run runs/dcgan-1a2b3c4d --count 20 --out DIR
    python -m trials.draw --run runs/conditional_gan-1a2b3c4d --class 7 --out DIR     # twenty sevens
    python -m trials.draw --run FOLDER --seed 1 --out DIR                             # twenty others

Without --class a conditional GAN draws its classes in turn. The same seed gives the same images, and a larger
--count more of them. For CycleGAN and StarGAN, which translate images, there is trials.translate.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from judge.common.cli import ComputeOptions, Namespace, Parser, PositiveInt, from_namespace, importing, main
from judge.common.errors import UserError
from judge.common.files import as_user_error, new_folder
from trials.gan import PATTERN

if TYPE_CHECKING:
    import torch

    from trials.parts.gan_base import NoiseGAN

COLUMNS = 10  # of the sheet


def command(arguments: list[str]) -> None:
    """Run the command line."""
    parser = Parser(__doc__, prog="python -m trials.draw")
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER",
                        help="folder of a trial of a GAN, a DCGAN or a conditional GAN")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="folder for the images, new or empty")
    parser.add_argument("--count", type=PositiveInt, default=20, metavar="N", help="number of images")
    parser.add_argument("--class", dest="asked", metavar="NAME",
                        help="class to draw, by the name that its data has; only a conditional GAN takes it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise")
    parser.add_fields(ComputeOptions)
    options = parser.parse_args(arguments)
    compute = from_namespace(ComputeOptions, options)
    with importing():
        import torch

        from trials.inspection.adapters import load_networks
    if compute.threads:
        torch.set_num_threads(compute.threads)
    net, record = load_networks(options.run, compute.torch_device())
    images, names = draw(net, record, options)
    save(images, names, options.out)
    print(f"{len(images)} images at step {net.step:,} of {net.settings.steps:,}: {options.out}, all on "
          f"{options.out / 'sheet.png'}")


def draw(net: "NoiseGAN", record: dict, options: Namespace) -> tuple["torch.Tensor", list[str]]:
    """Return images, float [N, C, H, W] in [-1, 1], and the name of each: its number, after its class if it
    has one. Raises UserError if the trial's generator cannot draw them."""
    import torch

    from trials.inspection.adapters import classes_of, first_noise
    from trials.parts.gan_base import NoiseGAN

    system, classes = record["system"], classes_of(record)
    if not isinstance(net, NoiseGAN):
        raise UserError(f"{options.run} is a trial of {system}, which translates images: use python -m "
                        "trials.translate")
    if net.settings.data == PATTERN:
        raise UserError(f"{options.run} was trained on the pattern: it makes four numbers, not images. "
                        "python -m trials.inspect progress shows them")
    z = first_noise(net, options.count, "draw", options.seed)
    names = [f"{number:04d}" for number in range(options.count)]
    if hasattr(net, "with_class"):
        if options.asked is not None and options.asked not in classes:
            raise UserError(f"--class {options.asked}: there is no such class, give one of: "
                            f"{', '.join(classes)}")
        first, step = (0, 1) if options.asked is None else (classes.index(options.asked), 0)
        labels = (first + step * torch.arange(options.count, device=z.device)) % len(classes)
        z, names = net.with_class(z, labels), [f"{classes[y]}_{name}" for y, name in zip(labels, names)]
    elif options.asked is not None:
        raise UserError(f"--class {options.asked}: this is a trial of {system}, only a conditional GAN draws "
                        "the class asked for")
    with torch.no_grad():
        return net.generate_in_batches(z), names


def save(images: "torch.Tensor", names: list[str], folder: Path) -> None:
    """Write each image to a PNG file of its name in `folder`, and all to sheet.png."""
    from torchvision.transforms.v2.functional import to_pil_image

    from judge.images import to_bytes
    from trials.parts.sheets import captioned_grid

    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: give another --out")
    pictures = {name: to_pil_image(pixels) for name, pixels in zip(names, to_bytes(images).cpu())}
    pictures["sheet"] = captioned_grid(images, COLUMNS, names)
    with as_user_error(folder), new_folder(folder) as part:
        for name, picture in pictures.items():
            picture.save(part / f"{name}.png")


if __name__ == "__main__":
    main("python -m trials.draw", command)
