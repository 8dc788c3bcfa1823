"""Claims about the study: it ranks right, goes on where it was, and trains what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.study import study
from experiments.study.study import REPORTS, SHARES, Study
from judge.common.errors import UserError
from judge.score import FORMULAS
from trials.cyclegan import Settings


def table(early: dict[str, list[float]], final: dict[str, list[float]]) -> pd.DataFrame:
    """A study's table: the same early values at each share, one seed."""
    rows = []
    for number in range(len(next(iter(final.values())))):
        for share in SHARES:
            parts = {name: [0.2, 0.4, 0.1, 0.5, 0.3][number] for name in study.PARTS}
            parts |= {name: values[number] for name, values in early.items()}
            rows.append({"setting": number, "seed": 0, "share": share, **parts})
        rows[-1] |= {f"final_{name}": values[number] for name, values in final.items()}
    return pd.DataFrame(rows)


UP = [0.1, 0.2, 0.3, 0.4, 0.5]
ENDS = {"style": UP, "kid": UP[::-1], "content": UP}


def of(found: pd.DataFrame, score: str, target: str) -> pd.DataFrame:
    return found[(found["score"] == score) & (found["target"] == target)]


def test_a_score_that_foretells_the_end_has_coefficient_1_and_no_regret():
    row = of(study.ranking(table({"style": UP}, ENDS)), "style", "quality")
    assert len(row) == len(SHARES)
    assert row[["spearman", "kendall", "low", "high"]].to_numpy() == pytest.approx(1)
    assert (row["regret"] == 0).all()


def test_a_score_that_foretells_the_reverse_picks_the_worst():
    row = of(study.ranking(table({"style": UP[::-1]}, ENDS)), "style", "quality")
    assert row["spearman"].to_numpy() == pytest.approx(-1) and (row["regret"] == 1).all()


def test_a_smaller_distance_is_a_better_score():
    row = of(study.ranking(table({"kid": UP[::-1]}, ENDS)), "-kid", "-kid")
    assert row["spearman"].to_numpy() == pytest.approx(1)


def test_regret_is_what_the_early_pick_loses_in_shares_of_the_range():
    found = study.ranking(table({"content": [0.1, 0.2, 0.3, 0.9, 0.5]}, ENDS))
    assert of(found, "content", "content")["regret"].to_numpy() == pytest.approx(0.25)


def test_every_formula_and_part_is_ranked_at_every_share_against_every_aim():
    found = study.ranking(table({"style": UP}, ENDS))
    assert set(found["score"]) == {*FORMULAS, "style", "content", "diversity", "clean", "-kid"}
    assert len(found) == 4 * 7 * len(SHARES)


def test_quality_weighs_style_against_content():
    ends = study.finals(table({}, {"style": UP, "kid": UP[::-1], "content": UP[::-1]}))
    assert study.final_quality(ends, 1.0).is_monotonic_increasing
    assert study.final_quality(ends, 0.0).is_monotonic_decreasing
    assert study.final_quality(ends, 0.5).to_numpy() == pytest.approx([0.6] * 5)


def test_the_interval_is_wider_for_fewer_settings():
    draw = np.random.default_rng(0)
    x = draw.normal(size=100)
    y = x + draw.normal(size=100)
    widths = [np.ptp(study.interval(x[:n], y[:n])) for n in (10, 100)]
    assert widths[0] > 2 * widths[1] > 0


def test_the_published_setting_comes_first_and_draws_are_repeated(tmp_path):
    first, *others = study.drawn(Study.space, 5)
    assert first == {name: getattr(Settings(), name) for name in first}
    assert study.drawn(Study.space, 5) == [first, *others] and study.drawn(Study.space, 3)[1:] == others[:2]
    assert len({str(setting) for setting in others}) == 4


def test_a_space_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="^no search space can be read from .*nowhere.json"):
        study.drawn(tmp_path / "nowhere.json", 2)


@pytest.fixture
def small(tmp_path, sample_data, judge_file, monkeypatch) -> Study:
    monkeypatch.setattr(study, "RESAMPLES", 10)
    monkeypatch.setattr(study, "available_cores", lambda: 1)  # threads on busy cores wait for each other
    return Study(
        data=str(sample_data), judge=str(judge_file), yardstick=str(judge_file),
        yardstick_data=str(sample_data), out=tmp_path / "runs", table=tmp_path / "study.csv", size="sketch",
        steps=20, settings=3, again=1, photos=4, at_once=1,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["618938990956", "618938990e56", "007938990956"])
def test_a_judge_whose_hash_reads_as_a_number_is_known_again(small, name, monkeypatch):
    monkeypatch.setattr(study.model, "sha256_of", lambda file: name)
    figures = study.Figures(small)
    pd.DataFrame([{**figures.judges, "setting": 0, "seed": 0}]).to_csv(small.table, index=False)
    assert len(figures.complete([(0, 0)])) == 1


@pytest.mark.slow
def test_a_study_trains_measures_and_goes_on_where_it_was_stopped(small, monkeypatch, capfd):
    found = study.run(small)
    runs = found[["setting", "seed"]].drop_duplicates()
    assert len(runs[runs["seed"] == 0]) == 3 and len(runs[runs["seed"] == 1]) == 2
    assert len(found) == 5 * REPORTS and found["final_style"].notna().sum() == 5
    assert {0.1, 0.5} <= set(study.ranking(found)["share"])
    text = study.text(found)
    assert "against the final quality" in text and "combined" in text

    # A trial is gone from the table: it is measured again from what it painted, not trained again.
    lost = found[~((found["setting"] == 2) & (found["seed"] == 0))]
    lost.to_csv(small.table, index=False)
    monkeypatch.setattr(study.subprocess, "run", None)
    pd.testing.assert_frame_equal(study.run(small), found, check_dtype=False, rtol=1e-4)

    # Without its pictures it is said which.
    lost.to_csv(small.table, index=False)
    (small.out / "02-0" / "paintings" / "step_000002.pt").unlink()
    with pytest.raises(UserError, match="step_000002.pt is missing: move .*02-0 away"):
        study.run(small)


@pytest.mark.slow
def test_a_trial_that_fails_is_one_line_that_names_its_log(small):
    with pytest.raises(UserError, match="the trial of setting 0 did not finish: .*log says why"):
        study.run(replace(small, out=small.out / "x", photos=2, settings=1, again=0))
