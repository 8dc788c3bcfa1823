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


@pytest.mark.parametrize("seconds, text", [
    (0, "0 s"), (0.0091, "9.1 ms"), (0.3456, "350 ms"), (59.4, "59 s"), (59.9, "1 min 0 s"),
    (140, "2 min 20 s"), (1800, "30 min"), (19_000, "5.3 h"), (250_000, "2.9 days"),
])
def test_durations_are_said_in_two_digits(seconds, text):
    assert duration(seconds) == text
