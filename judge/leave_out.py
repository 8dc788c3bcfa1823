"""What does a judge say of damage that it was never shown? One judge for each family of damage, without it.

A judge refuses each kind of damage in its training. What a search will find is a kind that nobody thought of,
so the honest measure is P(painting) of a family by a judge that has seen all other families.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from judge import training
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write
from judge.common.progress import duration
from judge.corruptions import FAMILIES, corrupt_all
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images
from judge.model import Judge
from judge.score import extract_features
from judge.training_options import TrainingOptions
from judge.undertrained import UNDERTRAINED, undertrained_images

LEFT_OUT = (*FAMILIES, UNDERTRAINED)  # what can be left out
AIM = 0.2  # a family's mean P(painting) should be no higher


def leave_out_table(
    data: DataSet, size: int, options: TrainingOptions, device: torch.device,
    families: Sequence[str] = LEFT_OUT, file: Path | None = None,
) -> pd.DataFrame:
    """Train a judge without each family, and return a row for each: what the judge says of that family.

    Columns, all of test images: `photos` and `paintings`, mean P(painting) of damaged photographs and of
    damaged paintings, over the family's kinds; `worst`, the kind with the highest for photographs, and
    `worst_photos`; `auc`, and the mean P(painting) of undamaged ones, `real_photos` and `real_paintings`.

    Each row is written to `file` as soon as it is measured. Rows that are there are not measured again;
    raises UserError if they were made with other options.
    """
    settings = json.dumps({"data": data.name, "size": size, **asdict(options)})
    rows = {} if file is None else _read(file, settings)
    missing = [family for family in families if family not in rows]
    for number, family in enumerate(missing):
        announce = partial(_announce, family, len(missing) - number)
        judge, card = training.train(data, size, options, device, leave_out=family, announce=announce)
        rows[family] = {"family": family, **measure(judge, data, family, options.seed),
                        "auc": card.metrics["auc"], "settings": settings}
        if file:
            with as_user_error(file):
                atomic_write(file, partial(pd.DataFrame(rows.values()).to_csv, index=False))
    return pd.DataFrame([rows[family] for family in families]).set_index("family").drop(columns="settings")


def _announce(family: str, judges: int, seconds: float) -> None:
    one, all_left = duration(seconds), duration(judges * seconds)
    print(f"a judge without {family}: at most {one}; judges left to train: {judges}, at most {all_left}",
          file=sys.stderr)


def _read(file: Path, settings: str) -> dict[str, dict]:
    """Return the rows in `file` by family, none if there is no such file."""
    if not file.exists():
        return {}
    try:
        rows = {row["family"]: row for row in pd.read_csv(file).to_dict("records")}
        same = all(row["settings"] == settings for row in rows.values())
    except (OSError, ValueError, KeyError):  # the last two: another kind of file
        raise UserError(f"{file} is no table of this command: give another --out") from None
    if not same:
        raise UserError(f"{file} was made with other options or data: give the same ones or another --out")
    return rows


def measure(judge: Judge, data: DataSet, family: str, seed: int) -> dict:
    """Return those columns of `leave_out_table` that are P(painting)."""
    photos, paintings = (load_images(data.test[domain], judge.size).pixels for domain in (PHOTOS, PAINTINGS))
    means = [{kind: mean_p_painting(judge, images) for kind, images in damaged(family, real, paintings, seed)}
             for real in (photos, paintings)]
    of_photos, of_paintings = (sum(kinds.values()) / len(kinds) for kinds in means)
    worst = max(means[0], key=means[0].get)
    undamaged = {"real_photos": mean_p_painting(judge, photos),
                 "real_paintings": mean_p_painting(judge, paintings)}
    return {"photos": of_photos, "paintings": of_paintings, "worst": worst, "worst_photos": means[0][worst],
            **undamaged}


def damaged(
    family: str, images: torch.Tensor, paintings: torch.Tensor, seed: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each kind of a family and `images` damaged by it, all uint8 [N, 3, size, size]."""
    if family == UNDERTRAINED:  # by generators that no judge has seen
        yield family, undertrained_images(images, paintings, seed + 1, torch.device("cpu"))
        return
    for kind in FAMILIES[family]:
        yield kind, corrupt_all(kind, images, seed)


@torch.no_grad()
def mean_p_painting(judge: Judge, images: torch.Tensor) -> float:
    """Return the mean calibrated P(painting) of uint8 [N, 3, size, size]."""
    return judge.painting_probability(extract_features(judge, images)).mean().item()
