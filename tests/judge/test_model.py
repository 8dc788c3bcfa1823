"""Claims about the judge: what it says of images, and that its file is whole, safe and complete."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from judge import model
from judge.common.errors import UserError
from judge.model import Judge, ModelCard

CARD = ModelCard("resnet18", 64, model.CLASSES, {"data": "sample", "seed": 0}, {"auc": 0.5})


@pytest.fixture(scope="module")
def judge(judge_file: Path) -> Judge:
    """To be changed by no test."""
    return model.load_judge(judge_file)[0]


def noise(count: int = 4, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def refused(file: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        model.load_judge(file)
    text = str(caught.value)
    assert "\n" not in text and str(file) in text and "python -m judge train" in text
    for word in words:
        assert word in text


# ---------------------------------------------------------------------------------------------
# Probabilities


def test_probabilities_are_probabilities(judge):
    probabilities = judge.probabilities(judge.features(noise()))
    assert probabilities.shape == (4, 3) and probabilities.min() >= 0
    assert probabilities.sum(1).tolist() == pytest.approx([1] * 4)


def test_painting_is_the_column_of_that_class(judge):
    features = judge.features(noise())
    assert model.CLASSES == ("photo", "painting", "neither")
    assert torch.equal(judge.painting(features), judge.probabilities(features)[:, 1])


def test_features_have_512_columns(judge):
    assert judge.features(noise()).shape == (4, 512)


def test_an_image_and_its_mirror_image_are_judged_alike(judge):
    assert torch.allclose(judge.features(noise()), judge.features(noise().flip(-1)), atol=1e-5)


def test_uncalibrated_probabilities_are_the_networks_own(judge):
    images = noise()
    own = torch.softmax(judge(images), 1)
    assert torch.allclose(judge.probabilities(judge.features(images)), own, atol=1e-6)


def test_calibration_maps_log_probabilities_linearly(judge_file):
    judge, _ = model.load_judge(judge_file)
    features = torch.randn(20, 512, generator=torch.Generator().manual_seed(0))
    own = torch.softmax(judge.head(features), 1)
    matrix, bias = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5, 2, -1])
    judge.calibration.copy_(torch.cat([matrix, bias[:, None]], 1))
    weighed = (own.log() @ matrix.T + bias).exp()
    assert torch.allclose(judge.probabilities(features), weighed / weighed.sum(1, keepdim=True), atol=1e-5)


def test_probabilities_of_a_network_that_is_too_sure_are_finite():
    """A linear map of minus infinity would not be."""
    found = model.log_probabilities(torch.tensor([[1e30, -1e30, 0.0]]))
    assert found.tolist() == [[0, model.MIN_LOG_PROBABILITY, model.MIN_LOG_PROBABILITY]]


def test_chroma_is_halved_and_light_is_not():
    """Of noise, luma stays; halving twice is nearly halving once; a grey image stays as it is."""
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


def test_against_photo_leaves_neither_aside(judge):
    features = judge.features(noise())
    photo, painting, neither = judge.probabilities(features).T
    assert torch.allclose(judge.against_photo(features), painting / (1 - neither))


def test_logits_are_before_calibration(judge_file):
    judge, _ = model.load_judge(judge_file)
    before = judge(noise())
    judge.calibration.fill_(3.0)
    assert torch.equal(judge(noise()), before)


def test_images_are_normalised_as_pretrained_weights_expect(judge_file):
    """ImageNet's mean colour becomes zero, and distances from it are counted in its deviations."""
    judge, _ = model.load_judge(judge_file)
    judge.backbone = nn.Identity()
    seen = judge.features(torch.stack([
        (torch.tensor(model.MEAN) * 2 - 1)[:, None, None].expand(3, 64, 64), torch.ones(3, 64, 64)
    ]))
    assert seen[0].abs().max() < 1e-6
    expected = [(1 - mean) / std for mean, std in zip(model.MEAN, model.STD)]
    assert seen[1, :, 0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 3, 65, 65), (1, 3, 64, 32), (1, 3, 128, 128)])
def test_images_of_another_size_are_refused_with_both_sizes(judge, shape):
    with pytest.raises(UserError) as caught:
        judge.features(torch.zeros(shape))
    assert "64 px" in str(caught.value) and f"{shape[2]}x{shape[3]}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "words"), [(64, "sketch (64 px)"), (256, "paper (256 px)"), (96, "96 px")])
def test_sizes_are_said_by_name_where_they_have_one(size, words):
    assert model.describe_size(size) == words


# ---------------------------------------------------------------------------------------------
# Files


def test_a_judge_is_bit_equal_after_a_round_trip(tmp_path):
    torch.manual_seed(1)
    judge = Judge("resnet18", 64).train()
    judge(noise())  # moves the running statistics, which are weights too
    judge.calibration.copy_(torch.randn(3, 4))
    judge.eval()
    model.save_judge(judge, CARD, tmp_path / "deep/er/judge.pt")
    loaded, card = model.load_judge(tmp_path / "deep/er/judge.pt")
    judge.to(memory_format=torch.channels_last)  # as loaded: sums in the same order
    expected = judge.probabilities(judge.features(noise()))
    assert torch.equal(loaded.probabilities(loaded.features(noise())), expected)
    assert card == CARD
    assert sorted(path.name for path in tmp_path.rglob("*.pt*")) == ["judge.pt"]


def test_another_size_and_arch_survive_the_round_trip(tmp_path):
    card = ModelCard("resnet34", 96, model.CLASSES, {}, {})
    model.save_judge(Judge("resnet34", 96), card, tmp_path / "judge.pt")
    loaded, card = model.load_judge(tmp_path / "judge.pt")
    assert (loaded.arch, loaded.size, card.arch, card.size) == ("resnet34", 96, "resnet34", 96)
    assert loaded.features(noise(1, 96)).shape == (1, 512)


def test_a_loaded_judge_is_frozen_and_does_not_change_while_judging(judge_file):
    judge, _ = model.load_judge(judge_file)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    judge(noise())
    assert not judge.training and not any(weight.requires_grad for weight in judge.parameters())
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


def test_images_still_get_gradients_from_a_frozen_judge(judge):
    images = noise().requires_grad_()
    judge.painting(judge.features(images)).sum().backward()
    assert images.grad.abs().sum() > 0


class Evil:
    """Makes a folder when it is unpickled by a reader who allows that."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_judge_that_would_run_code_is_refused_and_does_not(tmp_path):
    evil, file = tmp_path / "evil", tmp_path / "judge.pt"
    content = {"format": model.FORMAT, "card": Evil(evil), "weights": {}}
    torch.save(content, file)
    refused(file)
    file.write_bytes(pickle.dumps(content, protocol=2))
    refused(file)
    assert not evil.exists()
    pickle.loads(file.read_bytes())
    assert evil.exists(), "the file was harmless: this test shows nothing"


def save_state_dict(file: Path) -> None:
    torch.save(Judge("resnet18", 64).state_dict(), file)


def save_another_format(file: Path) -> None:
    torch.save({"format": "salon-judge-0", "card": {}, "weights": {}}, file)


def save_another_judges_weights(file: Path) -> None:
    content = {"format": model.FORMAT, "card": vars(CARD), "weights": Judge("resnet34", 64).state_dict()}
    torch.save(content, file)


OTHER_FILES = {
    "text": lambda file: file.write_text("hello world\n" * 5),
    "a text that reads like a pickle": lambda file: file.write_text("abstract\n"),
    "another text that does": lambda file: file.write_text("Jo"),
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(1000)),
    "half a zip": lambda file: file.write_bytes(b"PK\x03\x04 and so on"),
    "a folder": lambda file: file.mkdir(),
    "a tensor": lambda file: torch.save(torch.ones(3), file),
    "a list": lambda file: torch.save([1, 2], file),
    "a state dict": save_state_dict,
    "another format": save_another_format,
    "no card": lambda file: torch.save({"format": model.FORMAT}, file),
    "another card": lambda file: torch.save({"format": model.FORMAT, "card": {"a": 1}, "weights": {}}, file),
    "no weights": lambda file: torch.save({"format": model.FORMAT, "card": vars(CARD), "weights": {}}, file),
    "other weights": save_another_judges_weights,
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_that_is_no_judge_is_refused_in_one_line(tmp_path, kind):
    OTHER_FILES[kind](tmp_path / "judge.pt")
    refused(tmp_path / "judge.pt", "not a judge's file")


def test_a_judge_that_was_cut_short_is_refused_in_one_line(tmp_path, judge_file):
    content = judge_file.read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "judge.pt").write_bytes(content[: int(share * len(content))])
        refused(tmp_path / "judge.pt", "not a judge's file")


def test_a_missing_judge_is_one_line_with_the_command_that_makes_it(tmp_path):
    refused(tmp_path / "nowhere.pt", "no judge at", f"--out {tmp_path / 'nowhere.pt'}")


FULL = {
    "as the system says it": OSError(errno.ENOSPC, "No space left on device"),
    "as torch says it": RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
}


@pytest.mark.parametrize("said", FULL)
def test_a_full_disk_leaves_the_old_judge_whole_and_nothing_half_written(
    tmp_path, monkeypatch, judge_file, judge, said
):
    file = tmp_path / "judge.pt"
    file.write_bytes(judge_file.read_bytes())

    def full(content, part):
        Path(part).write_bytes(b"half")
        raise FULL[said]

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="could not be written to .*judge.pt"):
        model.save_judge(judge, CARD, file)
    assert [path.name for path in tmp_path.iterdir()] == ["judge.pt"]
    assert file.read_bytes() == judge_file.read_bytes()


def test_a_disk_that_is_really_full_leaves_the_old_judge_whole(small_disk, judge_file, judge):
    """As large as one judge and a half, so that the second is cut off in the middle."""
    disk = small_disk(judge_file.stat().st_size * 3 // 2 // 1024)
    file = disk / "judge.pt"
    file.write_bytes(judge_file.read_bytes())
    with pytest.raises(UserError, match="could not be written to .*judge.pt") as caught:
        model.save_judge(judge, CARD, file)
    assert "\n" not in str(caught.value)
    assert [path.name for path in disk.iterdir()] == ["judge.pt"]
    assert file.read_bytes() == judge_file.read_bytes()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, judge):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="could not be written to .*file/judge.pt"):
        model.save_judge(judge, CARD, tmp_path / "file/judge.pt")


def test_a_folder_in_the_files_place_is_one_line_and_nothing_is_left(tmp_path, judge):
    (tmp_path / "judge.pt").mkdir()
    with pytest.raises(UserError, match="could not be written to .*judge.pt"):
        model.save_judge(judge, CARD, tmp_path / "judge.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["judge.pt"]


def test_the_hash_is_that_of_the_files_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert model.sha256_of(tmp_path / "x") == expected


def test_weights_that_are_no_floats_are_refused(tmp_path, judge_file):
    content = torch.load(judge_file, weights_only=True)
    content["weights"]["head.weight"] = content["weights"]["head.weight"].long()
    torch.save(content, tmp_path / "judge.pt")
    with pytest.raises(UserError, match="is not a judge's file"):
        model.load_judge(tmp_path / "judge.pt")
