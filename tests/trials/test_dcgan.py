"""The DCGAN computes what its paper says, learns, and continues exactly."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from judge.common.errors import UserError
from judge.score import Scorer
from trials.dcgan import DCGAN, Settings, check, load_inputs, place, train
from trials.session.engine import NoEngine
from trials.session.records import read_json
from trials.session.session import RunOptions, Session, with_parameters

CPU = torch.device("cpu")


def model(**changes) -> DCGAN:
    settings = replace(Settings(data="digits", latent_size=3, ngf=4, ndf=4), **changes)
    return DCGAN(settings.complete(CPU), (1, 8, 8), CPU)


def batch(seed: int, count: int = 6) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained(folder, settings: Settings) -> dict:
    """What a trial leaves in its record."""
    session = Session("dcgan", settings.complete(CPU), RunOptions(out=folder, device="cpu"), NoEngine(), {})
    assert session.run(train) == 0
    return read_json(folder / "run.json")


def test_losses_are_the_papers_equations():
    """Against a plain transcription; the generator meets the discriminator updated."""
    net, real = model(), batch(0)
    D_before, fake = copy.deepcopy(net.D), copy.deepcopy(net.G)(net.noise(6, "step", 0)).detach()
    losses = net.update(real)
    expected = -D_before(real).sigmoid().log().mean() - (1 - D_before(fake).sigmoid()).log().mean()
    torch.testing.assert_close(losses["discriminator"], expected)
    torch.testing.assert_close(losses["generator"], -net.D(fake).sigmoid().log().mean())


def test_each_network_learns_from_its_own_loss_only():
    net, real = model(), batch(0)
    G, D = copy.deepcopy(net.G), copy.deepcopy(net.D)
    net.update(real)
    fake = G(net.noise(6, "step", 0))
    D_after = copy.deepcopy(net.D).requires_grad_(False)
    (-D_after(fake).sigmoid().log().mean()).backward()
    for ours, theirs in zip(net.G.parameters(), G.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert all(not a.equal(b) for net_, before in ((net.G, G), (net.D, D))
               for a, b in zip(net_.parameters(), before.parameters()) if a.dim() > 1)


def test_what_the_generators_loss_leaves_in_the_discriminator_is_not_learnt():
    """The second step's gradients in D are those of its own loss, and G's on top of them."""
    net = model()
    net.update(batch(0))
    D, fake = copy.deepcopy(net.D), copy.deepcopy(net.G)(net.noise(6, "step", 1)).detach()
    D.zero_grad()
    net.update(batch(1))
    (-D(batch(1)).sigmoid().log().mean() - (1 - D(fake).sigmoid()).log().mean()).backward()
    own = [p.grad for p in D.parameters()]
    (-net.D(fake).sigmoid().log().mean()).backward()  # once more what G's loss left: twice in all
    first = copy.deepcopy(net.D)
    first.zero_grad()
    (-first(fake).sigmoid().log().mean()).backward()
    for ours, mine, of_g in zip(net.D.parameters(), own, first.parameters()):
        torch.testing.assert_close(ours.grad, mine + 2 * of_g.grad, rtol=1e-3, atol=1e-6)


def test_a_discriminator_under_the_threshold_is_not_updated():
    net = model(discriminator_threshold=1e6)
    before = [p.clone() for p in net.D.parameters()]
    net.update(batch(0))
    assert all(p.equal(kept) for p, kept in zip(net.D.parameters(), before))


def test_each_network_has_its_own_rate():
    net = model(generator_lr=1e-3, discriminator_lr=4e-3)
    assert net.optimizer_G.param_groups[0]["lr"] == 1e-3
    assert net.optimizer_D.param_groups[0]["lr"] == 4e-3
    assert net.optimizer_D.param_groups[0]["betas"] == (0.5, 0.999)


def test_an_image_does_not_depend_on_those_beside_it():
    net = model()
    for step in range(3):
        net.update(batch(step))
    together = net.make(5, batch=5)
    torch.testing.assert_close(torch.cat([net.make(5, batch=2)]), together)
    assert net.G.training


def test_defaults_are_the_published_ones():
    s = Settings(data="somewhere").complete(CPU)
    assert (s.generator_lr, s.discriminator_lr, s.beta1) == (2e-4, 2e-4, 0.5)
    assert (s.batch_size, s.latent_size) == (128, 100)
    assert (s.edge, s.ngf, s.ndf) == (64, 128, 64)


@pytest.mark.parametrize("changes, said", [
    ({"data": "digits", "edge": 16}, "images of digits have 8 px"),
    ({"data": "folder", "edge": 48}, "a power of two"),
    ({"data": "folder", "edge": 4}, "a power of two"),
    ({"samples": 3}, "at least 4"),
])
def test_what_cannot_be_is_refused_before_training(changes, said):
    with pytest.raises(UserError, match=said):
        Settings(**changes).complete(CPU)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_digits(tmp_path, seed):
    settings = Settings(data="digits", seed=seed, steps=200, ngf=32, batch_size=64, generator_lr=1e-3,
                        discriminator_lr=1e-3, reports=1).complete(CPU)
    data, scorer, _ = load_inputs(settings, CPU)
    before = scorer(DCGAN(settings, data.shape, CPU).make(settings.samples)).default
    record = trained(tmp_path, settings)
    assert record["score"]["default"] >= before + 0.2
    assert record["judge"]["accuracy"] > 0.97 and record["data"]["stand_in"]


def test_images_of_one_class_are_scored_by_a_judge(sample_data, judge_file, tmp_path):
    settings = Settings(data=str(sample_data), judge=str(judge_file), ngf=4, ndf=4, steps=2, reports=1,
                        batch_size=4, samples=8)
    record = trained(tmp_path, settings)
    assert set(record["score"]) == {"default", "style", "clean", "kid", "kid_error"}
    assert len(record["judge"]["sha256"]) == 64 and record["data"]["images"] == 12
    assert isinstance(load_inputs(settings.complete(CPU), CPU)[1], Scorer)
    with pytest.raises(UserError, match="trained at sketch .64 px., and this is 32 px"):
        check(replace(settings, edge=32).complete(CPU))


def test_a_reloaded_model_takes_the_same_next_20_steps_bit_for_bit(tmp_path):
    straight, stopped = model(), model()

    def go(net: DCGAN, until: int) -> list[dict]:
        return [net.update(batch(net.step)) for _ in range(until - net.step)]

    go(straight, 7), go(stopped, 7)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = model()
    for parameter in resumed.G.parameters():  # what it starts from must not matter
        nn.init.zeros_(parameter)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for expected, got in zip(go(straight, 27), go(resumed, 27), strict=True):
        assert all(expected[name].equal(got[name]) for name in expected)
    assert straight.make(3).equal(resumed.make(3))


# ---------------------------------------------------------------------------------------------
# Progressive growing


def test_sizes_are_trained_and_faded_in_by_turns():
    """Two doublings in eighths of the time: 8 px, fading, 16 px, fading, and then 32 px to the end."""
    assert [place(share / 8, 2) for share in range(9)] == [0, 0, 0, 0.5, 1, 1, 1, 1.5, 2]
    assert place(7.0, 2) == 2


def test_a_growing_dcgan_continues_where_it_was():
    settings = Settings(data="folder", growing=0.5, ngf=4, ndf=4, steps=16, edge=32, batch_size=4,
                        latent_size=5, samples=8)
    one, two = (DCGAN(settings, (3, 32, 32), CPU) for _ in range(2))

    def go(net: DCGAN, until: int) -> list[float]:
        draw = [torch.Generator().manual_seed(step) for step in range(until)]
        return [net.update(torch.rand(4, 3, 32, 32, generator=at) * 2 - 1)["generator"].item()
                for at in draw[net.step :]]

    go(one, 4)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert one.G.place < 2 and two.make(8).equal(one.make(8)) and two.make(8).shape == (8, 3, 32, 32)
    assert go(one, 16) == go(two, 16) and one.G.place == one.D.place == 2


def test_digits_of_8_px_have_nothing_to_grow_from():
    with pytest.raises(UserError, match="nothing to grow from"):
        Settings(data="digits", growing=0.5).complete(CPU)


def test_what_a_tuner_proposes_is_plain_in_the_checkpoint_which_could_not_be_read_else(tmp_path):
    settings = with_parameters(Settings(data="digits", ngf=4, ndf=4, steps=4, samples=8),
                               {"generator_lr": 0.001, "discriminator_lr": 0.002, "beta1": 0.3})
    trained(tmp_path, replace(settings, budget=0.5))
    assert trained(tmp_path, settings)["resumed_at"] == 2
