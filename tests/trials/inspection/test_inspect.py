"""Ways of looking at a trial: right where the answer is known, and for any trial."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from judge import class_score
from judge.common.errors import UserError
from judge.images import to_float
from judge.labelled import LabelledImages, load_labelled
from trials import conditional_gan, cyclegan, dcgan, gan
from trials.inspection import adapters, figures, latent, metrics, trained
from trials.inspection.command import inspect
from trials.session.engine import NoEngine
from trials.session.session import RunOptions, Session

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
SMALL = {"data": "digits", "steps": 4, "reports": 2, "batch_size": 8, "samples": 40}


def trial(module, folder: Path, **settings) -> Path:
    """The folder of a trial that has run."""
    complete = module.Settings(**settings).complete(CPU)
    name = module.__name__.split(".")[1]
    session = Session(name, complete, RunOptions(out=folder, device="cpu"), NoEngine(), {})
    assert session.run(module.train) == 0
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return trial(dcgan, tmp_path_factory.mktemp("trials") / "dcgan", **SMALL, ngf=8, ndf=8)


@pytest.fixture(scope="module")
def painter(tmp_path_factory, sample_data, judge_file) -> Path:
    return trial(cyclegan, tmp_path_factory.mktemp("trials") / "cyclegan", data=str(sample_data),
                 judge=str(judge_file), size="sketch", ngf=4, blocks=1, ndf=4, steps=2, reports=1, photos=8)


@pytest.fixture(scope="module")
def real() -> LabelledImages:
    return load_labelled("digits")


@pytest.fixture(scope="module")
def extractor(real) -> trained.FeatureExtractor:
    scorer, facts = class_score.class_scorer(real, CPU)
    return trained.extractor_of_scorer(scorer, facts)


@pytest.fixture
def run(monkeypatch, capsys):
    """Carries out a command line; returns its exit code, stdout and stderr."""

    def carry_out(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inspect", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            inspect.command_line()
        return left.value.code or 0, *capsys.readouterr()

    return carry_out


# ---------------------------------------------------------------------------------------------
# Measures


def test_a_set_is_at_no_frechet_distance_from_itself_and_at_its_shift_squared_from_a_shifted_one():
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-4)
    assert metrics.frechet_distance(features + 2, features) == pytest.approx(8 * 2**2, rel=1e-3)


def test_frechet_at_infinity_takes_most_of_the_bias_of_few_samples_away():
    """Two samples of one distribution: the distance is 0, FID's estimate is not."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 400, 16, generator=draw)
    biased = metrics.frechet_distance(a, b)
    assert biased > 0.1
    assert abs(metrics.frechet_distance_at_infinity(a, b)) < biased / 2


def test_real_images_ring_no_alarm_and_one_class_or_one_image_does(extractor, real):
    held_out, training = to_float(real.test_pixels), to_float(real.pixels[::4])
    assert metrics.measure_diversity(extractor, training, held_out).alarms == []
    of_one = metrics.measure_diversity(extractor, to_float(real.pixels[real.labels == 3]), held_out).alarms
    assert sum("is missing" in alarm for alarm in of_one) == 9 and not any("class 3" in a for a in of_one)
    alike = metrics.measure_diversity(extractor, training[:1].repeat(200, 1, 1, 1), held_out).alarms
    assert alike[-1].startswith("outputs are alike: 1.0 different")


def test_a_class_that_chance_left_out_of_a_few_images_is_not_missing(extractor, real):
    chosen = [int((real.labels == label).nonzero()[0]) for label in range(9) for _ in range(2)]
    few = metrics.measure_diversity(extractor, to_float(real.pixels[chosen]), to_float(real.test_pixels))
    assert not any("is missing" in alarm for alarm in few.alarms)


def test_closest_pairs_are_found_and_each_image_is_in_one():
    images = torch.arange(8.0).square().reshape(8, 1, 1, 1)
    images[7] = images[2]
    pairs = metrics.closest_pairs(images, 4)
    assert pairs[0] == (2, 7, 0.0) and pairs[1] == (0, 1, 1.0)
    assert sorted(number for a, b, _ in pairs for number in (a, b)) == list(range(8))


def test_a_copied_training_image_has_that_image_at_distance_0(real):
    training = to_float(real.pixels).flatten(1)
    gaps, found = metrics.nearest_neighbours(training[[5, 700]], training, 2)
    assert found[:, 0].tolist() == [5, 700] and gaps[:, 0].tolist() == [0, 0]
    assert (gaps[:, 1] > 0).all()


def test_copies_are_told_from_images_of_the_same_distribution_and_from_noise(real):
    training, held_out = (to_float(x).flatten(1) for x in (real.pixels, real.test_pixels))
    noise = torch.rand(300, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert metrics.copying_test(training[::4], held_out, training)["z"] < metrics.COPYING_Z
    assert abs(metrics.copying_test(held_out[::2], held_out[1::2], training)["z"]) < 3
    assert metrics.copying_test(noise, held_out, training) == pytest.approx({"further": 1, "z": 21}, rel=0.2)


class Pair(nn.Module):
    """Sees whether two pixels are equal, which no linear function of pixels tells; or one pixel alone."""

    def __init__(self, reads: bool):
        super().__init__()
        self.reads, self.weight, self.act = reads, nn.Parameter(torch.ones(1)), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = x[:, 0, 0, :1] * x[:, 0, 0, 1:2]
        return self.act(product if self.reads else x[:, 0, 0, 2:3]) * self.weight


def test_a_discriminator_whose_features_show_the_label_beats_pixels_and_one_that_does_not():
    draw = torch.Generator().manual_seed(0)
    pixels = (torch.rand(400, 1, 1, 4, generator=draw) > 0.5).byte() * 255
    labels = (pixels[:, 0, 0, 0] == pixels[:, 0, 0, 1]).long()
    data = LabelledImages("xor", ("no", "yes"), pixels[:300], labels[:300], pixels[300:], labels[300:])
    found = metrics.probe_accuracies(Pair(True), Pair(False), data, 200)
    assert found["discriminator"] == 1
    assert max(found["untrained discriminator"], found["pixels"]) < 0.7
    assert (found["training_images"], found["test_images"]) == (200, 100)


def test_features_are_every_layers_pooled_to_4_pixels_at_most():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(0.2, inplace=True),
                            nn.Conv2d(3, 5, 4, stride=4), nn.ReLU(),
                            nn.Flatten(), nn.Linear(20, 7), nn.ReLU())
    images = torch.rand(6, 1, 8, 8)
    found = metrics.layer_activations(network, images, batch=4)
    assert found.shape == (6, 3 * 16 + 5 * 4 + 7)
    expected = nn.functional.max_pool2d(network[:2](images), 2).flatten(1)
    np.testing.assert_allclose(found[:, :48], expected.detach(), rtol=1e-5)
    assert not any(part._forward_hooks for part in network.modules())


def test_data_of_one_class_teaches_no_probe(real):
    ones = replace(real, name="ones", classes=("1",))
    with pytest.raises(UserError, match="ones has one class"):
        metrics.probe_accuracies(Pair(True), Pair(False), ones, 100)
    with pytest.raises(UserError, match="12 images are too few"):
        metrics.probe_accuracies(Pair(True), Pair(False), real, 12)


# ---------------------------------------------------------------------------------------------
# Ways through noise


def test_a_spherical_way_stays_on_the_sphere_in_equal_steps_and_ends_at_its_ends():
    a, b = nn.functional.normalize(torch.randn(2, 50, generator=torch.Generator().manual_seed(0)))
    ways = latent.interpolate(a, b, 9)
    for points in ways.values():
        torch.testing.assert_close(points[[0, -1]], torch.stack([a, b]), atol=1e-6, rtol=0)
    torch.testing.assert_close(ways["spherical"].norm(dim=1), torch.ones(9))
    steps = ways["spherical"].diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8))
    assert ways["linear"][4].norm() < 0.9


@pytest.mark.parametrize("sign", [1, -1])
def test_a_spherical_way_is_finite_where_there_is_no_circle(sign):
    a = torch.ones(5)
    points = latent.slerp(a, sign * a, torch.linspace(0, 1, 5))
    torch.testing.assert_close(points, latent.lerp(a, sign * a, torch.linspace(0, 1, 5)))


def test_around_a_sum_it_stands_first_and_the_rest_is_near():
    z = torch.arange(10.0)
    found = latent.neighbourhood(z, 9, torch.Generator().manual_seed(0))
    assert found[0].equal(z) and 0.2 < (found[1:] - z).abs().max() <= latent.NEIGHBOURHOOD_RADIUS


# ---------------------------------------------------------------------------------------------
# Any trial


@pytest.mark.parametrize("module, more", [
    (dcgan, {"ngf": 8, "ndf": 8}), (conditional_gan, {"ngf": 8, "ndf": 8}), (gan, {"hidden": 8})])
def test_outputs_are_those_of_the_trial(tmp_path, module, more):
    """Those that it scored, which --keep keeps; a second time too."""
    settings = module.Settings(**SMALL, **more, generator_lr=0.02).complete(CPU)
    name = module.__name__.split(".")[1]
    session = Session(name, settings, RunOptions(out=tmp_path, device="cpu", keep=True), NoEngine(), {})
    assert session.run(module.train) == 0
    kept = to_float(torch.load(tmp_path / "paintings/step_000004.pt"))
    looked_at = adapters.load(tmp_path, CPU)
    for _ in range(2):
        torch.testing.assert_close(looked_at.outputs(40)[:39], kept[:39], atol=0.01, rtol=0)
    torch.testing.assert_close(looked_at.generate(looked_at.noise(5)), kept[:5], atol=0.01, rtol=0)
    untrained = adapters.load(tmp_path, CPU, trained=False)
    assert (untrained.outputs(40) - kept).abs().mean() > 0.05
    assert looked_at.discriminator(kept).shape == (40, 1)


def test_paintings_are_those_of_the_trial_and_real_ones_are_paintings(painter, sample_data):
    looked_at = adapters.load(painter, CPU)
    assert looked_at.outputs(100).shape == (8, 3, 64, 64)
    assert looked_at.real(100, held_out=False).shape == (12, 3, 64, 64)
    both = looked_at.labelled()
    assert both.classes == ("photo", "painting") and both.labels.bincount().tolist() == [12, 12]
    assert both.pixels[both.labels == 1].equal(looked_at.data.pixels)


def test_every_tool_works_on_a_dcgan(digits, tmp_path, run):
    """What it writes, and figures as JSON."""
    written = {
        ("curves",): {"curves.png"}, ("progress",): {"progress.png", "progress.webp"}, ("metrics",): set(),
        ("histogram",): {"histogram.png", "pairs.png"}, ("features", "--images", 60): set(),
        ("walk",): {"walk.png", "outputs.png"}, ("neighbours",): {"neighbours.png"},
        ("arithmetic", "--a", 0, 1, "--b", 2, "--c", 30): {"arithmetic.png"},
    }  # fmt: skip
    figures = {}
    for (tool, *options), files in written.items():
        talks = tool not in ("progress", "walk", "arithmetic")
        few = ["--samples", 50] if tool in ("metrics", "histogram", "neighbours") else []
        code, out, said = run(tool, digits, "--out", tmp_path / tool, *options, *few, *["--json"] * talks)
        assert code == 0, said
        folder = tmp_path / tool
        assert {file.name for file in folder.iterdir()} == files if files else not folder.exists()
        figures[tool] = json.loads(out) if talks else {}
    assert len(figures["curves"]["reports"]) == 2
    fid = {name: row["fid"] for name, row in figures["metrics"]["table"].items()}
    assert fid["outputs"] > fid["training images"]
    assert any("FID of 50 images is biased" in warned for warned in figures["metrics"]["warnings"])
    assert any("covariances are singular" in warned for warned in figures["metrics"]["warnings"])
    assert "classifier of digits" in figures["metrics"]["features"]
    assert figures["histogram"]["alarms"] and figures["histogram"]["samples"] == 50
    assert {"discriminator", "untrained discriminator", "pixels"} < set(figures["features"])
    assert figures["neighbours"]["copying"]["pixels"]["z"] > 3
    with Image.open(tmp_path / "progress/progress.webp") as animation:
        assert animation.n_frames == 2


def test_a_cyclegan_is_told_by_its_judge_and_has_no_noise(painter, judge_file, run):
    code, out, _ = run("metrics", painter)
    assert code == 0 and f"the judge {judge_file}" in out and "8 images rather than 1000" in out
    _, out, _ = run("features", painter, "--json")
    assert json.loads(out)["classes"] == ["photo", "painting"]
    for tool in (["walk"], ["arithmetic", "--a", 0, "--b", 1, "--c", 2]):
        one_line(run(tool[0], painter, *tool[1:]), "is given images, there is no noise")
    assert not (painter / "inspect").exists()


def test_pictures_lie_in_the_trials_own_folder_and_show_what_was_made(digits):
    command = [sys.executable, "-m", "trials.inspect", "progress", digits, "--most", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with Image.open(digits / "inspect/progress.png") as strip, \
            Image.open(digits / "samples/step_000004.png") as sheet:
        made = sheet.crop((0, sheet.height // 2, *sheet.size)).convert("RGB")
        assert strip.size == (made.width, made.height + figures.MARGIN)
        assert np.array_equal(np.asarray(strip)[figures.MARGIN:], np.asarray(made))


def one_line(done: tuple[int, str, str], words: str) -> None:
    code, _, said = done
    assert code == 2 and words in said and said.count("\n") == 1, said


def test_what_cannot_be_looked_at_is_one_line(digits, tmp_path, run):
    one_line(run("curves", tmp_path / "nowhere"), "is not the folder of a trial")
    one_line(run("walk", digits, "--through", 3), "at least two")
    one_line(run("neighbours", digits, "--samples", 9, "--show", 9), "there is no output 9")
    one_line(run("metrics", digits, "--samples", 3), "at least 4")
    one_line(run("features", digits, "--data", tmp_path / "no"), "no data folder")


def started(folder: Path, system: str = "dcgan", **changes) -> Path:
    """A trial that has not reported yet."""
    folder.mkdir()
    settings = asdict(dcgan.Settings(**SMALL).complete(CPU)) | changes
    (folder / "run.json").write_text(json.dumps({"system": system, "settings": settings}))
    return folder


def test_a_trial_without_a_checkpoint_of_another_version_or_without_networks_is_one_line(tmp_path, run):
    with pytest.raises(UserError, match="no checkpoint yet"):
        adapters.load(started(tmp_path / "a"), CPU)
    with pytest.raises(UserError, match="no networks to look into: curves and progress work"):
        adapters.load(started(tmp_path / "b", system="style_transfer"), CPU)
    other = started(tmp_path / "c", colour="red")
    (other / "checkpoint.pt").write_bytes(b"foreign")
    with pytest.raises(UserError, match="another version.*colour"):
        adapters.load(other, CPU)
    damaged = started(tmp_path / "d")
    (damaged / "checkpoint.pt").write_bytes(b"foreign")
    with pytest.raises(UserError, match="checkpoint.pt cannot be read"):
        adapters.load(damaged, CPU)
    one_line(run("progress", other), "holds no sample sheet yet")
    one_line(run("curves", other), "has no report yet")
