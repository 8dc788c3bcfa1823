"""A trained GAN draws images, of the class asked for where it has classes; other requests are one line."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from judge.labelled import TEN_DIGITS
from trials.parts.gan_base import NoiseGAN
from trials.training import conditional_gan, cyclegan, dcgan, gan

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


def write_trial(folder: Path, system: str, net: NoiseGAN, classes: tuple[str, ...] = TEN_DIGITS) -> Path:
    folder.mkdir()
    torch.save(net.state_dict(), folder / "checkpoint.pt")
    (folder / "run.json").write_text(json.dumps({
        "system": system, "settings": asdict(net.settings),
        "data": {"name": "digits", "stand_in": True, "classes": classes}}))
    return folder


@pytest.fixture
def conditional(tmp_path) -> Path:
    """A trial whose images are brighter the higher the class."""
    settings = conditional_gan.Settings(data="digits", ngf=4, ndf=4).complete(CPU)
    net = conditional_gan.ConditionalGAN(settings, SHAPE, 10, CPU)
    first = net.G[1].weight  # [latent + classes, features, 4, 4]
    with torch.no_grad():
        first[-10:] = torch.arange(10.0)[:, None, None, None]
        net.G[-2].weight.fill_(0.02)
        for batch_norm in (layer for layer in net.G if isinstance(layer, torch.nn.BatchNorm2d)):
            batch_norm.weight.fill_(1)
    return write_trial(tmp_path / "trial", "conditional_gan", net)


def drawn(command, run: Path, out: Path, *arguments: object) -> dict[str, np.ndarray]:
    done = command("trials.draw", "--run", run, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    assert str(out / "sheet.png") in done.stdout
    return {file.stem: np.asarray(Image.open(file)) for file in sorted(out.glob("*.png"))}


def test_images_of_the_class_asked_for_are_drawn(conditional, tmp_path, command):
    low, high = (drawn(command, conditional, tmp_path / name, "--class", name, "--count", 3)
                 for name in ("1", "9"))
    assert list(high) == ["9_0000", "9_0001", "9_0002", "sheet"]
    assert high["9_0000"].shape == (8, 8) and high["9_0000"].mean() > low["1_0000"].mean() + 20
    in_turn = drawn(command, conditional, tmp_path / "all", "--count", 12)
    assert [name[0] for name in in_turn if name != "sheet"] == sorted("012345678901")
    assert in_turn["1_0001"].mean() < in_turn["9_0009"].mean()


def test_a_seed_draws_the_same_images_and_a_larger_count_more_of_them(tmp_path, command):
    for module, net in ((dcgan, dcgan.DCGAN), (gan, gan.GAN)):
        settings = module.Settings(data="digits").complete(CPU)
        name = module.__name__.split(".")[-1]
        run = write_trial(tmp_path / name, name, net(settings, SHAPE, CPU))
        few, more, others = (drawn(command, run, tmp_path / f"{name}{i}", "--count", count, "--seed", seed)
                             for i, (count, seed) in enumerate([(3, 0), (5, 0), (3, 1)]))
        assert set(more) == {"0000", "0001", "0002", "0003", "0004", "sheet"}
        for image in ("0000", "0001", "0002"):
            assert np.abs(few[image].astype(int) - more[image]).max() <= 1
            assert np.abs(few[image].astype(int) - others[image]).max() > 5


def test_a_wrong_request_is_one_line_and_writes_nothing(conditional, tmp_path, command):
    plain = write_trial(tmp_path / "dcgan", "dcgan",
                        dcgan.DCGAN(dcgan.Settings(data="digits").complete(CPU), SHAPE, CPU))
    pattern = write_trial(tmp_path / "gan", "gan",
                          gan.GAN(gan.Settings(data="pattern").complete(CPU), (1, 1, 4), CPU), ("1010",))
    settings = cyclegan.Settings(size="sketch", data="d", ngf=4, blocks=1, ndf=4).complete(CPU)
    painter = write_trial(tmp_path / "cyclegan", "cyclegan", cyclegan.CycleGAN(settings, 1, CPU))
    style = tmp_path / "style"
    style.mkdir()
    (style / "run.json").write_text(json.dumps({"system": "style_transfer", "settings": {"seed": 0}}))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.png").write_text("mine")
    for run, out, arguments, words in (
        (conditional, "o", ["--class", "ten"], "--class ten: there is no such class, give one of: 0, 1, 2"),
        (plain, "o", ["--class", "7"], "only a conditional GAN draws the class asked for"),
        (pattern, "o", [], "it makes four numbers, not images"),
        (painter, "o", [], "which translates images: use python -m trials.translate"),
        (style, "o", [], "trains no networks"),
        (plain, "full", [], "full is not empty: give another --out"),
        (plain, "o", ["--count", "0"], "a whole number from 1"),
        (tmp_path / "nowhere", "o", [], "is not the folder of a trial"),
    ):  # fmt: skip
        done = command("trials.draw", "--run", run, "--out", tmp_path / out, *arguments)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "o").exists() and (full / "mine.png").read_text() == "mine"
