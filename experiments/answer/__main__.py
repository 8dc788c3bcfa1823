"""python -m experiments.answer COMMAND: the experiment of experiments/answer/PROTOCOL.md

    python -m experiments.answer searches ID ...       # the searches as a table
    python -m experiments.answer confirm --pair monet --halves DIR --judge FILE --yardstick FILE
    python -m experiments.answer sizes   --pair monet --halves DIR --judge FILE --draft-judge FILE
    python -m experiments.answer pairs --out DIR       # sheets for viewers, without names
    python -m experiments.answer votes --out DIR NAME=FILE ...
    python -m experiments.answer results               # all tables and answers
    python -m experiments.answer figures --search ID --drafts DIR     # of judge/RESULTS.md and the README
"""

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.answer.options import Confirmation
from judge.common.cli import Fraction, Namespace, Parser, from_namespace, subcommands
from judge.common.errors import UserError

if TYPE_CHECKING:  # each command imports what it needs when it runs: torch and pandas take seconds
    import pandas as pd

FOLDER = Path(__file__).parent
VOTES, SIZES = FOLDER / "votes.csv", FOLDER / "sizes.csv"
PAIR = "monet"  # whose drafts are shown
TRAININGS = 64  # of the confirmation: two pairs of domains, eight settings each, four seeds
STUDY, PICTURES = FOLDER.parent / "study", FOLDER.parent / "pictures"


def searches(options: Namespace) -> None:
    """Write a table of all reports of the searches for each pair of domains."""
    from experiments.answer import collection

    for pair, table in collection.collect(options.experiments).groupby("pair"):
        file = table_of("searches", pair)
        table.to_csv(file, index=False, float_format="%.6g")
        print(f"wrote {file}")


def confirm(options: Namespace) -> None:
    """Train winners and published settings with fresh seeds, and measure them; the same command continues."""
    from experiments.answer import collection, retraining

    settings = collection.confirmed_settings(read_all("searches"), options.pair)
    retraining.run(from_namespace(Confirmation, options), settings,
                   table_of("confirmed", options.pair))  # fmt: skip


def sizes(options: Namespace) -> None:
    """Train six settings at two sizes; the same command continues."""
    from experiments.answer import collection, retraining

    settings = collection.sizes_settings(read_all("searches"), options.pair)
    retraining.compare_sizes(from_namespace(Confirmation, options), settings,
                               options.draft_judge, options.budget, SIZES)  # fmt: skip


def draw_pairs(options: Namespace) -> None:
    """Write the pictures that viewers compare: is the upper or the lower row the better painting?"""
    from experiments.answer import blind_pairs
    from experiments.answer.collection import PUBLISHED_RESIZE
    from experiments.confirmation import PUBLISHED

    baseline = PUBLISHED_RESIZE if options.resize else PUBLISHED
    key = blind_pairs.draw(read_confirmed(), options.out, baseline)
    print(f"{len(key)} pictures in {options.out}; {blind_pairs.KEY} is not for the viewers")


def votes(options: Namespace) -> None:
    """Add the viewers' votes to their table, in place of earlier ones on the same questions."""
    import pandas as pd

    from experiments.answer import blind_pairs

    words = (word.split("=", 1) for word in options.answers)
    table = blind_pairs.count(options.out, {name: Path(file) for name, file in words})
    if VOTES.exists():
        earlier = pd.read_csv(VOTES)
        table = pd.concat([earlier[~earlier["question"].isin(table["question"])], table])
    table.to_csv(VOTES, index=False)
    print(f"wrote {VOTES}")


def results(options: Namespace) -> None:
    """Print all tables that there are, and what they answer."""
    import pandas as pd

    from experiments.answer import analysis

    others = (pd.read_csv(file) if file.exists() else None for file in (VOTES, SIZES))
    print(analysis.text(read_all("searches"), confirmed_or_none(), *others))


def draw_figures(options: Namespace) -> None:
    """Draw the figures of judge/RESULTS.md that there are data for.

    --search adds the contact sheet of a search, --drafts the README's before and after.
    """
    from experiments.answer import collection, figures, retraining
    from experiments.api import load
    from experiments.confirmation import PUBLISHED

    drawn = {"early_and_end": figures.early_and_end(read(STUDY / "seeds.csv")),
             "left_out": figures.left_out(read(STUDY / "leave_out.csv"))}
    if (confirmed := confirmed_or_none()) is not None:
        drawn["intervals"] = figures.intervals(confirmed)
    for name, figure in drawn.items():
        figure.savefig(PICTURES / f"{name}.png", dpi=100)
    if options.search:
        figures.contact_sheet(load(options.search)).save(PICTURES / "contact_sheet.png")
    if options.drafts:
        trained = {"published": PUBLISHED, "published, resize": collection.PUBLISHED_RESIZE,
                   "highest score of the searches": collection.share_name(0)}  # fmt: skip
        drafts = {title: retraining.sizes_folder(options.drafts, PAIR, name) / "draft"
                  for title, name in trained.items()}  # fmt: skip
        figures.before_and_after(drafts).save(PICTURES / "before_and_after.png")
    print(f"figures in {PICTURES}")


def table_of(name: str, pair: str) -> Path:
    """Return the file of a table of a pair of domains. Each pair has its own, so that two may be trained at
    once."""
    return FOLDER / f"{name}-{pair}.csv"


def read_all(name: str) -> "pd.DataFrame":
    """Return this table for all pairs of domains. Raises UserError if there is none yet."""
    import pandas as pd

    files = sorted(FOLDER.glob(f"{name}-*.csv")) or [table_of(name, PAIR)]
    return pd.concat(map(read, files), ignore_index=True)


def read_confirmed() -> "pd.DataFrame":
    """Return the table of the confirmation. Raises UserError if it is not complete."""
    table = read_all("confirmed")
    if len(table) < TRAININGS:
        raise UserError(f"the confirmation has {len(table)} of {TRAININGS} trainings: repeat `confirm`, "
                        "which continues it")
    return table


def confirmed_or_none() -> "pd.DataFrame | None":
    """Return the table of the confirmation, or, if it is not complete, say so and return None."""
    try:
        return read_confirmed()
    except UserError as unfinished:
        print(f"{unfinished}\n")


def read(file: Path) -> "pd.DataFrame":
    """Return a table of this folder. Raises UserError if it was not made yet."""
    import pandas as pd

    if not file.exists():
        raise UserError(f"no {file}: PROTOCOL.md says how it is made")
    return pd.read_csv(file)


def add_confirmation(parser: Parser) -> None:
    parser.add_fields(Confirmation)


def add_sizes(parser: Parser) -> None:
    add_confirmation(parser)
    parser.add_argument("--draft-judge", type=Path, required=True, help="the judge of 128 px")
    parser.add_argument("--budget", type=Fraction, default=0.25, help="share of a draft's schedule")


def add_out(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")


def add_pairs(parser: Parser) -> None:
    add_out(parser)
    parser.add_argument("--resize", action="store_true",
                        help="winners against the published setting with resize: not in the protocol")


def add_votes(parser: Parser) -> None:
    add_out(parser)
    parser.add_argument("answers", nargs="+", metavar="NAME=FILE", help="viewer and file")


def add_pictures(parser: Parser) -> None:
    parser.add_argument("--search", metavar="ID", help="search whose trials' paintings are shown together")
    parser.add_argument("--drafts", type=Path, metavar="DIR", help="folder --out of `sizes`")


if __name__ == "__main__":
    subcommands("python -m experiments.answer", __doc__, {
        "searches": (lambda parser: parser.add_argument("experiments", nargs="+", metavar="ID"), searches),
        "confirm": (add_confirmation, confirm), "sizes": (add_sizes, sizes), "pairs": (add_pairs, draw_pairs),
        "votes": (add_votes, votes), "results": (lambda parser: None, results),
        "figures": (add_pictures, draw_figures),
    })  # fmt: skip
