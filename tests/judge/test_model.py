"""The judge: its probabilities, its preprocessing, and its file."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from judge import model
from judge.common.errors import UserError
from judge.model import Judge, ModelCard

CARD = ModelCard("resnet18", 64, model.CLASSES, {"data": "sample", "seed": 0}, {"auc": 0.5})


@pytest.fixture
def judge(judge_file: Path) -> Judge:
    return model.load_judge(judge_file)[0]


def noise(count: int = 4, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_probabilities_of_a_new_judge_are_the_softmax_of_its_logits(judge):
    images = noise()
    features = judge.features(images)
    probabilities = judge.probabilities(features)
    assert features.shape == (4, 512) and probabilities.shape == (4, 3)
    assert torch.allclose(probabilities, torch.softmax(judge(images), 1), atol=1e-6)
    photo, painting, neither = probabilities.T
    assert torch.equal(judge.painting_probability(features), painting)
    assert torch.allclose(judge.painting_probability_against_photo(features), painting / (1 - neither))
    assert torch.allclose(judge.features(images.flip(-1)), features, atol=1e-5)  # mirror images count alike


def test_calibration_maps_log_probabilities_linearly_and_leaves_the_logits(judge):
    images, features = noise(1), torch.randn(20, 512, generator=torch.Generator().manual_seed(0))
    own, logits = torch.softmax(judge.head(features), 1), judge(images)
    matrix, bias = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5, 2, -1])
    judge.calibration.copy_(torch.cat([matrix, bias[:, None]], 1))
    weights = (own.log() @ matrix.T + bias).exp()
    assert torch.allclose(judge.probabilities(features), weights / weights.sum(1, keepdim=True), atol=1e-5)
    assert torch.equal(judge(images), logits)


def test_chroma_is_halved_and_luma_is_not():
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    images = noise()
    halved = model.subsample_chroma(images)
    assert torch.allclose((halved * luma).sum(1), (images * luma).sum(1), atol=1e-6)
    fine, coarse, coarser = (
        (x - (x * luma).sum(1, keepdim=True)).diff(dim=-1).abs().mean()
        for x in (images, halved, model.subsample_chroma(halved)))
    assert coarse < 0.4 * fine and 0.5 * coarse < coarser <= coarse
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(model.subsample_chroma(grey), grey, atol=1e-6)


def test_images_are_normalised_as_pretrained_weights_expect(judge):
    judge.backbone = nn.Identity()
    mean_colour = (torch.tensor(model.MEAN) * 2 - 1)[:, None, None].expand(3, 64, 64)
    normalised = judge.features(torch.stack([mean_colour, torch.ones(3, 64, 64)]))
    assert normalised[0].abs().max() < 1e-6
    expected = [(1 - mean) / std for mean, std in zip(model.MEAN, model.STD)]
    assert normalised[1, :, 0, 0].tolist() == pytest.approx(expected)


def test_images_of_another_size_are_refused_with_both_sizes(judge):
    for shape in ((65, 65), (64, 32)):
        with pytest.raises(UserError, match=f"at 64 px, these images have {shape[0]}x{shape[1]}: train one"):
            judge.features(torch.zeros(1, 3, *shape))
    assert [model.describe_size(size) for size in (64, 96)] == ["sketch (64 px)", "96 px"]


def test_a_loaded_judge_is_frozen_does_not_change_and_passes_gradients_to_images(judge):
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    images = noise().requires_grad_()
    judge.painting_probability(judge.features(images)).sum().backward()
    assert images.grad.abs().sum() > 0
    assert not judge.training and not any(weight.requires_grad for weight in judge.parameters())
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


def test_a_judge_is_bit_equal_after_a_round_trip(tmp_path):
    torch.manual_seed(1)
    judge = Judge("resnet34", 96).train()
    judge(noise(4, 96))  # moves the running statistics, which are stored too
    judge.calibration.copy_(torch.randn(3, 4))
    judge.eval()
    saved_card = ModelCard("resnet34", 96, model.CLASSES, {"data": "sample", "seed": 0}, {"auc": 0.5})
    file = tmp_path / "deep/er/judge.pt"
    model.save_judge(judge, saved_card, file)
    loaded, card = model.load_judge(file)
    judge.to(memory_format=torch.channels_last)  # as loaded, for sums in the same order
    expected = judge.probabilities(judge.features(noise(4, 96)))
    assert torch.equal(loaded.probabilities(loaded.features(noise(4, 96))), expected)
    assert card == saved_card and (loaded.arch, loaded.size) == ("resnet34", 96)
    assert [path.name for path in file.parent.iterdir()] == ["judge.pt"]


def test_a_trial_records_file_hash_data_and_auc(judge_file, tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert CARD.summary(str(tmp_path / "x")) == {
        "file": str(tmp_path / "x"), "sha256": expected, "data": "sample", "auc": 0.5}


def refused(file: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        model.load_judge(file)
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in (str(file), "python -m judge train", *words)), text


class Evil:
    """Creates a folder when it is unpickled without care."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_judge_that_would_run_code_is_refused_without_running_it(tmp_path):
    file, evil = tmp_path / "judge.pt", tmp_path / "evil"
    torch.save({"format": model.FORMAT, "card": Evil(evil), "weights": {}}, file)
    refused(file, "not a judge's file")
    assert not evil.exists()


def save_changed(file: Path, **changes) -> bytes:
    content = {"format": model.FORMAT, "card": vars(CARD), "weights": Judge("resnet18", 64).state_dict()}
    torch.save({**content, **changes}, file)
    return file.read_bytes()


def flip_a_bit(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1:]


OTHER_FILES = {
    "text": lambda file: file.write_text("hello world\n" * 5),
    "empty": lambda file: file.write_bytes(b""),
    "a folder": lambda file: file.mkdir(),
    "a tensor": lambda file: torch.save(torch.ones(3), file),
    "a state dict": lambda file: torch.save(Judge("resnet18", 64).state_dict(), file),
    "another format": lambda file: save_changed(file, format="salon-judge-0"),
    "another card": lambda file: save_changed(file, card={"a": 1}),
    "another type in the card": lambda file: save_changed(file, card={**vars(CARD), "size": "64"}),
    "other classes": lambda file: save_changed(file, card={**vars(CARD), "classes": ("cat", "dog")}),
    "another network's weights": lambda file: save_changed(file, weights=Judge("resnet34", 64).state_dict()),
    "cut off": lambda file: file.write_bytes(save_changed(file)[:-1000]),
    "one bit changed": lambda file: file.write_bytes(flip_a_bit(save_changed(file))),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_no_judge_is_refused_in_one_line(tmp_path, kind):
    OTHER_FILES[kind](tmp_path / "judge.pt")
    refused(tmp_path / "judge.pt", "not a judge's file")


def test_a_missing_judge_and_one_of_another_size_are_one_line(tmp_path, judge_file):
    refused(tmp_path / "nowhere.pt", "no judge at", f"--out {tmp_path / 'nowhere.pt'}")
    assert model.load_judge(judge_file, size=64)
    with pytest.raises(UserError, match=r"was trained at sketch \(64 px\), and this is paper \(256 px\)"):
        model.load_judge(judge_file, size=256)


def test_a_disk_that_is_really_full_leaves_the_old_judge(small_disk, judge_file, judge):
    disk = small_disk(judge_file.stat().st_size * 3 // 2 // 1024)  # the second judge is cut off in the middle
    file = disk / "judge.pt"
    file.write_bytes(judge_file.read_bytes())
    with pytest.raises(UserError, match="cannot write to .*judge.pt, is the disk full") as caught:
        model.save_judge(judge, CARD, file)
    assert "\n" not in str(caught.value)
    assert [path.name for path in disk.iterdir()] == ["judge.pt"]
    assert file.read_bytes() == judge_file.read_bytes()


@pytest.mark.parametrize("place", ["file/judge.pt", "folder"])
def test_a_place_that_cannot_be_written_is_one_line_before_and_after_training(tmp_path, judge, place):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    for write in (model.lock_output, partial(model.save_judge, judge, CARD)):
        with pytest.raises(UserError, match="cannot write to .*(file|judge.pt|folder): "):
            write(tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_asking_whether_a_judge_can_be_written_leaves_nothing(tmp_path):
    """Data may be missing: then nothing is trained."""
    model.lock_output(tmp_path / "new/models/judge.pt").close()
    assert not list(tmp_path.iterdir())
