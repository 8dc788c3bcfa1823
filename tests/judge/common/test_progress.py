"""Progress where there is no terminal."""

import pytest

from judge.common import progress as progress_module
from judge.common.progress import duration, progress


def test_without_a_terminal_a_line_says_now_and_then_how_much_is_left(monkeypatch, capsys):
    clock = iter([0, 0, 10, 35, 40, 70])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    assert list(progress("abcde", "images")) == list("abcde")
    assert capsys.readouterr().err.splitlines() == [
        "images: 2 of 5, about 52 s left", "images: 4 of 5, about 18 s left"]


def test_what_is_done_at_once_says_nothing_and_an_iterator_needs_its_number(capsys):
    assert list(progress(iter(range(3)), "images", 3)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"),
                                               (7200, "2.0 h")])
def test_a_duration_is_short(seconds, text):
    assert duration(seconds) == text
