"""The metrics are right for known cases, and every command works for every system."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import gaussian_blur

from judge import class_score
from judge.common.errors import UserError
from judge.common.rng import rng
from judge.images import to_float
from judge.labelled import LabelledImages, load_labelled
from trials.inspection import adapters, figures, latent, metrics
from trials.parts import sheets
from trials.session import RunOptions, Session
from trials.session.engine import NoEngine
from trials.training import conditional_gan, cyclegan, dcgan, gan

CPU = torch.device("cpu")
SMALL = {"data": "digits", "steps": 4, "reports": 2, "batch_size": 8, "samples": 40}


def trial(module, folder: Path, **settings) -> Path:
    """Run a trial and return its folder."""
    complete = module.Settings(**settings).complete(CPU)
    options = RunOptions(out=folder, device="cpu", keep=True)
    assert Session(module.__name__.split(".")[-1], complete, options, NoEngine(), {}).run(module.train) == 0
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return trial(dcgan, tmp_path_factory.mktemp("trials") / "dcgan", **SMALL, ngf=8, ndf=8)


@pytest.fixture(scope="module")
def real() -> LabelledImages:
    return load_labelled("digits")


def inspected(command: Callable, *arguments: object) -> dict:
    """Run a command that works, and return its JSON."""
    done = command("trials.inspect", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "{}")


def assert_refused(command: Callable, words: str, *arguments: object) -> None:
    done = command("trials.inspect", *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_the_frechet_distance_is_0_to_itself_and_the_squared_shift_to_a_shifted_set():
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-4)
    assert metrics.frechet_distance(features + 2, features) == pytest.approx(8 * 2**2, rel=1e-3)


def test_extrapolation_removes_most_of_the_bias_of_few_images():
    a, b = torch.randn(2, 400, 16, generator=torch.Generator().manual_seed(0))  # of one distribution
    biased = metrics.frechet_distance(a, b)
    assert biased > 0.1 and abs(metrics.frechet_distance_at_infinity(a, b)) < biased / 2


def kinds(real: LabelledImages) -> dict[str, torch.Tensor]:
    """Return images of many kinds made of digits; the alarms in trials/README.md are of such of real data."""
    training, held_out, draw = to_float(real.pixels), to_float(real.test_pixels)[::2], rng("kinds")
    noise = torch.randn(held_out.shape, generator=draw)
    return {
        "real": held_out, "blurred": gaussian_blur(held_out, [3, 3], [0.8, 0.8]), "faint": held_out / 2,
        "noisy": held_out + 0.2 * noise, "noise": noise, "smooth noise": gaussian_blur(noise, [5, 5]) * 4,
        "grey": 0.02 * noise, "mean": training.mean(0) + 0.02 * noise, "one": held_out[:1] + 0.02 * noise,
        "three": held_out[torch.arange(len(noise)) % 3] + 0.02 * noise,
        "no 9": training[real.labels != 9][::4], "no 9 among few": training[real.labels != 9][:20],
        "copies": training[: len(noise)], "darker copies": training[: len(noise)] * 0.9 - 0.05,
        "noisy copies": training[: len(noise)] + 0.05 * noise,
        "fifth copies": torch.cat([training[:30], held_out[30:]]),
    }  # fmt: skip


ALIKE = {"grey", "mean", "one", "three"}  # of which classes are missing as well, where they are recognised


def test_an_alarm_of_collapse_is_for_collapse_alone(real):
    """Not for noise, blur or weak contrast, nor for a class that is missing by chance."""
    extractor = adapters.classifier_extractor(*class_score.class_scorer(real, CPU))
    found = {kind: metrics.measure_diversity(extractor, images, to_float(real.test_pixels)[1::2], True)
             for kind, images in kinds(real).items()}
    assert {kind for kind, result in found.items()
            if any("outputs are alike" in alarm for alarm in result["alarms"])} == ALIKE
    missing = {kind: sum("is missing" in alarm for alarm in result["alarms"])
               for kind, result in found.items()}
    assert {kind: count for kind, count in missing.items() if count} == {"one": 9, "three": 8, "no 9": 1}
    assert found["no 9"]["alarms"][0].startswith("class 9 is missing: 0.")
    assert "0% of outputs resemble real images" in found["noise"]["notes"][0]


def test_classes_that_are_not_those_of_the_data_are_not_missed(real):
    extractor = adapters.classifier_extractor(*class_score.class_scorer(real, CPU))
    three, held_out = to_float(real.pixels[real.labels < 3][:100]), to_float(real.test_pixels)
    assert len(metrics.measure_diversity(extractor, three, held_out, True)["alarms"]) == 7
    result = metrics.measure_diversity(extractor, three, held_out, False)
    assert not result["alarms"] and "not the classes of the data" in result["notes"][0]


def test_the_closest_pairs_are_found_and_each_image_is_in_one_pair():
    images = torch.arange(8.0).square().reshape(8, 1, 1, 1)
    images[7] = images[2]
    pairs = metrics.closest_pairs(images, 4)
    assert pairs[0] == (2, 7, 0.0) and pairs[1] == (0, 1, 1.0)
    assert sorted(index for a, b, _ in pairs for index in (a, b)) == list(range(8))


def test_nearest_neighbours_are_exact_near_0(real):
    training = to_float(real.pixels).flatten(1)
    distances, indices = metrics.nearest_neighbours(training[[5, 700]], training, 2)
    assert indices[:, 0].tolist() == [5, 700] and distances[:, 0].tolist() == [0, 0]
    assert (distances[:, 1] > 0).all()


def test_an_alarm_of_copying_is_for_copies_alone(real):
    """Not for fog, noise or what has collapsed, which may lie near to training images by pixels."""
    extractor = adapters.classifier_extractor(*class_score.class_scorer(real, CPU))
    held_out, training = to_float(real.test_pixels)[1::2], to_float(real.pixels)

    def find(outputs: torch.Tensor) -> dict:
        images = outputs, held_out, training
        return metrics.find_copies({"pixels": [x.flatten(1) for x in images],
                                    "features": [extractor.extract(x)[1] for x in images]})

    found = {kind: find(images)
             for kind, images in kinds(real).items() if not kind.startswith("no 9")}
    assert {kind for kind, result in found.items() if result["alarm"]} == {
        "copies", "darker copies", "noisy copies", "fifth copies"}
    assert set(range(30)) <= set(found["fifth copies"]["copies"])
    assert len(found["copies"]["copies"]) == len(found["copies"]["ratios"])


class Pair(nn.Module):
    """Its feature is whether two pixels are equal, which is not linear in pixels; or another pixel."""

    def __init__(self, compares: bool):
        super().__init__()
        self.compares, self.weight, self.act = compares, nn.Parameter(torch.ones(1)), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = x[:, 0, 0, :1] * x[:, 0, 0, 1:2]
        return self.act(product if self.compares else x[:, 0, 0, 2:3]) * self.weight


def test_a_discriminator_whose_features_show_the_label_beats_pixels_and_an_untrained_one(real):
    draw = torch.Generator().manual_seed(0)
    pixels = (torch.rand(400, 1, 1, 4, generator=draw) > 0.5).byte() * 255
    labels = (pixels[:, 0, 0, 0] == pixels[:, 0, 0, 1]).long()
    data = LabelledImages("xor", ("no", "yes"), pixels[:300], labels[:300], pixels[300:], labels[300:])
    result = metrics.probe_accuracies(Pair(True), Pair(False), data, 200)
    assert result["discriminator"] == 1
    assert max(result["untrained discriminator"], result["pixels"]) < 0.7
    assert (result["training_images"], result["test_images"]) == (200, 100)

    with pytest.raises(UserError, match="ones has one class"):
        metrics.probe_accuracies(Pair(True), Pair(False), replace(real, name="ones", classes=("1",)), 100)
    with pytest.raises(UserError, match="12 images are too few"):
        metrics.probe_accuracies(Pair(True), Pair(False), real, 12)


def test_features_are_the_activations_of_every_layer_pooled_to_4_pixels_at_most():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(0.2, inplace=True),
                            nn.Conv2d(3, 5, 4, stride=4), nn.ReLU(),
                            nn.Flatten(), nn.Linear(20, 7), nn.ReLU())
    images = torch.rand(6, 1, 8, 8)
    features = metrics.layer_activations(network, images, batch=4)
    assert features.shape == (6, 3 * 16 + 5 * 4 + 7)
    expected = nn.functional.max_pool2d(network[:2](images), 2).flatten(1)
    np.testing.assert_allclose(features[:, :48], expected.detach(), rtol=1e-5)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_spherical_path_stays_on_the_sphere_in_equal_steps_and_a_path_ends_at_its_ends():
    a, b = nn.functional.normalize(torch.randn(2, 50, generator=torch.Generator().manual_seed(0)))
    paths = latent.interpolate(a, b, 9)
    for points in paths.values():
        torch.testing.assert_close(points[[0, -1]], torch.stack([a, b]), atol=1e-6, rtol=0)
    torch.testing.assert_close(paths["spherical"].norm(dim=1), torch.ones(9))
    steps = paths["spherical"].diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8))
    assert paths["linear"][4].norm() < 0.9
    for end in (torch.ones(5), -torch.ones(5)):  # of equal or opposite direction: no circle, but the line
        paths = latent.interpolate(torch.ones(5), end, 5)
        torch.testing.assert_close(paths["spherical"], paths["linear"])
    z = torch.arange(10.0)
    around = latent.neighbourhood(z, 9, torch.Generator().manual_seed(0))
    assert around[0].equal(z) and 0.2 < (around[1:] - z).abs().max() <= latent.NEIGHBOURHOOD_RADIUS


@pytest.mark.parametrize("module, settings", [
    (dcgan, {"ngf": 8, "ndf": 8}), (conditional_gan, {"ngf": 8, "ndf": 8}), (gan, {"hidden": 8})])
def test_outputs_are_those_that_the_trial_scored(tmp_path, module, settings):
    """--keep keeps them. They are the same at each call."""
    folder = trial(module, tmp_path, **SMALL, **settings, generator_lr=0.02)
    scored = to_float(torch.load(folder / "paintings/step_000004.pt"))
    model = adapters.load(folder, CPU)
    for _ in range(2):
        torch.testing.assert_close(model.outputs(40)[:39], scored[:39], atol=0.01, rtol=0)
    torch.testing.assert_close(model.generate(model.noise(5)), scored[:5], atol=0.01, rtol=0)
    untrained = adapters.load(folder, CPU, trained=False)
    assert (untrained.outputs(40) - scored).abs().mean() > 0.05
    assert model.discriminator(scored).shape == (40, 1)


def test_a_cyclegan_has_its_paintings_its_judge_and_no_noise(
    tmp_path, sample_data, judge_file, command, monkeypatch,
):
    painter = trial(cyclegan, tmp_path, data=str(sample_data), judge=str(judge_file), size="sketch", ngf=4,
                    blocks=1, ndf=4, steps=2, reports=1, photos=8)
    model = adapters.load(painter, CPU)
    assert model.outputs(100).shape == (8, 3, 64, 64)
    assert model.real(100, held_out=False).shape == (12, 3, 64, 64)
    both = model.labelled()
    assert both.classes == ("photo", "painting") and both.labels.bincount().tolist() == [12, 12]
    assert both.pixels[both.labels == 1].equal(model.data.pixels)

    result = inspected(command, "metrics", painter, "--json")
    assert result["features"] == f"the judge {judge_file}" and "8 images rather" in result["warnings"][0]
    monkeypatch.setattr(metrics, "probe_accuracy", lambda *_: 0.5)  # it takes ten seconds
    assert inspected(command, "features", painter, "--json")["classes"] == ["photo", "painting"]
    for name, *options in (["walk"], ["arithmetic", "--a", 0, "--b", 1, "--c", 2]):
        assert_refused(command, "takes images, there is no noise", name, painter, *options)
    assert not (painter / "inspect").exists()


def test_every_command_works_on_a_dcgan(digits, tmp_path, command):
    few, results = ["--samples", 50, "--json"], {}
    for (name, *options), files in {
        ("curves", "--json"): {"curves.png"}, ("progress",): {"progress.png", "progress.webp"},
        ("metrics", *few): set(), ("histogram", *few): {"histogram.png", "pairs.png"},
        ("features", "--images", 60, "--json"): set(), ("neighbours", *few): {"neighbours.png"},
        ("walk",): {"walk.png", "outputs.png"},
        ("arithmetic", "--a", 0, 1, "--b", 2, "--c", 30): {"arithmetic.png"},
    }.items():  # fmt: skip
        results[name] = inspected(command, name, digits, "--out", tmp_path / name, *options)
        assert {file.name for file in (tmp_path / name).glob("*")} == files
    assert len(results["curves"]["reports"]) == 2
    fid = {name: row["fid"] for name, row in results["metrics"]["table"].items()}
    assert fid["outputs"] > fid["training images"]
    for warning in ("FID of 50 images is biased", "covariances are singular"):
        assert any(warning in text for text in results["metrics"]["warnings"])
    assert "classifier of digits" in results["metrics"]["features"]
    assert results["histogram"]["alarms"] and results["histogram"]["samples"] == 50
    assert {"discriminator", "untrained discriminator", "pixels"} < set(results["features"])
    assert not results["neighbours"]["copies"] and not results["neighbours"]["alarm"]
    with Image.open(tmp_path / "progress/progress.webp") as animation:
        assert animation.n_frames == 2


def test_pictures_go_to_the_trials_folder_and_show_its_outputs(digits, command):
    inspected(command, "progress", digits, "--most", 1)
    with Image.open(digits / "inspect/progress.png") as strip, \
            Image.open(digits / "samples/step_000004.png") as sheet:
        outputs = sheet.crop((0, sheet.height // 2, *sheet.size)).convert("RGB")
        assert strip.size == (outputs.width, outputs.height + sheets.CAPTION_PIXELS)
        assert np.array_equal(np.asarray(strip)[sheets.CAPTION_PIXELS:], np.asarray(outputs))


def test_a_strip_has_equal_steps_and_no_early_look(tmp_path, command):
    (tmp_path / "run.json").write_text(json.dumps({"system": "dcgan", "settings": {"seed": 0}}))
    (tmp_path / "stats.jsonl").write_text(json.dumps(
        {"step": 30, "score": {"default": 0.1}, "losses": {}, "early": True}) + "\n")
    (tmp_path / "samples").mkdir()
    for step in [30, *range(100, 1001, 100)]:
        Image.new("RGB", (80, 40), (step // 4, 0, 0)).save(tmp_path / f"samples/step_{step:06d}.png")
    inspected(command, "progress", tmp_path, "--most", 8)
    with Image.open(tmp_path / "inspect/progress.png") as strip:
        title, sheet = sheets.CAPTION_PIXELS, 20
        rows = [strip.getpixel((5, y))[0] for y in range(title + 5, strip.height, title + sheet)]
    assert rows == [200 // 4, 400 // 4, 600 // 4, 800 // 4, 1000 // 4]


def test_a_title_and_captions_are_never_cut_off():
    images = torch.zeros(3, 1, 8, 8)
    narrow = figures.image_rows(images[:1], "a title that is wider than the picture", 1, ["0: 0.25"])
    assert narrow.width > 2 * 64
    wide = sheets.captioned_grid(images, 2, ["a long caption of one image", "1", "2"])
    assert wide.width > 2 * 130 and wide.height > wide.width


def test_the_score_has_an_axis_of_its_own_which_is_logarithmic_where_it_spans_decades():
    def reports(*scores: float) -> list[dict]:
        return [{"step": step, "losses": {"generator": 1.0}, "score": {"default": score, "style": 0.5}}
                for step, score in enumerate(scores)]

    axes = {axis.get_ylabel(): axis for axis in figures.plot_curves(reports(0, 1e-6, 1e-3), "t").axes}
    assert list(axes) == ["generator loss", "score", "parts of the score"]
    assert axes["score"].get_yscale() == "symlog" and axes["parts of the score"].get_yscale() == "linear"
    assert figures.plot_curves(reports(0.1, 0.2), "t").axes[1].get_yscale() == "linear"


def test_a_mistake_is_one_line(digits, tmp_path, command):
    assert_refused(command, "is not the folder of a trial", "curves", tmp_path / "nowhere")
    assert_refused(command, "at least two", "walk", digits, "--through", 3)
    assert_refused(command, "there is no output 9", "neighbours", digits, "--samples", 9, "--show", 9)
    assert_refused(command, "at least 4", "metrics", digits, "--samples", 3)
    assert_refused(command, "no data folder", "features", digits, "--data", tmp_path / "no")


def test_a_trial_whose_data_has_other_classes_now_is_refused_because_their_order_counts(monkeypatch):
    """A new subfolder would shift the others."""
    record = {"system": "stargan", "data": {"classes": ["dawn", "night"]}}
    now = SimpleNamespace(data=SimpleNamespace(name="sky", classes=("dawn", "day", "night")))
    monkeypatch.setattr(adapters, "load_networks", lambda *_: (None, record))
    monkeypatch.setitem(adapters.ADAPTERS, "stargan", lambda *_: now)
    with pytest.raises(UserError, match="run was trained on dawn, night; now sky has dawn, day, night"):
        adapters.load(Path("run"), CPU)


@pytest.mark.parametrize("system, changes, checkpoint, message", [
    ("dcgan", {}, None, "has no checkpoint"),
    ("style_transfer", {}, None, "trains no networks: only curves and progress work"),
    ("dcgan", {"colour": "red"}, b"damaged", "another version.*colour"),
    ("dcgan", {"ngf": None}, b"damaged", "another version.*ngf"),
    ("dcgan", {}, b"damaged", "checkpoint.pt cannot be read"),
])
def test_a_trial_that_cannot_be_loaded_is_one_line(tmp_path, command, system, changes, checkpoint, message):
    settings = asdict(dcgan.Settings(**SMALL).complete(CPU)) | changes
    (tmp_path / "run.json").write_text(json.dumps({"system": system, "settings": settings}))
    if checkpoint:
        (tmp_path / "checkpoint.pt").write_bytes(checkpoint)
    with pytest.raises(UserError, match=message):
        adapters.load(tmp_path, CPU)
    if not checkpoint:
        assert_refused(command, "has no sample sheet yet", "progress", tmp_path)
        assert_refused(command, "has no report yet", "curves", tmp_path)
