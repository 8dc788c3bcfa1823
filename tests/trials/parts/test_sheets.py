import torch

from trials.parts.sheets import sheet


def test_real_images_are_above_and_made_ones_below():
    """The report's page cuts a sheet in two halves."""
    picture = sheet(torch.ones(40, 1, 8, 8), -torch.ones(40, 1, 8, 8))
    half = picture.shape[1] // 2
    assert picture.shape[0] == 3 and picture[:, :half].max() == 1 and picture[:, half + 2 :].max() == 0
