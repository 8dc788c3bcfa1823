"""Files that a trial and other commands write are complete or absent."""

import subprocess
import sys

import pytest

from judge.common.files import atomic_write

OTHER = """
import sys
from pathlib import Path
from judge.common.files import atomic_write
atomic_write(Path(sys.argv[1]), lambda part: part.write_text("the other"))
"""


def test_two_processes_that_write_one_file_at_once_do_not_mix(tmp_path):
    """The last one to end has written all of it."""
    file = tmp_path / "page.html"

    def write(part) -> None:
        with open(part, "w") as page:
            page.write("begun ")
            page.flush()
            subprocess.run([sys.executable, "-c", OTHER, file], check=True, timeout=120)
            assert file.read_text() == "the other"
            page.write("and done")

    atomic_write(file, write)
    assert file.read_text() == "begun and done" and list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")

    def write(part) -> None:
        part.write_text("ne")
        raise OSError

    with pytest.raises(OSError):
        atomic_write(file, write)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
