"""The protocol's searches as a table: which trial wins, and what is trained again."""

import pandas as pd
import pytest

from experiments.answer import collection
from experiments.answer.collection import PARAMETERS, PUBLISHED_RESIZE
from experiments.confirmation import PUBLISHED
from judge.common.errors import UserError


def table(scores: dict[tuple[str, int], list[float]], states=None) -> pd.DataFrame:
    """Return the table of searches of monet, by kind and seed, whose trials have these scores."""
    rows = [{"pair": "monet", "kind": kind, "seed": seed, "trial": trial, "final": score,
             "state": (states or {}).get(trial, "succeeded"), **dict.fromkeys(PARAMETERS, 100 * seed + trial),
             "step": step}
            for (kind, seed), all_scores in scores.items() for trial, score in enumerate(all_scores)
            for step in (1, 2)]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_winner_is_the_best_finished_trial_but_never_the_published_one():
    found = collection.winners(table({("tpe", 1): [0.9, 0.1, 0.5, 0.6], ("random", 1): [0.9, 0.3, 0.2, 0.1]},
                                   {3: "failed"}), "monet")  # fmt: skip
    assert {name: setting["cycle_weight"] for name, setting in found.items()} == {
        "tpe 1": 102, "random 1": 101}


def test_a_diverged_trial_is_no_winner_and_counts_among_the_ended_ones():
    rows = table({("tpe", 1): [0.9, 0.0, 0.5]}, {1: "diverged"})
    assert len(collection.trials(rows)) == 3 and list(collection.winners(rows, "monet")) == ["tpe 1"]


def test_published_settings_are_confirmed_with_both_upsamplings():
    chosen = collection.confirmed_settings(table({("tpe", 1): [0.9, 0.5]}), "monet")
    assert list(chosen) == [PUBLISHED, PUBLISHED_RESIZE, "tpe 1"]
    assert chosen[PUBLISHED]["upsampling"] == "transposed"
    assert chosen[PUBLISHED_RESIZE] == chosen[PUBLISHED] | {"upsampling": "resize"}


def test_sizes_are_compared_on_settings_from_the_best_to_a_bad_one():
    chosen = collection.sizes_settings(table({("tpe", 1): [0.95, *(n / 10 for n in range(1, 10))]}), "monet")
    assert [setting["cycle_weight"] for setting in list(chosen.values())[2:]] == [109, 107, 105, 103]


def test_a_search_of_something_else_is_refused(recorded):
    folder = recorded("other", {"trialCommand": "python -m trials.gan", "experimentName": "GAN"}, [])
    with pytest.raises(UserError, match="is no search of experiments/answer/PROTOCOL.md"):
        collection.collect([str(folder)])
