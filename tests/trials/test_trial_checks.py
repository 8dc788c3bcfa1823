"""What a system's `check` does before a search starts."""

from importlib import import_module

import pytest
import torch

from judge import classifier

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "data"), [
    ("gan", "digits"), ("dcgan", "digits"), ("conditional_gan", "digits"), ("stargan", "sample")])
def test_a_check_trains_no_classifier(monkeypatch, tmp_path, sample_data, name, data):
    """On a machine with a GPU it would train for minutes on the CPU, before the first trial starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no classifier has been trained yet
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("trained"))
    module = import_module(f"trials.training.{name}")
    settings = module.Settings(data=str(sample_data) if data == "sample" else data).complete(CPU)
    assert module.check(settings).checkpoint > 0
