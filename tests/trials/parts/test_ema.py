"""The moving average of a generator follows it, is what is scored, and does not change the training."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn

from tests.trials.test_systems import TRIALS, settings_of, trained  # noqa: F401 (a fixture)
from trials.parts import ema
from trials.session.records import read_json


def test_the_weight_of_what_was_is_halved_after_the_half_life():
    network = nn.BatchNorm1d(1)
    average = ema.average_of(network, half_life=10)
    nn.init.constant_(network.weight, 3.0), network.running_mean.fill_(2.0)  # it was 1, and 0
    for step in range(1000, 1010):
        ema.follow(average, network, 10, step)
    assert average.weight.item() == pytest.approx(2.0) and average.running_mean.item() == pytest.approx(1.0)
    assert not average.training and not average.weight.requires_grad


def test_in_the_first_steps_the_average_forgets_the_initial_weights():
    network = nn.Linear(1, 1)
    average = ema.average_of(network, half_life=1_000_000)
    nn.init.constant_(network.weight, 5.0)
    for step in range(1, 20):
        ema.follow(average, network, 1_000_000, step)
    assert average.weight.item() == pytest.approx(5.0, abs=1e-3)


def test_without_a_half_life_there_is_no_copy():
    network = nn.Linear(1, 1)
    assert ema.average_of(network, 0) is network


@pytest.mark.parametrize("name, changes, proposed", [
    trial for trial in TRIALS if trial[0] != "style_transfer" and trial[1].get("data") != "pattern"])
def test_a_trial_scores_the_average_keeps_it_and_trains_as_without(
        tmp_path, settings_of, name, changes, proposed):  # noqa: F811
    module = import_module(f"trials.training.{name}")
    settings = settings_of(module, steps=20, reports=2, **changes | proposed)
    plain, averaged, cut = (tmp_path / folder for folder in ("plain", "averaged", "cut"))
    trained(module, plain, settings)
    trained(module, averaged, replace(settings, ema=8))
    trained(module, cut, replace(settings, ema=8), until=15)
    trained(module, cut, replace(settings, ema=8))
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (plain, averaged, cut)]
    torch.testing.assert_close(states[0], {part: states[1][part] for part in states[0]}, rtol=0, atol=0)
    torch.testing.assert_close(states[1], states[2], rtol=0, atol=0)
    assert set(states[1]) - set(states[0]) in ({"G_average"}, {"average_AB", "average_BA"})
    scores = [read_json(run / "run.json")["score"] for run in (plain, averaged, cut)]
    assert scores[0] != scores[1] == scores[2]
