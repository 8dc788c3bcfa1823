"""Claims about the files that a trial leaves behind."""

import os

import pytest

from trials.records import atomically


def test_two_processes_that_write_one_file_at_once_do_not_mix(tmp_path):
    """Whoever ends last has it, whole."""
    file = tmp_path / "page.html"

    def write(part) -> None:
        with open(part, "w") as page:
            page.write("begun ")
            page.flush()
            if not (child := os.fork()):
                code = 1
                try:
                    atomically(file, lambda other: other.write_text("the other"))
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
            assert file.read_text() == "the other"
            page.write("and done")

    atomically(file, write)
    assert file.read_text() == "begun and done" and list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")

    def write(part) -> None:
        part.write_text("ne")
        raise OSError

    with pytest.raises(OSError):
        atomically(file, write)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
