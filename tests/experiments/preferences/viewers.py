"""Viewers whose weights are known, and their votes."""

import numpy as np
from scipy.special import expit

from experiments.preferences.votes import Sheet, Vote, differences, now
from judge.score import PARTS


def random_parts(rng: np.random.Generator, count: int) -> list[dict[str, float]]:
    """Return the parts of so many scores, as different as those of trials."""
    low = {"style": 0.02, "content": 0.4, "scene": 0.05, "diversity": 0.4, "clean": 0.05, "kid": -0.1}
    high = {"style": 0.8, "content": 0.9, "scene": 1.0, "diversity": 1.0, "clean": 1.0, "kid": 3.0}
    return [{name: float(rng.uniform(low[name], high[name])) for name in PARTS} for _ in range(count)]


def simulate(weights: list[float] | None, count: int, seed: int, voter: str = "ann", repeats: float = 0.1,
             level: float = 0.0) -> list[Vote]:
    """Return votes on random pairs of sixty sheets by a viewer with these weights in their log-odds.

    Args:
        weights: None is a viewer who votes at random.
        repeats: share of votes that are on an earlier pair, with sides swapped.
        level: log-odds closer to 0 than this are a level vote.
    """
    rng = np.random.default_rng(seed)
    sheets = [Sheet("search", f"t{number}", 100, f"search/trials/t{number}", parts)
              for number, parts in enumerate(random_parts(rng, 60))]
    votes = []
    for number in range(1, count + 1):
        repeat = bool(votes) and rng.random() < repeats
        old = votes[rng.integers(len(votes))] if repeat else None
        fresh = [sheets[at] for at in rng.choice(60, 2, replace=False)]
        left, right = (old.right, old.left) if old else fresh
        vote = Vote(now(), voter, number, repeat, left, right, "left")
        odds = float(differences([vote])[0][0] @ (weights if weights is not None else np.zeros(len(PARTS))))
        answer = "level" if abs(odds) < level else "left" if rng.random() < expit(odds) else "right"
        votes.append(Vote(vote.time, voter, number, repeat, left, right, answer))
    return votes
