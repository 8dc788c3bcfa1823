"""python -m judge train | evaluate | score | controls | data | halves

    python -m judge data monet2photo                      # download the public data set
    python -m judge train --data auto                     # -> models/judge.pt
    python -m judge evaluate                              # AUC, calibration, worst mistakes
    python -m judge score --images out/ --sources photos/ # the score of any folder of images
    python -m judge controls                              # what fools the score, and what does not
    python -m judge halves --out data/halves              # one half to search with, one to measure with
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from torchvision.datasets.utils import download_and_extract_archive
from torchvision.utils import make_grid, save_image

from judge import images, model, training
from judge.common.cli import Namespace, Parser, ThreadOptions, from_namespace, subcommands
from judge.common.errors import UserError
from judge.common.files import as_user_error, file_lock
from judge.controls import controls_table
from judge.evaluation import Verdicts, evaluate
from judge.score import DEFAULT_FORMULA, FORMULAS, Scorer

# The CycleGAN authors' own archives.
ARCHIVE = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def data_option(parser: Parser) -> None:
    parser.add_argument(
        "--data", default="auto", metavar="NAME|DIR",
        help="monet2photo, sample, or a folder with trainA testA (paintings) and trainB testB "
        "(photographs); auto is data/monet2photo where it is and the sample otherwise",
    )


def judge_option(parser: Parser) -> None:
    parser.add_argument("--judge", type=Path, default=Path(model.DEFAULT_FILE), metavar="FILE",
                        help="the judge's file")


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


# ---------------------------------------------------------------------------------------------
# train


def train_options(parser: Parser) -> None:
    data_option(parser)
    parser.add_argument("--paintings", type=Path, nargs="+", metavar="DIR",
                        help="instead of --data, with --photos: folders of paintings")
    parser.add_argument("--photos", type=Path, nargs="+", metavar="DIR",
                        help="instead of --data, with --paintings: folders of photographs")
    parser.add_argument("--size", choices=["auto", *images.SIZES], default="auto",
                        help="what it is to judge, 64, 128 or 256 px; auto is sketch without a "
                        "GPU and paper with one")
    parser.add_argument("--out", type=Path, default=Path(model.DEFAULT_FILE), metavar="FILE",
                        help="where to save the judge")
    parser.add_fields(training.TrainingOptions)
    parser.add_fields(ThreadOptions)


def train(options: Namespace) -> None:
    """Train a judge that tells paintings from photographs, calibrate it and save it."""
    paintings, photos, size = options.paintings, options.photos, options.size
    if bool(paintings) != bool(photos):
        raise UserError("--paintings and --photos go together")
    model.check_writable(options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    found = images.from_folders(paintings, photos) if paintings else images.find_dataset(options.data)
    size = images.default_size(device()) if size == "auto" else size
    print(f"data: {found.description}; size: {model.describe_size(images.SIZES[size])}; on {device()}")
    recipe = from_namespace(training.TrainingOptions, options)
    lock = file_lock(options.out.with_name(f".{options.out.name}.lock"), f"training {options.out}")
    judge, card = training.train(found, images.SIZES[size], recipe, device())
    model.save_judge(judge, card, options.out)
    lock.close()
    start, seconds, epochs = (card.training[key] for key in ("weights", "seconds", "epochs"))
    print(f"trained from weights: {start}, {epochs} epochs, {seconds:.0f} s")
    print(in_words(card.metrics))
    print(f"saved {options.out}")


# ---------------------------------------------------------------------------------------------
# evaluate


def evaluate_options(parser: Parser) -> None:
    judge_option(parser)
    data_option(parser)
    json_option(parser)
    parser.add_argument("--sheet", type=Path, metavar="FILE",
                        help="where to put the picture of the worst mistakes; by default beside "
                        "the judge")


def evaluate_judge(options: Namespace) -> None:
    """Measure a judge on the test images and show its worst mistakes."""
    network, card = model.load_judge(options.judge, device())
    found = images.find_dataset(options.data)
    measured, verdicts = evaluate(network, found, device())
    if options.json:
        print(json.dumps({"data": found.name, "stand_in": found.stand_in, **measured}))
        return
    print(f"judge {options.judge}, trained on {card.training['data']}, here on {found.description}")
    print(in_words(measured))
    sheet = options.sheet or options.judge.with_suffix(".mistakes.png")
    mistakes = worst(verdicts)
    print(mistakes.to_string(index=False))
    pixels = images.load_images([Path(path) for path in mistakes["file"]], network.size).pixels
    try:
        save_image(make_grid(pixels / 255, nrow=4), sheet)
    except (OSError, ValueError) as error:
        raise UserError(f"the picture could not be written to {sheet}: {error}") from None
    print(f"the same as pictures, row by row: {sheet}")


# ---------------------------------------------------------------------------------------------
# score


def score_options(parser: Parser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="what to score")
    parser.add_argument("--sources", type=Path, metavar="DIR",
                        help="the photographs they were made from, in the same order of names")
    parser.add_argument("--score", choices=list(FORMULAS), default=DEFAULT_FORMULA,
                        help="the formula of `default`: plain is the mean P(painting) alone")
    judge_option(parser)
    data_option(parser)
    json_option(parser)


def score(options: Namespace) -> None:
    """The score of a folder of images, one number per part."""
    network, _ = model.load_judge(options.judge, device())
    found = images.find_dataset(options.data)

    def floats(paths: list[Path]) -> torch.Tensor:
        loaded = images.load_images(paths, network.size)
        if loaded.skipped and options.sources:  # the rest would be paired with the wrong sources
            raise UserError(f"cannot be read, and each image needs its source: {loaded.skipped[0]}")
        for name in loaded.skipped:
            print(f"left out, cannot be read: {name}", file=sys.stderr)
        return images.to_float(loaded.pixels).to(device())

    scorer = Scorer(
        network,
        None if options.sources is None else floats(images.list_images([options.sources])),
        floats(found.test[images.PAINTINGS]),
        options.score,
    )
    parts = scorer(floats(images.list_images([options.images]))).as_dict()
    if options.json:
        print(json.dumps({"data": found.name, "stand_in": found.stand_in, **parts}))
    else:
        print(f"{options.images} by {options.judge}, paintings of {found.description}")
        print(pd.Series(parts).to_string(float_format="{:.4f}".format))


# ---------------------------------------------------------------------------------------------
# data


def data_options(parser: Parser) -> None:
    parser.add_argument("name", help="for example monet2photo, vangogh2photo, cezanne2photo")
    parser.add_argument("--url", help="another place to take the zip file from")


def data(options: Namespace) -> None:
    """Download a public CycleGAN data set into data/."""
    name, url = options.name, options.url or ARCHIVE.format(name=options.name)
    target = images.DATA / name
    if target.name != name or name == "..":
        raise UserError(f"{name!r} is not the name of a data set: for example monet2photo")
    if target.exists():
        raise UserError(f"{target} is already there: move it away to download it again")
    with as_user_error(images.DATA):
        images.DATA.mkdir(exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=images.DATA, prefix=f".{name}-")
    with scratch as part:
        try:
            # A zip file whatever its address is called: torchvision would unpack what the name promises.
            download_and_extract_archive(url, part, filename="archive.zip", remove_finished=True)
        except Exception as error:  # networks and archives fail in many ways, all with one meaning
            raise UserError(f"{url} could not be downloaded and unpacked: {error}") from None
        unpacked = Path(part) / name
        images.find_dataset(str(unpacked))  # all four folders are there, or one line says which is not
        shutil.move(unpacked, target)
    print(f"downloaded {target}")


# ---------------------------------------------------------------------------------------------
# halves


def halves_options(parser: Parser) -> None:
    data_option(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="where to put the folders `search` and `yardstick`, full of links")


def halves(options: Namespace) -> None:
    """Part a data set in two: what is searched with, and what measures the end of a search."""
    found = images.find_dataset(options.data)
    if options.out.exists():
        raise UserError(f"{options.out} is already there: choose another --out")
    files = {f"{split}{domain}": paths for split in ("train", "test")
             for domain, paths in getattr(found, split).items()}
    with as_user_error(options.out):
        for name, first in (("search", 0), ("yardstick", 1)):
            for folder, paths in files.items():
                link(paths[first::2], options.out / name / folder)
            if found.stand_in:
                (options.out / name / images.STAND_IN).touch()
    print(f"every other image of {found.description}: {options.out}/search and {options.out}/yardstick")


def link(paths: list[Path], folder: Path) -> None:
    """Make `folder` with a link to each of `paths`, numbered: a name may come twice."""
    folder.mkdir(parents=True)
    for number, path in enumerate(paths):
        (folder / f"{number:05}-{path.name}").symlink_to(path.resolve())


# ---------------------------------------------------------------------------------------------
# controls


def controls_options(parser: Parser) -> None:
    judge_option(parser)
    data_option(parser)
    parser.add_argument("--csv", action="store_true", help="the table for pandas")


def controls(options: Namespace) -> None:
    """What the score makes of damaged images that pretend to be translations."""
    network, card = model.load_judge(options.judge, device())
    found = images.find_dataset(options.data)
    photos, paintings = (images.load_images(found.test[domain], network.size).pixels
                         for domain in (images.PHOTOS, images.PAINTINGS))
    table = controls_table(network, photos, paintings)
    if options.csv:
        print(table.to_csv(), end="")
    else:
        print(f"judge {options.judge}, trained on {card.training['data']}, here on {found.description}")
        print(table.to_string(float_format="{:.3f}".format))


# ---------------------------------------------------------------------------------------------
# What the commands print


def in_words(measured: dict) -> str:
    """The figures of `training.evaluate` as a short paragraph and the confusion table."""
    figures = "  ".join(
        f"{name.replace('_', ' ')} {measured[name]:.4f}"
        for name in ("auc", "auc_reencoded", "accuracy", "brier", "calibration_error",
                     "painting_calibration_error")
    )
    table = pd.DataFrame(
        measured["confusion"],
        index=[f"is a {name}" for name in model.CLASSES[:2]],
        columns=[f"judged {name}" for name in model.CLASSES[:2]],
    )
    skipped = sum(len(count["skipped"]) for count in measured["counts"].values())
    note = f"\n{skipped} files could not be read" if skipped else ""
    return f"on the test images: {figures}\n{table.to_string()}{note}"


def worst(verdicts: Verdicts, count: int = 16) -> pd.DataFrame:
    """The images whose verdict is furthest from the truth, worst first."""
    table = pd.DataFrame({
        "file": verdicts.paths,
        "is": [model.CLASSES[label] for label in verdicts.labels],
        "p_painting": verdicts.painting.round(4),
        "error": abs(verdicts.labels - verdicts.painting),
    })
    return table.nlargest(count, "error").drop(columns="error")


if __name__ == "__main__":
    subcommands("python -m judge", __doc__, {
        "train": (train_options, train),
        "evaluate": (evaluate_options, evaluate_judge),
        "score": (score_options, score),
        "controls": (controls_options, controls),
        "data": (data_options, data),
        "halves": (halves_options, halves),
    })
