"""Viewers see which row is better, and not which setting painted it."""

import pandas as pd
import pytest
from PIL import Image

from experiments.answer import blind_pairs
from experiments.answer.collection import PUBLISHED_RESIZE
from experiments.answer.retraining import SEEDS, SHEET
from experiments.confirmation import PUBLISHED

COLOURS = {PUBLISHED: (255, 0, 0), PUBLISHED_RESIZE: (0, 255, 0), "tpe 1": (0, 0, 255), "random 1": (9, 9, 9)}


@pytest.fixture
def confirmed(tmp_path) -> pd.DataFrame:
    """A confirmation whose sheets have grey photographs and paintings of one colour for each setting."""
    rows = []
    for name, colour in COLOURS.items():
        for seed in SEEDS:
            folder = tmp_path / f"{name}-{seed}"
            folder.mkdir()
            sheet = Image.new("RGB", (20, 8), "grey")
            sheet.paste(colour, (0, 4, 20, 8))
            sheet.save(folder / SHEET)
            rows.append({"pair": "monet", "setting": name, "seed": seed, "folder": str(folder)})
    return pd.DataFrame(rows)


def test_pictures_show_the_photographs_then_both_sides_as_the_key_says(confirmed, tmp_path):
    key = blind_pairs.draw(confirmed, tmp_path / "out")
    assert len(key) == 2 * 3  # two seeds: both winners against published, TPE against random
    assert set(key["question"]) == {"winner or published", "TPE or random"}
    for row in key.reset_index().itertuples():
        picture = Image.open(tmp_path / f"out/{row.number:03d}.png")
        lower = row.second if row.upper == row.first else row.first
        places = (1, (4 + blind_pairs.GAP) * 3 + 3, (8 + 2 * blind_pairs.GAP) * 3 + 3)
        assert [picture.getpixel((30, y)) for y in places] == [
            (128, 128, 128), COLOURS[row.upper], COLOURS[lower]]
    assert key["upper"].eq(key["first"]).nunique() == 2  # not always the same side
    assert blind_pairs.draw(confirmed, tmp_path / "again").equals(key)


def test_winners_are_also_compared_with_resize_alone(confirmed, tmp_path):
    key = blind_pairs.draw(confirmed, tmp_path / "out", PUBLISHED_RESIZE)
    assert set(key["question"]) == {"winner or published, resize"} and len(key) == 2 * 2
    assert set(key["second"]) == {PUBLISHED_RESIZE}


def test_votes_are_turned_back_into_settings(confirmed, tmp_path):
    key = blind_pairs.draw(confirmed, tmp_path / "out")
    (tmp_path / "me.csv").write_text("0,upper\n1, lower\n")
    votes = blind_pairs.count(tmp_path / "out", {"me": tmp_path / "me.csv"})
    assert votes["choice"].tolist()[0] == key["upper"][0]
    assert votes["choice"].tolist()[1] == ({key["first"][1], key["second"][1]} - {key["upper"][1]}).pop()
    assert votes["viewer"].tolist() == ["me", "me"]


def test_equal_settings_are_not_shown_against_each_other(confirmed, tmp_path):
    same = confirmed["setting"] == "random 1"
    confirmed.loc[same, "folder"] = confirmed.loc[confirmed["setting"] == "tpe 1", "folder"].to_numpy()
    assert set(blind_pairs.draw(confirmed, tmp_path / "out")["question"]) == {"winner or published"}
