"""Files that several processes use: locks, and writes that are complete or absent."""

import errno
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from judge.common.cli import Interrupted, interrupt_on_signals
from judge.common.errors import UserError
from judge.common.files import FileLock, as_user_error, atomic_write, new_folder, scratch_folder

HOLDER = """
import signal, sys
from pathlib import Path
from judge.common.files import FileLock
lock = FileLock(Path(sys.argv[1]), "at work")
print("locked", flush=True)
signal.pause()
"""


def test_a_lock_is_one_processs_until_it_is_killed_or_closes_it(tmp_path):
    file = tmp_path / "new" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, file], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is at work: wait for it to end"):
            FileLock(file, "at work")
    finally:
        holder.kill()
        holder.communicate()
    with FileLock(file, "at work"), pytest.raises(UserError):
        FileLock(file, "at work")
    FileLock(file, "at work").close()


def test_a_name_of_all_the_bytes_that_there_may_be_can_be_written(tmp_path):
    for letter in ("x", "\u00e9", "\U0001f3a8"):
        name = letter * (255 // len(letter.encode()))
        atomic_write(tmp_path / name, lambda part: part.touch())
        (tmp_path / name).unlink()
        with new_folder(tmp_path / name):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).rmdir()


def test_a_lock_leaves_nothing_but_what_others_have_written_beside_it(tmp_path):
    for _ in range(2):
        with FileLock(tmp_path / "new" / "deep" / ".lock", "at work"):
            assert (tmp_path / "new" / "deep" / ".lock").exists()
        assert not list(tmp_path.iterdir())
    with FileLock(tmp_path / "new" / "deep" / ".lock", "at work"):
        (tmp_path / "new" / "result").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "result"]
    with pytest.raises(UserError, match="File name too long"):
        FileLock(tmp_path / "other" / ("x" * 300) / ".lock", "at work")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_who_waits_for_a_lock_that_is_removed_takes_the_new_one(tmp_path):
    """It holds the file that has been removed; another process may have made and locked a new one."""
    file, inside = tmp_path / ".lock", []
    first = FileLock(file, "at work")

    def work() -> None:
        with FileLock(file, "at work", wait=True):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.01)
            inside.pop()

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(work) for _ in range(40)]
        first.close()
    assert [each.result() for each in waiting] == 40 * [None] and not file.exists()


def test_a_lock_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write to {tmp_path / 'file'}"):
        FileLock(tmp_path / "file" / ".lock", "at work")


@pytest.mark.parametrize(("error", "message"), [
    (OSError(errno.ENOSPC, "No space left"), "cannot write to x: No space left: make room"),
    (PermissionError(errno.EACCES, "Permission denied"), "cannot write to x: Permission denied$"),
    (RuntimeError("unexpected pos\n 64"), "is the disk full. unexpected pos 64$"),
])
def test_a_failed_write_becomes_one_line(error, message):
    with pytest.raises(UserError, match=message), as_user_error("x"):
        raise error


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "x.txt"
    atomic_write(file, lambda part: part.write_text("old"))

    def interrupted(part):
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(file, interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"] and file.read_text() == "old"


def test_two_processes_that_write_one_file_at_once_do_not_mix(tmp_path):
    """The last one to end has written all of it."""
    file = tmp_path / "x.txt"
    other = "from judge.common.files import atomic_write as w; from pathlib import Path; import sys; " \
            "w(Path(sys.argv[1]), lambda part: part.write_text('the other'))"

    def write(part):
        with open(part, "w") as page:
            page.write("begun ")
            page.flush()
            subprocess.run([sys.executable, "-c", other, file], check=True)
            assert file.read_text() == "the other"
            page.write("and done")

    atomic_write(file, write)
    assert file.read_text() == "begun and done" and list(tmp_path.iterdir()) == [file]


def test_a_new_folder_is_complete_or_absent_with_those_made_for_it(tmp_path):
    folder = tmp_path / "new" / "folder"
    with pytest.raises(ZeroDivisionError), new_folder(folder) as part:
        (part / "half").touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    folder.mkdir(parents=True)  # an empty one may be there
    with new_folder(folder) as part:
        (part / "whole").touch()
        assert not list(folder.iterdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "folder", "whole"]


def test_a_signal_waits_until_a_scratch_folder_is_away(tmp_path, monkeypatch):
    rmtree = shutil.rmtree

    def interrupted(*words, **options):
        signal.raise_signal(signal.SIGTERM)
        rmtree(*words, **options)

    interrupt_on_signals()
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(Interrupted), scratch_folder(tmp_path / "data") as part:
        (part / "archive").touch()
    assert not list(tmp_path.iterdir())
