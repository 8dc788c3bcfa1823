"""Finished generators at work: any image, whole or in tiles, and as ONNX."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from judge.common.errors import UserError
from judge.images import to_bytes, to_float
from trials import translate
from trials.cyclegan import CycleGAN, Settings
from trials.parts.networks import ResnetGenerator

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """A trial's folder after a step, and its networks."""
    settings = Settings(size="sketch", data="d", ngf=4, blocks=1, ndf=4, steps=10, photos=8).complete(CPU)
    net = CycleGAN(settings, 10, CPU)
    a, b = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    net.update(a, b)
    run = tmp_path / "trial"
    run.mkdir()
    torch.save(net.state_dict(), run / "checkpoint.pt")
    record = {"system": "cyclegan", "settings": asdict(settings), "schedule": {"steps": 10, "until": 10}}
    (run / "run.json").write_text(json.dumps(record))
    return run, net


@pytest.fixture(scope="module")
def generator() -> ResnetGenerator:
    """One whose output changes with its input as a trained one's does."""
    torch.manual_seed(0)
    network = ResnetGenerator(4, 2).eval().requires_grad_(False)
    for weight in network.parameters():
        weight.mul_(4)
    return network


def scene(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth picture, uint8 [3, height, width]."""
    coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return to_bytes(torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic"))[0]


def test_a_trained_generator_paints_as_it_did_in_its_trial(folder):
    photos = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    again = translate.trained(folder[0], CPU)
    assert again.step == 1 and torch.equal(again.paint(photos), folder[1].paint(photos))


def test_what_is_no_trial_is_one_line(tmp_path, folder):
    with pytest.raises(UserError, match="is not the folder of a CycleGAN trial"):
        translate.trained(tmp_path / "elsewhere", CPU)
    (folder[0] / "checkpoint.pt").write_bytes(b"foreign")
    with pytest.raises(UserError, match="cannot be read"):
        translate.trained(folder[0], CPU)
    (folder[0] / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="has no checkpoint yet"):
        translate.trained(folder[0], CPU)


@pytest.mark.parametrize("tile", [40, 64, 130])
def test_tiles_with_the_statistics_of_the_whole_are_the_whole(generator, monkeypatch, tile):
    """All that keeps tiles from being exact is that a thumbnail stands for the whole."""
    image = to_float(scene(160, 200))[None]
    monkeypatch.setattr(translate, "resize", lambda image, *size, **options: image)
    assert (translate.in_tiles(generator, image, tile) - generator(image)).abs().max() < 1e-4


def test_no_seam_shows_between_tiles(generator):
    """Where two tiles meet, neighbours differ no more than they do elsewhere; with statistics of
    its own for each tile they do."""
    image = to_float(scene(256, 256))[None]
    painted = translate.in_tiles(generator, image, 64)
    steps = painted.diff(dim=-1).abs().mean((0, 1, 2))
    assert steps[63::64].mean() < steps.mean()
    own = torch.cat([generator(part) for part in image.split(64, dim=-1)], dim=-1)
    assert own.diff(dim=-1).abs().mean((0, 1, 2))[63::64].mean() > 1.1 * steps.mean()


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (64, 64), (65, 131), (200, 33)])
@pytest.mark.parametrize("tile", [64, 1024])
def test_every_size_is_painted_at_its_own_size(generator, shape, tile):
    painted = translate.translated(generator, scene(*shape), tile, CPU)
    assert painted.shape == (3, *shape) and painted.dtype == torch.uint8


def test_hooks_are_gone_after_tiles(generator):
    image = to_float(scene(64, 96))[None]
    before = generator(image)
    translate.in_tiles(generator, image, 64)
    assert torch.equal(generator(image), before)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    picture = Image.fromarray(scene(60, 90).permute(1, 2, 0).numpy())
    picture.save(folder / "plain.jpg")
    picture.save(folder / "plain.png")  # the same stem
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[274] = 6
    picture.save(folder / "deeper" / "rotated.jpg", exif=exif)
    picture.save(folder / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    (folder / "text.jpg").write_text("not an image")
    return folder


@pytest.fixture
def run(command):
    return partial(command, "trials.translate")


def test_a_folder_of_all_sorts_is_painted_and_what_is_no_image_said_in_a_line(run, folder, photos, tmp_path):
    out = tmp_path / "painted"
    done = run("--run", folder[0], "--photos", photos, "--out", out)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert said.count("left out:") == 1 and "text.jpg" in said and "Traceback" not in said
    assert "6 of 7 images" in said
    sizes = {str(file.relative_to(out)): Image.open(file).size for file in out.rglob("*.png")}
    assert sizes == {
        "plain.jpg.png": (90, 60), "plain.png.png": (90, 60), "cmyk.png": (90, 60), "moving.png": (90, 60),
        "deeper/rotated.png": (60, 90), "dot.png": (1, 1),
    }  # fmt: skip


def test_what_is_already_there_is_kept(run, folder, photos, tmp_path):
    (tmp_path / "painted").mkdir()
    (tmp_path / "painted/dot.png").write_text("mine")
    done = run("--run", folder[0], "--photos", photos, "--out", tmp_path / "painted")
    assert (tmp_path / "painted/dot.png").read_text() == "mine"
    assert "kept, it is already there" in done.stdout + done.stderr


def test_side_by_side_is_the_source_and_its_translation(run, folder, photos, tmp_path):
    run("--run", folder[0], "--photos", photos / "deeper", "--out", tmp_path / "o", "--side-by-side",
        "--longest", 45, "--reverse")
    assert Image.open(tmp_path / "o/rotated.png").size == (60, 45)
    left = np.asarray(Image.open(tmp_path / "o/rotated.png"))[:, :30]
    upright = Image.fromarray(scene(60, 90).permute(1, 2, 0).numpy()).rotate(-90, expand=True)
    upright = upright.resize((30, 45))
    assert np.abs(left.astype(int) - np.asarray(upright)).mean() < 6
    back = folder[1].G_AB(to_float(torch.from_numpy(left.copy()).permute(2, 0, 1))[None, :, :44, :28])
    assert back.shape == (1, 3, 44, 28)


@pytest.mark.parametrize(("arguments", "words"), [
    ((), "give --photos and --out, or --onnx"),
    (("--photos", "nowhere", "--out", "o"), "no folder nowhere"),
    (("--photos", ".", "--out", "o", "--device", "cuda"), "--device cuda"),
])
def test_a_wrong_command_is_one_line(run, folder, arguments, words):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("--run", folder[0], *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_the_onnx_file_computes_what_the_generator_does(generator, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    translate.export(generator, tmp_path / "deep/painter.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "deep/painter.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 64), (3, 3, 100, 72)):
        image = torch.rand(shape) * 2 - 1
        (theirs,) = session.run(None, {"image": image.numpy()})
        assert np.abs(theirs - generator(image).numpy()).max() <= 2 / 255
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["painter.onnx"]


def test_an_onnx_file_that_computes_something_else_is_not_written(generator, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    export, other = torch.onnx.export, ResnetGenerator(4, 2).eval()
    monkeypatch.setattr(torch.onnx, "export", lambda network, *a, **options: export(other, *a, **options))
    with pytest.raises(UserError, match="computes something else"):
        translate.export(generator, tmp_path / "painter.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_onnx_packages_it_is_one_line(generator, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxruntime"):
        translate.export(generator, tmp_path / "painter.onnx")
