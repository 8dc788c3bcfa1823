"""Style transfer computes what its paper says, gets like the painting, and continues exactly."""

from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d
from torchvision import models
from torchvision.transforms.functional import normalize

from judge import model
from judge.common.errors import UserError
from trials import style_transfer
from trials.session.engine import NoEngine
from trials.session.records import read_json, read_lines
from trials.session.session import RunOptions, Session
from trials.style_transfer import (
    PUBLISHED,
    VGG19,
    PairScorer,
    Settings,
    StyleTransfer,
    Subject,
    Target,
    check,
    content_loss,
    gram,
    judge_network,
    names,
    network_of,
    sheet,
    style_loss,
    train,
    variation_loss,
)

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CONVOLUTIONS = (2, 2, 4, 4, 4)  # of each of VGG-19's blocks (Simonyan and Zisserman 2015, table 1, E)


def pictures(seed: int, count: int = 2, edge: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, edge, edge, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory) -> Path:
    """A TORCH_HOME with weights under torchvision's name for VGG-19: drawn, and of the convolutions only."""
    home = tmp_path_factory.mktemp("torch")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        layers = models.vgg19().features
    draw = torch.Generator().manual_seed(0)
    state = {f"features.{name}": torch.randn(value.shape, generator=draw) * (2 / value[0].numel()) ** 0.5
             for name, value in layers.state_dict().items()}
    file = home / "hub" / "checkpoints" / Path(VGG19.url).name
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    return file


@pytest.fixture
def vgg19(vgg19_file, monkeypatch) -> Path:
    """The same, where torch looks."""
    monkeypatch.setenv("TORCH_HOME", str(vgg19_file.parents[2]))
    return vgg19_file


@pytest.fixture
def offline(monkeypatch):
    """No weights, and nothing is downloaded."""
    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(type(VGG19), "get_state_dict", refuse)


@pytest.fixture
def pair(tmp_path) -> tuple[str, str]:
    """A photograph and a painting of one's own: noise of two colours, of different sizes."""
    drawn = (("photo.png", (60, 40), (1, 0.5, 0.2)), ("painting.jpg", (50, 90), (0.2, 0.4, 1)))
    for name, size, tint in drawn:
        noise = torch.rand(size[1], size[0], 3, generator=torch.Generator().manual_seed(0))
        Image.fromarray((noise * torch.tensor(tint) * 255).byte().numpy()).save(tmp_path / name)
    return str(tmp_path / "photo.png"), str(tmp_path / "painting.jpg")


def target(judge_file, contents: torch.Tensor, styles: torch.Tensor) -> Target:
    return Target(judge_network(str(judge_file), CPU), contents, styles, *PUBLISHED["judge"])


def model_of(judge_file, **changes) -> StyleTransfer:
    settings = replace(Settings(edge=32), **changes).complete(CPU)
    return StyleTransfer(settings, target(judge_file, pictures(0), pictures(1)), pictures(0))


def trained(folder: Path, settings: Settings) -> dict:
    """What a trial leaves in its record."""
    machine = RunOptions(out=folder, device="cpu")
    session = Session("style_transfer", settings.complete(CPU), machine, NoEngine(), {})
    assert session.run(train) == 0
    return read_json(folder / "run.json")


# ---------------------------------------------------------------------------------------------
# Losses


def test_the_gram_matrix_is_what_filters_share_over_all_places():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two filters at two places
    assert gram(features).tolist() == [[[1 + 4, 3 - 2], [3 - 2, 9 + 1]]]


def test_the_content_loss_is_half_the_mean_squared_difference():
    photo = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    picture = torch.tensor([[[[1.0, 0.0]], [[4.0, -1.0]]]])
    assert content_loss(picture, photo).tolist() == [(4 + 1) / 4 / 2]


def test_the_style_loss_is_the_papers_fourth_equation():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # G = 5 1 / 1 10, N = 2, M = 2
    painting = torch.tensor([[[5.0, 3.0], [3.0, 6.0]]])
    assert style_loss(features, painting).tolist() == [(0 + 4 + 4 + 16) / (4 * 4 * 4)]


def test_the_variation_is_the_mean_difference_of_neighbours():
    x = torch.tensor([[0.0, 1.0], [0.5, -1.0]]).expand(1, 3, 2, 2)
    assert variation_loss(x).item() == pytest.approx((1 + 1.5 + 0.5 + 2) / 4)


def test_the_style_loss_does_not_ask_where_things_are():
    features = torch.rand(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert style_loss(features.flip(-1), gram(features)).item() == pytest.approx(0, abs=1e-9)
    assert content_loss(features.flip(-1), features).item() > 0.01


def test_a_picture_has_no_content_loss_as_its_photograph_and_no_style_loss_as_its_painting(judge_file):
    of = target(judge_file, pictures(0), pictures(1))
    assert of(pictures(0))[0].tolist() == [0, 0] and of(pictures(0))[1].min() > 1e-3
    assert of(pictures(1))[1].max().item() == pytest.approx(0, abs=1e-6) and of(pictures(1))[0].min() > 1e-3


def test_weights_mean_the_same_in_a_network_of_other_scale(judge_file):
    """Layers are divided by their mean activation, as the paper scales its filters."""
    class Louder(nn.Module):
        def __init__(self, features, factor):
            super().__init__()
            self.features, self.factor = features, factor

        def forward(self, x):
            return {name: f * self.factor for name, f in self.features(x).items()}

    network = judge_network(str(judge_file), CPU)
    plain = Target(network, pictures(0), pictures(1), *PUBLISHED["judge"])(pictures(2))
    features = type(network).features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "features", lambda self, layers: Louder(features(self, layers), 30.0))
        loud = Target(network, pictures(0), pictures(1), *PUBLISHED["judge"])(pictures(2))
    torch.testing.assert_close(loud, plain, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Networks


def test_vgg19s_layers_are_the_papers_behind_their_relu_with_average_pooling(vgg19):
    """Against a plain transcription of the published network on ImageNet's normalisation."""
    network, why = network_of(Settings(features="vgg19"), CPU)
    expected_names = [f"conv{b}_{n}" for b, count in enumerate(CONVOLUTIONS, 1) for n in range(1, count + 1)]
    assert list(network.nodes) == expected_names and why == "as asked"

    x = pictures(0)
    state = torch.load(vgg19, weights_only=True)
    weights = [value for name, value in state.items() if name.endswith("weight")]
    biases = [value for name, value in state.items() if name.endswith("bias")]
    got = network.features(",".join(expected_names))(x)
    y, at = normalize((x + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), 0
    for block, count in enumerate(CONVOLUTIONS, 1):
        for nth in range(1, count + 1):
            y = conv2d(y, weights[at], biases[at], padding=1).relu()
            torch.testing.assert_close(got[f"conv{block}_{nth}"], y, rtol=1e-4, atol=1e-4)
            at += 1
        y = avg_pool2d(y, 2)


def test_the_judges_layers_are_those_that_it_judges_by(judge_file):
    judge, _ = model.load_judge(judge_file)
    x, body = pictures(0, edge=64), judge.backbone
    got = judge_network(str(judge_file), CPU).features("conv1,layer1,layer2,layer3,layer4")(x)
    y = (model.subsample_chroma(x) + 1) / 2
    y = body.conv1(normalize(y, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    y = body.bn1(y).relu()
    torch.testing.assert_close(got["conv1"], y)
    y = max_pool2d(y, 3, 2, 1)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        y = getattr(body, name)(y)
        torch.testing.assert_close(got[name], y)


def test_auto_takes_vgg19_where_its_weights_are_there(vgg19):
    network, why = network_of(Settings(judge="nowhere.pt"), CPU)
    assert network.name == "vgg19" and why == "its weights can be had"


def test_auto_takes_the_judge_where_they_are_not_and_says_why(offline, judge_file):
    network, why = network_of(Settings(judge=str(judge_file)), CPU)
    assert network.name == "judge" and "no network" in why
    assert network.facts["sha256"] == model.sha256_of(judge_file)
    with pytest.raises(UserError, match="cannot be had .*no network.*--features judge"):
        network_of(Settings(features="vgg19", judge=str(judge_file)), CPU)


def test_a_damaged_file_of_weights_is_no_weights(vgg19_file, tmp_path, monkeypatch, judge_file):
    file = tmp_path / "hub" / "checkpoints" / vgg19_file.name
    file.parent.mkdir(parents=True)
    file.write_bytes(vgg19_file.read_bytes()[:1000])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="VGG-19's weights cannot be had") as refused:
        network_of(Settings(features="vgg19"), CPU)
    assert "\n" not in str(refused.value)
    assert network_of(Settings(judge=str(judge_file)), CPU)[0].name == "judge"


# ---------------------------------------------------------------------------------------------
# The trial


def own(sample_data, judge_file, seed: int = 0, **changes) -> Settings:
    """Of one photograph and one painting of the sample."""
    photo, painting = (str(sample_data / f"{folder}/00{seed}.png") for folder in ("testB", "trainA"))
    settings = Settings(content=photo, style=painting, judge=str(judge_file), features="judge", edge=64,
                        steps=30, reports=3, style_weight=3.0, variation_weight=1.0, seed=seed)
    return replace(settings, **changes)


def untouched(*given, **changes) -> tuple[dict, Settings]:
    """The score before the first step, and the settings."""
    settings = own(*given, **changes).complete(CPU)
    subject = style_transfer.own(settings, CPU)
    of = target(settings.judge, subject.contents, subject.styles)
    return PairScorer(of, subject)(StyleTransfer(settings, of, subject.contents).paint()).as_dict(), settings


@pytest.mark.parametrize("seed", [0, 1])
def test_photographs_get_like_the_painting_and_stay_themselves(tmp_path, sample_data, judge_file, seed):
    before, settings = untouched(sample_data, judge_file, seed)
    record = trained(tmp_path, settings)
    first, *_, last = read_lines(tmp_path / "stats.jsonl")
    assert last["losses"]["style"] < 0.5 * first["losses"]["style"]
    assert record["score"]["style_distance"] < 0.5 * before["style_distance"]
    assert record["score"]["default"] >= before["default"] + 0.05  # 0.10 and 0.6 were seen


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_gets_like_both(tmp_path, sample_data, judge_file, seed):
    before, settings = untouched(sample_data, judge_file, seed, start_from="noise", style_weight=1.0)
    record = trained(tmp_path, settings)
    assert record["score"]["style_distance"] < 0.5 * before["style_distance"]
    assert record["score"]["content_distance"] < 0.9 * before["content_distance"]  # 0.75 of it was seen


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_reloaded_model_takes_the_same_next_20_steps_bit_for_bit(tmp_path, judge_file, optimizer):
    straight, stopped = (model_of(judge_file, optimizer=optimizer) for _ in range(2))

    def go(net: StyleTransfer, until: int) -> list[dict]:
        return [net.update() for _ in range(until - net.step)]

    go(straight, 14), go(stopped, 14)  # more than the pairs that L-BFGS keeps
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = model_of(judge_file, optimizer=optimizer, start_from="noise")  # which must not matter
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for expected, got in zip(go(straight, 34), go(resumed, 34), strict=True):
        assert all(expected[name].equal(got[name]) for name in expected)
    assert straight.paint().equal(resumed.paint())


def test_a_trial_continued_with_a_larger_budget_is_the_same_trial(tmp_path, sample_data, judge_file):
    settings = own(sample_data, judge_file, steps=12)
    trained(tmp_path / "straight", settings)
    trained(tmp_path / "parted", replace(settings, budget=0.5))
    trained(tmp_path / "parted", settings)
    for name in ("canvas", "optimizer"):  # the second without its settings, which are no tensors
        expected, got = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)[name]
                         for run in ("straight", "parted"))
        torch.testing.assert_close(got.get("state", got), expected.get("state", expected), rtol=0, atol=0)


@pytest.mark.parametrize("changes", [
    {"content_weight": 0.0}, {"style_weight": 1.0}, {"variation_weight": 3.0}, {"content_layers": "layer1"},
    {"style_layers": "conv1, layer1"}, {"start_from": "noise"}, {"optimizer": "adam"}, {"lr": 0.5},
])
def test_every_setting_changes_the_picture(judge_file, changes):
    settings = Settings(edge=32).complete(CPU)

    def after_three_steps(settings: Settings) -> torch.Tensor:
        layers = [auto if chosen == "auto" else chosen for chosen, auto in zip(
            (settings.content_layers, settings.style_layers), PUBLISHED["judge"])]
        of = Target(judge_network(str(judge_file), CPU), pictures(0), pictures(1), *layers)
        net = StyleTransfer(settings, of, pictures(0))
        for _ in range(3):
            net.update()
        return net.paint()

    assert not after_three_steps(replace(settings, **changes)).equal(after_three_steps(settings))


def test_pairs_of_a_data_set_are_scored_by_the_judge_and_its_flattery_is_said(
    tmp_path, sample_data, judge_file, capsys,
):
    settings = Settings(data=str(sample_data), judge=str(judge_file), features="judge", photos=4, steps=2,
                        reports=1)
    record = trained(tmp_path, settings)
    judged = {"default", "style", "content", "diversity", "clean", "kid", "kid_error"}
    assert set(record["score"]) == judged | {"style_distance", "content_distance"}
    assert record["data"]["stand_in"] and record["judge"]["sha256"] == record["features"]["sha256"]
    assert record["features_because"] == "as asked" and "flatter" in record["warning"]
    assert "flatter" in capsys.readouterr().out
    assert not (tmp_path / "picture.png").exists()


def test_vgg19s_pictures_are_judged_without_a_warning(tmp_path, sample_data, judge_file, vgg19, capsys):
    settings = Settings(data=str(sample_data), judge=str(judge_file), photos=4, steps=1, reports=1)
    record = trained(tmp_path, settings)
    assert record["features"]["network"] == "vgg19" and "warning" not in record
    assert "features: vgg19, its weights can be had" in capsys.readouterr().out


def test_a_photographs_painting_depends_on_the_seed_alone(sample_data, judge_file):
    def styles(seed: int) -> torch.Tensor:
        settings = Settings(data=str(sample_data), judge=str(judge_file), seed=seed, photos=8)
        return style_transfer.pairs(settings.complete(CPU), CPU).styles

    assert styles(0).equal(styles(0)) and not styles(0).equal(styles(1))


def test_distances_are_0_and_1_at_the_photograph_and_at_the_painting(judge_file):
    contents, styles = pictures(0), pictures(1)
    score_of = PairScorer(target(judge_file, contents, styles), Subject(contents, styles, None, {}, []))
    photo, painting = score_of(contents), score_of(styles)
    assert photo.parts["style_distance"] == pytest.approx(1) and photo.parts["content_distance"] == 0
    assert painting.parts["style_distance"] == pytest.approx(0, abs=1e-6)
    assert painting.parts["content_distance"] == pytest.approx(1)
    assert photo.default == pytest.approx(0, abs=1e-6) and photo.parts["content"] == pytest.approx(1)


def test_a_picture_of_ones_own_has_its_photographs_shape(tmp_path, pair, judge_file):
    content, style = pair
    settings = Settings(content=content, style=style, judge=str(judge_file), features="judge", steps=1)
    record = trained(tmp_path / "run", settings)
    with Image.open(tmp_path / "run/picture.png") as picture:
        assert picture.size == (60, 40)  # not enlarged to 256
    trained(tmp_path / "small", replace(settings, edge=32))
    with Image.open(tmp_path / "small/picture.png") as picture:
        assert picture.size == (48, 32)
    assert set(record["score"]) == {"default", "content", "style_distance", "content_distance"}


def test_a_changed_file_is_another_trial(tmp_path, pair, judge_file):
    content, style = pair
    settings = Settings(content=content, style=style, judge=str(judge_file), features="judge", edge=32,
                        steps=1)
    trained(tmp_path / "run", settings)
    Image.new("RGB", (60, 40), "red").save(content)
    with pytest.raises(UserError, match="another data"):
        trained(tmp_path / "run", settings)


def test_the_sheet_has_photographs_with_their_paintings_above_and_pictures_below():
    """The report's page cuts a sheet in two halves."""
    white, black = torch.ones(3, 3, 30, 30), -torch.ones(3, 3, 30, 30)
    grid = sheet(Subject(white, black, None, {}, []), torch.zeros(3, 3, 30, 30))
    half = grid.shape[1] // 2
    assert grid.shape[1:] == (2 * 32 + 2, 3 * 32 + 2)
    assert grid[:, 3, 3].tolist() == [1, 1, 1] and grid[:, half - 3, 3].tolist() == [0, 0, 0]
    assert grid[:, half + 3, 3].tolist() == [0.5] * 3


# ---------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize("changes, said", [
    ({"content": "photo.png"}, "go together"),
    ({"style": "painting.png"}, "go together"),
    ({"edge": 16}, "at least 32"),
    ({"photos": 3}, "at least 4"),
])
def test_what_cannot_be_is_refused_before_it_begins(changes, said):
    with pytest.raises(UserError, match=said):
        Settings(**changes).complete(CPU)


@pytest.mark.parametrize("changes, said", [
    ({"style_layers": "layer1,conv9_1"}, "no layer 'conv9_1': judge has conv1, layer1, layer2"),
    ({"content_layers": ""}, "no layer ''"),
    ({"edge": 128}, "trained at sketch .64 px., and this is draft .128 px."),
    ({"judge": "nowhere.pt"}, "no judge at nowhere.pt"),
    ({"data": "/nowhere"}, "no data folder /nowhere"),
])
def test_what_is_not_there_is_named_before_it_begins(sample_data, judge_file, changes, said):
    settings = Settings(data=str(sample_data), judge=str(judge_file), features="judge")
    check(settings.complete(CPU))
    with pytest.raises(UserError, match=said):
        check(replace(settings, **changes).complete(CPU))


@pytest.mark.parametrize("broken", ["content", "style"])
def test_a_picture_of_ones_own_that_cannot_be_read_is_named(pair, judge_file, broken):
    files = dict(zip(("content", "style"), pair))
    Path(files[broken]).write_text("not an image")
    with pytest.raises(UserError, match=f"{files[broken]} cannot be read as an image"):
        check(Settings(**files, judge=str(judge_file), features="judge").complete(CPU))


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, judge_file, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = ["--content", "nowhere.jpg", "--style", "README.md", "--features", "judge",
               "--judge", judge_file, "--out", tmp_path / "run"]
    done = command("trials.style_transfer", *options)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "nowhere.jpg cannot be read" in done.stderr
    assert not (tmp_path / "run/checkpoint.pt").exists()


def test_layers_are_named_with_commas_between():
    assert names("conv1_1, conv2_1") == ["conv1_1", "conv2_1"]
