"""Claims about the views that a judge is trained on: balanced, repeatable, without traces of compression."""

import multiprocessing
import pickle
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from judge import model
from judge.corruptions import reencode_jpeg
from judge.views import AugmentedViews, blur, jitter_colour, load_batches, loader_workers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Details of scikit-learn's photographs, halved so that no trace of their own JPEG is left."""
    pictures, rng, details = load_sample_images().images, np.random.default_rng(0), []
    for index in range(24):
        top, left = rng.integers(0, 427 - 160), rng.integers(0, 640 - 160)
        detail = Image.fromarray(pictures[index % 2][top:top + 160, left:left + 160])
        details.append(np.asarray(detail.resize((80, 80), Image.Resampling.BOX)))
    return torch.from_numpy(np.stack(details)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(("families", "counts"), [(("noise",), [9, 9, 8]), ((), [13, 13])])
def test_an_epoch_has_as_many_views_of_each_class(crops, families, counts):
    views = AugmentedViews([crops[:20], crops[:6]], 64, 8, families=families)
    batches = list(load_batches(views, 1, CPU, 0))
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 2]
    assert torch.bincount(torch.cat([labels for _, labels in batches])).tolist() == counts
    assert all(images.shape[1:] == (3, 64, 64) and images.dtype == torch.uint8 for images, _ in batches)


def test_the_third_class_shows_each_of_its_sources_in_its_share():
    """Photographs and paintings are black, of the others one is red and one is green."""
    colours = torch.tensor([[0, 0, 0], [0, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=torch.uint8)
    black, painted, red, green = colours[:, None, :, None, None].expand(4, 120, 3, 64, 64)
    more = [(0.3, red), (0.2, green)]
    views = AugmentedViews([black, painted], 64, 240, families=["low contrast"], neither=more)
    means = [image.float().mean((1, 2)) for number in range(2) for image in views[number][0][2::3]]
    shares = [sum(bool(mean[one] > 150 and mean[other] < 60 and mean[2] < 60) for mean in means) / len(means)
              for one, other in ((0, 1), (1, 0))]
    assert shares == pytest.approx([0.3, 0.2], abs=0.12)  # 160 views: 0.3 +- 0.04, 0.2 +- 0.03


def test_a_batch_is_a_function_of_seed_epoch_and_number(crops):
    pixels = crops[:1].expand(8, -1, -1, -1)  # one image eight times
    views = AugmentedViews([pixels, pixels], 64, 4)
    first = views[3][0]
    torch.manual_seed(5)
    views[4], torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(views[3][0], first)
    assert torch.equal(torch.get_rng_state(), before)
    others = [views[1][0], views[4 + 3][0], AugmentedViews([pixels, pixels], 64, 4, seed=1)[3][0]]
    assert len({view.numpy().tobytes() for batch in [first, *others] for view in batch}) == 16
    assert torch.equal(pickle.loads(pickle.dumps(views))[3][0], first)  # as spawned processes get them


def test_the_batches_of_all_epochs_are_the_same_with_any_number_of_processes(crops):
    views = AugmentedViews([crops[:3], crops[3:5]], 64, 2)
    alone, two = (list(load_batches(views, 3, CPU, workers)) for workers in (0, 2))
    assert [len(images) for images, _ in alone] == 3 * [2, 2, 1]  # no batch has views of two epochs
    assert all(torch.equal(a, b) for one, other in zip(alone, two, strict=True) for a, b in zip(one, other))


def test_the_processes_that_make_batches_end_with_a_training_that_is_killed(crops, killed_with):
    views = AugmentedViews([crops[:3], crops[3:5]], 64, 2)

    def train():
        for _ in load_batches(views, 1000, CPU, 2):
            signal.pause()

    killed_with(train, 2)


def test_colours_change_a_little_each_image_in_its_own_way_and_grey_stays_grey():
    torch.manual_seed(0)
    ramp = torch.linspace(60, 180, 32 * 32).view(1, 1, 32, 32).expand(200, 3, 32, 32)
    grey = jitter_colour(ramp)
    assert (grey - grey.mean(1, keepdim=True)).abs().max() < 1e-2
    brightness, contrast = grey.mean((1, 2, 3)) / 120, grey[:, 0].std((1, 2)) / ramp[0, 0].std()
    assert 0.79 < brightness.min() < 0.85 and 1.15 < brightness.max() < 1.21
    assert 0.64 < (contrast / brightness).min() < 0.85 and 1.15 < (contrast / brightness).max() < 1.21
    red = jitter_colour(torch.tensor([150.0, 60, 60])[:, None, None].expand(200, 3, 8, 8))[:, :, 0, 0]
    assert (red[:, 0] > red[:, 1:].amax(1) + 40).all() and (red[:, 1] - red[:, 2]).abs().max() > 5
    assert red.std(0).min() > 3


def test_blur_is_torchvisions_of_the_same_deviation_and_takes_no_image_too():
    from torchvision.transforms.v2.functional import gaussian_blur

    torch.manual_seed(1)
    x = 255 * torch.rand(3, 3, 16, 20)
    torch.manual_seed(2)
    deviations = (0.1 + 0.9 * torch.rand(3, 1, 1, 1)).flatten().tolist()
    torch.manual_seed(2)
    expected = torch.stack([gaussian_blur(image, [3, 3], [sigma]) for image, sigma in zip(x, deviations)])
    assert torch.allclose(blur(x), expected, atol=1e-2)
    assert blur(x[:0]).shape == (0, 3, 16, 20)


@pytest.mark.parametrize(("device", "free", "start_method", "workers"), [
    ("cpu", 10**9, "fork", 0),
    ("cuda", 10**9, "fork", 6),
    ("cuda", 64 * 2**20, "fork", 2),  # of a Docker container
    ("cuda", 2**20, "fork", 0),
    ("cuda", 64 * 2**20, "spawn", 1),  # images get to the processes by shared memory, too
])
def test_processes_that_load_images_have_room_in_shared_memory(
        monkeypatch, capsys, device, free, start_method, workers):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: start_method)
    views = AugmentedViews(torch.zeros(2, 45, 3, 320, 320, dtype=torch.uint8), 256, 32)
    assert loader_workers(views, torch.device(device)) == workers
    assert ("MB free" in capsys.readouterr().err) == (device == "cuda" and workers < 6)


def fine_colour(pixels: torch.Tensor) -> np.ndarray:
    """Mean change of colour (Cb, ITU-R BT.601) between neighbouring pixels, [N]: halved chroma lowers it."""
    cb = (pixels.float() * torch.tensor([-0.169, -0.331, 0.5])[:, None, None]).sum(1)
    return cb.diff(dim=-1).abs().mean((1, 2)).numpy()


def test_views_with_halved_chroma_show_no_trace_of_compression(crops):
    lossless, lossy = crops, torch.stack([reencode_jpeg(image) for image in crops])

    def separation(a: torch.Tensor, b: torch.Tensor) -> float:
        """AUC of the trace: 0.5 not at all, 1 completely."""
        auc = roc_auc_score([0] * len(a) + [1] * len(b), np.concatenate([fine_colour(a), fine_colour(b)]))
        return max(auc, 1 - auc)

    def seen(pixels: torch.Tensor, seed: int) -> torch.Tensor:
        views = AugmentedViews([pixels, pixels], 64, 48, seed, families=())
        return model.subsample_chroma(torch.cat([views[number][0] for number in range(2)]).float())

    assert separation(lossless, lossy) > 0.7
    assert separation(seen(lossless, 0), seen(lossy, 1)) < 0.58  # 96 views each: 0.5 +- 0.04
