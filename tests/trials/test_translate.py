"""Trained generators translate any image, whole or in tiles, and are exported to ONNX."""

import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from judge.common.errors import UserError
from judge.images import to_bytes, to_float
from trials import translate
from trials.cyclegan import Settings
from trials.inspection import adapters, translation
from trials.parts.networks import ResnetGenerator
from trials.training import stargan
from trials.training.cyclegan import CycleGAN

CPU = torch.device("cpu")


@pytest.fixture
def trial(tmp_path):
    """A trial's folder after a step, and its model."""
    settings = Settings(size="sketch", data="d", ngf=4, blocks=1, ndf=4, steps=10, photos=8).complete(CPU)
    net = CycleGAN(settings, 10, CPU)
    net.update(*torch.rand(2, 1, 3, 64, 64) * 2 - 1)
    folder = tmp_path / "trial"
    folder.mkdir()
    torch.save(net.state_dict(), folder / "checkpoint.pt")
    (folder / "run.json").write_text(json.dumps({"system": "cyclegan", "settings": asdict(settings)}))
    return folder, net


@pytest.fixture(scope="module")
def generator() -> ResnetGenerator:
    """A generator whose output changes with its input as much as a trained one's."""
    torch.manual_seed(0)
    network = ResnetGenerator(4, 2).eval().requires_grad_(False)
    for weight in network.parameters():
        weight.mul_(4)
    return network


def scene(height: int, width: int) -> torch.Tensor:
    """A smooth picture, uint8 [3, height, width]."""
    coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return to_bytes(interpolate(coarse, (height, width), mode="bicubic"))[0]


def change_settings(folder: Path, change) -> None:
    record = json.loads((folder / "run.json").read_text())
    change(record["settings"])
    (folder / "run.json").write_text(json.dumps(record))


def test_a_record_without_downsamplings_is_of_the_two_published_ones(trial):
    folder, net = trial
    change_settings(folder, lambda settings: [settings.pop(name) for name in Settings.OLDER])
    with pytest.raises(UserError, match="cannot be read.*state_dict"):  # the checkpoint is of a sketch
        translation.load_trained(folder, CPU)
    published = CycleGAN(replace(net.settings, downsamplings=2), 10, CPU)
    torch.save(published.state_dict(), folder / "checkpoint.pt")
    photos = torch.rand(3, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(translation.load_trained(folder, CPU).paint(photos), published.paint(photos))


def test_a_record_without_a_networks_size_is_refused_by_name(trial):
    change_settings(trial[0], lambda settings: settings.update(ngf=None))
    with pytest.raises(UserError, match="another version.*ngf"):
        translation.load_trained(trial[0], CPU)


def test_a_trained_generator_paints_as_in_its_trial_and_another_folder_is_one_line(tmp_path, trial):
    photos = torch.rand(3, 3, 64, 64) * 2 - 1
    loaded = translation.load_trained(trial[0], CPU)
    assert loaded.step == 1
    torch.testing.assert_close(loaded.paint(photos), trial[1].paint(photos))
    with pytest.raises(UserError, match="is not the folder of a trial"):
        translation.load_trained(tmp_path / "elsewhere", CPU)
    with pytest.raises(UserError, match="--photos needs --out"):
        translate.command([f"--run={trial[0]}", "--photos=.", "--onnx=x.onnx"])
    (trial[0] / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="has no checkpoint"):
        translation.load_trained(trial[0], CPU)


def is_as_bytes(painted: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether uint8 images are the floats `expected`, but for where a hair's breadth decides the rounding."""
    differences = (painted.int() - to_bytes(expected).int()).abs()
    return differences.max() <= 1 and differences.float().mean() < 1e-3


@pytest.mark.parametrize("tile", [40, 64, 130])
def test_tiles_with_the_statistics_of_the_whole_image_equal_the_whole(generator, monkeypatch, tile):
    """Only the thumbnail makes tiles inexact; and no hook stays behind."""
    image = scene(160, 200)[None]
    expected = generator(to_float(image))
    monkeypatch.setattr(translation, "resize", lambda image, *size, **options: image)
    assert is_as_bytes(translation.translate_in_tiles(generator, image, tile, CPU), expected)
    assert generator(to_float(image)).equal(expected)


def test_no_seam_is_visible_between_tiles(generator):
    """Neighbours differ no more where two tiles meet than elsewhere, as they do with separate statistics."""
    def differences(painted: torch.Tensor) -> torch.Tensor:
        return to_float(painted).diff(dim=-1).abs().mean((0, 1, 2))

    image = scene(256, 256)[None]
    painted = differences(translation.translate_in_tiles(generator, image, 64, CPU))
    parts = [to_bytes(generator(to_float(part))) for part in image.split(64, dim=-1)]
    separate = differences(torch.cat(parts, dim=-1))
    assert painted[63::64].mean() < painted.mean() < separate[63::64].mean() / 1.1


@pytest.mark.parametrize(("shape", "tile"), [((1, 1), 64), ((3, 50), 1024), ((65, 131), 64), ((200, 33), 64)])
def test_an_image_of_any_size_keeps_it(generator, shape, tile):
    painted = translation.translate_image(generator, scene(*shape), tile, CPU)
    assert painted.shape == (3, *shape) and painted.dtype == torch.uint8


@pytest.mark.parametrize("name, reason", [
    ("w" * 249, "File name too long"),  # two of them keep their endings: w.jpeg.png has 258 bytes
    ("folder/x", "Not a directory"), ("x", "would replace another translation"),
])
def test_a_translation_that_no_file_can_hold_is_skipped_by_name_and_the_others_are_made(
    tmp_path, monkeypatch, capsys, name, reason,
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    monkeypatch.setattr(translation, "translate_file", lambda *_: Image.new("RGB", (1, 1)))
    files = [photos / f"{name}.jpeg", photos / f"{name}.png"][: 1 + (reason == "File name too long")]
    for file in (*files, photos / "a.png"):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(file)
    out.mkdir()
    (out / "folder").touch()
    if name == "x":
        (out / "x.png").symlink_to("a.png")  # as A.png and a.png are one file where case does not count
    options = translate.Options(tmp_path, photos, out)
    assert translation.translate_folder(Mock(), options, CPU) == 1
    printed = capsys.readouterr().out
    for file in files:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"skipped: {file} ")]
        assert reason in line
    assert f"1 of {1 + len(files)} images" in printed and f"{len(files)} skipped" in printed
    assert (out / "a.png").is_file() and not list(out.glob("*.part"))


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    picture = Image.fromarray(scene(60, 90).permute(1, 2, 0).numpy())
    for name in ("plain.jpg", "plain.png", "deeper/wide.jpg"):  # two with the same stem
        picture.save(folder / name)
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    (folder / "text.jpg").write_text("not an image")
    return folder


@pytest.fixture
def run(command, trial):
    return partial(command, "trials.translate", "--run", trial[0])


def test_a_folder_is_translated_except_for_broken_images_and_existing_files(run, photos, tmp_path):
    out = tmp_path / "painted"
    out.mkdir()
    (out / "dot.png").write_text("mine")
    done = run("--photos", photos, "--out", out)
    printed = done.stdout + done.stderr
    assert done.returncode == 1 and "3 of 5 images translated" in printed and "Traceback" not in printed
    assert printed.count("skipped: ") == 1 and "text.jpg cannot be read as an image (not an" in printed
    assert "1 was there already; 1 skipped" in printed
    assert printed.count("kept, exists already") == 1 and (out / "dot.png").read_text() == "mine"
    (out / "dot.png").unlink()
    sizes = {str(file.relative_to(out)): Image.open(file).size for file in out.rglob("*.png")}
    assert sizes == dict.fromkeys(["plain.jpg.png", "plain.png.png", "deeper/wide.png"], (90, 60))


def test_side_by_side_is_the_source_and_its_translation(run, photos, tmp_path):
    run("--photos", photos / "deeper", "--out", tmp_path / "o", "--longest=45", "--side-by-side", "--reverse")
    picture = Image.open(tmp_path / "o/wide.png")
    assert picture.size == (90, 30)
    source = Image.open(photos / "deeper/wide.jpg").resize((45, 30))
    assert np.abs(np.asarray(picture)[:, :45].astype(int) - np.asarray(source)).mean() < 6


def test_a_single_image_is_translated_and_the_end_says_by_what(run, photos, tmp_path):
    done = run("--photos", photos / "deeper/wide.jpg", "--out", tmp_path / "o", "--threads", 1)
    assert done.returncode == 0 and [file.name for file in (tmp_path / "o").iterdir()] == ["wide.png"]
    assert "1 of 1 images translated by" in done.stdout
    assert "a network of 64 px, trained for 1 step of 10 (10% of the schedule): enough" in done.stdout


def test_its_own_translations_are_not_translated(run, photos, tmp_path):
    out = photos / "deeper/painted"
    assert run("--photos", photos / "deeper", "--out", out).returncode == 0
    done = run("--photos", photos / "deeper", "--out", out)
    assert "0 of 1 images translated" in done.stdout and "1 was there already" in done.stdout
    assert [file.name for file in out.rglob("*.png")] == ["wide.png"]
    (photos / "linked").symlink_to("deeper/painted")  # nor by way of a link
    for count in ("4 of 5", "0 of 5"):
        assert count in run("--photos", photos, "--out", photos / "linked").stdout
    same = photos / "deeper/.." / "deeper"
    for given, folder in ((photos / "deeper", same), (out / "wide.png", out)):
        done = run("--photos", given, "--out", folder)
        assert done.returncode == 2 and "--out is the folder of --photos" in done.stderr


def test_a_folder_inside_the_one_for_the_translations_is_translated(run, photos):
    """Where --out is above --photos, none of them counts as a translation."""
    assert "1 of 1 images translated" in run("--photos", photos / "deeper", "--out", photos).stdout
    assert (photos / "wide.png").exists()


def test_an_image_too_large_for_the_memory_is_skipped_and_a_full_disk_ends_all(photos, tmp_path, monkeypatch):
    options = translate.Options(Path("run"), photos, tmp_path / "o", tile=64)
    painted = iter([MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])

    def paint(generator, source, *rest):
        if error := next(painted, None):
            raise error
        return source

    monkeypatch.setattr(translation, "translate_image", paint)
    assert translation.translate_folder(torch.nn.Identity(), options, CPU) == 1
    assert len(list((tmp_path / "o").rglob("*.png"))) == 2
    painted = iter([OSError("a mistake in the program")])
    with pytest.raises(OSError, match="a mistake"):
        translation.translate_folder(torch.nn.Identity(), replace(options, out=tmp_path / "p"), CPU)
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(translation, "atomic_write", lambda *_: os.write(full, b"x"))
    with pytest.raises(UserError, match="No space left on device: make room"):
        translation.translate_folder(torch.nn.Identity(), replace(options, out=tmp_path / "q"), CPU)


@pytest.fixture
def domains(tmp_path) -> Path:
    """The folder of a StarGAN's trial of three domains, whose affine normalisation is not the identity."""
    settings = stargan.Settings(size="sketch", data="d", ngf=4, blocks=1, ndf=4).complete(CPU)
    net = stargan.StarGAN(settings, 3, CPU)
    for module in net.G.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2, generator=torch.Generator().manual_seed(0))
            torch.nn.init.uniform_(module.bias, -1, 1, generator=torch.Generator().manual_seed(1))
    folder = tmp_path / "stargan"
    folder.mkdir()
    torch.save(net.state_dict(), folder / "checkpoint.pt")
    (folder / "run.json").write_text(json.dumps({
        "system": "stargan", "settings": asdict(settings),
        "data": {"name": "d", "stand_in": False, "classes": ["day", "dawn", "night"]}}))
    return folder


def test_a_stargan_translates_to_the_domain_asked_for(domains, photos, tmp_path, command):
    done = command("trials.translate", "--run", domains, "--domain", "dawn", "--photos", photos / "deeper",
                   "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    net, _ = adapters.load_networks(domains, CPU)
    images, targets = torch.rand(2, 3, 64, 64) * 2 - 1, torch.tensor([1, 1])
    generator = adapters.load_generator(domains, CPU, domain="dawn")
    torch.testing.assert_close(generator(images), net.make(images, targets))
    whole = scene(160, 200)[None]
    with pytest.MonkeyPatch.context() as patch:  # tiles are exact: see the test of a CycleGAN
        patch.setattr(translation, "resize", lambda image, *size, **options: image)
        painted = translation.translate_in_tiles(generator, whole, 64, CPU)
    assert is_as_bytes(painted, generator(to_float(whole)))


@pytest.mark.parametrize("system", ["stargan", "conditional_gan"])
def test_a_record_that_does_not_name_the_classes_is_said_to_be_what_is_wrong(domains, system):
    record = json.loads((domains / "run.json").read_text()) | {"system": system}
    del record["data"]
    (domains / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="stargan: its run.json does not name the classes of the data"):
        adapters.load_networks(domains, CPU)


@pytest.mark.parametrize(("arguments", "words"), [
    ((), "a StarGAN needs a domain, give --domain with one of: day, dawn, night"),
    (("--domain", "noon"), "--domain noon: there is no such domain, give --domain with one of: day"),
    (("--domain", "dawn", "--reverse"), "only a CycleGAN has a reverse"),
])  # fmt: skip
def test_a_wrong_domain_is_one_line_with_those_there_are(
        domains, photos, tmp_path, command, arguments, words):
    done = command("trials.translate", "--run", domains, "--photos", photos, "--out", tmp_path / "o",
                   *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    ((), "give --photos and --out, or --onnx"),
    (("--photos", "nowhere", "--out", "o"), "no folder nowhere"),
    (("--photos", ".", "--out", "o", "--device", "cuda"), "--device cuda"),
    (("--photos", ".", "--onnx", "o"), "--photos needs --out"),
    (("--photos", ".", "--out", "o", "--domain", "dawn"), "only a StarGAN has domains"),
])  # fmt: skip
def test_a_wrong_command_is_one_line(run, monkeypatch, arguments, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_the_onnx_file_computes_what_the_generator_does(generator, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "deep/painter.onnx"
    translation.export(generator, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for shape in ((3, 3, 100, 72), (1, 3, 65, 67), (1, 3, 1, 50)):  # any size
        image = torch.rand(shape) * 2 - 1
        (output,) = session.run(None, {"image": image.numpy()})
        expected = translation.AnySize(generator)(image)
        assert output.shape == shape and np.abs(output - expected.numpy()).max() <= 2 / 255
    assert list(file.parent.iterdir()) == [file]


def test_an_onnx_file_that_differs_or_cannot_be_made_is_not_written(generator, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    export, other = torch.onnx.export, ResnetGenerator(4, 2).eval()
    monkeypatch.setattr(torch.onnx, "export", lambda network, *a, **options: export(other, *a, **options))
    with pytest.raises(UserError, match="not written: ONNX differs from PyTorch"):
        translation.export(generator, tmp_path / "painter.onnx")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxruntime"):
        translation.export(generator, tmp_path / "painter.onnx")
