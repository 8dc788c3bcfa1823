"""The file of votes."""

import json
from dataclasses import asdict

import pytest

from experiments.preferences import votes
from judge.common.errors import UserError
from judge.score import PARTS
from tests.experiments.preferences.viewers import simulate


@pytest.fixture
def some() -> list[votes.Vote]:
    return simulate(None, 4, seed=0, voter='a "quoted" <name>')


def test_votes_are_read_as_they_were_written_and_undone_ones_are_left_out(tmp_path, some):
    file = tmp_path / votes.FILE_NAME
    assert votes.read(file) == ([], 0)
    for vote in some:
        votes.append(file, vote)
    votes.append(file, {"time": votes.now(), "voter": some[2].voter, "undo": some[2].time})
    votes.append(file, {"time": votes.now(), "voter": "another", "undo": some[1].time})
    assert votes.read(file) == ([some[0], some[1], some[3]], 0)
    assert len(file.read_text().splitlines()) == 6  # nothing is removed


def test_damaged_lines_are_left_out_and_counted_and_a_cut_off_one_harms_no_other(tmp_path, some):
    file, good = tmp_path / votes.FILE_NAME, asdict(some[0])
    bad = [b"", b"{", b"[" * 10**5, b"\xff", *(json.dumps(value).encode() for value in (
        3, {}, good | {"vote": "both"}, good | {"left": None}, good | {"voter": "a\x1b[2J"},
        good | {"left": good["left"] | {"parts": {"style": 0.5}}},
        good | {"left": good["left"] | {"parts": good["left"]["parts"] | {"kid": float("nan")}}}))]
    file.write_bytes(b"\n".join(bad) + b'\n{"time": "cut')
    votes.append(file, some[0])
    votes.append(file, some[1])
    assert votes.read(file) == (some[:2], len(bad) + 1)


def test_what_cannot_be_written_or_read_is_named(tmp_path, some):
    with pytest.raises(UserError, match="cannot write to .*none"):
        votes.append(tmp_path / "none" / votes.FILE_NAME, some[0])
    with pytest.raises(UserError, match=f"{tmp_path} cannot be read"):
        votes.read(tmp_path)


def test_a_part_of_zero_counts_as_the_least_one_and_the_distance_is_a_divisor():
    parts = dict.fromkeys(PARTS, 1.0) | {"style": 0.0, "kid": 1.0}
    assert votes.log_parts(parts).tolist() == pytest.approx([-9.2103404, 0, 0, 0, 0, -0.6931472])
    assert votes.log_parts(parts | {"kid": -0.2})[-1] == 0
