"""The classifier of labelled images."""

import pytest
import torch

from judge import classifier
from judge.labelled import load_labelled

CPU = torch.device("cpu")


def test_it_knows_digits_it_never_saw_and_is_trained_once(monkeypatch):
    digits = load_labelled("digits")
    trained = classifier.load_or_train(digits, CPU)
    assert trained.accuracy >= 0.97
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("trained again"))
    again = classifier.load_or_train(digits, CPU)
    assert again.summary(digits) == {"file": trained.file, "data": "digits", "accuracy": trained.accuracy}
    assert all(a.equal(b) for a, b in zip(again.network.parameters(), trained.network.parameters()))
