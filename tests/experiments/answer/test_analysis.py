"""The protocol's tests find what is there, and only that, in tables that are made up."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from experiments.answer import analysis
from experiments.answer.collection import PARAMETERS, PUBLISHED_RESIZE
from experiments.answer.retraining import SEEDS
from experiments.confirmation import PUBLISHED

WINNERS = [f"{kind} {seed}" for seed in (1, 2, 3) for kind in ("tpe", "random")]


def confirmed(gain: dict[str, float], spread: float = 0.02) -> pd.DataFrame:
    """Return a confirmation's table: settings that score 0.1 x 10^gain, equal ones where none is given."""
    rng, rows = np.random.default_rng(0), []
    for pair in ("monet", "sisley"):
        for setting in [PUBLISHED, PUBLISHED_RESIZE, *WINNERS]:
            for seed in SEEDS:
                score = 0.1 * 10 ** (gain.get(f"{pair} {setting}", 0) + rng.normal(0, spread))
                rows.append({"pair": pair, "setting": setting, "seed": seed, "diverged": False,
                             "default": score, **dict.fromkeys(analysis.PARTS, score)})  # fmt: skip
    return pd.DataFrame(rows)


def test_holm_corrects_as_in_a_worked_example():
    # statsmodels' multipletests(p, method="holm")
    assert analysis.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert analysis.holm([0.9, 0.8]).max() == 1


def test_winners_that_are_better_win_and_equal_ones_do_not():
    better = {f"monet {name}": 0.5 for name in WINNERS[:4]} | {"sisley tpe 1": 0.5}
    comparison = analysis.against(confirmed(better), PUBLISHED)
    assert analysis.answer(comparison) == {"monet": "yes (4 of 6)", "sisley": "in part (1 of 6)"}
    assert analysis.answer(analysis.against(confirmed({}), PUBLISHED)) == {
        "monet": "no (0 of 6)", "sisley": "no (0 of 6)"}
    one = comparison.set_index(["pair", "winner"]).loc["monet", "tpe 1"]
    assert one["low"] < one["gain"] < one["high"] and one["gain"] == pytest.approx(0.5, abs=0.05)


def test_the_settings_of_the_confirmation_are_listed_with_their_parameters_and_scores():
    table = analysis.settings(searches(0.0), confirmed({"monet tpe 1": 0.5}, spread=0.02))
    assert len(table) == 16 and list(table["setting"][:1]) == ["tpe 1"]
    best = table.iloc[0]
    assert best["lowest"] < best["score"] < best["highest"] and best["score"] == pytest.approx(0.316, rel=0.1)
    published = table.set_index(["pair", "setting"]).loc["sisley", PUBLISHED_RESIZE]
    assert (published["identity_weight"], published["upsampling"]) == (5, "resize")


def test_a_comparison_is_corrected_for_all_twelve_winners():
    table = confirmed({"monet tpe 1": 0.5})
    scores = np.log10(table.query("pair == 'monet'").set_index("setting")["default"])
    alone = ttest_ind(scores["tpe 1"], scores[PUBLISHED], equal_var=False).pvalue
    comparison = analysis.against(table, PUBLISHED)
    assert len(comparison) == 12 and comparison["p"].min() == pytest.approx(12 * alone)


def test_a_diverged_training_counts_as_the_worst_score_and_has_no_parts():
    table = confirmed({"monet tpe 1": 0.5})
    lost = (table["setting"] == "tpe 1") & (table["seed"] == SEEDS[0]) & (table["pair"] == "monet")
    table.loc[lost, ["default", *analysis.PARTS]] = [0.0, *[np.nan] * len(analysis.PARTS)]
    whole, part = (analysis.against(table, PUBLISHED, name).set_index(["pair", "winner"])
                   .loc["monet", "tpe 1"] for name in ("default", "style"))
    assert whole["gain"] == pytest.approx(0.75 * 0.5 - 0.25 * 3, abs=0.05)  # 0.0001 is 10^-3 x 0.1
    assert part["gain"] > 0.1


def test_a_part_that_is_always_the_same_makes_no_difference_and_no_noise(recwarn):
    comparison = analysis.against(confirmed({}).assign(clean=1.0), PUBLISHED, "clean")
    assert (comparison["gain"] == 0).all() and (comparison["p"] == 1).all() and not recwarn


def test_tpe_is_compared_with_the_random_search_of_its_seed():
    gain, low, high, p = analysis.tpe_against_random(confirmed(
        {f"{pair} tpe {seed}": 0.3 for pair in ("monet", "sisley") for seed in (1, 2, 3)}))
    assert low < gain < high and gain == pytest.approx(0.3, abs=0.05) and low > 0 and p < 0.01
    _, low, high, _ = analysis.tpe_against_random(confirmed({}))
    assert low < 0 < high


def searches(advantage: float) -> pd.DataFrame:
    """Return the searches' table: 16 trials each, two reports; TPE's proposals score better by a factor."""
    rng, rows = np.random.default_rng(1), []
    for pair, seed, kind in product(("monet", "sisley"), (1, 2, 3), ("tpe", "random")):
        for trial in range(16):
            score = 10 ** (rng.normal(-2, 0.3) + advantage * (kind == "tpe" and trial > 5))
            row = {"pair": pair, "kind": kind, "seed": seed, "trial": trial, "state": "succeeded",
                   "final": score, **dict.fromkeys(PARAMETERS, trial)}  # fmt: skip
            rows += [row | {"step": 100, "score": 0}, row | {"step": 200, "score": score}]
    return pd.DataFrame(rows)


def test_proposals_are_compared_without_the_trials_that_both_searches_share():
    table = analysis.proposals(searches(1.0))
    assert (table["share"] > 0.9).all() and (table["p"] < 0.001).all()
    first = searches(0.0)
    first.loc[(first["kind"] == "tpe") & (first["trial"] < 6), "final"] = 1.0
    assert (analysis.proposals(first)["p"] > 0.05).all()


def test_votes_by_eye_have_an_interval():
    votes = pd.DataFrame({"pair": "monet", "question": "winner or published", "first": "tpe 1",
                          "second": "published", "choice": ["tpe 1"] * 18 + ["published"] * 2})  # fmt: skip
    row = analysis.by_eye(votes).iloc[0]
    assert (row["votes"], row["share"], row["yes"]) == (20, 0.9, True)
    assert [row["low"], row["high"]] == pytest.approx([0.699, 0.972], abs=0.001)  # Wilson's, by hand


def test_the_text_answers_each_question():
    sizes = pd.DataFrame({"setting": list("abcdef"), "sketch": range(6), "draft": [0, 1, 2, 3, 5, 4]})
    text = analysis.text(searches(1.0), confirmed({}), None, sizes)
    for words in ("best score of each search", "winners against published, log10",
                  "against published, resize", "'monet': 'no (0 of 6)'",
                  "is TPE better than random search? not shown",
                  "do sizes agree? yes: Spearman 0.94"):
        assert words in text
    assert "by eye" not in text and "confirm" not in analysis.text(searches(0), None, None, None)
