"""The score that a trial reports: a mean over its last reports, which changes less than the last one."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

STEADY_REPORTS = 8  # that are averaged; judge/RESULTS.md says why
MIN_SCORE = 1e-9  # smaller scores count as this one, for the logarithm
MIN_SHOWN = 1e-4  # smaller scores do not differ in anything that can be seen


def steady(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of a trial's last `STEADY_REPORTS` scores, and the `error` of its `default`.

    GANs oscillate, so that one report is a lottery. A score is a product of parts and changes by factors:
    `default` is the geometric mean, of scores from `MIN_SCORE` up. Its `error` is the standard error of the
    logarithms times `default`; one report alone has none. The parts are arithmetic means.

    Args:
        scores: `default` and its parts at each report, the newest last; at least one.
    """
    last = scores[-STEADY_REPORTS:]
    logarithms = [math.log(max(score["default"], MIN_SCORE)) for score in last]
    mean = {"default": math.exp(fmean(logarithms))}
    if len(last) > 1:
        mean["error"] = mean["default"] * stdev(logarithms) / math.sqrt(len(last))
    return mean | {name: fmean(score[name] for score in last) for name in last[-1] if name != "default"}


def score_text(score: Mapping[str, float]) -> str:
    """Return a score as text with three digits, for example 0.0477 ± 0.0031."""
    value, error = score["default"], score.get("error")
    if not math.isfinite(value):  # of a damaged database
        return str(value)
    if value < MIN_SHOWN:
        return f"below {MIN_SHOWN:g}"
    # The error has as many decimals as the value.
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}" + (f" ± {error:.{decimals}f}" if error is not None else "")
