"""The figures show what is in the tables."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.answer import figures
from experiments.confirmation import PUBLISHED
from experiments.study.reliability import log_curves
from judge.score import DEFAULT_FORMULA, find_formula
from tests.experiments.answer.test_analysis import WINNERS, confirmed

STUDY = Path(figures.__file__).parents[1] / "study"


def test_early_scores_are_drawn_with_the_ends_of_the_other_seeds_of_the_setting():
    seeds = pd.read_csv(STUDY / "seeds.csv")
    for axis in figures.early_and_end(seeds).axes:
        assert [len(line.get_xdata()) for line in axis.lines] == [3] * 8  # seeds, settings
        ends = log_curves(seeds, find_formula(DEFAULT_FORMULA)).loc[0].iloc[:, -8:].mean(axis=1)
        others = [np.exp(ends.drop(seed).mean()) for seed in ends.index]
        assert axis.lines[0].get_ydata() == pytest.approx(others)


def test_each_family_of_damage_has_two_bars():
    table = pd.read_csv(STUDY / "leave_out.csv")
    axis, = figures.left_out(table).axes
    widths = sorted(bar.get_width() for bar in axis.patches)
    assert widths == pytest.approx(sorted([*table["photos"], *table["paintings"]]))


def test_winners_have_their_intervals_and_a_mark_if_they_are_significant():
    axis, _ = figures.intervals(confirmed({f"monet {WINNERS[0]}": 0.5})).axes
    assert axis.get_title() == "monet" and PUBLISHED not in str(axis.get_yticklabels())
    marked = [label.get_text() for label in axis.get_yticklabels() if "*" in label.get_text()]
    assert marked == [f"{WINNERS[0]} *"]


def test_the_crops_of_the_contact_sheet_are_of_both_photographs():
    crops = figures.crops(32)
    assert crops.shape == (figures.COLUMNS, 3, 32, 32) and crops.min() >= -1 and crops.max() <= 1
    assert len({crop.numpy().tobytes() for crop in crops}) == figures.COLUMNS


def test_before_and_after_shows_each_photograph_and_what_each_network_makes_of_it(tmp_path, monkeypatch):
    nets = {tmp_path / "negative": lambda photos: -photos, tmp_path / "grey": lambda photos: photos * 0}
    monkeypatch.setattr(figures, "load_trained", lambda folder, _: SimpleNamespace(paint=nets[folder]))
    picture = figures.before_and_after(dict(zip(("published", "found"), nets)))
    height, width = figures.BEFORE_AND_AFTER
    assert picture.size == (3 * (width + 2) + 2, 2 * (height + 2) + 2 + 16)
    for top in (18, 18 + height + 2):  # below the line of captions
        photo, negative, grey = (np.asarray(picture.crop((left, top, left + width, top + height)), int)
                                 for left in (2, width + 4, 2 * width + 6))
        assert photo.std() > 20 and grey.std() == 0
        assert np.abs(photo + negative - 255).max() <= 1
