"""The DCGAN has the published settings, learns, grows, and is scored by a judge if there are no classes."""

import pytest
import torch

from judge.score import Scorer
from tests.trials.test_systems import trained
from trials import dcgan
from trials.dcgan import DCGAN, Settings, growth, load_inputs

CPU = torch.device("cpu")


def model(**changes) -> DCGAN:
    return DCGAN(Settings(data="digits", latent_size=3, ngf=4, ndf=4, edge=8, **changes), (1, 8, 8), CPU)


def test_a_discriminator_under_the_threshold_is_not_updated():
    net = model(discriminator_threshold=1e6)
    before = [weight.clone() for weight in net.D.parameters()]
    net.update(torch.rand(6, 1, 8, 8))
    assert all(weight.equal(kept) for weight, kept in zip(net.D.parameters(), before))


def test_each_network_has_its_own_rate():
    net = model(generator_lr=1e-3, discriminator_lr=4e-3)
    G, D = (optimizer.param_groups[0] for optimizer in (net.optimizer_G, net.optimizer_D))
    assert (G["lr"], D["lr"]) == (1e-3, 4e-3) and G["betas"] == D["betas"] == (0.5, 0.999)


def test_defaults_are_the_published_ones():
    s = Settings(data="somewhere").complete(CPU)
    assert (s.generator_lr, s.discriminator_lr, s.beta1) == (2e-4, 2e-4, 0.5)
    assert (s.batch_size, s.latent_size) == (128, 100)
    assert (s.edge, s.ngf, s.ndf) == (64, 128, 64)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_digits(tmp_path, seed):
    settings = Settings(data="digits", seed=seed, steps=200, ngf=32, batch_size=64, generator_lr=1e-3,
                        discriminator_lr=1e-3, reports=1).complete(CPU)
    data, scorer, _ = load_inputs(settings, CPU)
    before = scorer(DCGAN(settings, data.shape, CPU).make(settings.samples)).default
    record = trained(dcgan, tmp_path, settings)
    assert record["score"]["default"] >= before + 0.2
    assert record["judge"]["accuracy"] > 0.97 and record["data"]["stand_in"]


def test_images_of_one_class_are_scored_by_a_judge(sample_data, judge_file, tmp_path):
    settings = Settings(data=str(sample_data), judge=str(judge_file), ngf=4, ndf=4, steps=2, reports=1,
                        batch_size=4, samples=8)
    record = trained(dcgan, tmp_path, settings)
    assert set(record["score"]) == {"default", "style", "clean", "kid", "kid_error"}
    assert len(record["judge"]["sha256"]) == 64 and record["data"]["images"] == 12
    assert isinstance(load_inputs(settings.complete(CPU), CPU)[1], Scorer)


def test_resolutions_are_trained_and_faded_in_by_turns():
    """Two doublings in eighths of the time: 8 px, fading, 16 px, fading, and then 32 px to the end."""
    assert [growth(share / 8, 2) for share in range(9)] == [0, 0, 0, 0.5, 1, 1, 1, 1.5, 2]
    assert growth(7.0, 2) == 2


def test_a_growing_dcgan_grows_with_its_steps():
    settings = Settings(growing=0.5, ngf=4, ndf=4, steps=8, edge=32, latent_size=5)
    net, places = DCGAN(settings, (3, 32, 32), CPU), []
    while net.step < 5:
        places.append(net.G.place)
        net.update(torch.rand(4, 3, 32, 32))
        assert net.G.place == net.D.place and net.make(2).shape == (2, 3, 32, 32)
    assert places == [0, 0, 1, 1, 2]
