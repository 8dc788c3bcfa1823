"""Reliability: the share of a score's variance that is between settings, of trainings with several seeds."""

import numpy as np
import pandas as pd
import pytest

from experiments.study.reliability import SHARES, intraclass_correlation, log_curves, reliability, text
from judge.common.errors import UserError
from judge.score import find_formula

PLAIN = find_formula("plain")


def study_table(settings: int, seeds: int, noise: float) -> pd.DataFrame:
    """Return a table whose log score is the setting's number plus noise that is new at each report."""
    rng = np.random.default_rng(0)
    rows = [(setting, seed, report / 20, np.exp(setting - settings + noise * rng.normal()))
            for setting in range(settings) for seed in range(seeds) for report in range(1, 21)]
    return pd.DataFrame(rows, columns=["setting", "seed", "share", "style"])


def test_the_intraclass_correlation_is_that_of_the_paper():
    # Shrout and Fleiss 1979, tables 2 and 4: four judges' ratings of six targets, ICC(1,1) = 0.17.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert intraclass_correlation(np.array(ratings, float)) == pytest.approx(0.166, abs=0.001)


def test_a_mean_of_reports_is_more_reliable_than_the_last_one_if_reports_flicker():
    table = reliability(log_curves(study_table(12, 3, noise=4), PLAIN))
    assert (table["low"] <= table["icc"]).all() and (table["icc"] <= table["high"]).all()
    last, mean = (table[(table["reports"] == count) & (table["share"] == 1)].iloc[0] for count in (1, 8))
    assert mean["icc"] > last["icc"] + 0.1 and mean["rank"] > last["rank"]
    assert mean["icc"] == pytest.approx(13 / (13 + 16 / 8), abs=0.1)  # variances of the settings, the noise


def test_scores_that_depend_on_the_setting_alone_have_a_reliability_of_one():
    table = reliability(log_curves(study_table(4, 2, noise=0), PLAIN))
    assert table[["icc", "low", "high", "rank"]].to_numpy() == pytest.approx(1)
    assert set(table["share"]) == set(SHARES)


def test_settings_with_fewer_seeds_are_left_out_and_too_few_are_refused():
    table = study_table(4, 3, noise=1)
    fewer = pd.concat([table, study_table(5, 1, noise=1).query("setting == 4")])
    pd.testing.assert_frame_equal(log_curves(fewer, PLAIN), log_curves(table, PLAIN))
    with pytest.raises(UserError, match="needs three settings with two seeds or more"):
        log_curves(table.query("seed == 0"), PLAIN)
    with pytest.raises(UserError, match="the table has no clean, content, diversity, kid, which combined"):
        log_curves(table, find_formula("combined"))


def test_the_text_has_a_block_for_each_table(tmp_path):
    said = text({tmp_path / "a.csv": study_table(4, 3, 1), tmp_path / "b.csv": study_table(5, 2, 1)}, PLAIN)
    assert "score: plain" in said and "a.csv: 4 settings, 3 seeds" in said and "b.csv: 5 settings, 2" in said
    assert said.count("last report") == said.count("mean of 8") == 2
