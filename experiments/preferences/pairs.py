"""Chooses the pairs that a viewer is asked about, so that each vote teaches most.

Every tenth pair repeats one that the viewer has voted on before, with the sides swapped, which measures how
far the viewer agrees with themselves. Another pair is the most informative (`fit.information`) of some that
are drawn at random from those not yet shown. The sheets of the last pairs are left out if others are left:
one odd sheet teaches most, and would come again and again.
"""

from collections.abc import Sequence

import numpy as np

from experiments.preferences.candidates import Candidate
from experiments.preferences.fit import fit, information
from experiments.preferences.votes import Vote, differences, log_parts

REPEAT_EVERY = 10
REPEAT_AFTER = 5  # votes between a pair and its repetition
PAIRS_APART = 5  # between two pairs with the same sheet
DRAWN = 50  # pairs of which the most informative is shown

Pair = tuple[Candidate, Candidate, bool]  # left, right, and whether it was shown before


class Chooser:
    """Chooses pairs among `candidates`, always the same ones for the same seed and votes."""

    def __init__(self, candidates: Sequence[Candidate], seed: int):
        self.candidates, self.seed = candidates, seed
        self.places = {candidate.sheet.key: place for place, candidate in enumerate(candidates)}
        self.log_parts = np.array([log_parts(candidate.sheet.parts) for candidate in candidates])
        _, groups = np.unique([candidate.photographs for candidate in candidates], return_inverse=True)
        self.comparable = np.triu(groups[:, None] == groups, 1)  # [left, right]

    def choose(self, votes: Sequence[Vote], number: int) -> Pair | None:
        """Return the pair to show as the run's `number`, from 1; None if all pairs have been shown.

        `votes` are all by the viewer so far, also of earlier runs and on other sheets.
        """
        rng = np.random.default_rng([self.seed, number])
        if number % REPEAT_EVERY == 0 and (old := self.repeatable(votes)):
            vote = old[rng.integers(len(old))]
            left, right = (self.candidates[self.places[sheet.key]] for sheet in (vote.right, vote.left))
            return left, right, True
        unseen = self.unseen(votes)
        others = self.without_last(votes, unseen)
        new = np.argwhere(others if others.any() else unseen)
        if not len(new):
            return None
        drawn = new[rng.choice(len(new), min(DRAWN, len(new)), replace=False)]
        x, y = differences(votes)
        teaches = information(fit(x, y), x, self.log_parts[drawn[:, 0]] - self.log_parts[drawn[:, 1]])
        left, right = rng.permutation(drawn[teaches.argmax()])
        return self.candidates[left], self.candidates[right], False

    def unseen(self, votes: Sequence[Vote]) -> np.ndarray:
        """Return which pairs have not been voted on, as booleans, [left, right]."""
        unseen = self.comparable.copy()
        for vote in votes:
            places = [self.places.get(sheet.key) for sheet in (vote.left, vote.right)]
            if None not in places:
                unseen[min(places), max(places)] = False
        return unseen

    def without_last(self, votes: Sequence[Vote], pairs: np.ndarray) -> np.ndarray:
        """Return `pairs`, booleans [left, right], without the sheets of the last `PAIRS_APART` votes."""
        last = [self.places[sheet.key] for vote in votes[-PAIRS_APART:] for sheet in (vote.left, vote.right)
                if sheet.key in self.places]
        others = pairs.copy()
        others[last] = others[:, last] = False
        return others

    def repeatable(self, votes: Sequence[Vote]) -> list[Vote]:
        """Return the votes on pairs that were shown once, some votes ago, and whose sheets are here."""
        repeated = {vote.key for vote in votes if vote.repeat}
        return [vote for vote in votes[:-REPEAT_AFTER]
                if vote.key not in repeated and vote.key <= self.places.keys()]
