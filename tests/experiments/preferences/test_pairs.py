"""Which sheets are compared, and which pairs a viewer is asked about."""

import numpy as np
import pytest

from experiments.preferences import candidates, fit, votes
from experiments.preferences.pairs import REPEAT_EVERY, Chooser
from judge.common.errors import UserError


def vote_on(chooser: Chooser, count: int, weights: np.ndarray = fit.SHIPPED_WEIGHTS) -> list[votes.Vote]:
    """Return the votes of a viewer who always prefers the higher score by these weights."""
    given = []
    for number in range(1, count + 1):
        left, right, repeat = chooser.choose(given, number)
        odds = (votes.log_parts(left.sheet.parts) - votes.log_parts(right.sheet.parts)) @ weights
        answer = "left" if odds > 0 else "right"
        given.append(votes.Vote(str(number), "ann", number, repeat, left.sheet, right.sheet, answer))
    return given


def test_only_sheets_of_the_same_photographs_are_compared_also_those_of_several_searches(searched, tmp_path):
    folders = [searched("aaaa", 2), searched("bbbb", 2), searched("cccc", 2, photographs=1)]
    place, found = candidates.find([str(folder) for folder in (*folders, folders[0])])
    assert place == tmp_path
    steps = [(each.sheet.experiment, each.sheet.trial, each.sheet.step) for each in found]
    assert len(set(steps)) == len(steps) == 3 * 2 * candidates.STEPS_PER_TRIAL
    assert {step for *_, step in steps} == {200, 300, 500, 600}  # the last one is there, the first is not
    given = vote_on(Chooser(found, seed=0), 60)
    pairs = {frozenset((vote.left.experiment, vote.right.experiment)) for vote in given}
    assert {frozenset(("aaaa", "bbbb")), frozenset(("cccc",))} <= pairs
    assert not any("cccc" in pair and len(pair) > 1 for pair in pairs)


def test_trials_by_hand_are_compared_too(searched):
    folder = searched("aaaa", 2) / "trials"
    place, found = candidates.find([str(folder / "t0"), str(folder / "t1")])
    assert place == folder and {each.sheet.folder for each in found} == {"t0", "t1"}


def test_no_pair_comes_twice_except_every_tenth_with_its_sides_swapped(searched):
    _, found = candidates.find([str(searched("aaaa", 2))])
    chooser = Chooser(found, seed=0)
    given = vote_on(chooser, 28)
    new = [vote.key for vote in given if not vote.repeat]
    repeats = [vote for vote in given if vote.repeat]
    assert len(set(new)) == len(new) and [vote.pair for vote in repeats] == [REPEAT_EVERY, 2 * REPEAT_EVERY]
    for vote in repeats:
        first = next(other for other in given if other.key == vote.key)
        assert (first.left, first.right) == (vote.right, vote.left) and first.pair < vote.pair - 1
    assert len({vote.key for vote in repeats}) == 2
    rest = vote_on(chooser, 28)
    assert rest == given  # the same for the same seed and votes
    assert vote_on(Chooser(chooser.candidates, seed=1), 28) != given
    assert chooser.choose(vote_on(chooser, 31), 32) is None  # 8 sheets have 28 pairs, and three came twice


def test_chosen_pairs_teach_more_than_pairs_at_random(searched):
    _, found = candidates.find([str(searched("aaaa", 12))])
    weights = fit.SHIPPED_WEIGHTS * [2, 0.3, 1, 1, 1, 1]
    x, y = votes.differences(vote_on(Chooser(found, seed=0), 30, weights))
    table = np.array([votes.log_parts(each.sheet.parts) for each in found])
    pairs = np.random.default_rng(0).integers(len(table), size=(2, 30))
    at_random = table[pairs[0]] - table[pairs[1]]
    judged = np.array([[a - b for b in table] for a in table]).reshape(-1, len(weights))

    def unsure(x: np.ndarray, y: np.ndarray) -> float:
        """Return what votes on all pairs would still teach."""
        return fit.information(fit.fit(x, y), x, judged).mean()

    assert unsure(x, y) < unsure(at_random, (at_random @ weights > 0).astype(float))


def test_what_cannot_be_compared_is_said_in_one_line(searched):
    folder = searched("aaaa", 1, reports=1)
    with pytest.raises(UserError, match="no two sample sheets .*style, content.*same photographs"):
        candidates.find([str(folder)])
    with pytest.raises(UserError, match="no experiment zzzz"):
        candidates.find(["zzzz"])
    for name, damage in (("bbbb", "samples/step_000100.png"), ("cccc", "stats.jsonl"), ("dddd", "run.json")):
        folder = searched(name, 2, reports=1)
        assert len(candidates.find([str(folder)])[1]) == 2
        content = (folder / "trials/t0" / damage).read_bytes()
        (folder / "trials/t0" / damage).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match="no two sample sheets"):
            candidates.find([str(folder)])
