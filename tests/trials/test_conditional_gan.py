"""The conditional GAN makes what it is asked for."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.utils import save_image

from judge.common.errors import UserError
from judge.labelled import load_labelled
from trials.conditional_gan import ConditionalGAN, Settings, check, load_inputs, one_of_each, train
from trials.session.engine import NoEngine
from trials.session.records import read_json
from trials.session.session import RunOptions, Session

CPU = torch.device("cpu")
ASKED = torch.tensor([0, 1, 2, 0, 1, 2])


def model(**changes) -> ConditionalGAN:
    settings = replace(Settings(data="digits", latent_size=3, ngf=4, ndf=4), **changes)
    return ConditionalGAN(settings.complete(CPU), (1, 8, 8), 3, CPU)


def batch(seed: int) -> torch.Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_losses_are_the_papers_equation_and_both_networks_are_told_the_class():
    """Equation 2, with the class written out as numbers beside z and as planes beside x."""
    net, real = model(), batch(0)
    D_before, G_before = copy.deepcopy(net.D), copy.deepcopy(net.G)
    losses = net.update(real, ASKED)
    y = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]] * 2)
    planes = torch.ones(6, 3, 8, 8) * y[:, :, None, None]
    fake = G_before(torch.cat([net.noise(6, "step", 0), y], 1)).detach()
    on_real, on_fake = (D_before(torch.cat([x, planes], 1)).sigmoid() for x in (real, fake))
    torch.testing.assert_close(losses["discriminator"], -on_real.log().mean() - (1 - on_fake).log().mean())
    again = net.D(torch.cat([fake, planes], 1)).sigmoid()
    torch.testing.assert_close(losses["generator"], -again.log().mean())


def test_one_noise_asked_for_other_classes_gives_other_images():
    net = model()
    zeros, ones = net.make(torch.zeros(4).long()), net.make(torch.ones(4).long())
    assert zeros.equal(net.make(torch.zeros(4).long())) and not zeros.equal(ones)


def test_networks_have_the_dcgans_parameters_and_those_of_the_class():
    net = model()
    G, D = (sum(p.numel() for p in part.parameters()) for part in (net.G, net.D))
    assert G == (3 + 3) * 4 * 16 + 2 * 4 + 4 * 1 * 16
    assert D == (1 + 3) * 4 * 16 + 4 * 16


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_to_make_the_digit_asked_for(tmp_path, seed):
    """Share in the class asked for, from chance, a tenth, to far more."""
    settings = Settings(data="digits", seed=seed, steps=200, ngf=32, batch_size=64, generator_lr=1e-3,
                        discriminator_lr=1e-3, reports=1).complete(CPU)
    data, scorer, _ = load_inputs(settings, CPU)
    asked = torch.arange(settings.samples) % 10
    before = scorer(ConditionalGAN(settings, data.shape, 10, CPU).make(asked), asked)
    session = Session("conditional_gan", settings, RunOptions(out=tmp_path, device="cpu"), NoEngine(), {})
    assert session.run(train) == 0
    after = read_json(tmp_path / "run.json")["score"]
    assert after["right"] >= before.parts["right"] + 0.4
    assert after["default"] >= before.default + 0.2


def test_real_images_of_a_sheet_go_through_the_classes_again_and_again():
    data = load_labelled("digits")
    shown = one_of_each(data, 32)
    assert len(shown) == 40
    for at, image in enumerate(shown):
        same = (data.test_pixels == image).flatten(1).all(1)
        assert data.test_labels[same].tolist() == [at % 10]


def test_a_folder_of_classes_can_be_trained_on_and_one_class_is_refused(tmp_path):
    draw = torch.Generator().manual_seed(0)
    for name, colour in (("reds", (1.0, 0, 0)), ("blues", (0, 0, 1.0))):
        (tmp_path / name).mkdir()
        for number in range(40):
            image = torch.tensor(colour)[:, None, None] * torch.rand(1, 8, 8, generator=draw)
            save_image(image, tmp_path / name / f"{number:02}.png")
    settings = Settings(data=str(tmp_path), edge=8, ngf=8, ndf=8, samples=20).complete(CPU)
    data, scorer, _ = load_inputs(settings, CPU)
    assert data.classes == ("blues", "reds")
    asked = torch.arange(20) % 2
    assert 0 <= scorer(ConditionalGAN(settings, data.shape, 2, CPU).make(asked), asked).default <= 1
    with pytest.raises(UserError, match="one class"):
        check(Settings(data=str(tmp_path / "reds"), edge=8).complete(CPU))


def test_a_reloaded_model_takes_the_same_next_20_steps_bit_for_bit(tmp_path):
    straight, stopped = model(), model()

    def go(net: ConditionalGAN, until: int) -> list[dict]:
        return [net.update(batch(net.step), ASKED) for _ in range(until - net.step)]

    go(straight, 7), go(stopped, 7)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = model()
    for parameter in resumed.G.parameters():  # what it starts from must not matter
        nn.init.zeros_(parameter)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for expected, got in zip(go(straight, 27), go(resumed, 27), strict=True):
        assert all(expected[name].equal(got[name]) for name in expected)
    assert straight.make(ASKED).equal(resumed.make(ASKED))
