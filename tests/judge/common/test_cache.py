"""The cache's own claims; test_images.py has those about damage, full disks, age and simultaneous trials."""

import os
from pathlib import Path

import torch

from judge.common import cache


def test_its_folder_follows_the_desktop_standard(monkeypatch, tmp_path):
    assert cache.cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "salon"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache/salon"


def test_tensors_and_plain_data_are_returned_under_their_own_name_only(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.put("x.pt", {"weights": torch.arange(3.0), "count": torch.tensor(7), "accuracy": 0.5, "no": ["a"]})
    content = cache.get("x.pt")
    assert content.pop("weights").tolist() == [0, 1, 2] and content.pop("count").item() == 7
    assert content == {"accuracy": 0.5, "no": ["a"]}
    assert cache.get("y.pt") is None
    (cache.cache_folder() / "x.pt").rename(cache.cache_folder() / "y.pt")
    assert cache.get("y.pt") is None
