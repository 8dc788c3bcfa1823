import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import save_image

from trials.parts.sheets import cut_images, sheet


def test_real_images_are_above_and_made_ones_below():
    """The report's page cuts a sheet in two halves."""
    picture = sheet(torch.ones(40, 1, 8, 8), -torch.ones(40, 1, 8, 8))
    half = picture.shape[1] // 2
    assert picture.shape[0] == 3 and picture[:, :half].max() == 1 and picture[:, half + 2 :].max() == 0


@pytest.mark.parametrize(("count", "edge"), [(1, 64), (8, 64), (40, 32)])
def test_a_sheet_is_cut_into_the_images_that_it_was_made_of(tmp_path, count, edge):
    real, made = 2 * torch.rand(2, count, 3, edge, edge, generator=torch.Generator().manual_seed(0)) - 1
    save_image(sheet(real, made), tmp_path / "sheet.png")
    for lower, images in ((False, real), (True, made)):
        cut = cut_images(tmp_path / "sheet.png", lower, edge)
        assert len(cut) == min(count, 32)
        for image, expected in zip(cut, images):
            pixels = pil_to_tensor(image).float() / 127.5 - 1
            torch.testing.assert_close(pixels, expected, rtol=0, atol=0.005)
    assert cut_images(tmp_path / "sheet.png", True, 50) == cut_images(tmp_path / "none.png", True, edge) == []
