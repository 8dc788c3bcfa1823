"""Claims about training: a judge learns, repeats itself, is calibrated, and cannot learn compression."""

import math
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from judge import evaluation, images, training
from judge.common.errors import UserError
from judge.corruptions import FAMILIES, corrupt_all
from judge.images import DataSet
from judge.model import CLASSES, NEITHER, Judge
from judge.training import TrainingOptions
from judge.undertrained import UNDERTRAINED
from judge.views import AugmentedViews

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(epochs=2, weights="none", batch_size=8)


@pytest.fixture(scope="module")
def easy(tmp_path_factory) -> DataSet:
    """Reddish paintings and bluish photographs: 12 of each to train on, 6 of each to test."""
    folder, rng = tmp_path_factory.mktemp("data") / "easy", np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for domain, colour in (("A", (220, 90, 40)), ("B", (40, 90, 220))):
            (folder / f"{split}{domain}").mkdir(parents=True)
            for index in range(count):
                pixels = (rng.normal(colour, 25, (64, 64, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}{domain}/{index:02}.png")
    return images.find_dataset(str(folder))


@pytest.fixture(scope="module")
def trained(easy):
    return training.train(easy, 64, OPTIONS, CPU)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_a_judge_separates_easy_test_images_and_its_card_records_how(trained, easy):
    judge, card = trained
    assert card.metrics["auc"] == 1.0 and card.metrics == evaluation.evaluate(judge, easy)[0]
    assert (card.arch, card.size, card.classes) == ("resnet18", 64, CLASSES)
    counts = {"images": 12, "skipped": [], "enlarged": 12}  # 64 px where crops are cut from 80
    assert card.training["counts"] == {"photos": counts, "paintings": counts}
    assert card.training["versions"]["torch"] == torch.__version__
    expected = {"data": "easy", "stand_in": False, "weights": "none", "epochs": 2, "seed": 0, "lr": 1e-3}
    assert expected.items() <= card.training.items()
    assert not torch.equal(judge.calibration, torch.eye(3, 4))


def test_the_seed_alone_decides_which_judge_is_trained(trained, easy):
    judge, card = trained
    torch.manual_seed(99)  # whatever was drawn before
    again, again_card = training.train(easy, 64, OPTIONS, CPU)
    assert equal(judge, again) and card.metrics == again_card.metrics
    starts = [training.initial_judge(replace(OPTIONS, seed=seed), 64, CPU)[0] for seed in (0, 1)]
    assert not torch.equal(starts[0].head.weight, starts[1].head.weight)
    assert not torch.equal(starts[0].backbone.conv1.weight, starts[1].backbone.conv1.weight)
    labels = torch.tensor([0] * 100 + [1] * 40)
    first, same, other = (training.split_held_out(labels, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.bincount(labels[first]).tolist() == [10, 4]


def test_a_training_that_diverges_is_refused_in_one_line(easy):
    with pytest.raises(UserError, match="^the judge's training diverged: lower --lr 1e[+]20$"):
        training.train(easy, 64, replace(OPTIONS, lr=1e20), CPU)


class Scripted(Judge):
    """Its held-out losses are those of a list, one for each epoch."""

    def __init__(self, losses: list[float]):
        nn.Module.__init__(self)
        self.size, self.losses, self.steps, self.classes = 64, losses, 0, CLASSES[:2]
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("at_step", torch.tensor(0))

    def forward(self, images):  # a training step
        self.at_step += 1
        return torch.stack([self.weight * 0, self.weight * 0]).expand(len(images), 2)

    def features(self, images):
        return images.new_zeros(len(images), 1)

    def head(self, features):
        """Logits whose cross entropy with class 0 is the next scripted loss."""
        other = torch.tensor(math.log(math.expm1(self.losses[self.steps])))
        self.steps += 1
        return torch.stack([other * 0, other]).expand(len(features), 2)


@pytest.mark.parametrize(("losses", "patience", "epochs", "best_epoch"), [
    ([0.9, 0.5, 0.7, 0.4], 6, 4, 4),
    ([0.9, 0.5, 0.7, 0.8, 0.6, 0.1], 3, 5, 2),
    ([0.9, 0.5, 0.7, 0.8, 0.4, 0.6, 0.6], 3, 7, 5),
])
def test_training_stops_after_its_patience_with_the_weights_of_the_best_epoch(
        losses, patience, epochs, best_epoch):
    judge = Scripted(losses)
    views = AugmentedViews(torch.zeros(2, 2, 3, 64, 64, dtype=torch.uint8), 64, 4, families=())
    held_out = torch.zeros(2, 3, 64, 64), torch.zeros(2).long()
    options = TrainingOptions(epochs=len(losses), patience=patience, batch_size=4)
    assert training.fit(judge, views, held_out, options, CPU) == epochs
    assert int(judge.at_step) == best_epoch


def test_two_images_of_each_class_are_enough_and_one_is_refused(easy):
    def only(count: int) -> DataSet:
        return replace(easy, train={domain: paths[:count] for domain, paths in easy.train.items()})

    judge, _ = training.train(only(2), 64, replace(OPTIONS, epochs=1), CPU)
    assert judge.calibration.isfinite().all()
    with pytest.raises(UserError, match="at least 2"):
        training.train(only(1), 64, replace(OPTIONS, epochs=1), CPU)


def test_a_judge_recognises_images_that_are_neither(easy):
    judge, _ = training.train(easy, 64, replace(OPTIONS, epochs=12, seed=1), CPU)
    real = images.load_images([*easy.test["A"], *easy.test["B"]], 64).pixels
    corrupted = corrupt_all("texture", real)
    with torch.no_grad():
        p_neither = [judge.probabilities(judge.features(images.to_float(x)))[:, NEITHER].mean()
                     for x in (real, corrupted)]
    assert p_neither[0] < 0.2 and p_neither[1] > p_neither[0] + 0.3  # here 0.02 and 0.86


def test_a_judge_of_two_classes_is_calibrated_on_images_as_a_trial_shows_them(easy, monkeypatch):
    held_out = []
    monkeypatch.setattr(training, "calibrate", lambda judge, images, labels: held_out.extend(images))
    judge, card = training.train(easy, 64, replace(OPTIONS, epochs=1, two_classes=True), CPU)
    assert judge.classes == card.classes == CLASSES[:2]
    assert torch.allclose(judge.probabilities(torch.randn(3, 512)).sum(1), torch.ones(3))
    decoded = images.load_images([*easy.train["A"], *easy.train["B"]], 64).pixels
    assert len(held_out) == 2
    assert all(any(torch.equal(one, other) for other in decoded) for one in held_out)


def shown(monkeypatch, data: DataSet, options: TrainingOptions = OPTIONS, **arguments) -> tuple:
    """The views and the held-out images of a training, which is not run."""
    seen = []
    monkeypatch.setattr(training, "fit", lambda judge, views, held_out, *_: seen.extend([views, *held_out]))
    training.train(data, 64, options, CPU, **arguments)
    return tuple(seen)


def test_half_as_many_corrupted_as_real_images_are_held_out_and_none_with_two_classes(monkeypatch, easy):
    larger = replace(easy, train={domain: 4 * paths for domain, paths in easy.train.items()})
    for options, counts in ((OPTIONS, [5, 5, 5]), (replace(OPTIONS, two_classes=True), [5, 5])):
        views, held_out, labels = shown(monkeypatch, larger, options)
        assert torch.bincount(labels).tolist() == counts and len(views.labels) == 2 * (48 - 5)
        assert held_out.shape == (len(labels), 3, 64, 64) and held_out.dtype == torch.uint8


def test_what_is_left_out_is_not_shown_and_folders_of_more_images_are(monkeypatch, easy, tmp_path):
    assert [*shown(monkeypatch, easy)[0].families] == [*FAMILIES]
    views = shown(monkeypatch, easy, leave_out="blends")[0]
    assert set(FAMILIES) - set(views.families) == {"blends"} and views.shares == [0.2]
    views = shown(monkeypatch, easy, leave_out=UNDERTRAINED)[0]
    assert [*views.families] == [*FAMILIES] and not views.neither
    Image.new("RGB", (64, 64), "red").save(tmp_path / "mush.png")
    views = shown(monkeypatch, easy, neither=[tmp_path])[0]
    assert views.shares == [0.2, 0.2] and views.neither[1][0, :, 5, 5].tolist() == [255, 0, 0]


def test_without_a_terminal_each_epoch_is_a_line_and_the_expected_time_is_said_first(easy, capsys):
    def announce(seconds: float) -> None:
        assert seconds > 0 and not capsys.readouterr().err

    judge, _ = training.initial_judge(OPTIONS, 64, CPU)
    pixels = torch.zeros(4, 3, 80, 80, dtype=torch.uint8)
    views = AugmentedViews([pixels, pixels], 64, 8)
    training.fit(judge, views, (pixels[:, :, :64, :64], torch.tensor([0, 0, 1, 2])), OPTIONS, CPU, announce)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("epoch 1 of 2: held-out loss ") and first.endswith(" left")
    assert second.startswith("epoch 2 of 2: ") and second.endswith("at most 0 s left")


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return models.resnet18().state_dict()


def test_pretrained_weights_are_torchvisions_except_the_head_or_reported_and_recorded_as_absent(
        monkeypatch, resnet18, capsys):
    def offline(self, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda self, **options: resnet18)
    judge, source = training.initial_judge(TrainingOptions(), 64, CPU)
    assert source == "imagenet" and judge.head.weight.shape == (3, 512)
    for name, value in judge.backbone.state_dict().items():
        assert torch.equal(value, resnet18[name]), name

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    assert training.initial_judge(TrainingOptions(), 64, CPU)[1] == "none (imagenet could not be downloaded)"
    note = capsys.readouterr().err
    assert note.count("\n") == 1 and "Name or service not known" in note and "from scratch" in note


def test_weights_come_from_a_file_also_one_as_old_torch_saved_it(tmp_path, resnet18):
    old = {name: value for name, value in resnet18.items() if not name.endswith("num_batches_tracked")}
    assert len(old) == 102
    for state in (resnet18, old):
        torch.save(state, tmp_path / "weights.pth")
        options = TrainingOptions(weights=str(tmp_path / "weights.pth"))
        judge, source = training.initial_judge(options, 64, CPU)
        assert source == options.weights
        assert torch.equal(judge.backbone.layer4[1].conv2.weight, resnet18["layer4.1.conv2.weight"])


def test_a_file_of_other_weights_is_refused_in_one_line(tmp_path, resnet18):
    file = tmp_path / "weights.pth"
    for content in ({**resnet18, "conv1.weight": torch.zeros(64, 1, 7, 7)}, {}, "text"):
        file.write_text(content) if content == "text" else torch.save(content, file)
        with pytest.raises(UserError) as caught:
            training.initial_judge(TrainingOptions(weights=str(file)), 64, CPU)
        assert str(caught.value) == f"{file} does not hold the weights of a torchvision resnet18"


class Logits(Judge):
    """A judge whose images are its logits."""

    def __init__(self):
        nn.Module.__init__(self)
        self.classes = CLASSES[:2]
        self.register_buffer("calibration", torch.eye(2, 3))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def head(self, features: torch.Tensor) -> torch.Tensor:
        return features


def calibrated(logits: torch.Tensor, labels: torch.Tensor) -> Judge:
    judge = Logits()
    training.calibrate(judge, logits, labels)
    return judge


@pytest.mark.parametrize(("distort", "error_before", "error_after"), [
    (lambda log_odds: 5.0 * (log_odds + 1.5), 0.1, 0.03),
    (lambda log_odds: 0.3 * (log_odds + 1.5), 0.1, 0.03),
    # Overconfident of paintings only, which no temperature and no bias can correct.
    (lambda log_odds: torch.where(log_odds > 0, 4 * log_odds, log_odds), 0.07, 0.06),
])
def test_calibration_recovers_the_true_probabilities(distort, error_before, error_after):
    generator = torch.Generator().manual_seed(0)
    log_odds = 2 * torch.randn(6000, generator=generator)
    true = torch.sigmoid(log_odds)
    labels = (torch.rand(6000, generator=generator) < true).long()
    logits = torch.stack([-distort(log_odds) / 2, distort(log_odds) / 2], 1)
    before, after = ((judge.painting_probability_against_photo(logits) - true).abs().mean()
                     for judge in (Logits(), calibrated(logits, labels)))
    assert before > error_before and after < error_after


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e30])
def test_a_judge_that_is_right_about_a_few_images_does_not_become_certain(scale):
    for seed in range(4):
        logits = torch.randn(2 + 3 * seed, 2, generator=torch.Generator().manual_seed(seed)) * scale
        calibration = calibrated(logits, logits.argmax(1)).calibration
        assert calibration.isfinite().all() and calibration.abs().max() < 6, seed
