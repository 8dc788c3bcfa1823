"""Finished generators, read back."""

import json
from dataclasses import asdict

import pytest
import torch

from judge.command import UserError
from trials import translate
from trials.cyclegan import CycleGAN, Settings

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """A trial's folder after two steps."""
    settings = Settings(size="sketch", data="d", ngf=4, blocks=1, ndf=4, steps=10, photos=8).complete(CPU)
    net = CycleGAN(settings, 10, CPU)
    a, b = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    net.update(a, b)
    torch.save(net.state_dict(), tmp_path / "checkpoint.pt")
    record = {"system": "cyclegan", "settings": asdict(settings), "schedule": {"steps": 10, "until": 10}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path, net


def test_a_trained_generator_paints_as_it_did_in_its_trial(folder):
    photos = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    again = translate.trained(folder[0], CPU)
    assert again.step == 1 and torch.equal(again.paint(photos), folder[1].paint(photos))


def test_what_is_no_trial_is_one_line(tmp_path, folder):
    with pytest.raises(UserError, match="is not the folder of a CycleGAN trial"):
        translate.trained(tmp_path / "elsewhere", CPU)
    (folder[0] / "checkpoint.pt").write_bytes(b"foreign")
    with pytest.raises(UserError, match="cannot be read"):
        translate.trained(folder[0], CPU)
    (folder[0] / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="has no checkpoint yet"):
        translate.trained(folder[0], CPU)
