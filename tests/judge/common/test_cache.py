"""The cache's own claims; test_images.py has those about damage and age."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from judge.common import cache

FORK = multiprocessing.get_context("fork")  # processes that start at once


def test_its_folder_follows_the_desktop_standard(monkeypatch, tmp_path):
    assert cache.cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "salon"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache/salon"


def test_tensors_and_plain_data_are_returned_under_their_own_name_only(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.put("x.pt", {"weights": torch.arange(3.0), "count": torch.tensor(7), "accuracy": 0.5, "no": ["a"]})
    content = cache.get("x.pt")
    assert content.pop("weights").tolist() == [0, 1, 2] and content.pop("count").item() == 7
    assert content == {"accuracy": 0.5, "no": ["a"]}
    assert cache.get("y.pt") is None
    (cache.cache_folder() / "x.pt").rename(cache.cache_folder() / "y.pt")
    assert cache.get("y.pt") is None


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "salon"


def read_seven() -> int:
    return cache.get_or_make("x.pt", lambda: {"x": torch.tensor(7)})["x"].item()


def test_of_several_processes_one_makes_it_and_the_others_read_it(folder, tmp_path):
    ready, log = FORK.Barrier(4), tmp_path / "log"

    def make() -> dict:
        with open(log, "a") as lines:
            lines.write("made\n")
        time.sleep(0.5)  # the others come meanwhile
        return {"x": torch.tensor(7)}

    def load() -> None:
        ready.wait()
        assert cache.get_or_make("x.pt", make)["x"].item() == 7

    processes = [FORK.Process(target=load) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "made\n"


def test_who_waits_says_so_and_takes_over_from_a_process_that_was_killed(folder, capfd):
    making = FORK.Event()

    def make_for_ever() -> dict:
        making.set()
        time.sleep(600)

    first = FORK.Process(target=cache.get_or_make, args=("x.pt", make_for_ever))
    first.start()
    assert making.wait(60)
    second = FORK.Process(target=read_seven)
    second.start()
    err = ""
    while "waits" not in err and second.is_alive():
        time.sleep(0.01)
        err += capfd.readouterr().err
    assert err == "waits for another process that makes x.pt\n"
    first.kill()
    second.join(60)
    assert second.exitcode == 0 and cache.get("x.pt")["x"].item() == 7


def test_where_nothing_can_be_written_it_is_made_each_time_without_a_lock(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert read_seven() == read_seven() == 7
    assert capsys.readouterr().err.count("note: x.pt could not be cached") == 2


def test_what_is_cached_in_a_folder_that_can_only_be_read_is_read(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    read_seven()
    for function in ("os.utime", "os.mkdir", "judge.common.files.open"):
        monkeypatch.setattr(function, refuse, raising=False)
    assert cache.get_or_make("x.pt", lambda: pytest.fail("made again"))["x"].item() == 7


def test_tensors_are_views_of_the_file_so_that_processes_share_the_memory(folder):
    made = cache.get_or_make("x.pt", lambda: {"x": torch.arange(10**6)})["x"]
    read = cache.get_or_make("x.pt", dict)["x"]
    mapped = Path("/proc/self/maps").read_text().count(str(folder / "x.pt"))
    assert mapped == 2 and torch.equal(made, read)


def test_files_beyond_the_size_limit_are_removed_unless_used_within_a_day(folder, monkeypatch):
    days_ago = {"old": 9, "older": 12, "oldest": 15, "recent": 0.5}
    for name, days in days_ago.items():
        cache.put(name, {"x": torch.zeros(10**5)})
        os.utime(folder / name, (time.time() - days * 24 * 3600,) * 2)
    left = []
    for limit in (1e9, 4.5 * 4e5, 4e5):  # one file takes a little more than 4e5 bytes
        monkeypatch.setattr(cache, "MAX_BYTES", limit)
        cache.put("new", {"x": torch.zeros(10**5)})
        left.append({file.name for file in folder.iterdir()} - {"new"})
    assert left == [set(days_ago), {"old", "older", "recent"}, {"recent"}]
