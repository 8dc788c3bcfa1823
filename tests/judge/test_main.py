"""Claims about python -m judge: what it prints, what it writes, and how it fails."""

import json
import os
import runpy
import socket
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from judge import images, model, training
from judge.common.errors import UserError
from judge.common.files import file_lock
from judge.corruptions import HELD_OUT_CORRUPTIONS, TRAINING_CORRUPTIONS

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "score", "controls", "data", "halves")
FIGURES = {"auc", "auc_reencoded", "accuracy", "brier", "calibration_error", "painting_calibration_error"}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """It ended in one line on stderr and exit code 2."""
        assert self.code == 2, self
        assert self.err.count("\n") == 1 and self.err.startswith("python -m judge: "), self.err
        for word in words:
            assert word in self.err


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """The current folder: empty, without anyone's data or models."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def judge(monkeypatch, capsys) -> Callable[..., Ran]:
    """Runs `python -m judge` in this process: a process of its own takes seconds to start."""
    def judge(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["judge", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("judge", run_name="__main__")
        said = capsys.readouterr()
        return Ran(caught.value.code or 0, said.out, said.err)

    return judge


def judge_for_real(*arguments: str | Path) -> Ran:
    """Runs `python -m judge` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "judge", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> set[str]:
    """All but the locks, which stay behind empty."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith(".lock")}


def copied(paths: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for path in paths:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


# ---------------------------------------------------------------------------------------------
# End to end, as a user would


def test_from_training_to_a_score(workplace, sample_data):
    trained = judge_for_real(
        "train", "--data", sample_data, "--size", "sketch", "--weights", "none",
        "--epochs", "1", "--batch_size", "8", "--lr", "5e-4", "--out", "models/mine.pt",
    )
    assert (trained.code, trained.err) == (0, "")
    for words in ("stand-in, not real paintings", "sketch (64 px)", "weights: none, 1 epochs", "auc",
                  "judged painting", "saved models/mine.pt"):
        assert words in trained.out
    _, card = model.load_judge(workplace / "models/mine.pt")
    assert (card.size, card.training["data"]) == (64, "sample")
    assert (card.training["batch_size"], card.training["lr"]) == (8, 5e-4)

    scored = judge_for_real("score", "--images", sample_data / "testB", "--sources", sample_data / "testB",
                            "--data", sample_data, "--judge", "models/mine.pt", "--json")
    assert (scored.code, scored.err) == (0, "")
    assert json.loads(scored.out)["content"] == pytest.approx(1)
    assert files(workplace) == {"models/mine.pt"}


def test_a_judge_trains_on_as_many_threads_as_it_is_told(judge, sample_data, monkeypatch):
    def train(*_) -> None:
        raise UserError(f"trains on {torch.get_num_threads()}")

    monkeypatch.setattr(training, "train", train)
    before = torch.get_num_threads()
    try:
        judge("train", "--data", sample_data, "--size", "sketch").refused(f"trains on {before}")
        judge("train", "--data", sample_data, "--size", "sketch", "--threads", "3").refused("trains on 3")
    finally:
        torch.set_num_threads(before)


def test_a_missing_judge_ends_in_one_line(workplace):
    ran = judge_for_real("evaluate", "--judge", "nowhere.pt")
    ran.refused("no judge at nowhere.pt", "python -m judge train")
    assert ran.out == "" and not files(workplace)


# ---------------------------------------------------------------------------------------------
# train


def test_train_on_ones_own_folders(judge, workplace, sample_data):
    ran = judge(
        "train", "--paintings", sample_data / "trainA", "--photos", sample_data / "trainB",
        sample_data / "testB", "--size", "sketch", "--weights", "none", "--epochs", 1, "--out", "j.pt",
    )
    assert (ran.code, ran.err) == (0, "")
    assert "data: trainA + trainB + testB; size: sketch (64 px)" in ran.out
    _, card = model.load_judge("j.pt")
    counts = {name: count["images"] for name, count in card.training["counts"].items()}
    assert counts == {"photos": 18, "paintings": 10}
    assert not card.training["stand_in"]


@pytest.mark.parametrize(("arguments", "words"), [
    (("--data", "nowhere"), ("no data folder data/nowhere",)),
    (("--paintings", "p"), ("--paintings and --photos go together",)),
    (("--photos", "p"), ("--paintings and --photos go together",)),
    (("--paintings", "p", "--photos", "q"), ("no folder p",)),
    (("--size", "huge"), ("--size", "sketch")),
    (("--epochs", "many"), ("epochs", "many")),
    (("--epochs", "0"), ("epochs", "0")),
    (("--epochs", "-3"), ("epochs", "-3")),
    (("--batch_size", "0"), ("batch-size", "0")),
    (("--patience", "0"), ("patience", "0")),
    (("--lr", "0"), ("lr", "0")),
    (("--lr", "nan"), ("lr", "nan")),
    (("--weight-decay", "-1"), ("weight-decay", "-1")),
    (("--nonsense", "1"), ("--nonsense",)),
])
def test_train_refuses_wrong_options_in_one_line(judge, workplace, arguments, words):
    judge("train", *arguments).refused(*words)
    assert not files(workplace)


@pytest.mark.parametrize(("arguments", "words"), [
    (("--arch", "vgg11"), ("--arch vgg11 is neither a ResNet nor a RegNet",)),
    (("--arch", "resnet19"), ("--arch resnet19",)),
    (("--weights", "nowhere.pth"), ("no weights at nowhere.pth",)),
    (("--out", "file/judge.pt", "--weights", "none", "--epochs", "1"), ("file/judge.pt",)),
])
def test_train_refuses_what_cannot_be_in_one_line(judge, workplace, sample_data, arguments, words):
    Path("file").write_text("not a folder")
    judge("train", "--data", sample_data, "--size", "sketch", *arguments).refused(*words)
    assert files(workplace) == {"file"}


# ---------------------------------------------------------------------------------------------
# evaluate


def test_two_do_not_train_one_judge(judge, workplace, sample_data):
    with file_lock(workplace / ".judge.pt.lock", "training"):
        second = judge("train", "--data", sample_data, "--out", "judge.pt")
    second.refused("another process is training judge.pt")
    assert not (workplace / "judge.pt").exists()


def test_evaluate_prints_figures_and_writes_the_picture_of_the_worst(judge, sample_data, judge_file):
    ran = judge("evaluate", "--judge", judge_file, "--data", sample_data, "--sheet", "sheet.png")
    assert (ran.code, ran.err) == (0, "")
    for words in ("stand-in, not real paintings", "auc", "calibration error", "is a painting",
                  "judged photo", "p_painting", "row by row: sheet.png"):
        assert words in ran.out
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (4 * 66 + 2, 4 * 66 + 2)  # all 16 test images, 2 px apart


def test_the_worst_come_first_and_the_pictures_follow_the_list(judge, sample_data, judge_file):
    ran = judge("evaluate", "--judge", judge_file, "--data", sample_data, "--sheet", "sheet.png")
    rows = [line.split() for line in ran.out.splitlines() if ".png" in line and "row by row" not in line]
    errors = [abs((kind == "painting") - float(p)) for _, kind, p in rows]
    assert len(rows) == 16 and errors == sorted(errors, reverse=True)
    assert all((kind == "painting") == ("testA" in file) for file, kind, _ in rows)
    sheet = np.asarray(Image.open("sheet.png"))
    for place in (0, 5):
        top, left = 2 + 66 * (place // 4), 2 + 66 * (place % 4)
        with Image.open(rows[place][0]) as image:
            shown = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(sheet[top:top + 64, left:left + 64] - shown).max() <= 1


def test_the_picture_lies_beside_the_judge_without_another_word(judge, sample_data, judge_file, workplace):
    copy = workplace / "j.pt"
    copy.write_bytes(judge_file.read_bytes())
    judge("evaluate", "--judge", copy, "--data", sample_data)
    assert files(workplace) == {"j.pt", "j.mistakes.png"}


def test_evaluate_as_json_is_json_and_nothing_else(judge, workplace, sample_data, judge_file):
    ran = judge("evaluate", "--judge", judge_file, "--data", sample_data, "--json")
    assert (ran.code, ran.err) == (0, "")
    measured = json.loads(ran.out)
    assert set(measured) == FIGURES | {"confusion", "counts", "data", "stand_in"}
    assert measured["stand_in"] is True
    assert sum(map(sum, measured["confusion"])) == 16
    assert not files(workplace)


def test_json_stays_json_where_the_sample_has_to_be_made_first(judge, monkeypatch, judge_file):
    from judge import sample

    monkeypatch.setattr(sample, "make", partial(sample.make, train=2, test=4, pixels=64))
    ran = judge("evaluate", "--judge", judge_file, "--data", "sample", "--json")
    assert ran.code == 0 and FIGURES < set(json.loads(ran.out))
    assert "making the built-in sample" in ran.err


def test_json_stays_json_where_nothing_can_be_cached(judge, monkeypatch, sample_data, judge_file):
    Path("file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", "file")
    ran = judge("evaluate", "--judge", judge_file, "--data", sample_data, "--json")
    assert ran.code == 0 and FIGURES < set(json.loads(ran.out))
    assert "could not be cached" in ran.err


@pytest.mark.parametrize("sheet", ["nowhere/sheet.png", "sheet", "sheet.nonsense", "."])
def test_a_picture_that_cannot_be_written_is_one_line(judge, sample_data, judge_file, sheet):
    ran = judge("evaluate", "--judge", judge_file, "--data", sample_data, "--sheet", sheet)
    ran.refused(sheet)
    assert "auc" in ran.out  # what was measured is not lost


def test_skipped_images_are_counted_in_words(judge, workplace, sample_data, judge_file):
    for part in ("trainA", "testA", "trainB", "testB"):
        copied(sorted((sample_data / part).iterdir()), workplace / part)
    (workplace / "testB/broken.jpg").write_text("not an image")
    ran = judge("evaluate", "--judge", judge_file, "--data", ".", "--sheet", "sheet.png")
    assert ran.code == 0 and "1 files could not be read" in ran.out


@pytest.mark.parametrize("command", [("evaluate",), ("score", "--images", "x")])
def test_a_file_that_is_no_judge_is_one_line(judge, sample_data, command):
    Path("j.pt").write_text("hello world")
    judge(*command, "--judge", "j.pt", "--data", sample_data).refused("j.pt is not a judge's file")


# ---------------------------------------------------------------------------------------------
# score


@pytest.fixture
def score(judge, judge_file, sample_data) -> Callable[..., Ran]:
    return lambda *arguments: judge("score", "--judge", judge_file, "--data", sample_data, *arguments)


def test_score_with_sources_has_content_and_diversity(score, sample_data):
    photos = sample_data / "testB"
    named = json.loads(score("--images", photos, "--sources", photos, "--json").out)
    parts = ["style", "content", "diversity", "clean", "kid", "kid_error"]
    assert list(named) == ["data", "stand_in", "default", *parts]
    assert [named["content"], named["diversity"]] == pytest.approx([1, 1]) and 0 <= named["style"] <= 1


def test_score_without_sources_has_none(score, sample_data):
    named = json.loads(score("--images", sample_data / "testB", "--json").out)
    assert list(named) == ["data", "stand_in", "default", "style", "clean", "kid", "kid_error"]


def test_score_in_words_has_one_line_for_each_part_and_says_what_the_data_is(score, sample_data):
    ran = score("--images", sample_data / "testB")
    assert (ran.code, ran.err) == (0, "")
    first, *parts = ran.out.splitlines()
    assert "stand-in, not real paintings" in first
    assert [line.split()[0] for line in parts] == ["default", "style", "clean", "kid", "kid_error"]


def test_score_of_equal_folders_is_equal(score, sample_data):
    arguments = ("--images", sample_data / "testB", "--sources", sample_data / "testB", "--json")
    assert score(*arguments).out == score(*arguments).out


@pytest.mark.parametrize(("count", "sources", "words"), [
    (1, None, "at least 4"), (3, None, "at least 4"), (5, 8, "5 images for 8 sources"),
])
def test_score_refuses_too_few_images_in_one_line(score, workplace, sample_data, count, sources, words):
    photos = sorted((sample_data / "testB").iterdir())
    copied(photos[:count], workplace / "out")
    sources = ("--sources", copied(photos[:sources], workplace / "in")) if sources else ()
    score("--images", "out", *sources).refused(words)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: None, "no folder out"),
    (lambda: Path("out").mkdir(), "no images in out"),
    (lambda: (Path("out").mkdir(), Path("out/0.jpg").write_text("x")), "none of 1 files"),
])
def test_score_refuses_a_folder_of_nothing_in_one_line(score, make, words):
    make()
    score("--images", "out").refused(words)


def test_score_needs_images(score):
    score().refused("images")


# ---------------------------------------------------------------------------------------------
# data


def archive(*parts: str, name: str = "monet2photo", also: dict[str, bytes] | None = None) -> bytes:
    """A zip file in the layout of the CycleGAN authors."""
    jpeg, buffer = BytesIO(), BytesIO()
    Image.new("RGB", (16, 16), "red").save(jpeg, "JPEG")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for part in parts:
            zipped.writestr(f"{name}/{part}/0.jpg", jpeg.getvalue())
        for path, content in (also or {}).items():
            zipped.writestr(path, content)
    return buffer.getvalue()


PARTS = ("trainA", "trainB", "testA", "testB")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path_factory, monkeypatch):
    """Serves files by name on this machine; returns a file's URL."""
    folder = tmp_path_factory.mktemp("served")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def serve(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return f"http://127.0.0.1:{server.server_port}/{name}"

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


def refused_after_download(ran: Ran, *words: str) -> None:
    """As `Ran.refused`, below the progress bar of the download."""
    Ran(ran.code, ran.out, ran.err.splitlines(keepends=True)[-1]).refused(*words)
    assert "Traceback" not in ran.err


def test_data_is_downloaded_and_unpacked(judge, workplace, served):
    ran = judge("data", "monet2photo", "--url", served("monet2photo.zip", archive(*PARTS)))
    assert ran.code == 0 and ran.out == "downloaded data/monet2photo\n"
    assert files(workplace) == {f"data/monet2photo/{part}/0.jpg" for part in PARTS}
    assert [path.name for path in Path("data").iterdir()] == ["monet2photo"]
    assert Path("data/monet2photo").stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_data_that_is_there_already_is_left_alone(judge, workplace, served):
    Path("data/monet2photo").mkdir(parents=True)
    Path("data/monet2photo/mine.txt").write_text("mine")
    ran = judge("data", "monet2photo", "--url", served("monet2photo.zip", archive(*PARTS)))
    ran.refused("data/monet2photo is already there")
    assert files(workplace) == {"data/monet2photo/mine.txt"}


@pytest.mark.parametrize("missing", PARTS)
def test_an_archive_that_lacks_a_folder_is_refused_and_leaves_nothing(judge, workplace, served, missing):
    content = archive(*(part for part in PARTS if part != missing))
    ran = judge("data", "monet2photo", "--url", served("monet2photo.zip", content))
    refused_after_download(ran, missing)
    assert not list(Path("data").iterdir())


def test_an_archive_of_another_data_set_is_refused_and_leaves_nothing(judge, served):
    ran = judge("data", "monet2photo", "--url", served("x.zip", archive(*PARTS, name="horse2zebra")))
    refused_after_download(ran, "monet2photo")
    assert not list(Path("data").iterdir())


def test_an_archive_that_points_elsewhere_writes_nothing_there(judge, workplace, served, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    paths = ["../evil", "../../evil", "monet2photo/../../../evil", f"{elsewhere}/evil"]
    content = archive(*PARTS, also=dict.fromkeys(paths, b"evil"))
    judge("data", "monet2photo", "--url", served("monet2photo.zip", content))
    outside = {file for file in files(workplace) if not file.startswith("data/monet2photo/")}
    assert not outside and not list(elsewhere.iterdir()) and not (workplace.parent / "evil").exists()


def test_links_and_devices_of_an_archive_are_mere_files(judge, workplace, served, tmp_path_factory):
    """What a link would lead to is neither read nor written."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    buffer = BytesIO(archive(*PARTS))
    with zipfile.ZipFile(buffer, "a") as zipped:
        for name, kind, content in [
            ("monet2photo/link", stat.S_IFLNK, str(elsewhere)),
            ("monet2photo/link/evil", stat.S_IFREG, "evil"),
            ("monet2photo/trainA/passwd.jpg", stat.S_IFLNK, "/etc/passwd"),
            ("monet2photo/pipe", stat.S_IFIFO, ""),
            ("/dev/null", stat.S_IFCHR, ""),
            ("monet2photo/CON", stat.S_IFBLK, ""),
        ]:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (kind | 0o4777) << 16
            zipped.writestr(entry, content)
    ran = judge("data", "monet2photo", "--url", served("monet2photo.zip", buffer.getvalue()))
    assert ran.code in (0, 2) and "Traceback" not in ran.err and not list(elsewhere.iterdir())
    inside = list(workplace.rglob("*"))
    assert all(path.is_dir() or path.is_file() for path in inside) and not any(map(Path.is_symlink, inside))
    assert not any(path.stat().st_mode & 0o4000 for path in inside)


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.gz", "x"])
def test_an_archive_is_a_zip_file_whatever_it_is_called(judge, served, name):
    """Nothing else is unpacked: a tar file may hold links, and a gz file is read as a whole."""
    ran = judge("data", "monet2photo", "--url", served(name, archive(*PARTS)))
    assert ran.code == 0, ran.err
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(Path("data/monet2photo"), "vangogh2photo")
    ran = judge("data", "vangogh2photo", "--url", served(name, buffer.getvalue()))
    refused_after_download(ran, "could not be downloaded and unpacked", "zip")


def test_a_bomb_that_fills_the_disk_is_one_line_and_leaves_nothing(judge, small_disk, served, monkeypatch):
    monkeypatch.chdir(small_disk(2000))
    content = archive(*PARTS, also={"monet2photo/bomb": bytes(10_000_000)})
    assert len(content) < 50_000
    ran = judge("data", "monet2photo", "--url", served("x.zip", content))
    refused_after_download(ran, "No space left")
    assert not list(Path("data").iterdir())


@pytest.mark.parametrize("command", [
    ("data", "monet2photo"), ("halves", "--data", "{sample}", "--out", "halves/of/it"),
    ("halves", "--data", "sample", "--out", "new"),
])
def test_a_folder_that_cannot_be_written_is_one_line(judge, sample_data, workplace, command):
    for name in ("data", "halves"):
        (workplace / name).write_text("a file where a folder belongs")
    ran = judge(*(word.format(sample=sample_data) for word in command))
    refused_after_download(ran, "cannot write to")


def test_a_full_disk_is_one_line(judge, small_disk, monkeypatch):
    monkeypatch.chdir(small_disk(20))
    ran = judge("halves", "--data", "sample", "--out", "halves")  # which has to be made first
    refused_after_download(ran, "cannot write to data", "make room")
    assert not list(Path("data").iterdir())


def spoiled(content: bytes) -> bytes:
    """Whole to look at, with nonsense in the middle of the first compressed file."""
    at = content.index(b"0.jpg") + len(b"0.jpg")
    return content[:at] + b"\xff" * 40 + content[at + 40:]


@pytest.mark.parametrize("content", [
    b"", b"<html>not found</html>", archive(*PARTS)[:-100], archive(*PARTS)[100:], spoiled(archive(*PARTS)),
], ids=["empty", "web page", "cut short", "without its beginning", "spoiled"])
def test_a_broken_archive_is_one_line_and_leaves_nothing(judge, served, content):
    url = served("monet2photo.zip", content)
    ran = judge("data", "monet2photo", "--url", url)
    refused_after_download(ran, f"{url} could not be downloaded and unpacked")
    assert not list(Path("data").iterdir())


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.gz", "x.rar", "x"])
def test_a_file_of_another_kind_is_one_line_and_leaves_nothing(judge, served, name):
    ran = judge("data", "monet2photo", "--url", served(name, b"not an archive"))
    refused_after_download(ran, "could not be downloaded and unpacked")
    assert not list(Path("data").iterdir())


@pytest.fixture
def unreachable() -> str:
    """A port of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_an_unreachable_place_is_one_line_and_leaves_nothing(judge, monkeypatch, unreachable):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    ran = judge("data", "monet2photo", "--url", f"{unreachable}/monet2photo.zip")
    ran.refused(f"{unreachable}/monet2photo.zip could not be downloaded", "refused")
    assert not list(Path("data").iterdir())


@pytest.mark.parametrize("url", [
    "nonsense", " ", "http://127.0.0.1/a b.zip", "http://[/x.zip", "gopher://x/x.zip",
])
def test_an_address_that_is_none_is_one_line(judge, url):
    judge("data", "monet2photo", "--url", url).refused("could not be downloaded")


def test_a_file_that_the_server_lacks_is_one_line(judge, served):
    url = served("there.zip", b"").replace("there", "nowhere")
    judge("data", "monet2photo", "--url", url).refused("404")


def test_a_place_where_something_else_answers_is_one_line(judge, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = Thread(target=answer)
        thread.start()
        ran = judge("data", "monet2photo", "--url", f"http://127.0.0.1:{server.getsockname()[1]}/x.zip")
        thread.join()
    ran.refused("could not be downloaded")


@pytest.mark.parametrize("name", ["../evil", "a/b", ".", "..", "", "/tmp/evil"])
def test_a_name_that_is_no_folders_is_refused_before_anything_is_written(judge, workplace, name):
    judge("data", name, "--url", "http://127.0.0.1:1/x.zip").refused("name")
    assert not list(workplace.iterdir())


def test_the_plain_formula_is_the_style_alone(score, sample_data):
    photos = sample_data / "testB"
    named = json.loads(score("--images", photos, "--sources", photos, "--json", "--score", "plain").out)
    assert named["default"] == named["style"]


# ---------------------------------------------------------------------------------------------
# controls


def test_controls_prints_a_row_a_control_and_says_what_the_data_is(judge, judge_file, sample_data):
    ran = judge("controls", "--judge", judge_file, "--data", sample_data)
    assert ran.code == 0 and "stand-in, not real paintings" in ran.out.splitlines()[0]
    for name in ("copy", "the same painting", "inverted", "high frequency 3/256", "shuffled"):
        assert any(line.startswith(name) for line in ran.out.splitlines()), name


def test_controls_for_pandas_is_a_table(judge, judge_file, sample_data):
    ran = judge("controls", "--judge", judge_file, "--data", sample_data, "--csv")
    table = pd.read_csv(StringIO(ran.out))
    assert {"control", "shown", "default", "style", "content", "painting", "kept"} <= set(table.columns)
    assert len(table) == 2 + len(HELD_OUT_CORRUPTIONS) + len(TRAINING_CORRUPTIONS)


# ---------------------------------------------------------------------------------------------
# halves


def test_halves_share_no_image_and_leave_none_out(judge, sample_data, workplace):
    assert judge("halves", "--data", sample_data, "--out", "parts").code == 0
    whole = images.find_dataset(str(sample_data))
    parts = [images.find_dataset(f"parts/{name}") for name in ("search", "yardstick")]
    assert all(part.stand_in for part in parts)
    for domain in (images.PAINTINGS, images.PHOTOS):
        for split in ("train", "test"):
            both = [path.resolve() for part in parts for path in getattr(part, split)[domain]]
            assert sorted(both) == sorted(path.resolve() for path in getattr(whole, split)[domain])
            assert abs(len(getattr(parts[0], split)[domain]) * 2 - len(both)) <= 1


def test_halves_overwrites_nothing(judge, sample_data, workplace):
    (workplace / "parts").mkdir()
    judge("halves", "--data", sample_data, "--out", "parts").refused("parts is already there")


# ---------------------------------------------------------------------------------------------
# The program as a whole


def test_help_is_help(judge):
    ran = judge("--help")
    assert ran.code == 0 and ran.err == ""
    assert all(command in ran.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_each_option(judge, command):
    ran = judge(command, "--help")
    assert ran.code == 0
    for block in ran.out.split("\n  --")[1:]:
        option, *explanation = block.split()
        assert len(explanation) > 2, option


@pytest.mark.parametrize("arguments", [(), ("paint",), ("--json",)])
def test_no_command_or_another_is_one_line(judge, arguments):
    judge(*arguments).refused()


def test_an_unreadable_image_does_not_shift_the_pairs(judge, workplace, sample_data, judge_file):
    photos = sorted((sample_data / "testB").glob("*.png"))
    painted, sources = copied(photos, workplace / "painted"), copied(photos, workplace / "sources")
    (painted / photos[2].name).write_text("not an image")
    options = ("--judge", judge_file, "--data", sample_data, "--images", painted)
    judge("score", *options, "--sources", sources).refused(photos[2].name, "each image needs its source")
    alone = judge("score", *options, "--json")
    assert alone.code == 0 and photos[2].name in alone.err and "style" in json.loads(alone.out)


@pytest.mark.parametrize("out", ["taken/judge.pt", "folder"])
def test_a_place_that_cannot_be_written_is_refused_before_training(judge, workplace, sample_data, out):
    (workplace / "taken").write_text("a file")
    (workplace / "folder").mkdir()
    judge("train", "--data", sample_data, "--weights", "none", "--out", out).refused("cannot be written")


def test_a_reader_that_has_read_enough_is_no_error(judge_file, sample_data):
    arguments = f"-m judge controls --judge {judge_file} --data {sample_data} --csv"
    ran = subprocess.run(f"{sys.executable} -u {arguments} | head -1", shell=True, cwd=REPOSITORY,
                         capture_output=True, text=True)
    assert ran.stdout.startswith("control,") and ran.stderr == ""
