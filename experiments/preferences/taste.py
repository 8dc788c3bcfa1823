"""What votes say: the weights that fit them, and how well they and the shipped formula foretell votes."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from experiments.preferences import fit
from experiments.preferences.votes import FILE_NAME, Vote, differences, read
from judge.common.errors import UserError
from judge.common.files import as_user_error
from judge.score import DEFAULT_FORMULA, FILE_FORMAT, FORMULAS, PARTS
from trials.session.records import write_json

SCORE_FILE = "score.json"
SIGNIFICANT = 0.05  # of a test


def taste(place: Path, voter: str | None = None, out: Path | None = None) -> str:
    """Fit the weights to the votes in a file, or in the one in a folder; write them, return the findings.

    Args:
        voter: whose votes to use; None for everybody's.
        out: where to write the weights; by default score.json beside the votes.
    """
    file = place / FILE_NAME if place.is_dir() else place
    votes, damaged = read(file)
    by_voter = defaultdict(list)
    for vote in votes:
        by_voter[vote.voter].append(vote)
    if voter is not None and voter not in by_voter:
        raise UserError(f"{file} has no votes by {voter}; voters: {', '.join(by_voter) or 'nobody'}")
    if not votes:
        raise UserError(f"{file} has no votes: python -m experiments prefer ID asks for them")
    chosen = {voter: by_voter[voter]} if voter is not None else by_voter
    texts = [findings(name, its_votes) for name, its_votes in chosen.items()]
    used = [vote for its_votes in chosen.values() for vote in its_votes]
    if len(chosen) > 1:
        texts += [findings("everybody", used), between_voters(chosen)]
    if damaged:
        texts.append(f"left out: {damaged} lines of {file}, which are damaged or lack a part of the score")
    score_file = out or file.with_name(SCORE_FILE)
    texts.append(write(score_file, used, list(chosen)))
    return "\n\n".join(texts)


def write(file: Path, votes: Sequence[Vote], voters: list[str]) -> str:
    """Write the weights that fit the votes to `file`, and return a line that says how to use it."""
    weights = fit.fit(*differences(votes)).weights.round(4).tolist()
    with as_user_error(file.parent):
        write_json(file, {"format": FILE_FORMAT, "weights": dict(zip(PARTS, weights)), "votes": len(votes),
                          "voters": voters, "made": date.today().isoformat()})
    return f"written: {file} (use it: --score {file})"


def findings(name: str, votes: Sequence[Vote]) -> str:
    """Return the weights that fit the votes, with intervals, and how well formulas foretell the votes."""
    x, y = differences(votes)
    numbers = {}  # of the pairs
    pairs = np.array([numbers.setdefault(vote.key, len(numbers)) for vote in votes])
    weights = [f"{weight:.2f} [{low:.2f}, {high:.2f}]"
               for weight, low, high in zip(fit.fit(x, y).weights, *fit.intervals(x, y, pairs))]
    table = pd.DataFrame({"shipped": [f"{weight:.2f}" for weight in fit.SHIPPED_WEIGHTS],
                          "fitted [90 % interval]": weights}, index=list(PARTS))  # fmt: skip
    lines = [f"{name}: {len(votes)} votes, {sum(vote.winner is None for vote in votes)} of them level, "
             f"{sum(vote.repeat for vote in votes)} on pairs shown before", "", table.to_string(),
             "Only ratios matter; the fitted weights have the sum of the shipped ones."]  # fmt: skip
    fitted = fit.agrees(fit.held_out_log_odds(x, y, pairs), y)
    shipped = fit.agrees(x @ fit.SHIPPED_WEIGHTS, y)
    if not len(fitted):
        return "\n".join([*lines, "", "All votes are level, so there is nothing to foretell."])
    repeated = with_themselves(votes)
    others = [f"  {name:<17} {share(fit.agrees(x @ fit.weights_of(formula), y))}, the same votes"
              for name, formula in FORMULAS.items() if name != DEFAULT_FORMULA]  # fmt: skip
    return "\n".join([
        *lines, "", "agreement with the votes that chose a side:",
        f"  fitted weights    {share(fitted)}, each vote left out of the fit (cross-validated)",
        f"  shipped formula   {share(shipped)}, the same votes", *others,
        f"  the voter         {share(repeated)}, pairs shown twice{ceiling(repeated)}", "",
        chance(fitted), verdict(fitted, shipped)])  # fmt: skip


def share(agreed: np.ndarray) -> str:
    """Return the mean of zeros and ones and their number as text."""
    return f"{agreed.mean():.2f} of {len(agreed)}" if len(agreed) else "none"


def with_themselves(votes: Sequence[Vote]) -> np.ndarray:
    """Return whether each repeated vote chose the same sheet as the first one by its voter, as `same`."""
    return np.concatenate([same([vote for vote in votes if not vote.repeat and vote.voter == voter],
                                [vote for vote in votes if vote.repeat and vote.voter == voter])
                           for voter in {vote.voter for vote in votes}])  # fmt: skip


def ceiling(agreed: np.ndarray) -> str:
    """Return in words how often any score can agree with a voter who agrees so often with themselves.

    If a voter chooses the same sheet of a pair with probability p, two votes agree with p^2 + (1 - p)^2, and
    a perfect score agrees with p of them; with less in the mean if p differs between pairs (Jensen's
    inequality). From the upper end of the 90 % interval, since pairs shown twice are few.
    """
    if not len(agreed):
        return ""
    most = binomtest(int(agreed.sum()), len(agreed)).proportion_ci(0.9).high
    return f": no score can agree with more than {(1 + max(0, 2 * most - 1) ** 0.5) / 2:.2f} (95 % sure)"


def same(first: Sequence[Vote], second: Sequence[Vote]) -> np.ndarray:
    """Return 1 or 0 for each pair on which both chose a sheet: whether it is the same one."""
    winners = {vote.key: vote.winner for vote in first}
    both = [(winners.get(vote.key), vote.winner) for vote in second]
    return np.array([a == b for a, b in both if a and b], dtype=float)


def chance(fitted: np.ndarray) -> str:
    """Return in words whether the fitted weights agree with held-out votes more often than a coin would."""
    test = binomtest(int(fitted.sum()), len(fitted), alternative="greater")
    better = test.pvalue < SIGNIFICANT
    return (f"The fitted weights foretell votes {'better' if better else 'no better'} than a coin "
            f"(p = {test.pvalue:.2g}){'.' if better else ': too few votes, or votes at random.'}")


def verdict(fitted: np.ndarray, shipped: np.ndarray) -> str:
    """Return in words whether the fitted weights beat the shipped formula, by McNemar's exact test."""
    differ = fitted != shipped
    right, count = int(np.sum(fitted[differ] > shipped[differ])), int(differ.sum())
    pvalue = binomtest(right, count).pvalue if count else 1.0
    where = f"where the two differ, they are right {right} of {count} times (p = {pvalue:.2g})"
    word = "no better" if pvalue >= SIGNIFICANT else "better" if right > count / 2 else "worse"
    return f"By these votes, the fitted weights are {word} than the shipped formula: {where}."


def between_voters(by_voter: dict[str, list[Vote]]) -> str:
    """Return lines with the agreement of each two voters on the pairs that both saw."""
    first = {name: [vote for vote in votes if not vote.repeat] for name, votes in by_voter.items()}
    lines = [f"  {a} and {b}: {share(same(first[a], first[b]))}" for a, b in combinations(first, 2)]
    return "\n".join(["agreement of voters, on pairs for which both chose a side:", *lines])
