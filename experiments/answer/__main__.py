"""python -m experiments.answer COMMAND: the experiment of experiments/answer/PROTOCOL.md

    python -m experiments.answer searches ID ...       # the searches as a table
    python -m experiments.answer confirm --pair monet --halves DIR --judge FILE --yardstick FILE
    python -m experiments.answer sizes   --pair monet --halves DIR --judge FILE --draft-judge FILE
    python -m experiments.answer pairs --out DIR       # sheets for viewers, without names
    python -m experiments.answer votes --out DIR NAME=FILE ...
    python -m experiments.answer results               # all tables and answers
"""

from pathlib import Path

import pandas as pd

from experiments.answer import analysis, confirmation, pairs
from experiments.answer import searches as tables
from judge.common.cli import Fraction, Namespace, Parser, from_namespace, subcommands
from judge.common.errors import UserError

FOLDER = Path(__file__).parent
SEARCHES, CONFIRMED, VOTES, SIZES = (
    FOLDER / f"{name}.csv" for name in ("searches", "confirmed", "votes", "sizes"))  # fmt: skip


def searches(options: Namespace) -> None:
    """Write the table of all reports of the searches."""
    tables.collect(options.experiments).to_csv(SEARCHES, index=False, float_format="%.6g")
    print(f"wrote {SEARCHES}")


def confirm(options: Namespace) -> None:
    """Train winners and published settings with fresh seeds, and measure them; the same command continues."""
    settings = tables.confirmed_settings(read(SEARCHES), options.pair)
    confirmation.run(from_namespace(confirmation.Confirmation, options), settings, CONFIRMED)


def sizes(options: Namespace) -> None:
    """Train six settings at two sizes; the same command continues."""
    settings = tables.sizes_settings(read(SEARCHES), options.pair)
    confirmation.compare_sizes(from_namespace(confirmation.Confirmation, options), settings,
                               options.draft_judge, options.budget, SIZES)  # fmt: skip


def draw_pairs(options: Namespace) -> None:
    """Write the pictures that viewers compare: is the upper or the lower row the better painting?"""
    key = pairs.draw(read(CONFIRMED), options.out)
    print(f"{len(key)} pictures in {options.out}; {pairs.KEY} is not for the viewers")


def votes(options: Namespace) -> None:
    """Write the table of the viewers' votes."""
    answers = dict(word.split("=", 1) for word in options.answers)
    pairs.count(options.out, {name: Path(file) for name, file in answers.items()}).to_csv(VOTES, index=False)
    print(f"wrote {VOTES}")


def results(options: Namespace) -> None:
    """Print all tables and what they answer."""
    print(analysis.text(read(SEARCHES), *(pd.read_csv(file) if file.exists() else None
                                          for file in (CONFIRMED, VOTES, SIZES))))


def read(file: Path) -> pd.DataFrame:
    """Return a table of this folder. Raises UserError if it was not made yet."""
    if not file.exists():
        raise UserError(f"no {file}: PROTOCOL.md says how it is made")
    return pd.read_csv(file)


def add_confirmation(parser: Parser) -> None:
    parser.add_fields(confirmation.Confirmation)


def add_sizes(parser: Parser) -> None:
    add_confirmation(parser)
    parser.add_argument("--draft-judge", type=Path, required=True, help="the judge of 128 px")
    parser.add_argument("--budget", type=Fraction, default=0.25, help="share of a draft's schedule")


def add_out(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")


def add_votes(parser: Parser) -> None:
    add_out(parser)
    parser.add_argument("answers", nargs="+", metavar="NAME=FILE", help="viewer and file")


if __name__ == "__main__":
    subcommands("python -m experiments.answer", __doc__, {
        "searches": (lambda parser: parser.add_argument("experiments", nargs="+", metavar="ID"), searches),
        "confirm": (add_confirmation, confirm), "sizes": (add_sizes, sizes), "pairs": (add_out, draw_pairs),
        "votes": (add_votes, votes), "results": (lambda parser: None, results),
    })  # fmt: skip
