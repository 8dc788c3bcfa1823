"""python -m experiments.early_images FOLDER... --out DIR

Writes the images of trials' first reports as files, one each: cut from their sample sheets. A judge can learn
from them what barely trained generators paint (python -m judge train --neither DIR).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from judge.common.cli import Parser, PositiveInt, main
from judge.common.constants import SIZES
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write
from trials.session.records import read_record


def write(folders: Sequence[Path], reports: int, out: Path) -> tuple[int, int]:
    """Write the images of the first `reports` sheets of all trials below `folders` to `out`, as PNG files.

    Return the number of images and of trials that have any. Raises UserError if there are none.
    """
    from trials.parts.sheets import cut_images, list_sheets  # not above: torch takes seconds

    images = trials = 0
    for folder in sorted({record.parent for parent in folders for record in parent.rglob("run.json")}):
        size = SIZES.get(str(read_record(folder).get("settings", {}).get("size")))
        sheets = list(list_sheets(folder).items())[:reports] if size else []
        with as_user_error(out):
            for step, file in sheets:
                out.mkdir(parents=True, exist_ok=True)
                for number, image in enumerate(cut_images(file, lower=True, pixels=size)):
                    # The first number tells trials of equal names apart.
                    atomic_write(out / f"{trials:03}-{folder.name}-{step:06}-{number:02}.png",
                                 partial(image.save, format="PNG"))
                    images += 1
        trials += bool(sheets)
    if not images:
        raise UserError(f"no sample sheets of CycleGAN trials below {', '.join(map(str, folders))}")
    return images, trials


def run(arguments: list[str]) -> None:
    """Read the command line, write the images and say how many there are."""
    parser = Parser(__doc__, prog="python -m experiments.early_images")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER",
                        help="folders of trials, or folders above them such as runs/ID")
    parser.add_argument("--reports", type=PositiveInt, default=1, help="first reports of each trial to take")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")
    options = parser.parse_args(arguments)
    images, trials = write(options.folders, options.reports, options.out)
    print(f"{images} images of {trials} trials in {options.out}")


if __name__ == "__main__":
    main("python -m experiments.early_images", run)
