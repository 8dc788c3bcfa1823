"""Claims about the table of what judges say of damage that they were not shown."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from judge import images, leave_out, model
from judge.common.errors import UserError
from judge.corruptions import FAMILIES
from judge.leave_out import LEFT_OUT, leave_out_table
from judge.training import TrainingOptions
from judge.undertrained import UNDERTRAINED

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(epochs=1, weights="none")


@pytest.fixture
def trained(monkeypatch, judge_file) -> list[str]:
    """Families that judges were trained without; training takes no time and gives an untrained judge."""
    without = []

    def train(data, size, options, device, leave_out, announce):
        without.append(leave_out)
        announce(3600.0)
        return model.load_judge(judge_file)[0], SimpleNamespace(metrics={"auc": 0.9})

    monkeypatch.setattr(leave_out.training, "train", train)
    return without


def table(data, file, families=("noise", "blocks"), options=OPTIONS) -> pd.DataFrame:
    return leave_out_table(images.find_dataset(str(data)), 64, options, CPU, families, file)


def test_each_row_is_written_at_once_and_not_measured_again(
        trained, sample_data, tmp_path, capsys, monkeypatch):
    file = tmp_path / "table.csv"
    first = table(sample_data, file, ["noise"])
    assert trained == ["noise"] and list(pd.read_csv(file)["family"]) == ["noise"]
    both = table(sample_data, file)
    assert trained == ["noise", "blocks"] and list(both.index) == ["noise", "blocks"]
    assert both.loc["noise", "photos"] == pytest.approx(first.loc["noise", "photos"])
    noise_alone, blocks_left = capsys.readouterr().err.splitlines()
    assert noise_alone.endswith("without noise: at most 60 min; judges left to train: 1, at most 60 min")
    assert blocks_left.startswith("a judge without blocks: ")
    table(sample_data, None, ["noise", "blocks", "grids"])
    assert "judges left to train: 3, at most 3.0 h" in capsys.readouterr().err
    trained.clear()

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(leave_out.training, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        table(sample_data, file, ["noise", "grids"])
    assert table(sample_data, file).equals(both)


def test_a_table_of_other_options_and_another_file_are_refused(trained, sample_data, tmp_path):
    file = tmp_path / "table.csv"
    table(sample_data, file, ["noise"])
    with pytest.raises(UserError, match="other options or data"):
        table(sample_data, file, options=TrainingOptions(epochs=2, weights="none"))
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no table of this command"):
        table(sample_data, file)
    assert trained == ["noise"]


def test_a_row_has_the_familys_means_and_its_worst_kind(trained, sample_data, monkeypatch):
    """A judge that holds dark images for paintings: P(painting) is the share of black."""
    monkeypatch.setattr(leave_out, "mean_p_painting", lambda judge, x: 1 - x.float().mean().item() / 255)
    monkeypatch.setitem(FAMILIES, "blocks", {"pixelated": None, "holed": None})
    monkeypatch.setattr(leave_out, "corrupt_all", lambda kind, x, seed: x * 0 + 51 + 204 * (kind == "holed"))
    row = table(sample_data, None, ["blocks"]).loc["blocks"]
    assert (row["worst"], row["worst_photos"], row["auc"]) == ("pixelated", pytest.approx(0.8), 0.9)
    assert row[["photos", "paintings"]].tolist() == pytest.approx([0.4, 0.4])
    assert 0 < row["real_paintings"] < 1 and 0 < row["real_photos"] < 1


def test_every_family_and_undertrained_generators_can_be_left_out(sample_data):
    assert LEFT_OUT == (*FAMILIES, UNDERTRAINED)
    pixels = images.load_images(images.find_dataset(str(sample_data)).test["B"], 64).pixels
    for family in LEFT_OUT:
        for kind, damaged in leave_out.damaged(family, pixels, pixels, 0):
            assert damaged.shape[1:] == (3, 64, 64) and damaged.dtype == torch.uint8, kind
