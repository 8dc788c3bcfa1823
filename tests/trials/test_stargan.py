"""StarGAN computes what its paper says, learns, and continues exactly."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.utils import save_image

from judge import sample
from judge.class_score import TranslationScorer
from judge.common.errors import UserError
from judge.images import list_images, read_full_size, to_float
from trials.session.engine import NoEngine
from trials.session.records import read_json
from trials.session.session import RunOptions, Session
from trials.stargan import PRESETS, Settings, StarGAN, check, flipped, held_out, load_inputs, train

CPU = torch.device("cpu")
TINY = Settings(data="somewhere", size="sketch", precision="fp32", edge=32, ngf=4, blocks=1, ndf=4, layers=3,
                batch_size=4, n_critic=2, steps=100)  # fmt: skip
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 2])  # of two batches


def model(**changes) -> StarGAN:
    return StarGAN(replace(TINY, **changes).complete(CPU), 3, CPU)


def batch(seed: int, count: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---------------------------------------------------------------------------------------------
# Losses


def spelt_out(x: torch.Tensor, domains: list[int]) -> torch.Tensor:
    """Images and, behind their colours, three planes with a 1 for the domain asked for."""
    planes = [[torch.full((32, 32), float(plane == domain)) for plane in range(3)] for domain in domains]
    return torch.cat([x, torch.stack([torch.stack(three) for three in planes])], 1)


def minus_log_softmax(logits: torch.Tensor, labels: list[int]) -> torch.Tensor:
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -torch.stack([row[label].log() for row, label in zip(shares, labels)]).mean()


class Recorded(StarGAN):
    """Remembers what each update was given."""

    def _update_discriminator(self, *given):
        self.given = getattr(self, "given", []) + [given]
        return super()._update_discriminator(*given)


def test_a_step_is_the_papers_equations():
    """Against a plain transcription that takes each of its losses and gradients by itself: two updates of
    D with equation 5 and one of G with equation 6."""
    net = Recorded(replace(TINY, domain_weight=3.0).complete(CPU), 3, CPU)
    G, D = copy.deepcopy(net.G), copy.deepcopy(net.D)
    s, real = net.settings, batch(0)
    optimizer_G = torch.optim.Adam(G.parameters(), 1e-4, (0.5, 0.999))
    optimizer_D = torch.optim.Adam(D.parameters(), 1e-4, (0.5, 0.999))
    losses = net.update(real, LABELS)
    assert len(net.given) == 2
    for number, (x, own, asked, share) in enumerate(net.given):
        assert x.equal(real[4 * number : 4 * number + 4]) and own.equal(LABELS[4 * number : 4 * number + 4])
        fake = G(spelt_out(x, asked.tolist())).detach()
        between = (share * x + (1 - share) * fake).requires_grad_()
        slopes = torch.stack([
            torch.autograd.grad(D(image[None])[0].sum(), image, create_graph=True)[0] for image in between])
        expected = {
            "critic": D(fake)[0].mean() - D(x)[0].mean(),
            "penalty": ((slopes.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean(),
            "domain_real": minus_log_softmax(D(x)[1], own.tolist()),
        }
        optimizer_D.zero_grad()
        (expected["critic"] + 10 * expected["penalty"] + 3 * expected["domain_real"]).backward()
        optimizer_D.step()
    for ours, theirs in zip(net.D.parameters(), D.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    fake = G(spelt_out(x, asked.tolist()))
    again = G(spelt_out(fake, own.tolist()))
    expected |= {
        "adversarial": -D(fake)[0].mean(),
        "domain_fake": minus_log_softmax(D(fake)[1], asked.tolist()),
        "reconstruction": (x - again).abs().mean(),
    }
    optimizer_G.zero_grad()
    (expected["adversarial"] + 3 * expected["domain_fake"] + 10 * expected["reconstruction"]).backward()
    optimizer_G.step()
    for ours, theirs in zip(net.G.parameters(), G.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
    assert losses.keys() == expected.keys() and s.penalty_weight == 10
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_targets_are_the_batchs_own_domains_in_an_order_of_each_updates_own():
    net = Recorded(replace(TINY, n_critic=1, batch_size=8).complete(CPU), 3, CPU)
    for step in range(4):
        net.update(batch(step), LABELS)
    orders = [asked.tolist() for _, _, asked, _ in net.given]
    assert all(sorted(order) == sorted(LABELS.tolist()) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert all(0 <= share.min() and share.max() <= 1 and share.std() > 0 for *_, share in net.given)


def test_rates_fall_to_0_over_the_last_half():
    net = model(generator_lr=1e-3, discriminator_lr=4e-3, steps=4)
    rates = []
    for step in range(4):
        net.update(batch(step), LABELS)
        rates.append([o.param_groups[0]["lr"] for o in (net.optimizer_G, net.optimizer_D)])
    assert rates == [[1e-3, 4e-3], [1e-3, 4e-3], [1e-3, 4e-3], [5e-4, 2e-3]]


def test_bf16_changes_the_losses_a_little_and_what_is_scored_not_at_all():
    rough, fine = model(precision="bf16"), model(precision="fp32")
    sources, targets = batch(5, 3), torch.arange(3)
    assert rough.make(sources, targets).equal(fine.make(sources, targets))
    ours, theirs = rough.update(batch(0), LABELS), fine.update(batch(0), LABELS)
    assert any(not ours[name].equal(theirs[name]) for name in ours)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0.02, atol=0.02)


def test_defaults_are_the_published_ones():
    s = Settings(data="somewhere", size="paper").complete(CPU)
    assert (s.generator_lr, s.discriminator_lr, s.beta1, s.beta2) == (1e-4, 1e-4, 0.5, 0.999)
    assert (s.domain_weight, s.reconstruction_weight, s.penalty_weight) == (1, 10, 10)
    assert (s.batch_size, s.n_critic, s.decay) == (16, 5, 0.5)
    assert (s.edge, s.ngf, s.blocks, s.ndf, s.layers) == (128, 64, 6, 64, 6)
    assert s.steps * s.n_critic == 200_000
    assert list(PRESETS) == ["sketch", "paper"]


def test_one_image_asked_for_other_domains_gives_other_images_alone_as_together():
    net, image = model(), batch(0, 1)
    made = net.make(image.expand(3, -1, -1, -1), torch.arange(3), batch=2)
    assert not made[0].equal(made[1]) and not made[1].equal(made[2])
    torch.testing.assert_close(net.make(image, torch.tensor([2])), made[2:])


def test_a_reloaded_model_takes_the_same_next_20_steps_bit_for_bit(tmp_path):
    straight, stopped = model(), model()

    def go(net: StarGAN, until: int) -> list[dict]:
        return [net.update(batch(net.step), LABELS) for _ in range(until - net.step)]

    go(straight, 7), go(stopped, 7)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = model()
    for parameter in resumed.G.parameters():  # what it starts from must not matter
        nn.init.zeros_(parameter)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for expected, got in zip(go(straight, 27), go(resumed, 27), strict=True):
        assert all(expected[name].equal(got[name]) for name in expected)
    sources = batch(1, 3)
    assert straight.make(sources, torch.arange(3)).equal(resumed.make(sources, torch.arange(3)))


# ---------------------------------------------------------------------------------------------
# Data


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


def trained(folder: Path, settings: Settings) -> dict:
    """What a trial leaves in its record."""
    session = Session("stargan", settings, RunOptions(out=folder, device="cpu"), NoEngine(), {})
    assert session.run(train) == 0
    return read_json(folder / "run.json")


@pytest.mark.parametrize("seed", [2, 3])
def test_it_learns_the_light_of_the_built_in_sample(tmp_path, tinted, seed):
    """One generator, three domains: more images are put where they belong, what is made of each is nearer to
    real images of it, and light stays light. The last is not asked for by any loss: seed 5 paints negatives,
    and seed 0 comes so near to them that rounding decides."""
    settings = Settings(
        data=str(tinted), seed=seed, size="sketch", edge=32, ngf=8, blocks=1, ndf=8, layers=4, steps=300,
        n_critic=1, batch_size=8, reports=1, generator_lr=5e-4, discriminator_lr=5e-4,
        reconstruction_weight=30.0, domain_weight=2.0,
    ).complete(CPU)  # fmt: skip
    data, classifier = load_inputs(settings, CPU)
    chosen, targets = held_out(data.test_labels, settings.samples)
    sources, labels = to_float(data.test_pixels[chosen]), data.test_labels[chosen]
    scorer = TranslationScorer(classifier.network, sources, labels, targets, data.classes)
    before = scorer(StarGAN(settings, 3, CPU).make(sources, targets))
    record = trained(tmp_path, settings)
    after = record["score"]
    # Of these seeds in both precisions, in fp32 with four roundings each (weights changed by 2e-7 of
    # themselves): the score rose by 0.0004 to 0.0017, the domain by 0.17 to 0.33, the content by 0.16 to
    # 0.25, and KID fell by 5.2 to 6.4.
    assert after["default"] >= before.default + 1e-4
    assert after["domain"] >= before.parts["domain"] + 0.08
    assert after["content"] >= before.parts["content"] + 0.08
    assert after["kid"] <= before.parts["kid"] - 3
    assert record["judge"]["accuracy"] == classifier.accuracy >= 0.9
    assert (tmp_path / "samples/step_000300.png").exists()


def test_the_built_in_sample_is_two_domains_and_is_named_a_stand_in(tmp_path, sample_data):
    record = trained(tmp_path, replace(TINY, data=str(sample_data), steps=1, reports=1).complete(CPU))
    assert record["data"]["stand_in"] and record["data"]["classes"] == ["paintings", "photos"]
    assert 0 <= record["judge"]["accuracy"] <= 1 and math.isfinite(record["score"]["default"])


def colours(folder: Path, **counts: int) -> None:
    """A subfolder of images for each colour."""
    draw = torch.Generator().manual_seed(0)
    shades = {"reds": (1.0, 0, 0), "greens": (0, 1.0, 0), "blues": (0, 0, 1.0)}
    for name, count in counts.items():
        (folder / name).mkdir()
        for number in range(count):
            image = torch.tensor(shades[name])[:, None, None] * torch.rand(1, 32, 32, generator=draw)
            save_image(image, folder / name / f"{number:02}.png")


def test_three_domains_can_be_trained_on(tmp_path):
    (tmp_path / "data").mkdir()
    colours(tmp_path / "data", reds=40, greens=40, blues=40)
    settings = replace(TINY, data=str(tmp_path / "data"), steps=2, reports=2, samples=4).complete(CPU)
    record = trained(tmp_path / "run", settings)
    assert record["data"]["classes"] == ["blues", "greens", "reds"]
    assert set(record["score"]) == {
        "default", "domain", "content", "diversity", "clean", "kid", "kid_error"}
    assert 0 <= record["score"]["default"] <= 1


@pytest.mark.parametrize("counts, said", [
    ({"reds": 40}, "has one domain"),
    ({"reds": 40, "blues": 20}, "2 test images of blues, a score takes at least 4"),
    ({"reds": 40, "blues": 1}, "blues: one image"),
])
def test_data_of_too_few_domains_or_images_is_refused_in_one_line(tmp_path, counts, said):
    colours(tmp_path, **counts)
    with pytest.raises(UserError, match=said) as error:
        check(replace(TINY, data=str(tmp_path)).complete(CPU))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes, said", [
    ({"edge": 48}, "a power of two from 32"),
    ({"edge": 16}, "a power of two from 32"),
    ({"layers": 6}, "32 px cannot be halved so often"),
    ({"samples": 3}, "at least 4"),
])
def test_what_cannot_be_is_refused_before_training(changes, said):
    with pytest.raises(UserError, match=said):
        replace(TINY, **changes).complete(CPU)


def test_data_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="no data folder"):
        check(replace(TINY, data="/nowhere").complete(CPU))
