"""The conditional GAN makes what it is asked for."""

import pytest
import torch

from judge.labelled import load_labelled
from tests.trials.test_systems import trained
from trials import conditional_gan
from trials.conditional_gan import ConditionalGAN, Settings, load_inputs, one_of_each

CPU = torch.device("cpu")


def model() -> ConditionalGAN:
    return ConditionalGAN(Settings(latent_size=3, ngf=4, ndf=4), (1, 8, 8), 3, CPU)


def test_one_noise_asked_for_other_classes_gives_other_images():
    net = model()
    zeros, ones = net.make(torch.zeros(4).long()), net.make(torch.ones(4).long())
    assert zeros.equal(net.make(torch.zeros(4).long())) and not zeros.equal(ones)


def test_networks_have_the_dcgans_parameters_and_those_of_the_class():
    G, D = (sum(p.numel() for p in part.parameters()) for part in (model().G, model().D))
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
    after = trained(conditional_gan, tmp_path, settings)["score"]
    assert after["right"] >= before.parts["right"] + 0.4
    assert after["default"] >= before.default + 0.2


def test_real_images_of_a_sheet_go_through_the_classes_again_and_again():
    data = load_labelled("digits")
    shown = one_of_each(data, 32)
    assert len(shown) == 40
    for number, image in enumerate(shown):
        same = (data.test_pixels == image).flatten(1).all(1)
        assert data.test_labels[same].tolist() == [number % 10]


def test_a_folder_of_classes_can_be_trained_on(tmp_path, sample_data):
    """Paintings and photographs, a subfolder each."""
    for name in ("trainA", "trainB"):
        (tmp_path / "data" / name[-1]).mkdir(parents=True)
        for copy in range(4):
            for file in (sample_data / name).iterdir():
                (tmp_path / "data" / name[-1] / f"{copy}{file.name}").symlink_to(file)
    settings = Settings(data=str(tmp_path / "data"), edge=8, ngf=8, ndf=8, samples=20, steps=1)
    record = trained(conditional_gan, tmp_path / "run", settings)
    assert record["data"]["classes"] == ["A", "B"] and 0 <= record["score"]["right"] <= 1
