"""Claims about the export of first reports: the images that a trial made, as they are on its sheets."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import save_image

from experiments import early_images
from judge.common.errors import UserError
from trials.parts.sheets import sheet


@pytest.fixture
def runs(tmp_path):
    """Two trials with two sheets each, and their images: colours by trial, step and place."""
    made = {}
    for trial in ("abc", "def"):
        folder = tmp_path / "runs" / trial
        (folder / "samples").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"settings": {"size": "sketch"}, "parameters": {}}))
        for step in (100, 200):
            images = torch.rand(18, 3, 1, 1).expand(-1, -1, 64, 64) * 2 - 1
            made[trial, step] = ((images[:, :, 0, 0] + 1) * 127.5).numpy()
            save_image(sheet(-images, images, columns=9), folder / f"samples/step_{step:06}.png")
    return tmp_path / "runs", made


def test_each_image_of_the_first_reports_becomes_a_file_of_its_own_size(runs, tmp_path):
    folder, made = runs
    assert early_images.write([folder], 1, tmp_path / "out") == (36, 2)
    assert len(list((tmp_path / "out").iterdir())) == 36
    for place, trial in enumerate(("abc", "def")):
        for number in range(18):
            with Image.open(tmp_path / "out" / f"{place:03}-{trial}-000100-{number:02}.png") as image:
                pixels = np.asarray(image)
            assert pixels.shape == (64, 64, 3)
            assert np.abs(pixels - made[trial, 100][number]).max() <= 1
    assert early_images.write([folder / "abc", folder], 2, tmp_path / "all") == (72, 2)


def test_two_trials_of_one_name_keep_their_images(runs, tmp_path):
    shutil.copytree(runs[0] / "abc", tmp_path / "others/abc")
    assert early_images.write([runs[0] / "abc", tmp_path / "others"], 1, tmp_path / "out") == (36, 2)
    assert len(list((tmp_path / "out").iterdir())) == 36


def test_folders_without_sheets_are_refused(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="no sample sheets of CycleGAN trials below"):
        early_images.write([tmp_path], 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(runs, tmp_path, capsys):
    early_images.run([str(runs[0]), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == f"36 images of 2 trials in {tmp_path / 'out'}\n"
