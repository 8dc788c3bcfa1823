"""The steady score is the geometric mean of the last reports, with its error."""

import math

import pytest

from trials.session.steady import MIN_SCORE, STEADY_REPORTS, score_text, steady


def test_the_first_report_is_as_it_is_and_has_no_error():
    score = {"default": 0.04, "style": 0.5}
    assert steady([score]) == pytest.approx(score)


def test_the_default_is_the_geometric_mean_of_the_last_reports_and_parts_are_arithmetic_means():
    old = [{"default": 0.9, "style": 0.9}] * 3
    last = [{"default": 0.01 * 4**i, "style": 0.1 * i} for i in range(STEADY_REPORTS)]
    mean = steady(old + last)
    assert mean["default"] == pytest.approx(0.01 * 4 ** (sum(range(STEADY_REPORTS)) / STEADY_REPORTS))
    assert mean["style"] == pytest.approx(0.1 * sum(range(STEADY_REPORTS)) / STEADY_REPORTS)


def test_the_error_is_the_standard_error_as_a_share_of_the_score():
    a, b = steady([{"default": 0.02}, {"default": 0.08}]), steady([{"default": 0.2}, {"default": 0.8}])
    # Two logarithms, a factor of 4 apart, deviate by log(4) / sqrt(2); their mean by log(4) / 2.
    assert a["error"] == pytest.approx(a["default"] * math.log(4) / 2)
    assert b["error"] / b["default"] == pytest.approx(a["error"] / a["default"])


def test_scores_below_the_least_one_count_as_it():
    assert steady([{"default": 0.0}, {"default": MIN_SCORE / 10}]) == {
        "default": pytest.approx(MIN_SCORE), "error": 0}


@pytest.mark.parametrize("score, text", [
    ({"default": 0.04766, "error": 0.0031}, "0.0477 ± 0.0031"), ({"default": 0.04766}, "0.0477"),
    ({"default": 0.813, "error": 0.0004}, "0.813 ± 0.000"), ({"default": 1.0}, "1.00"),
    ({"default": 0.000321, "error": 0.00002}, "0.000321 ± 0.000020"), ({"default": 0.0}, "below 0.0001"),
])
def test_a_score_is_shown_with_three_digits_and_its_error(score, text):
    assert score_text(score) == text
