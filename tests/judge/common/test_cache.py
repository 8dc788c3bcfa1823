"""Claims about the cache; that a damaged one is remade is claimed of the images, in test_images.py."""

import os
from pathlib import Path

import torch

from judge.common import cache


def test_it_lies_where_the_desktop_standard_says(monkeypatch, tmp_path):
    assert cache.cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "salon"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache/salon"


def test_tensors_and_plain_data_come_back(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.put("x.pt", {"weights": torch.arange(3.0), "count": torch.tensor(7), "accuracy": 0.5, "no": ["a"]})
    found = cache.get("x.pt")
    assert found.pop("weights").tolist() == [0, 1, 2] and found.pop("count").item() == 7
    assert found == {"accuracy": 0.5, "no": ["a"]}
    assert cache.get("y.pt") is None


def test_what_lies_there_under_another_name_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.put("x.pt", {"weights": torch.zeros(3)})
    (cache.cache_folder() / "x.pt").rename(cache.cache_folder() / "y.pt")
    assert cache.get("y.pt") is None
