"""Claims about python -m judge: what it prints, what it writes, and how it fails."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from judge import controls, images, model, sample
from judge.common.files import FileLock
from judge.corruptions import KINDS
from judge.score import style_and_scene

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "score", "controls", "data", "halves")
FIGURES = {"auc", "auc_reencoded", "accuracy", "brier", "calibration_error", "painting_calibration_error"}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def succeeded(self, *words: str) -> None:
        assert (self.code, self.err) == (0, ""), self
        for word in words:
            assert word in self.out

    def refused(self, *words: str) -> None:
        """It ended with code 2 and one line on stderr, besides a download's progress bar and notes if any."""
        lines = [line for line in self.err.split("\n")[:-1]
                 if "%|" not in line and not line.startswith(("making", "left out", "note: left out"))]
        assert self.code == 2 and len(lines) == 1 and lines[0].startswith("python -m judge: "), self
        for word in words:
            assert word in lines[0]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """The current folder: empty, without data or models."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def judge(monkeypatch, capsys) -> Callable[..., Result]:
    """Runs `python -m judge` in this process: a process of its own takes seconds to start."""
    def judge(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["judge", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("judge", run_name="__main__")
        return Result(caught.value.code or 0, *capsys.readouterr())

    return judge


def files(folder: Path) -> set[str]:
    """All files."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_from_training_to_a_score(judge, workplace, sample_data):
    process = subprocess.run(  # a process of its own, as a user would
        [sys.executable, "-m", "judge", "train", "--data", sample_data, "--size", "sketch", "--epochs", "1",
         "--weights", "none", "--batch_size", "8", "--lr", "5e-4", "--out", "models/mine.pt"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    expected, epoch = process.stderr.splitlines()
    assert expected.startswith("1 epochs take about ") and epoch.startswith("epoch 1 of 1: held-out loss ")
    Result(process.returncode, process.stdout, "").succeeded(
        "stand-in, not real paintings", "sketch (64 px)", "weights: none, 1 epochs", "auc", "judged painting",
        "saved models/mine.pt")
    _, card = model.load_judge("models/mine.pt")
    assert (card.size, card.training["data"]) == (64, "sample")
    assert (card.training["batch_size"], card.training["lr"]) == (8, 5e-4)

    scored = judge("score", "--images", sample_data / "testB", "--sources", sample_data / "testB",
                   "--data", sample_data, "--judge", "models/mine.pt", "--json")
    scored.succeeded()
    assert json.loads(scored.out)["content"] == pytest.approx(1)
    assert files(workplace) == {"models/mine.pt"}


def test_train_on_ones_own_folders(judge, sample_data):
    result = judge(
        "train", "--paintings", sample_data / "trainA", "--photos", sample_data / "trainB",
        sample_data / "testB", "--size", "sketch", "--weights", "none", "--epochs", 1, "--out", "j.pt")
    assert result.code == 0 and "data: trainA + trainB + testB; size: sketch (64 px)" in result.out
    _, card = model.load_judge("j.pt")
    counts = {name: count["images"] for name, count in card.training["counts"].items()}
    assert counts == {"photos": 18, "paintings": 10}
    assert not card.training["stand_in"]


@pytest.mark.parametrize("command", ["train", "evaluate", "score --images {photos}", "controls"])
def test_what_computes_has_threads_and_a_device(judge, judge_file, sample_data, monkeypatch, command):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    command = [*command.format(photos=sample_data / "testB").split(), "--data", "nowhere"]
    command += [] if command[0] == "train" else ["--judge", judge_file]
    for options in ((), ("--threads", 3), ("--device", "cpu")):
        judge(*command, *options).refused("no data folder")
    assert threads == [3]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    judge(*command, "--device", "cuda").refused("--device cuda: torch finds no GPU here, use --device cpu")


def test_only_one_process_trains_a_judge(judge, workplace, sample_data):
    with FileLock(workplace / ".judge.pt.lock", "training"):
        second = judge("train", "--data", sample_data, "--out", "judge.pt")
    second.refused("another process is training judge.pt")
    assert not files(workplace)


@pytest.mark.parametrize(("arguments", "words"), [
    ("--data nowhere", "no data folder data/nowhere"),
    ("--paintings p", "--paintings and --photos go together"),
    ("--paintings p --photos q", "no folder p"),
    ("--size huge", "--size"),
    ("--batch_size 0", "batch-size"),
    ("--data {sample} --arch vgg11", "--arch vgg11 is neither a ResNet nor a RegNet"),
    ("--data {sample} --arch resnet19", "--arch resnet19"),
    ("--data {sample} --weights nowhere.pth", "no weights at nowhere.pth: give imagenet, none or a file"),
    ("--data {sample} --out file/judge.pt", "cannot write to file: "),
    ("--data {sample} --out folder", "folder: it is a folder"),
    ("--data {sample} --neither nowhere", "no folder nowhere"),
    ("--data {sample} --neither folder --two-classes", "--two-classes"),
])
def test_train_refuses_wrong_options_in_one_line_and_writes_nothing(
        judge, workplace, sample_data, arguments, words):
    (workplace / "file").write_text("not a folder")
    (workplace / "folder").mkdir()
    judge("train", *arguments.format(sample=sample_data).split()).refused(words)
    assert files(workplace) == {"file"}


def test_evaluate_lists_and_shows_the_mistakes_the_worst_first(judge, workplace, sample_data, judge_file):
    (workplace / "j.pt").write_bytes(judge_file.read_bytes())
    result = judge("evaluate", "--judge", "j.pt", "--data", sample_data)
    result.succeeded("stand-in, not real paintings", "auc", "calibration error", "is a painting",
                     "judged photo", "p_painting", "row by row: j.mistakes.png")
    assert files(workplace) == {"j.pt", "j.mistakes.png"}
    rows = [line.split() for line in result.out.splitlines() if ".png" in line and "row by row" not in line]
    errors = [abs((truth == "painting") - float(p)) for _, truth, p in rows]
    assert len(rows) == 16 and errors == sorted(errors, reverse=True)
    assert all((truth == "painting") == ("testA" in file) for file, truth, _ in rows)
    sheet = np.asarray(Image.open("j.mistakes.png"))
    assert sheet.shape == (4 * 66 + 2, 4 * 66 + 2, 3)  # all 16 test images, 2 px apart
    with Image.open(rows[5][0]) as image:
        expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(sheet[68:132, 68:132] - expected).max() <= 1


def test_json_stays_json_where_the_sample_is_made_first_and_nothing_can_be_cached(
        judge, monkeypatch, workplace, judge_file):
    monkeypatch.setattr(sample, "make", partial(sample.make, train=2, test=4, pixels=64))
    Path("file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", "file")
    result = judge("evaluate", "--judge", judge_file, "--data", "sample", "--json")
    metrics = json.loads(result.out)
    assert set(metrics) == FIGURES | {"confusion", "counts", "data", "stand_in"} and metrics["stand_in"]
    assert sum(map(sum, metrics["confusion"])) == 8 and not list(workplace.glob("*.png"))
    assert "making the built-in sample" in result.err and "could not be cached" in result.err


def test_a_picture_that_cannot_be_written_is_one_line_after_the_figures(
        judge, workplace, sample_data, judge_file):
    data = shutil.copytree(sample_data, workplace / "data")
    (data / "testB/broken.jpg").write_text("not an image")
    result = judge("evaluate", "--judge", judge_file, "--data", data, "--sheet", "nowhere/sheet.png")
    result.refused("nowhere/sheet.png")
    assert "auc" in result.out and "1 files could not be read" in result.out
    result = judge("evaluate", "--judge", judge_file, "--data", data, "--sheet", "sheet.nonsense")
    result.refused("--sheet sheet.nonsense: give the name of an image file")
    assert not result.out


@pytest.fixture
def score(judge, judge_file, sample_data) -> Callable[..., Result]:
    return lambda *arguments: judge("score", "--judge", judge_file, "--data", sample_data, *arguments)


def test_score_has_content_with_sources_only(score, sample_data):
    arguments = ("--images", sample_data / "testB", "--sources", sample_data / "testB", "--json")
    parts = json.loads(score(*arguments).out)
    assert list(parts) == ["data", "stand_in", "default", "style", "content", "scene", "diversity", "clean",
                           "kid", "kid_error"]
    assert [parts["content"], parts["diversity"]] == pytest.approx([1, 1]) and 0 <= parts["style"] <= 1
    plain = json.loads(score(*arguments, "--score", "plain").out)
    assert plain == parts | {"default": parts["style"]}
    Path("mine.json").write_text('{"format": "salon score 1", "weights": {"clean": 2}}')
    mine = json.loads(score(*arguments, "--score", "mine.json").out)
    assert mine == parts | {"default": parts["clean"] ** 2}

    result = score("--images", sample_data / "testB")
    assert result.code == 0 and "8 images are few" in result.err
    first, *lines = result.out.splitlines()
    assert "stand-in, not real paintings" in first
    names = ["default", "style", "diversity", "clean", "kid", "kid_error"]
    assert [line.split()[0] for line in lines] == names


def test_score_refuses_a_missing_judge_and_missing_or_too_few_images_in_one_line(
        judge, score, workplace, sample_data, judge_file):
    judge("score", "--images", "x", "--data", sample_data).refused("no judge at models/judge.pt")
    score().refused("images")
    score("--images", "out").refused("no folder out")
    judge("score", "--judge", judge_file, "--data", "sample", "--images", "out").refused("no folder out")
    assert not Path("data").exists()  # the sample is made at first use
    Path("out").mkdir()
    for number in range(3):
        shutil.copy(sample_data / f"testB/00{number}.png", "out")
    score("--images", "out").refused("at least 4")
    score("--images", "out", "--sources", sample_data / "testB").refused(
        "testB/003.png has no partner in out; 4 more have none")
    score("--images", sample_data / "testB", "--score", "mine.json").refused("--score mine.json: neither")


def test_an_unreadable_image_is_left_out_by_name_and_its_source_with_it(score, workplace, sample_data):
    sources, painted = (shutil.copytree(sample_data / "testB", workplace / name) for name in ("in", "out"))
    (painted / "002.png").write_text("not an image")
    result = score("--images", painted, "--json")
    assert result.code == 0 and "out/002.png" in result.err and "style" in json.loads(result.out)
    (sources / "005.png").write_text("not an image")
    result = score("--images", painted, "--sources", sources, "--json")
    assert "in/005.png" in result.err and json.loads(result.out)["content"] == pytest.approx(1)
    (painted / "005.png").unlink()  # as translate leaves it
    assert json.loads(score("--images", painted, "--sources", sources, "--json").out)["content"] > 0.99


def test_images_are_paired_with_their_sources_by_name_and_not_by_their_places(score, workplace, sample_data):
    """Sorted, a.jpg is before a.original.jpg, but a.original.png before a.png."""
    sources, painted = workplace / "in", workplace / "out"
    sources.mkdir()
    painted.mkdir()
    names = ["a", "a.original", "b", "b.bmp", "-c", "d e", "f\ng", os.fsdecode(b"h\xe9")]
    for name, file in zip(names, sorted((sample_data / "testB").iterdir())):
        with Image.open(file) as image:
            image.save(sources / f"{name}.jpg", quality=95)
            image.save(painted / f"{name}.png")
    parts = json.loads(score("--images", painted, "--sources", sources, "--json").out)
    assert parts["content"] > 0.95
    (painted / "b.png").rename(painted / "b_fake.png")
    score("--images", painted, "--sources", sources).refused(
        "in/b.jpg has no partner in", "out; 1 more have none: give both the same name")


def test_no_name_of_a_file_breaks_what_evaluate_says(judge, judge_file, workplace, sample_data, monkeypatch):
    """Every printed line is one line, and fits a terminal that knows ASCII only."""
    data = shutil.copytree(sample_data, workplace / "data")
    names = [os.fsdecode(b"latin-\xe9.png"), "line\nbreak.png", "red\x1b[31m.png", "画家.png"]
    for number, name in enumerate(names):
        (data / f"testB/00{number}.png").rename(data / "testB" / name)
    (data / "testA" / "no\nimage.png").write_text("")
    out = TextIOWrapper(BytesIO(), "ascii", "strict", write_through=True)
    monkeypatch.setattr(sys, "argv", ["judge", "evaluate", "--judge", str(judge_file), "--data", str(data)])
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("judge", run_name="__main__")
    printed = out.buffer.getvalue().decode()
    assert not ended.value.code and printed.replace("\n", "").isprintable()
    for shown in ("latin-\\udce9.png", "line\\nbreak.png", "red\\x1b[31m.png", "\\u753b\\u5bb6.png"):
        assert len([line for line in printed.splitlines() if f"testB/{shown}" in line]) == 1, printed


@pytest.mark.parametrize("photos", ["same", "same/inside", "linked"])
def test_a_folder_is_not_of_paintings_and_of_photographs(judge, workplace, sample_data, photos):
    shutil.copytree(sample_data / "trainA", workplace / "same")
    shutil.copytree(sample_data / "trainB", workplace / "same/inside")
    (workplace / "linked").symlink_to("same/inside")
    arguments = ("--paintings", "same", "--photos", photos, "--weights", "none", "--epochs", 1)
    judge("train", *arguments).refused(
        f"is in --paintings same and in --photos {photos}: a picture belongs to one of them")
    judge("train", "--paintings", "same", "same/inside", "--photos", sample_data / "testB").refused(
        "is in --paintings same and in --paintings same/inside")  # it would be trained on and tested with
    judge("train", "--data", sample_data, "--neither", sample_data / "trainA", "--weights", "none").refused(
        "000.png is in trainA and in --neither")
    assert not list(workplace.glob("models/*.pt"))


@pytest.fixture
def large(sample_data, workplace, monkeypatch) -> Path:
    """The sample with images of 160 px."""
    folder = shutil.copytree(sample_data, workplace / "large")
    for file in folder.rglob("*.png"):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((160, 160), Image.Resampling.BICUBIC))
        noise = np.random.default_rng(int(file.stem)).normal(0, 6, pixels.shape)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(file)
    return folder


def test_a_fine_grid_on_large_images_is_seen_at_their_own_size(judge, judge_file, large):
    (large / "gridded").mkdir()
    for file in (large / "testB").iterdir():
        pixels = np.asarray(Image.open(file)).astype(int) + 40 * (np.arange(160) % 2)[:, None]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(large / "gridded" / file.name)
    arguments = ("--judge", judge_file, "--data", large, "--sources", large / "testB", "--json")
    clean, gridded = (judge("score", "--images", large / name, *arguments) for name in ("testB", "gridded"))
    assert json.loads(clean.out)["clean"] > 0.9 and json.loads(gridded.out)["clean"] < 0.3
    parts = json.loads(gridded.out)
    without = {key: value for key, value in parts.items() if key not in ("default", "data", "stand_in")}
    assert parts["default"] == pytest.approx(style_and_scene(without))
    assert "160 px images at 64 px" in clean.err and "clean is measured at 160 px" in clean.err


def test_clean_is_measured_at_the_size_of_the_real_images_if_they_are_smaller(
        judge, judge_file, sample_data, large):
    result = judge("score", "--judge", judge_file, "--data", sample_data, "--images", large / "testB")
    assert result.code == 0 and "clean is measured at 72 px" in result.err


def test_few_images_are_said_to_be_few(capsys):
    warn_of_scores = runpy.run_module("judge.__main__")["warn_of_scores"]
    warn_of_scores({"kid": 0.2, "kid_error": 0.05}, 100, 64, 64, 64)
    assert not capsys.readouterr().err
    warn_of_scores({"kid": -0.2, "kid_error": 0.2}, 12, 64, 64, 64)
    assert "12 images are few" in (err := capsys.readouterr().err) and "40% more or less" in err


def test_controls_prints_a_row_for_each_control_also_as_csv(judge, judge_file, sample_data, monkeypatch):
    kinds = ["checkerboard", "inverted", "shuffled", "rephased"]
    monkeypatch.setattr(controls, "KINDS", {kind: KINDS[kind] for kind in kinds})  # all take seconds
    names = ["copy", "the same painting", *kinds]
    text = judge("controls", "--judge", judge_file, "--data", sample_data)
    text.succeeded()
    first, *lines = text.out.splitlines()
    assert "stand-in, not real paintings" in first
    assert all(line.startswith(name) for name, line in zip(names, lines[2:], strict=True))
    csv = judge("controls", "--judge", judge_file, "--data", sample_data, "--csv").out
    table = pd.read_csv(StringIO(csv))
    assert list(table["control"]) == names
    assert {"shown", "default", "style", "content", "painting", "kept"} <= set(table.columns)


def test_controls_leave_out_prints_what_judges_say_of_damage_they_were_not_shown(
        judge, sample_data, workplace):
    arguments = ("controls", "--leave-out", "--families", "noise", "--data", sample_data, "--size", "sketch",
                 "--weights", "none", "--epochs", 1, "--out", "tables/t.csv")
    result = judge(*arguments)
    assert result.code == 0 and "a judge without noise: at most " in result.err
    assert "of 1 families of damaged photographs" in result.out and files(workplace) == {"tables/t.csv"}
    again = judge(*arguments, "--csv")
    again.succeeded()
    assert list(pd.read_csv(StringIO(again.out))["family"]) == ["noise"]


@pytest.mark.parametrize(("arguments", "words"), [
    ("--families noise", "belong to --leave-out"),
    ("--epochs 3", "belong to --leave-out"),
    ("--leave-out --families noises", "--families noises: there are blends, "),
    ("--leave-out --two-classes", "--two-classes"),
    ("--leave-out --data {sample} --out .", "it is a folder"),
])
def test_controls_refuses_wrong_options_in_one_line(judge, sample_data, arguments, words):
    judge("controls", *arguments.format(sample=sample_data).split()).refused(words)


PARTS = ("trainA", "trainB", "testA", "testB")


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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def download(judge, tmp_path_factory, monkeypatch):
    """Runs `judge data NAME` with a file served on this machine."""
    folder = tmp_path_factory.mktemp("served")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def download(content: bytes | None, file: str = "x.zip", name: str = "monet2photo") -> Result:
        if content is not None:
            (folder / file).write_bytes(content)
        return judge("data", name, "--url", f"http://127.0.0.1:{server.server_port}/{file}")

    yield download
    server.shutdown()
    thread.join()
    server.server_close()


def test_data_is_downloaded_and_unpacked_once(download, workplace):
    result = download(archive(*PARTS))
    assert result.code == 0 and result.out == "downloaded data/monet2photo\n"
    assert files(workplace) == {f"data/monet2photo/{part}/0.jpg" for part in PARTS}
    assert [path.name for path in Path("data").iterdir()] == ["monet2photo"]
    os.umask(mask := os.umask(0))
    assert Path("data/monet2photo").stat().st_mode & 0o777 == 0o777 & ~mask

    Path("data/monet2photo/trainA/0.jpg").write_text("mine")
    download(archive(*PARTS)).refused("data/monet2photo is already there")
    assert Path("data/monet2photo/trainA/0.jpg").read_text() == "mine"


def spoiled(content: bytes) -> bytes:
    """A valid directory, and wrong bytes inside the first compressed file."""
    at = content.index(b"0.jpg") + len(b"0.jpg")
    return content[:at] + b"\xff" * 40 + content[at + 40:]


@pytest.mark.parametrize(("content", "words"), [
    (archive(*PARTS)[:-100], "could not be downloaded and unpacked"),
    (spoiled(archive(*PARTS)), "could not be downloaded and unpacked"),
    (archive(*PARTS, name="horse2zebra"), "monet2photo"),
    (archive(*PARTS[:3]), PARTS[3]),
], ids=["cut short", "spoiled", "another data set", "a folder missing"])
def test_a_broken_or_incomplete_archive_is_refused_and_leaves_nothing(download, content, words):
    download(content).refused(words)
    assert not Path("data").exists() or not list(Path("data").iterdir())


@pytest.mark.parametrize("file", ["x.tgz", "x"])
def test_an_archive_is_read_as_a_zip_file_whatever_its_name(download, file):
    assert download(archive(*PARTS), file).code == 0
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(Path("data/monet2photo"), "vangogh2photo")
    download(buffer.getvalue(), file, "vangogh2photo").refused("could not be downloaded and unpacked", "zip")
    assert [path.name for path in Path("data").iterdir()] == ["monet2photo"]


def test_a_full_disk_is_one_line_and_leaves_nothing(judge, download, small_disk, monkeypatch):
    monkeypatch.chdir(small_disk(20))
    judge("halves", "--data", "sample", "--out", "halves").refused("cannot write to data", "make room")
    assert not Path("data").exists() or not list(Path("data").iterdir())
    monkeypatch.chdir(small_disk(2000))
    content = archive(*PARTS, also={"monet2photo/bomb": bytes(10_000_000)})
    assert len(content) < 50_000
    download(content).refused("No space left")
    assert not Path("data").exists() or not list(Path("data").iterdir())


@pytest.mark.parametrize("command", [
    "data monet2photo", "halves --data {sample} --out halves/of/it", "halves --data sample --out new",
])
def test_a_folder_that_cannot_be_written_is_one_line(judge, sample_data, workplace, command):
    for name in ("data", "halves"):
        (workplace / name).write_text("a file where a folder belongs")
    judge(*command.format(sample=sample_data).split()).refused("cannot write to")


def test_an_address_without_an_archive_is_one_line_and_leaves_nothing(judge, download):
    download(None).refused("404")
    judge("data", "monet2photo", "--url", "nonsense").refused("nonsense could not be downloaded")
    assert not Path("data").exists() or not list(Path("data").iterdir())


@pytest.mark.parametrize("name", ["../evil", ".", "..", "", "/tmp/evil"])
def test_a_name_that_is_not_a_folders_is_refused_before_anything_is_written(judge, workplace, name):
    judge("data", name, "--url", "http://127.0.0.1:1/x.zip").refused("name")
    assert not list(workplace.iterdir())


def test_halves_share_no_image_leave_none_out_and_overwrite_nothing(judge, sample_data):
    judge("halves", "--data", sample_data, "--out", "parts").succeeded("parts/search and parts/yardstick")
    dataset = images.find_dataset(str(sample_data))
    halves = [images.find_dataset(f"parts/{name}") for name in ("search", "yardstick")]
    assert all(half.stand_in for half in halves)
    for domain in (images.PAINTINGS, images.PHOTOS):
        for split in ("train", "test"):
            both = [path.resolve() for half in halves for path in getattr(half, split)[domain]]
            assert sorted(both) == sorted(path.resolve() for path in getattr(dataset, split)[domain])
            assert abs(len(getattr(halves[0], split)[domain]) * 2 - len(both)) <= 10
    judge("halves", "--data", sample_data, "--out", "parts").refused("parts is already there")


def test_halves_keep_neighbours_by_name_together(judge, workplace):
    for folder in ("trainA", "testA", "trainB", "testB"):
        (workplace / "set" / folder).mkdir(parents=True)
        for number in range(40):
            (workplace / "set" / folder / f"{number:02}.png").touch()
    judge("halves", "--data", "set", "--out", "parts").succeeded()
    half = images.find_dataset("parts/search").train[images.PHOTOS]
    assert [int(path.resolve().stem) for path in half] == [*range(10), *range(20, 30)]


def test_halves_link_files_whose_names_are_as_long_as_they_may_be(judge, workplace, sample_data):
    data = shutil.copytree(sample_data, workplace / "set")
    for name in ("w" * 251, "画" * 83):
        shutil.copy(data / "trainA/000.png", data / f"trainA/{name}.png")
    judge("halves", "--data", data, "--out", "parts").succeeded()
    found = [images.find_dataset(f"parts/{half}").train[images.PAINTINGS] for half in ("search", "yardstick")]
    assert sum(map(len, found)) == 14


def test_help_lists_the_commands_and_explains_their_options(judge):
    result = judge("--help")
    result.succeeded(*COMMANDS)
    for command in COMMANDS:
        result = judge(command, "--help")
        assert result.code == 0
        for block in result.out.split("\n  --")[1:]:
            option, *explanation = block.split()
            assert len(explanation) > 2, option
