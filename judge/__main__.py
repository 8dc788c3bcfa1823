"""python -m judge train | evaluate | score | controls | data | halves

    python -m judge data monet2photo                      # download the public data set
    python -m judge train --data auto                     # -> models/judge.pt
    python -m judge evaluate                              # AUC, calibration, worst mistakes
    python -m judge score --images out/ --sources photos/ # the score of any folder of images
    python -m judge controls                              # the scores of corrupted images
    python -m judge controls --leave-out --out table.csv  # is damage refused that a judge was never shown?
    python -m judge halves --out data/halves              # one half to search with, one to measure with
"""

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from judge.common.cli import ComputeOptions, Namespace, Parser, from_namespace, subcommands
from judge.common.constants import DEFAULT_FORMULA, DEFAULT_JUDGE, SIZES, STAND_IN
from judge.common.errors import UserError, printable
from judge.common.files import as_user_error, atomic_write, new_folder, scratch_folder
from judge.training_options import TrainingOptions

if TYPE_CHECKING:  # each command imports what it needs when it runs: torch and torchvision take seconds
    import torch

# The CycleGAN authors' archives.
ARCHIVE = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"
MAX_MISTAKES = 16  # images that `evaluate` lists and shows
MAX_SIZE_RATIO = 1.5  # of the images to the judge, above which a note says that it sees less than there is
MAX_KID_ERROR = 0.05  # as a share of 1 + kid, above which a note says so: a tenth of the default score
HALVES_BLOCK = 10  # neighbours that `halves` keeps together: pictures of one motif often have similar names
COMPUTE = ("train", "evaluate", "score", "controls")  # commands with `ComputeOptions`

DATA = {"default": "auto", "metavar": "NAME|DIR",
        "help": "monet2photo, sample, or a folder with trainA testA (paintings) and trainB testB "
        "(photographs); auto is data/monet2photo if it exists, else the sample"}  # fmt: skip
JUDGE = {"type": Path, "default": Path(DEFAULT_JUDGE), "metavar": "FILE", "help": "file of the judge"}
JSON = {"action": "store_true", "help": "print the figures as JSON"}
SIZE = {"choices": ["auto", *SIZES], "default": "auto",
        "help": "size of the images to judge: 64, 128 or 256 pixels; auto is draft with a GPU, else sketch"}
OPTIONS = {
    "train": {
        "--data": DATA,
        "--paintings": {"type": Path, "nargs": "+", "metavar": "DIR",
                        "help": "folders of paintings, together with --photos instead of --data"},
        "--photos": {"type": Path, "nargs": "+", "metavar": "DIR",
                     "help": "folders of photographs, together with --paintings instead of --data"},
        "--neither": {"type": Path, "nargs": "+", "default": [], "metavar": "DIR",
                      "help": "folders of more images that are neither, such as the first reports of "
                      "earlier searches (python -m experiments.early_images)"},
        "--size": SIZE,
        "--out": JUDGE | {"help": "where to save the judge"},
    },
    "evaluate": {
        "--judge": JUDGE, "--data": DATA, "--json": JSON,
        "--sheet": {"type": Path, "metavar": "FILE",
                    "help": "image file for the worst mistakes; default: JUDGE.mistakes.png"},
    },
    "score": {
        "--images": {"type": Path, "required": True, "metavar": "DIR", "help": "folder of images to score"},
        "--sources": {"type": Path, "metavar": "DIR",
                      "help": "the photographs that they were made from, of the same names up to the ending "
                      "(Unicode's NFC and NFD are the same)"},
        "--score": {"default": DEFAULT_FORMULA, "metavar": "NAME|FILE",
                    "help": "formula of `default`: style-and-scene, combined, plain (mean P(painting)), or a "
                    "file with your weights (python -m experiments taste)"},
        "--judge": JUDGE, "--data": DATA, "--json": JSON,
    },
    "controls": {
        "--judge": JUDGE, "--data": DATA,
        "--csv": {"action": "store_true", "help": "print the table as CSV"},
        "--leave-out": {"action": "store_true",
                        "help": "instead, for each family of damage: train a judge without it, and print the "
                        "mean P(painting) that it gives to that family (hours)"},
        "--families": {"nargs": "+", "metavar": "NAME",
                       "help": "with --leave-out, these families alone; a wrong name lists those there are"},
        "--out": {"type": Path, "metavar": "CSV",
                  "help": "with --leave-out, where to keep each row; rows that are there are not measured "
                  "again"},
        "--size": SIZE,
    },
    "data": {
        "name": {"help": "for example monet2photo, vangogh2photo, cezanne2photo"},
        "--url": {"help": "address of the zip file, if not the CycleGAN authors'"},
    },
    "halves": {
        "--data": DATA,
        "--out": {"type": Path, "required": True, "metavar": "DIR",
                  "help": "where to make the folders `search` and `yardstick`, which hold links"},
    },
}  # fmt: skip


def add_options(command: str, parser: Parser) -> None:
    for name, option in OPTIONS[command].items():
        parser.add_argument(name, **option)
    if command in ("train", "controls"):  # controls: the judges that --leave-out trains
        parser.add_fields(TrainingOptions)
    if command in COMPUTE:
        parser.add_fields(ComputeOptions)


def compute_device(options: Namespace) -> "torch.device":
    """Return the device to compute on, with the number of threads set as the options say."""
    import torch

    chosen = from_namespace(ComputeOptions, options)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    return chosen.torch_device()


def pixels_of(options: Namespace, device: "torch.device") -> int:
    """Return the size in pixels that --size names."""
    from judge import images

    return SIZES[images.default_size(device) if options.size == "auto" else options.size]


def train(options: Namespace) -> None:
    """Train a judge that distinguishes paintings from photographs, calibrate it and save it."""
    from judge import images, model, training
    from judge.common.device import device_name
    from judge.common.progress import duration

    if bool(options.paintings) != bool(options.photos):
        raise UserError("--paintings and --photos go together: give both or neither")
    if options.neither and options.two_classes:
        raise UserError("--neither gives images of the third class, which --two-classes leaves out")
    settings = from_namespace(TrainingOptions, options)

    def announce(seconds: float) -> None:
        print(f"{settings.epochs} epochs take about {duration(seconds)}; training ends early after "
              f"{settings.patience} without a lower held-out loss", file=sys.stderr)

    with model.lock_output(options.out):
        device = compute_device(options)
        dataset = (images.from_folders(options.paintings, options.photos) if options.paintings
                   else images.find_dataset(options.data))
        size = pixels_of(options, device)
        print(f"data: {dataset.description}; size: {model.describe_size(size)}; on {device_name(device)}")
        judge, card = training.train(dataset, size, settings, device, options.neither, announce=announce)
        model.save_judge(judge, card, options.out)
    print("trained from weights: {weights}, {epochs} epochs, {seconds:.0f} s".format(**card.training))
    print(format_metrics(card.metrics))
    print(f"saved {options.out}")


def evaluate_judge(options: Namespace) -> None:
    """Measure a judge on the test images and show its worst mistakes."""
    from PIL import Image
    from torchvision.utils import make_grid, save_image

    from judge import images, model
    from judge.evaluation import evaluate

    sheet = options.sheet or options.judge.with_suffix(".mistakes.png")
    form = Image.registered_extensions().get(sheet.suffix.lower())
    if form not in Image.SAVE:
        raise UserError(f"--sheet {sheet}: give the name of an image file, such as mistakes.png")
    judge, card = model.load_judge(options.judge, compute_device(options))
    dataset = images.find_dataset(options.data)
    metrics, predictions = evaluate(judge, dataset)
    if options.json:
        print(json.dumps({"data": dataset.name, "stand_in": dataset.stand_in, **metrics}))
        return
    print(f"judge {options.judge}, trained on {card.training['data']}, here on {dataset.description}")
    print(format_metrics(metrics))
    distance = abs(predictions["label"] - predictions["p_painting"])
    worst = predictions.assign(error=distance).nlargest(MAX_MISTAKES, "error").round({"p_painting": 4})
    worst["is"] = [model.CLASSES[label] for label in worst["label"]]
    shown = worst[["file", "is", "p_painting"]].assign(file=worst["file"].map(printable))
    print(shown.to_string(index=False))
    pixels = images.load_images([Path(path) for path in worst["file"]], judge.size).pixels
    with as_user_error(sheet):
        atomic_write(sheet, partial(save_image, make_grid(pixels / 255, nrow=4), format=form))
    print(f"the same as pictures, row by row: {sheet}")


def format_metrics(metrics: dict) -> str:
    """Return the metrics of `evaluate` as a line of figures and the confusion matrix."""
    import pandas as pd

    from judge import model

    names = ("auc", "auc_reencoded", "accuracy", "brier", "calibration_error", "painting_calibration_error")
    figures = "  ".join(f"{name.replace('_', ' ')} {metrics[name]:.4f}" for name in names)
    true, judged = ([f"{word} {name}" for name in model.CLASSES[:2]] for word in ("is a", "judged"))
    table = pd.DataFrame(metrics["confusion"], true, judged).to_string()
    skipped = sum(len(count["skipped"]) for count in metrics["counts"].values())
    note = f"\n{skipped} files could not be read" if skipped else ""
    return f"on the test images: {figures}\n{table}{note}"


def score(options: Namespace) -> None:
    """Print the score of a folder of images and its parts."""
    import pandas as pd

    from judge import images, model
    from judge.score import FinePatterns, Scorer

    device = compute_device(options)
    judge, _ = model.load_judge(options.judge, device)
    made, photos = (images.read_pairs(options.images, options.sources, judge.size) if options.sources
                    else (images.list_images([options.images]), []))
    dataset = images.find_dataset(options.data)  # last: the data may be made anew
    paintings = dataset.test[images.PAINTINGS]

    def load(paths: list[Path], size: int = judge.size) -> "torch.Tensor":
        return images.load_images(paths, size).pixels

    def load_floats(paths: list[Path]) -> "torch.Tensor":
        return images.to_float(load(paths)).to(device)

    scorer = Scorer(judge, load_floats(photos) if photos else None, load(paintings), options.score)
    parts = scorer(load_floats(made)).parts
    real = [paths for paths in (photos, paintings) if paths]
    own_size = shorter_side(made)
    size = min(own_size, *map(shorter_side, real))
    if size > judge.size:  # the judge's size would hide a fine grid
        patterns = FinePatterns([load(paths, size) for paths in real], device)
        parts = parts | {"clean": patterns.clean(load(made, size))}
    warn_of_scores(parts, len(made), own_size, size, judge.size)
    parts = {"default": scorer.formula(parts), **parts}
    if options.json:
        print(json.dumps({"data": dataset.name, "stand_in": dataset.stand_in, **parts}))
    else:
        print(f"{options.images} by {options.judge}, paintings of {dataset.description}")
        print(pd.Series(parts).to_string(float_format="{:.4f}".format))


def shorter_side(paths: list[Path]) -> int:
    """Return the median of the images' shorter sides in pixels; files that cannot be read count as 0."""
    from judge import images

    def pixels(path: Path) -> int:
        try:
            with images.open_image(path) as image:
                return min(image.size)
        except Exception:  # Pillow raises many types of errors; loading the image will report it
            return 0

    return int(median(map(pixels, paths)))


def warn_of_scores(parts: dict[str, float], count: int, own_size: int, clean_size: int, size: int) -> None:
    """Print a line on stderr for what makes the score of `count` images less certain than it looks."""
    distance, error = 1 + max(0.0, parts["kid"]), parts["kid_error"]
    if own_size > MAX_SIZE_RATIO * size:
        print(f"note: the judge sees these {own_size} px images at {size} px, without their fine details; "
              f"only clean is measured at {clean_size} px: train a judge of their size", file=sys.stderr)
    if error > MAX_KID_ERROR * distance:
        print(f"note: {count} images are few: by the error of kid alone, {error:.3f}, another set could "
              f"score {2 * error / distance:.0%} more or less", file=sys.stderr)


def controls(options: Namespace) -> None:
    """Score corrupted images as if they were translations; or train judges that were not shown them."""
    from judge import images, model
    from judge.controls import controls_table

    if options.leave_out:
        return leave_out(options)
    settings = from_namespace(TrainingOptions, options)
    if options.families or options.out or settings != TrainingOptions():
        raise UserError("--families, --out and options of training belong to --leave-out: add it")
    judge, card = model.load_judge(options.judge, compute_device(options))
    dataset = images.find_dataset(options.data)
    photos, paintings = (images.load_images(dataset.test[domain], judge.size).pixels
                         for domain in (images.PHOTOS, images.PAINTINGS))
    table = controls_table(judge, photos, paintings)
    if options.csv:
        print(table.to_csv(), end="")
    else:
        print(f"judge {options.judge}, trained on {card.training['data']}, here on {dataset.description}")
        print(table.to_string(float_format="{:.3f}".format))


def leave_out(options: Namespace) -> None:
    """Print what judges say of the damage that each was not shown."""
    from judge import images, model
    from judge.leave_out import AIM, LEFT_OUT, leave_out_table

    settings, device = from_namespace(TrainingOptions, options), compute_device(options)
    if settings.two_classes:
        raise UserError("--two-classes: such a judge is shown no damage, so none can be left out")
    if unknown := [name for name in options.families or () if name not in LEFT_OUT]:
        raise UserError(f"--families {unknown[0]}: there are {', '.join(LEFT_OUT)}")
    dataset = images.find_dataset(options.data)
    with ExitStack() as until_the_end:
        if options.out:
            until_the_end.enter_context(model.lock_output(options.out))
        table = leave_out_table(dataset, pixels_of(options, device), settings, device,
                                options.families or LEFT_OUT, options.out)
    if options.csv:
        print(table.to_csv(), end="")
    else:
        print(f"mean P(painting) of damage by judges that were not shown it, {dataset.description}")
        print(table.to_string(float_format="{:.3f}".format))
        print(f"{(table['photos'] <= AIM).sum()} of {len(table)} families of damaged photographs, and "
              f"{(table['paintings'] <= AIM).sum()} of damaged paintings, are at most {AIM}")


def data(options: Namespace) -> None:
    """Download a public CycleGAN data set into data/."""
    from torchvision.datasets.utils import download_and_extract_archive

    from judge import images

    name, url = options.name, options.url or ARCHIVE.format(name=options.name)
    target = images.DATA / name
    if target.name != name or name == "..":
        raise UserError(f"{name!r} is not the name of a data set: for example monet2photo")
    if target.exists():
        raise UserError(f"{target} is already there: move it away to download it again")
    with as_user_error(images.DATA), scratch_folder(target) as folder:
        try:
            # torchvision chooses how to unpack by the file's name: a fixed name allows zip files only.
            download_and_extract_archive(url, folder, filename="archive.zip", remove_finished=True)
        except Exception as error:  # networks and archives raise many types of errors
            raise UserError(f"{url} could not be downloaded and unpacked: {error}") from None
        images.find_dataset(str(folder / name))  # raises a UserError if one of the four folders is missing
        (folder / name).rename(target)
    print(f"downloaded {target}")


def halves(options: Namespace) -> None:
    """Split a data set in two: one half to search with, the other to measure the results with."""
    from judge import images

    dataset = images.find_dataset(options.data)
    if options.out.exists():
        raise UserError(f"{options.out} is already there: choose another --out")
    with as_user_error(options.out), new_folder(options.out) as part:
        for offset, half in enumerate(("search", "yardstick")):
            for split, domains in (("train", dataset.train), ("test", dataset.test)):
                for domain, paths in domains.items():
                    folder = part / half / f"{split}{domain}"
                    folder.mkdir(parents=True)
                    block = max(1, min(HALVES_BLOCK, len(paths) // 2))
                    for number, path in enumerate(paths):  # the number makes equal file names unique
                        if number // block % 2 == offset:
                            # 60 characters are at most 240 bytes in UTF-8; a name may have 255.
                            (folder / f"{number:05}-{path.name[-60:]}").symlink_to(path.resolve())
            if dataset.stand_in:
                (part / half / STAND_IN).touch()
    print(f"halves of {dataset.description}: {options.out}/search and {options.out}/yardstick")


if __name__ == "__main__":
    commands = {"train": train, "evaluate": evaluate_judge, "score": score, "controls": controls,
                "data": data, "halves": halves}  # fmt: skip
    subcommands("python -m judge", __doc__,
                {name: (partial(add_options, name), command) for name, command in commands.items()})
