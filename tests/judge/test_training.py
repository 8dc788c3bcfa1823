"""Claims about training: it learns, it repeats itself, it measures right, and it does not cheat."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch import nn
from torchvision import models

from judge import evaluation, images, model, training
from judge.common.errors import UserError
from judge.corruptions import TRAINING_CORRUPTIONS
from judge.evaluation import evaluate
from judge.images import DataSet
from judge.model import CLASSES, NEITHER, Judge
from judge.training import AugmentedViews, TrainingOptions

CPU = torch.device("cpu")
RECIPE = TrainingOptions(epochs=2, weights="none", batch_size=8)


@pytest.fixture(scope="module")
def easy(tmp_path_factory) -> DataSet:
    """Reddish paintings and bluish photographs: 12 of each to train on, 6 held out."""
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
    return training.train(easy, 64, RECIPE, CPU)


def equal(ours: nn.Module, theirs: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()))


# ---------------------------------------------------------------------------------------------
# Training


def test_easily_told_images_are_told_apart_on_images_never_seen(trained):
    _, card = trained
    assert card.metrics["auc"] == 1.0


def test_the_card_says_what_happened(trained, easy):
    judge, card = trained
    assert (card.arch, card.size, card.classes) == ("resnet18", 64, CLASSES)
    counts = {"images": 12, "skipped": [], "enlarged": 12}  # 64 px where crops are cut from 80
    assert card.training["counts"] == {"photos": counts, "paintings": counts}
    said = {key: card.training[key] for key in ("data", "stand_in", "weights", "epochs", "seed", "lr")}
    assert said == {
        "data": "easy", "stand_in": False, "weights": "none", "epochs": 2, "seed": 0, "lr": 1e-3
    }
    assert card.training["versions"]["torch"] == torch.__version__
    assert card.metrics == evaluate(judge, easy, CPU)[0]


def test_equal_seeds_train_bit_equal_judges(trained, easy):
    torch.manual_seed(99)  # whatever was drawn before
    again, card = training.train(easy, 64, RECIPE, CPU)
    assert equal(trained[0], again) and card.metrics == trained[1].metrics


def test_another_seed_trains_another_judge(trained, easy):
    other, _ = training.train(easy, 64, replace(RECIPE, seed=1), CPU)
    assert not torch.equal(trained[0].head.weight, other.head.weight)
    assert not torch.equal(trained[0].backbone.conv1.weight, other.backbone.conv1.weight)


def test_a_trained_judge_is_calibrated(trained):
    assert not torch.equal(trained[0].calibration, torch.eye(3, 4))


def test_a_training_that_diverges_is_refused_in_one_line(easy):
    with pytest.raises(UserError, match="^the judge's training diverged: lower --lr 1e[+]20$"):
        training.train(easy, 64, replace(RECIPE, lr=1e20), CPU)


class Scripted(Judge):
    """Its loss on held-out images is what the script says, one number an epoch."""

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


def fitted(losses: list[float], patience: int) -> tuple[int, int]:
    """Epochs run, and the epoch whose weights remained, for held-out losses."""
    judge = Scripted(losses)
    views = AugmentedViews(torch.zeros(2, 2, 3, 64, 64, dtype=torch.uint8), 64)
    held = torch.zeros(2, 3, 64, 64), torch.zeros(2).long()
    recipe = TrainingOptions(epochs=len(losses), patience=patience, batch_size=4)
    return training.fit(judge, views, held, recipe, CPU), int(judge.at_step)


def test_the_weights_of_the_best_epoch_remain():
    assert fitted([0.9, 0.5, 0.7, 0.8], patience=6) == (4, 2)
    assert fitted([0.9, 0.5, 0.7, 0.4], patience=6) == (4, 4)


def test_training_stops_when_it_got_no_better_for_so_many_epochs():
    assert fitted([0.9, 0.5, 0.7, 0.8, 0.6, 0.1], patience=3) == (5, 2)
    assert fitted([0.9, 0.5, 0.7, 0.8, 0.4, 0.6, 0.6], patience=3) == (7, 5)


def only(count: int, data: DataSet) -> DataSet:
    return replace(data, train={domain: paths[:count] for domain, paths in data.train.items()})


def test_two_images_of_each_are_enough_to_run(easy):
    judge, _ = training.train(only(2, easy), 64, replace(RECIPE, epochs=1), CPU)
    assert judge.calibration.isfinite().all()


def test_one_image_cannot_be_both_trained_on_and_held_out_and_is_refused(easy):
    with pytest.raises(UserError, match="at least 2"):
        training.train(only(1, easy), 64, replace(RECIPE, epochs=1), CPU)


# ---------------------------------------------------------------------------------------------
# The third class


def test_a_judge_learns_what_is_neither(easy):
    """Colours tell the real ones apart; damage that it was shown is known again."""
    judge, _ = training.train(easy, 64, replace(RECIPE, epochs=40, seed=1), CPU)
    real = images.to_float(images.load_images([*easy.test["A"], *easy.test["B"]], 64).pixels)
    torch.manual_seed(0)
    gone = images.to_float(torch.stack([TRAINING_CORRUPTIONS["texture"](x) for x in images.to_bytes(real)]))
    with torch.no_grad():
        neither = [judge.probabilities(judge.features(x))[:, NEITHER].mean() for x in (real, gone)]
    # With three roundings and in bf16: at most 0.01, and at least 0.59.
    assert neither[0] < 0.2 and neither[1] > neither[0] + 0.3


def test_without_neither_a_judge_has_two_classes(easy):
    judge, card = training.train(easy, 64, replace(RECIPE, epochs=1, neither=False), CPU)
    assert judge.classes == card.classes == CLASSES[:2]
    assert torch.allclose(judge.probabilities(torch.randn(3, 512)).sum(1), torch.ones(3))


@pytest.mark.parametrize("neither", [False, True])
def test_an_epoch_has_as_many_views_as_images_and_as_many_of_each_class(easy, neither):
    pixels, labels, *_ = training.load_domains(easy.train, 80)
    recipe = replace(RECIPE, neither=neither)
    views = AugmentedViews(training.class_images(pixels, labels, recipe, CPU), 64)
    labels_shown = torch.cat([batch for _, batch in training.batches(views, 0, RECIPE, CPU)])
    assert torch.bincount(labels_shown).tolist() == ([8, 8, 8] if neither else [12, 12])


def test_what_generators_paint_and_what_is_damaged_are_both_shown_as_neither():
    """Photographs are black, paintings white, what generators paint red: so is a share of the views
    of the third class, and the rest of those are damaged."""
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]], dtype=torch.uint8)
    pools = colours[:, None, :, None, None].expand(3, 2, 3, 64, 64)
    views = AugmentedViews(pools, 64)
    third = [image.float().mean((1, 2)) for image, label in (views[i] for i in range(2, 600, 3))]
    red = sum(bool(mean[0] > 170 and mean[1] < 60) for mean in third) / len(third)
    assert red == pytest.approx(training.GENERATED, abs=0.1)


def test_half_as_many_damaged_images_are_held_out_as_real_ones(easy):
    pixels, labels, *_ = training.load_domains(easy.train, 64)
    for neither, counts in ((True, [12, 12, 12]), (False, [12, 12])):
        held, their = training.held_out_images(pixels, labels, replace(RECIPE, neither=neither), CPU)
        assert torch.bincount(their).tolist() == counts
        assert held.shape == (len(their), 3, 64, 64) and held.abs().max() <= 1


def test_each_class_weighs_the_same_however_many_images_it_has():
    labels = torch.tensor([0] * 30 + [1] * 10 + [2] * 20)
    weights = evaluation.class_weights(labels, 3)
    assert (torch.bincount(labels) * weights).tolist() == pytest.approx([20, 20, 20])


def test_a_judge_is_calibrated_on_images_as_a_trial_shows_them(easy, monkeypatch):
    """Decoded at the judge's size, not resized from the larger ones that crops are cut from."""
    seen = []
    monkeypatch.setattr(training, "calibrate", lambda judge, images, labels: seen.append(images))
    training.train(easy, 64, replace(RECIPE, epochs=1, neither=False), CPU)
    direct = images.to_float(images.load_images([*easy.train["A"], *easy.train["B"]], 64).pixels)
    assert len(seen[0]) == 2
    assert all(any(torch.equal(held, image) for image in direct) for held in seen[0])


# ---------------------------------------------------------------------------------------------
# Where training starts


def test_the_seed_decides_where_training_starts_from_scratch():
    first, again, other = (training.initial_judge(replace(RECIPE, seed=s), 64, CPU)[0] for s in (0, 0, 1))
    assert equal(first, again)
    assert not torch.equal(first.backbone.conv1.weight, other.backbone.conv1.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_pretrained_weights_that_cannot_be_had_are_said_and_recorded(easy, monkeypatch, capsys):
    def offline(self, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    _, card = training.train(easy, 64, TrainingOptions(epochs=1), CPU)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "Name or service not known" in said and "from scratch" in said
    assert card.training["weights"] == "none (imagenet could not be had)"


def test_pretrained_weights_are_those_of_torchvision_but_for_the_head(monkeypatch):
    torch.manual_seed(3)
    pretrained = models.resnet18().state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda self, **options: pretrained)
    judge, origin = training.initial_judge(TrainingOptions(), 64, CPU)
    assert origin == "imagenet"
    for name, value in judge.backbone.state_dict().items():
        assert torch.equal(value, pretrained[name]), name
    assert judge.head.weight.shape == (3, 512)


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return models.resnet18().state_dict()


def test_weights_are_taken_from_a_file(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "weights.pth")
    judge, origin = training.initial_judge(TrainingOptions(weights=str(tmp_path / "weights.pth")), 64, CPU)
    assert origin == str(tmp_path / "weights.pth")
    assert torch.equal(judge.backbone.layer4[1].conv2.weight, resnet18["layer4.1.conv2.weight"])


def test_weights_as_old_torch_saved_them_are_taken(tmp_path, resnet18):
    """Without `num_batches_tracked`, as files from before torch 0.4.1 are, and torchvision's own."""
    old = {name: value for name, value in resnet18.items() if not name.endswith("num_batches_tracked")}
    assert len(old) == 102
    torch.save(old, tmp_path / "weights.pth")
    judge, _ = training.initial_judge(TrainingOptions(weights=str(tmp_path / "weights.pth")), 64, CPU)
    assert torch.equal(judge.backbone.layer4[1].conv2.weight, resnet18["layer4.1.conv2.weight"])


def without_a_layer(state: dict) -> dict:
    return {name: value for name, value in state.items() if not name.startswith("layer3.0.conv1")}


def of_another_shape(state: dict) -> dict:
    """As wide_resnet50_2 is to resnet50: equal names, other widths."""
    return {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}


def with_more(state: dict) -> dict:
    return {**state, "layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}


@pytest.mark.parametrize("spoil", [without_a_layer, of_another_shape, with_more, lambda state: [1], "text"])
def test_a_file_of_other_weights_is_refused_in_one_line(tmp_path, resnet18, spoil):
    file = tmp_path / "weights.pth"
    if isinstance(spoil, Callable):
        torch.save(spoil(resnet18), file)
    else:
        file.write_text(spoil)
    with pytest.raises(UserError) as caught:
        training.initial_judge(TrainingOptions(weights=str(file)), 64, CPU)
    assert str(caught.value) == f"{file} does not hold the weights of a torchvision resnet18"


def test_a_missing_file_of_weights_is_one_line_with_the_other_choices(tmp_path):
    with pytest.raises(UserError, match="^no weights at .*nowhere.pth: give imagenet, none or a file$"):
        training.initial_judge(TrainingOptions(weights=str(tmp_path / "nowhere.pth")), 64, CPU)


@pytest.mark.parametrize("arch", ["vgg11", "alexnet", "", "resnet19"])
def test_an_arch_that_is_no_resnet_of_torchvision_is_refused_in_one_line(arch):
    with pytest.raises(UserError) as caught:
        training.initial_judge(TrainingOptions(arch=arch, weights="none"), 64, CPU)
    assert f"--arch {arch}" in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------
# Data


def test_a_split_gives_each_class_the_same_share_and_no_image_twice():
    labels = torch.tensor([0] * 100 + [1] * 40)
    fit_at, held_at = training.split_held_out(labels, seed=0)
    assert torch.bincount(labels[held_at]).tolist() == [10, 4]
    assert torch.bincount(labels[fit_at]).tolist() == [90, 36]
    assert sorted([*fit_at.tolist(), *held_at.tolist()]) == list(range(140))


def test_a_split_holds_out_at_least_one_of_each_class():
    labels = torch.tensor([0] * 3 + [1] * 2)
    _, held_at = training.split_held_out(labels, seed=0)
    assert sorted(labels[held_at].tolist()) == [0, 1]


def test_a_split_follows_its_seed():
    labels = torch.tensor([0] * 50 + [1] * 50)
    first, again, other = (training.split_held_out(labels, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_labels_follow_the_classes_order(easy):
    pixels, labels, *_ = training.load_domains(easy.test, 64)
    redder = pixels[:, 0].float().mean((1, 2)) > pixels[:, 2].float().mean((1, 2))
    assert [CLASSES[label] for label in labels] == ["painting" if red else "photo" for red in redder]


def test_a_skipped_file_shifts_no_label(easy, tmp_path):
    (tmp_path / "broken.jpg").write_text("not an image")
    domains = {domain: [tmp_path / "broken.jpg", *paths] for domain, paths in easy.test.items()}
    _, labels, counts, _ = training.load_domains(domains, 64)
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert [len(count["skipped"]) for count in counts.values()] == [1, 1]


def test_each_epoch_has_other_views_and_the_same_each_time(crops):
    views = AugmentedViews([crops[:12], crops[12:]], 64)
    epochs = [
        torch.cat([images for images, _ in training.batches(views, epoch, RECIPE, CPU)])
        for epoch in (0, 1, 0)
    ]
    assert torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])
    assert len(epochs[0]) == 24


# ---------------------------------------------------------------------------------------------
# Augmentation


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Details of scikit-learn's photographs, halved so that no trace of their own JPEG is left."""
    pictures, rng, found = load_sample_images().images, np.random.default_rng(0), []
    for index in range(24):
        top, left = rng.integers(0, 427 - 160), rng.integers(0, 640 - 160)
        detail = Image.fromarray(pictures[index % 2][top:top + 160, left:left + 160])
        found.append(np.asarray(detail.resize((80, 80), Image.Resampling.BOX)))
    return as_tensor(found)


def as_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def views_of(pixels: torch.Tensor, seed: int = 0, epoch: int = 0) -> AugmentedViews:
    views = AugmentedViews([pixels], 64, seed)
    views.epoch = epoch
    return views


def test_a_view_is_bytes_of_the_judges_size(crops):
    for shape in ((80, 80), (64, 64), (100, 70)):
        view = training.augmentation(64)(torch.zeros(3, *shape, dtype=torch.uint8))
        assert view.shape == (3, 64, 64) and view.dtype == torch.uint8


def test_a_view_depends_on_seed_epoch_and_index_alone(crops):
    views = views_of(crops)
    first = views[3][0]
    torch.manual_seed(5)
    views[4], torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(views[3][0], first)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_seed_epoch_and_index_has_a_view_of_its_own(crops):
    pixels = crops[:1].expand(3, -1, -1, -1)  # one image three times
    shown = [views_of(pixels)[0][0], views_of(pixels)[1][0], views_of(pixels, epoch=1)[0][0],
             views_of(pixels, seed=1)[0][0]]
    assert len({view.numpy().tobytes() for view in shown}) == 4


def recompressed(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """As read back from a JPEG file."""
    pictures = []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        pictures.append(np.asarray(Image.open(buffer)))
    return as_tensor(pictures)


def blueness(pixels: torch.Tensor) -> torch.Tensor:
    """Cb of each pixel [N, H, W], ITU-R BT.601."""
    return (pixels.float() * torch.tensor([-0.169, -0.331, 0.5])[:, None, None]).sum(1)


def fine_colour(pixels: torch.Tensor) -> np.ndarray:
    """Mean change of colour from pixel to pixel, [N]: halved chroma takes it away."""
    return blueness(pixels).diff(dim=-1).abs().mean((1, 2)).numpy()


def silent_frequencies(pixels: torch.Tensor) -> np.ndarray:
    """Share of high frequencies that are (almost) nothing in the blocks that JPEG would use, [N]."""
    luma = (pixels.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).numpy()
    count, rows, columns = (length // size for length, size in zip(luma.shape, (1, 8, 8)))
    blocks = luma[:, : rows * 8, : columns * 8].reshape(count, rows, 8, columns, 8).swapaxes(2, 3)
    high = fft.dctn(blocks, axes=(-2, -1), norm="ortho")[..., 4:, 4:]
    return (np.abs(high) < 1.5).mean((1, 2, 3, 4))


@pytest.mark.parametrize("trace", [fine_colour, silent_frequencies])
def test_a_judge_sees_no_trace_that_compression_leaves(crops, trace):
    """The same pictures lossless and as JPEG: told apart by a trace before, hardly so as views with
    halved chroma, which is what a judge learns from."""
    lossless, lossy = crops, recompressed(crops, quality=75)

    def told_apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
        """How well the trace alone tells one set from the other: 0.5 not at all, 1 surely."""
        labels = [0] * len(ours) + [1] * len(theirs)
        auc = roc_auc_score(labels, np.concatenate([trace(ours), trace(theirs)]))
        return max(auc, 1 - auc)

    def shown(pixels: torch.Tensor, seed: int) -> torch.Tensor:
        views = [views_of(pixels, seed, e)[i][0] for e in range(4) for i in range(len(pixels))]
        return model.subsample_chroma(torch.stack(views).float())

    assert told_apart(lossless, lossy) > 0.7
    assert told_apart(shown(lossless, 0), shown(lossy, 1)) < 0.58  # 96 views each: 0.5 +- 0.04


# ---------------------------------------------------------------------------------------------
# Calibration


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
    """A judge of these logits, calibrated."""
    judge = Logits()
    training.calibrate(judge, logits, labels)
    return judge


@pytest.mark.parametrize("confidence", [5.0, 0.3])
@pytest.mark.parametrize("leaning", [0.0, 1.5])
def test_calibration_finds_how_overconfident_and_how_partial_a_judge_is(confidence, leaning):
    """Labels are drawn with the very probabilities that the judge distorts."""
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(6000, generator=generator)
    labels = (torch.rand(6000, generator=generator) < torch.sigmoid(true)).long()
    logits = confidence * torch.stack([-(true + leaning) / 2, (true + leaning) / 2], 1)
    before, after = (judge.against_photo(logits) for judge in (Logits(), calibrated(logits, labels)))
    assert (before - torch.sigmoid(true)).abs().mean() > 0.1
    assert (after - torch.sigmoid(true)).abs().mean() < 0.03


def test_calibration_finds_that_a_judge_is_surer_of_paintings_than_of_photographs():
    """What no temperature and no bias can mend: overconfident on one side alone."""
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(6000, generator=generator)
    labels = (torch.rand(6000, generator=generator) < torch.sigmoid(true)).long()
    log_odds = torch.where(true > 0, 4 * true, true)
    logits = torch.stack([-log_odds / 2, log_odds / 2], 1)
    after = calibrated(logits, labels).against_photo(logits)
    assert (after - torch.sigmoid(true)).abs().mean() < 0.06


def test_calibration_makes_an_overconfident_judge_of_pictures_better(judge_file):
    judge, _ = model.load_judge(judge_file)
    light = torch.linspace(0.2, 2, 12)[:, None, None, None]
    pictures = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * light - 1
    labels = torch.tensor([0, 1, 0] * 4)
    judge.head.weight *= 40  # overconfident
    judge.head.bias *= 40
    exaggerated = judge.against_photo(judge.features(pictures))
    training.calibrate(judge, pictures, labels)
    after = judge.against_photo(judge.features(pictures))
    assert nn.functional.binary_cross_entropy(after, labels.float()) < \
        nn.functional.binary_cross_entropy(exaggerated, labels.float())


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e30])
def test_a_judge_that_is_always_right_is_not_made_certain_by_a_few_images(scale):
    for seed in range(12):
        logits = torch.randn(2 + seed, 2, generator=torch.Generator().manual_seed(seed)) * scale
        calibration = calibrated(logits, logits.argmax(1)).calibration
        assert calibration.isfinite().all() and calibration.abs().max() < 6, seed


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_judge_that_is_always_wrong_is_made_to_doubt(scale):
    logits = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)) * scale
    judge, labels = calibrated(logits, logits.argmin(1)), logits.argmin(1)
    assert judge.probabilities(logits)[range(9), labels].mean() > \
        Logits().probabilities(logits)[range(9), labels].mean()


def test_calibration_is_the_least_penalised_loss():
    """The loss is convex: where no small step in any direction lowers it, none does."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 2, generator=generator)
    labels = (torch.rand(40, generator=generator) < torch.softmax(2 * logits, 1)[:, 1]).long()
    judge, weights = calibrated(logits, labels), evaluation.class_weights(labels, 2)

    def loss(calibration: torch.Tensor) -> float:
        judge.calibration.copy_(calibration)
        fits = nn.functional.nll_loss(judge.probabilities(logits).log(), labels, weights)
        return (fits + (calibration - torch.eye(2, 3)).square().sum() / 40).item()

    found = judge.calibration.clone()
    least = loss(found)
    for at in range(found.numel()):
        for step in (0.05, -0.05):
            assert loss(found + step * nn.functional.one_hot(torch.tensor(at), 6).view(2, 3)) > least


# ---------------------------------------------------------------------------------------------
# Measuring


class Brightness(Judge):
    """P(painting) is an image's brightness, from 0 for black to 1 for white."""

    def __init__(self, size: int):
        nn.Module.__init__(self)
        self.size, self.classes = size, CLASSES

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return (images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] + 1) / 2

    def against_photo(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, 0]


@pytest.fixture
def greys(tmp_path) -> Callable[[list[int], list[int]], DataSet]:
    """A data set of photographs and paintings of one grey each, held out."""
    def make(photos: list[int], paintings: list[int]) -> DataSet:
        test = {images.PHOTOS: photos, images.PAINTINGS: paintings}
        for domain, values in test.items():
            test[domain] = [tmp_path / f"{domain}{index}.png" for index in range(len(values))]
            for path, value in zip(test[domain], values):
                Image.new("L", (16, 16), value).save(path)
        return DataSet("greys", {}, test)

    return make


def test_the_figures_are_what_numbers_on_paper_give(greys):
    # The painting of 60 lies in one bin of calibration with the photo of 56, below 4/15 of 255.
    photos, paintings = [56, 100, 150], [204, 128, 60]
    measured, verdicts = evaluate(Brightness(16), greys(photos, paintings), CPU)
    p = [value / 255 for value in photos + paintings]
    assert verdicts.painting.tolist() == pytest.approx(p, abs=1e-6)
    assert verdicts.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [Path(path).name for path in verdicts.paths] == [f"{d}{i}.png" for d in "BA" for i in range(3)]
    # Pairs in the right order: 204 before three photos, 128 before two, 60 before one.
    assert measured["auc"] == pytest.approx(6 / 9)
    assert measured["confusion"] == [[2, 1], [1, 2]]  # 150 is a photo called a painting; 60 the reverse
    assert measured["accuracy"] == pytest.approx(4 / 6)
    brier = (p[0]**2 + p[1]**2 + p[2]**2 + (1 - p[3])**2 + (1 - p[4])**2 + (1 - p[5])**2) / 6
    assert measured["brier"] == pytest.approx(brier, abs=1e-6)
    shared = 2 * abs((p[0] + p[5]) / 2 - 1 / 2)
    alone = p[1] + p[2] + (1 - p[3]) + (1 - p[4])
    assert measured["painting_calibration_error"] == pytest.approx((shared + alone) / 6, abs=1e-6)
    # Of the verdicts those on 150 and 60 are wrong; 56 and 60 share the bin from 11/15.
    shared = abs((1 - p[0]) + (1 - p[5]) - 1)
    alone = p[1] + p[2] + (1 - p[3]) + (1 - p[4])
    assert measured["calibration_error"] == pytest.approx((shared + alone) / 6, abs=1e-6)
    assert measured["counts"]["photos"] == {"images": 3, "skipped": [], "enlarged": 0}


def test_a_judge_that_looks_at_compression_is_found_out(greys, monkeypatch):
    """Re-encoding stands for whatever it does to the judge: here it darkens."""
    data = greys([56, 102, 150], [204, 128, 60])
    assert evaluate(Brightness(16), data, CPU)[0]["auc_reencoded"] == pytest.approx(6 / 9)
    monkeypatch.setattr(evaluation, "reencode_jpeg", lambda image: image // 4)
    # Paintings at a quarter of 204, 128, 60 lie below every photo; photos so, below every painting.
    assert evaluate(Brightness(16), data, CPU)[0]["auc_reencoded"] == 0


def test_a_perfect_judge_has_perfect_figures(greys):
    measured, _ = evaluate(Brightness(16), greys([0, 0], [255, 255, 255]), CPU)
    names = ("auc", "accuracy", "brier", "calibration_error", "painting_calibration_error")
    assert [measured[name] for name in names] == pytest.approx([1, 1, 0, 0, 0], abs=1e-7)
    assert measured["confusion"] == [[2, 0], [0, 3]]


def test_a_judge_that_says_photo_of_everything_still_has_two_rows_and_columns(greys):
    measured, _ = evaluate(Brightness(16), greys([10, 20], [10, 20]), CPU)
    assert measured["confusion"] == [[2, 0], [2, 0]]
    assert measured["auc"] == 0.5


def test_a_broken_test_image_is_counted_and_judged_nowhere(greys):
    data = greys([10, 20, 30], [200, 210])
    data.test[images.PHOTOS][1].write_text("not an image")
    measured, verdicts = evaluate(Brightness(16), data, CPU)
    assert [Path(path).name for path in verdicts.paths] == ["B0.png", "B2.png", "A0.png", "A1.png"]
    assert verdicts.labels.tolist() == [0, 0, 1, 1]
    assert len(measured["counts"]["photos"]["skipped"]) == 1


def test_figures_are_plain_numbers(trained):
    _, card = trained
    figures = ("auc", "accuracy", "brier", "calibration_error", "painting_calibration_error")
    assert {type(card.metrics[name]) for name in figures} == {float}
