"""Pairs of sheets for viewers who do not know which setting painted which."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from experiments.answer.retraining import SEEDS, SHEET
from experiments.confirmation import PUBLISHED

KEY = "key.csv"  # what the pairs are: not for the viewers
GAP = 12  # pixels between two sheets


def draw(confirmed: pd.DataFrame, out: Path, baseline: str = PUBLISHED, seed: int = 0) -> pd.DataFrame:
    """Write a picture per pair of sheets, numbered in random order, and KEY; return the content of KEY.

    Each winner is compared with the setting `baseline`, and, with the published one as in the protocol, TPE's
    winners with random search's. The photographs are above, the paintings of the one side below them, and
    those of the other below these.

    Columns of KEY: number, pair, question, seed, first and second (settings), upper (the one of the two that
    is above).
    """
    rng, rows = np.random.default_rng(seed), []
    folders = confirmed.set_index(["pair", "setting", "seed"])["folder"]
    for pair in confirmed["pair"].unique():
        names = confirmed.loc[confirmed["pair"] == pair, "setting"].unique()
        questions = [(f"winner or {baseline}", name, baseline) for name in names if "published" not in name]
        if baseline == PUBLISHED:
            questions += [("TPE or random", name, name.replace("tpe", "random"))
                          for name in names if name.startswith("tpe ")]
        for question, first, second in questions:
            for chosen in sorted(rng.choice(SEEDS, 2, replace=False)):
                files = [Path(folders[pair, name, chosen]) / SHEET for name in (first, second)]
                if folders[pair, first, chosen] != folders[pair, second, chosen] and all(
                        file.exists() for file in files):  # equal settings and diverged ones show nothing
                    rows.append({"pair": pair, "question": question, "seed": chosen, "first": first,
                                 "second": second, "upper": str(rng.choice([first, second]))})  # fmt: skip
    key = pd.DataFrame(rows).sample(frac=1, random_state=seed, ignore_index=True).rename_axis("number")
    out.mkdir(parents=True)
    for row in key.reset_index().itertuples():
        lower = row.second if row.upper == row.first else row.first
        upper, lower = (Image.open(Path(folders[row.pair, name, row.seed]) / SHEET)
                        for name in (row.upper, lower))
        half = upper.height // 2
        picture = Image.new("RGB", (upper.width, upper.height + half + 2 * GAP), "white")
        picture.paste(upper.crop((0, 0, upper.width, half)), (0, 0))
        picture.paste(upper.crop((0, half, *upper.size)), (0, half + GAP))
        picture.paste(lower.crop((0, half, *lower.size)), (0, 2 * (half + GAP)))
        picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST).save(
            out / f"{row.number:03d}.png")
    key.to_csv(out / KEY)
    return key


def count(out: Path, answers: dict[str, Path]) -> pd.DataFrame:
    """Return the viewers' votes: KEY, with viewer and choice, the setting that the viewer prefers.

    Args:
        answers: of each viewer a file with a line `number,upper` or `number,lower` for each picture; level
            ones are left out.
    """
    key, votes = pd.read_csv(out / KEY, index_col="number"), []
    for viewer, file in answers.items():
        said = pd.read_csv(file, names=["number", "choice"], index_col="number")["choice"].str.strip()
        rows = key.loc[said.index].assign(viewer=viewer, said=said)
        other = rows["second"].where(rows["upper"] == rows["first"], rows["first"])
        votes.append(rows.assign(choice=rows["upper"].where(rows["said"] == "upper", other)))
    return pd.concat(votes)[["pair", "question", "seed", "first", "second", "viewer", "choice"]]
