"""The DCGAN has the published settings, grows, and is scored by a judge if there are no classes."""

import shutil

import torch

from judge.score import Scorer
from tests.trials.test_systems import trained
from trials.training import dcgan
from trials.training.dcgan import DCGAN, Settings, growth, load_inputs, warn_of_judge

CPU = torch.device("cpu")


def test_each_network_has_its_own_rate_and_a_discriminator_under_the_threshold_is_not_updated():
    settings = Settings(data="digits", latent_size=3, ngf=4, ndf=4, edge=8, generator_lr=1e-3,
                        discriminator_lr=4e-3, discriminator_threshold=1e6)
    net = DCGAN(settings, (1, 8, 8), CPU)
    G, D = (optimizer.param_groups[0] for optimizer in (net.optimizer_G, net.optimizer_D))
    assert (G["lr"], D["lr"]) == (1e-3, 4e-3) and G["betas"] == D["betas"] == (0.5, 0.999)
    before = [weight.clone() for weight in net.D.parameters()]
    net.update(torch.rand(6, 1, 8, 8))
    assert all(weight.equal(kept) for weight, kept in zip(net.D.parameters(), before))


def test_defaults_are_the_published_ones():
    published = {"generator_lr": 2e-4, "discriminator_lr": 2e-4, "beta1": 0.5, "batch_size": 128,
                 "latent_size": 100, "edge": 64, "ngf": 128, "ndf": 64}  # fmt: skip
    assert published.items() <= vars(Settings(data="somewhere").complete(CPU)).items()


def test_images_of_one_class_are_scored_by_a_judge(sample_data, judge_file, tmp_path):
    settings = Settings(data=str(sample_data), judge=str(judge_file), ngf=4, ndf=4, steps=2, reports=1,
                        batch_size=4, samples=8)
    record = trained(dcgan, tmp_path, settings)
    assert set(record["score"]) == {"default", "style", "diversity", "clean", "kid", "kid_error"}
    assert len(record["judge"]["sha256"]) == 64 and record["data"]["images"] == 12
    assert isinstance(load_inputs(settings.complete(CPU), CPU)[1], Scorer)


def test_a_judge_of_other_data_is_warned_of(sample_data, judge_file, tmp_path, capsys):
    assert warn_of_judge("faces", "faces + testB") is None and warn_of_judge("faces", "faces") is None
    assert "trained on sample, not on faces" in warn_of_judge("faces", "sample")
    faces = tmp_path / "faces"
    shutil.copytree(sample_data, faces)
    settings = Settings(data=str(faces), judge=str(judge_file), ngf=4, ndf=4, steps=1, reports=1,
                        batch_size=4, samples=8)
    assert "not on faces" in trained(dcgan, tmp_path / "run", settings)["warning"]
    assert "warning: the judge was trained on sample, not on faces" in capsys.readouterr().out


def test_resolutions_are_trained_and_faded_in_by_turns():
    """Two doublings in eighths of the time: 8 px, fading, 16 px, fading, and then 32 px to the end."""
    assert [growth(share / 8, 2) for share in (*range(9), 56)] == [0, 0, 0, 0.5, 1, 1, 1, 1.5, 2, 2]
    settings = Settings(growing=0.5, ngf=4, ndf=4, steps=8, edge=32, latent_size=5)
    net, places = DCGAN(settings, (3, 32, 32), CPU), []
    while net.step < 5:
        places.append(net.G.place)
        net.update(torch.rand(4, 3, 32, 32))
        assert net.G.place == net.D.place and net.make(2).shape == (2, 3, 32, 32)
    assert places == [0, 0, 1, 1, 2]
