"""Notes and pins: what is written is read, by several processes at once, and damage is named."""

import subprocess
import sys

import pytest

from experiments import notes
from experiments.notes import Mark
from judge.common.errors import UserError
from tests.experiments.helpers import ROOT


def test_a_note_and_a_pin_are_read_back_and_one_does_not_change_the_other(tmp_path):
    assert notes.read(tmp_path) == notes.Notes()
    notes.write(tmp_path, note="streaks, but blue ✓")
    notes.write(tmp_path, "abcde", pinned=True)
    notes.write(tmp_path, "abcde", note="<b>like a Monet</b>")
    notes.write(tmp_path, pinned=True)
    assert notes.read(tmp_path) == notes.Notes(
        Mark("streaks, but blue ✓", True), {"abcde": Mark("<b>like a Monet</b>", True)})


def test_a_mark_that_says_nothing_any_more_is_removed(tmp_path):
    notes.write(tmp_path, "abcde", note="a", pinned=True)
    notes.write(tmp_path, "abcde", note="", pinned=False)
    assert notes.read(tmp_path) == notes.Notes()


def test_several_processes_that_write_at_once_lose_no_note(tmp_path):
    code = ("import sys; from pathlib import Path; from experiments import notes\n"
            "for i in range(10): notes.write(Path(sys.argv[1]), f'{sys.argv[2]}{i}', note='x')")
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(notes.read(tmp_path).trials) == 30


@pytest.mark.parametrize(
    "text", ["", "[]", '{"search": {}}', '{"search": {"note": 1, "pinned": true}, "trials": {}}'])
def test_a_damaged_file_is_named_and_stays(tmp_path, text):
    (tmp_path / notes.FILE_NAME).write_text(text)
    for attempt in (lambda: notes.read(tmp_path), lambda: notes.write(tmp_path, note="x")):
        with pytest.raises(UserError, match="notes.json is damaged"):
            attempt()
    assert (tmp_path / notes.FILE_NAME).read_text() == text


def test_a_note_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(UserError, match="at most 2000 characters, this one has 2001"):
        notes.write(tmp_path, note="x" * 2001)
    assert not list(tmp_path.iterdir())
