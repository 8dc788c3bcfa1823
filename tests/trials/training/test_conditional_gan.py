"""The conditional GAN shows and is trained on every class."""

from judge.labelled import load_labelled
from tests.trials.test_systems import trained
from trials.training import conditional_gan
from trials.training.conditional_gan import Settings, one_of_each


def test_real_images_of_a_sheet_go_through_the_classes_again_and_again():
    data = load_labelled("digits")
    shown = one_of_each(data, 32)
    assert len(shown) == 40
    for number, image in enumerate(shown):
        same = (data.test_pixels == image).flatten(1).all(1)
        assert data.test_labels[same].tolist() == [number % 10]


def test_a_folder_of_classes_can_be_trained_on(tmp_path, sample_data):
    for name in ("trainA", "trainB"):  # paintings and photographs, a subfolder each
        (tmp_path / "data" / name[-1]).mkdir(parents=True)
        for copy in range(4):
            for file in (sample_data / name).iterdir():
                (tmp_path / "data" / name[-1] / f"{copy}{file.name}").symlink_to(file)
    settings = Settings(data=str(tmp_path / "data"), edge=8, ngf=8, ndf=8, samples=20, steps=1)
    record = trained(conditional_gan, tmp_path / "run", settings)
    assert record["data"]["classes"] == ["A", "B"] and 0 <= record["score"]["right"] <= 1
