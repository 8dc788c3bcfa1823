import pytest
import torch

from judge.score import Score
from trials.parts.pattern import PatternScorer, patterns


def test_real_patterns_are_all_right_and_wrong_ones_are_not():
    scorer, real = PatternScorer(), patterns().pixels / 127.5 - 1
    assert scorer(real).default == 1.0
    wrong = torch.tensor([[1.0, -1, 1, -1], [1, -1, 1, 1], [0.5, -1, 1, -1], [0, 0, 0, 0]])
    assert scorer(wrong.view(4, 1, 1, 4)) == Score(0.25, {"distance": pytest.approx((0 + 2 + 0.5 + 4) / 16)})
