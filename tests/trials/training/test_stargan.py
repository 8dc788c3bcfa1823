"""StarGAN computes what its paper says, and learns."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import save_image

from judge import sample
from judge.images import list_images, read_full_size, to_float
from tests.trials.test_systems import STARGAN, scores_after_one_step_and_all, trained
from trials.session.records import read_json
from trials.training import stargan
from trials.training.stargan import Settings, StarGAN, as_table, flipped, held_out, in_each_domain

CPU = torch.device("cpu")
TINY = Settings(data="somewhere", precision="fp32", steps=100, **STARGAN)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 2])  # of two batches


def batch(seed: int, count: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Recorded(StarGAN):
    """Remembers what each update of D was given."""

    def __init__(self, **changes):
        super().__init__(replace(TINY, **changes), 3, CPU)
        self.given = []

    def _update_discriminator(self, *given):
        self.given.append(given)
        return super()._update_discriminator(*given)


def with_target(x: torch.Tensor, domains: torch.Tensor) -> torch.Tensor:
    """Images and, behind their colours, three planes with a 1 for the domain asked for."""
    return torch.cat([x, torch.eye(3)[domains][:, :, None, None].expand(-1, -1, 32, 32)], 1)


def minus_log_softmax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -(shares * torch.eye(3)[labels]).sum(1).log().mean()


def test_a_step_is_the_papers_equations():
    """Against a plain transcription that takes each of its losses and gradients by itself: two updates of
    D with equation 5 and one of G with equation 6."""
    net, real = Recorded(domain_weight=3.0), batch(0)
    G, D = copy.deepcopy(net.G), copy.deepcopy(net.D)
    optimizer = torch.optim.Adam(D.parameters(), 1e-4, (0.5, 0.999))
    losses = net.update(real, LABELS)
    assert len(net.given) == 2
    for number, (x, own, asked, share) in enumerate(net.given):
        assert x.equal(real[4 * number : 4 * number + 4]) and own.equal(LABELS[4 * number : 4 * number + 4])
        fake = G(with_target(x, asked)).detach()
        between = (share * x + (1 - share) * fake).requires_grad_()
        slopes = torch.stack([
            torch.autograd.grad(D(image[None])[0].sum(), image, create_graph=True)[0] for image in between])
        expected = {
            "critic": D(fake)[0].mean() - D(x)[0].mean(),
            "penalty": ((slopes.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean(),
            "domain_real": minus_log_softmax(D(x)[1], own),
        }
        optimizer.zero_grad()
        (expected["critic"] + 10 * expected["penalty"] + 3 * expected["domain_real"]).backward()
        optimizer.step()
    for ours, theirs in zip(net.D.parameters(), D.parameters()):
        torch.testing.assert_close((ours, ours.grad), (theirs, theirs.grad), rtol=1e-3, atol=1e-6)
    fake = G(with_target(x, asked))
    expected |= {
        "adversarial": -D(fake)[0].mean(),
        "domain_fake": minus_log_softmax(D(fake)[1], asked),
        "reconstruction": (x - G(with_target(fake, own))).abs().mean(),
    }
    (expected["adversarial"] + 3 * expected["domain_fake"] + 10 * expected["reconstruction"]).backward()
    for ours, theirs in zip(net.G.parameters(), G.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_rates_fall_to_0_over_the_last_half_and_targets_are_the_domains_shuffled_anew_for_each_update():
    net = Recorded(n_critic=1, batch_size=8, generator_lr=1e-3, discriminator_lr=4e-3, steps=4)
    rates = []
    for step in range(4):
        net.update(batch(step), LABELS)
        rates.append([o.param_groups[0]["lr"] for o in (net.optimizer_G, net.optimizer_D)])
    assert rates == [[1e-3, 4e-3], [1e-3, 4e-3], [1e-3, 4e-3], [5e-4, 2e-3]]
    orders = [asked.tolist() for _, _, asked, _ in net.given]
    assert all(sorted(order) == sorted(LABELS.tolist()) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert all(0 <= share.min() and share.max() <= 1 and share.std() > 0 for *_, share in net.given)


def test_bf16_changes_the_losses_a_little_and_what_is_scored_not_at_all():
    rough, fine = Recorded(precision="bf16"), Recorded()
    sources, targets = batch(5, 3), torch.arange(3)
    scored = fine.make(sources, targets, batch=2)
    assert rough.make(sources, targets, batch=2).equal(scored)
    torch.testing.assert_close(scored, fine.make(sources, targets))  # alone as together
    ours, theirs = rough.update(batch(0), LABELS), fine.update(batch(0), LABELS)
    assert any(not ours[name].equal(theirs[name]) for name in ours)
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_defaults_are_the_published_ones():
    published = {
        "generator_lr": 1e-4, "discriminator_lr": 1e-4, "beta1": 0.5, "beta2": 0.999, "domain_weight": 1,
        "reconstruction_weight": 10, "penalty_weight": 10, "batch_size": 16, "n_critic": 5, "decay": 0.5,
        "edge": 128, "ngf": 64, "blocks": 6, "ndf": 64, "layers": 6, "steps": 200_000 / 5,
    }  # fmt: skip
    assert published.items() <= vars(Settings(data="somewhere", size="paper").complete(CPU)).items()


def test_held_out_images_are_of_each_domain_as_often_and_go_to_each_other():
    labels = torch.tensor([2] * 10 + [0] * 7 + [1] * 30)
    chosen, targets = held_out(labels, 6)
    own = labels[chosen]
    assert own.tolist() == [0, 1, 2] * 6 and len(chosen.unique()) == 18
    pairs = torch.stack([own, targets], 1).tolist()
    assert all(pairs.count([a, b]) == (3 if a != b else 0) for a in range(3) for b in range(3))
    assert pairs[:6] == pairs[6:12] == pairs[12:]  # columns of a sheet
    assert len(held_out(labels, 100)[0]) == 3 * 7
    assert chosen[own == 1].tolist() == [17, 22, 27, 32, 37, 42]  # not the first only


def test_half_of_the_images_are_mirrored_and_others_in_the_next_step():
    images = batch(0, 200)
    once, again, next_ = flipped(images, 0, 3), flipped(images, 0, 3), flipped(images, 0, 4)
    same = (once == images).flatten(1).all(1)
    assert 70 < same.sum() < 130
    assert once[~same].equal(images[~same].flip(-1)) and once.equal(again) and not once.equal(next_)


@pytest.fixture(scope="module")
def tinted(tmp_path_factory) -> Path:
    """The built-in sample in the light of three times of day, each image in one of them."""
    folder = tmp_path_factory.mktemp("stargan")
    sample.make(folder / "sample", train=60, test=1, pixels=32)
    files = list_images([folder / "sample/trainA", folder / "sample/trainB"])
    lights = {"day": (1.0, 1.0, 1.0), "dawn": (1.0, 0.5, 0.3), "night": (0.3, 0.5, 1.0)}
    for turn, (name, light) in enumerate(lights.items()):
        (folder / "tinted" / name).mkdir(parents=True)
        for number, file in enumerate(files[turn::3]):
            image = read_full_size(file) / 255 * torch.tensor(light)[:, None, None]
            save_image(image, folder / "tinted" / name / f"{number:02}.png")
    return folder / "tinted"


@pytest.mark.parametrize("seed", [2, 3])
def test_it_learns_the_light_of_the_built_in_sample(tmp_path, tinted, seed):
    """One generator, three domains: more images are put where they belong, what is made of each is nearer to
    real images of it, and light stays light. The last is not asked for by any loss: seed 5 paints negatives,
    and seed 0 comes so near to them that rounding decides."""
    settings = Settings(
        data=str(tinted), seed=seed, size="sketch", edge=32, ngf=8, blocks=1, ndf=8, layers=4, steps=300,
        n_critic=1, batch_size=8, generator_lr=5e-4, discriminator_lr=5e-4, reconstruction_weight=30.0,
        domain_weight=2.0,
    )  # fmt: skip
    before, after = scores_after_one_step_and_all(stargan, tmp_path, settings)
    # Of these seeds in both precisions, in fp32 with four roundings each (weights changed by 2e-7 of
    # themselves): the score rose by 0.0004 to 0.0017, the domain by 0.17 to 0.33, the content by 0.16 to
    # 0.25, and KID fell by 5.2 to 6.4.
    gains = {part: after[part] - before[part] for part in ("default", "domain", "content", "kid")}
    assert gains["default"] >= 1e-4 and gains["kid"] <= -3, gains
    assert gains["domain"] >= 0.08 and gains["content"] >= 0.08, gains
    record = read_json(tmp_path / "run.json")
    given = record["asked_given"]
    assert list(given) == ["dawn", "day", "night"] and {sum(row.values()) for row in given.values()} == {4}
    assert sum(given[name][name] for name in given) / 12 == pytest.approx(after["domain"])
    assert record["judge"]["accuracy"] >= 0.9 and record["data"]["classes"] == ["dawn", "day", "night"]
    assert set(after) == {"default", "domain", "content", "diversity", "clean", "kid", "kid_error"}


def test_domains_png_has_a_row_for_each_image_and_a_column_for_each_domain():
    net, sources = StarGAN(TINY, 3, CPU), batch(0, 5)
    picture = in_each_domain(net, sources, ("dawn", "day", "night"))
    assert picture.size == (4 * 66 + 2, 16 + 2 + 5 * 66)  # images of 32 px are shown twice as large
    images = to_float(pil_to_tensor(picture))
    for row, column in ((0, 0), (4, 0), (2, 1), (3, 3)):
        expected = sources[row] if not column else net.make(sources[[row]], torch.tensor([column - 1]))[0]
        left, top = 2 + 66 * column, 18 + 66 * row
        shown = images[:, top : top + 64 : 2, left : left + 64 : 2]
        torch.testing.assert_close(shown, expected, atol=0.01, rtol=0)
    assert images[:, :16].amax() == 1 and images[:, :16].amin() < 0  # captions, of the first row only


def test_a_table_has_a_row_for_what_was_asked():
    assert as_table({"a": {"a": 3, "bc": 10}, "bc": {"a": 0, "bc": 1}}) == "\n".join((
        "    a  bc", " a  3  10", "bc  0   1"))


def test_the_built_in_sample_is_two_domains_and_is_named_a_stand_in(tmp_path, sample_data):
    record = trained(stargan, tmp_path, replace(TINY, data=str(sample_data), steps=1))
    assert record["data"]["stand_in"] and record["data"]["classes"] == ["paintings", "photos"]
    assert 0 <= record["judge"]["accuracy"] <= 1
