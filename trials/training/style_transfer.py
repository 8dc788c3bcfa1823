"""The training of style transfer; `trials/style_transfer.py` has the losses and the settings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize
from torchvision.utils import save_image

from judge import images, model
from judge.common.errors import UserError, one_line
from judge.common.files import as_user_error, atomic_write
from judge.common.rng import rng
from judge.score import (
    Score,
    Scorer,
    check_test_images,
    scene_visibility,
    structure_similarity,
    style_and_scene,
)
from trials.parts import sheets
from trials.parts.batches import load_held_out
from trials.session import Checkpointed, DiskUse, Session, fill_unset
from trials.style_transfer import DEFAULT_WEIGHTS, MIN_EDGE_PIXELS, Settings

VGG19 = models.VGG19_Weights.IMAGENET1K_V1
DEFAULT_LAYERS = {  # of each network: for content, for style (VGG-19's are the paper's, section 3)
    "vgg19": ("conv4_2", "conv1_1,conv2_1,conv3_1,conv4_1,conv5_1"),
    "judge": ("layer2", "conv1,layer1,layer2,layer3"),
}
VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)  # of each block (Simonyan and Zisserman 2015, 1409.1556, table 1, E)
LBFGS_HISTORY = 10  # steps from which L-BFGS estimates the curvature; each needs the memory of two pictures
SHEET_PAIRS = 8
JUDGE_FEATURES = ("the judge's features paint coarsely: speckle goes with a larger --variation-weight or a "
                  "smaller --style-weight; VGG-19's weights paint best (--features vgg19)")
CIRCULAR_SCORE = "the judge's own features are optimised, so its style and kid flatter: ask another judge"


# ---------------------------------------------------------------------------------------------
# Pairs of a photograph and a painting


class Pairs(NamedTuple):
    """Photographs, and the painting for each."""

    contents: torch.Tensor
    """Photographs, float [N, 3, H, W] in [-1, 1]."""
    styles: torch.Tensor
    """Paintings, float [N, 3, H, W] in [-1, 1]."""
    scorer: Scorer | None = None
    """None for --content and --style: a judge needs many images, of its own size."""
    inputs: dict[str, dict] = {}
    """Data, and judge if there is one, for run.json."""


def load_own_pair(settings: Settings, device: torch.device) -> Pairs:
    """Return the photograph and the painting that --content and --style name.

    The shorter edge of the photograph is reduced to `edge` pixels if it is longer. The painting is resized
    and cropped to the same size, as in the paper (section 3). Raises UserError for a file that is no image.
    """
    photo, painting = (images.read_full_size(Path(file)) for file in (settings.content, settings.style))
    for file, image in ((settings.content, photo), (settings.style, painting)):
        if (shorter := min(image.shape[1:])) < MIN_EDGE_PIXELS:
            raise UserError(f"{file} is too small: {shorter} px, give at least {MIN_EDGE_PIXELS} px")
    photo = resize(photo, [min(settings.edge, *photo.shape[1:])], InterpolationMode.BICUBIC)
    size = photo.shape[1:]
    factor = max(photo_edge / edge for photo_edge, edge in zip(size, painting.shape[1:]))
    covering = [math.ceil(edge * factor) for edge in painting.shape[1:]]
    painting = center_crop(resize(painting, covering, InterpolationMode.BICUBIC), list(size))
    contents, styles = (images.to_float(image[None]).to(device) for image in (photo, painting))
    data = {"name": settings.describe_inputs()["data"], "stand_in": False,
            "content": model.sha256_of(settings.content), "style": model.sha256_of(settings.style)}
    return Pairs(contents, styles, inputs={"data": data})


def load_data_pairs(settings: Settings, device: torch.device) -> Pairs:
    """Return held-out photographs of the data, each with a training painting drawn by the seed."""
    data, judge, card = find_data_and_judge(settings, device)
    test = load_held_out(data, settings.edge, settings.photos, device)
    files = data.train[images.PAINTINGS]
    order = torch.randperm(len(files), generator=rng(settings.seed, "pairs"))
    paintings = images.load_images([files[i] for i in order[: len(test.photos)]], settings.edge)
    styles = images.to_float(paintings.pixels).to(device)
    styles = styles[torch.arange(len(test.photos), device=device) % len(styles)]  # there may be fewer
    facts = {"name": data.name, "stand_in": data.stand_in, "test": test.counts, "styles": paintings.counts()}
    return Pairs(test.photos, styles, Scorer(judge, test.photos, test.paintings),
                 {"data": facts, "judge": card.summary(settings.judge)})


def find_data_and_judge(settings: Settings, device: torch.device) -> tuple:
    """Return the data set, the judge and its card. Open no image. Raises UserError if one is missing."""
    data = images.find_dataset(settings.data)
    check_test_images(data)
    return data, *model.load_judge(settings.judge, device, settings.edge)


# ---------------------------------------------------------------------------------------------
# Features, losses and scores


class Network(NamedTuple):
    """A frozen network for images with ImageNet's normalisation."""

    name: str
    body: nn.Module
    nodes: dict[str, str]
    """Name of a layer to the name of its ReLU in `body`."""
    prepare: Callable[[torch.Tensor], torch.Tensor]
    """Preprocessing of images in [-1, 1] before they are normalised."""
    record: dict[str, str]
    """Name and origin of the weights, for run.json."""

    def features(self, layers: Sequence[str]) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
        """Return a function from images float [N, 3, H, W] in [-1, 1] to features [N, N_l, H_l, W_l] by name.
        Raises UserError if the network has no layer of a name."""
        if missing := [name for name in layers if name not in self.nodes]:
            raise UserError(f"no layer {missing[0]!r}: {self.name} has {', '.join(self.nodes)}")
        body = create_feature_extractor(self.body, {self.nodes[name]: name for name in layers})
        device = next(self.body.parameters()).device
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (model.MEAN, model.STD))
        return lambda x: body(((self.prepare(x) + 1) / 2 - mean) / std)


def load_network(settings: Settings, device: torch.device) -> tuple[Network, str]:
    """Return the network of `--features` and why it is this one. Raises UserError if it cannot be loaded."""
    reason = "as asked"
    if settings.features != "judge":
        try:
            return load_vgg19(device), reason if settings.features == "vgg19" else "its weights can be had"
        except Exception as error:  # no internet, a full disk, a damaged file: many types of error
            reason = f"VGG-19's weights cannot be had ({one_line(error) or type(error).__name__})"
        if settings.features == "vgg19":
            raise UserError(f"{reason}: download {VGG19.url} into {torch.hub.get_dir()}/checkpoints, or give "
                            "--features judge")
    return load_judge_network(settings.judge, device), reason


def load_vgg19(device: torch.device) -> Network:
    """Return VGG-19's convolutions with torchvision's weights, and average pooling (section 2)."""
    state = VGG19.get_state_dict(progress=False, check_hash=True, weights_only=True)
    with torch.device("meta"):  # weights that are about to be replaced need not be drawn
        layers = models.vgg19().features
    weights = {name.removeprefix("features."): w for name, w in state.items() if name.startswith("features.")}
    layers.load_state_dict(weights, assign=True)
    body = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))
    names = [f"conv{block}_{i}" for block, n in enumerate(VGG19_CONVOLUTIONS, 1) for i in range(1, n + 1)]
    relus = [str(index) for index, layer in enumerate(body) if isinstance(layer, nn.ReLU)]
    record = {"network": "vgg19", "weights": VGG19.name}
    body = body.eval().requires_grad_(False).to(device)
    return Network("vgg19", body, dict(zip(names, relus)), lambda x: x, record)


def load_judge_network(file: str, device: torch.device) -> Network:
    """Return the ResNet of the judge in `file`. Raises UserError if there is none."""
    judge, card = model.load_judge(file, device)
    if not isinstance(judge.backbone, models.ResNet):
        raise UserError(f"{file} is a {card.arch}, but features need a ResNet: give another --judge")
    record = {"network": "judge", "file": file, "sha256": model.sha256_of(file)}
    nodes = {"conv1": "relu", **{name: name for name in ("layer1", "layer2", "layer3", "layer4")}}
    return Network("judge", judge.backbone, nodes, model.subsample_chroma, record)


def layer_names(network: Network, content: str = "auto", style: str = "auto") -> tuple[list[str], list[str]]:
    """Return the names of the content layers and of the style layers, given with commas, or "auto"."""
    return tuple([name.strip() for name in (default if names == "auto" else names).split(",")]
                 for names, default in zip((content, style), DEFAULT_LAYERS[network.name]))


def gram(features: torch.Tensor) -> torch.Tensor:
    """Return the Gram matrices [N, C, C] of features [N, C, H, W]: sums over all places (equation 3)."""
    rows = features.flatten(2)
    return rows @ rows.mT


def content_loss(features: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """Return half the mean squared difference of features [N, C, H, W], [N]: equation 1 with a mean in place
    of the sum, as in the authors' code, so that its weight means the same at every size."""
    return (features - photo).square().flatten(1).mean(1) / 2


def style_loss(features: torch.Tensor, painting: torch.Tensor) -> torch.Tensor:
    """Return E_l of features [N, C, H, W] and the painting's Gram matrices [N, C, C], [N] (equation 4)."""
    filters, places = features.shape[1], features[0, 0].numel()
    return (gram(features) - painting).square().sum((1, 2)) / (4 * filters**2 * places**2)


def variation_loss(x: torch.Tensor) -> torch.Tensor:
    """Return the mean difference between vertical and horizontal neighbours of [N, 3, H, W], [N]."""
    from torchmetrics.functional.image import total_variation  # here because the import takes a second

    return total_variation(x, reduction="none") / x[0].numel()


class PairLosses:
    """Content loss against the photographs and style loss against the paintings of `pairs`."""

    def __init__(self, network: Network, pairs: Pairs, *layers: str):
        """Use the content layers and the style layers `layers`; by default the network's."""
        self.content_layers, self.style_layers = layer_names(network, *layers)
        self.features = network.features([*self.content_layers, *self.style_layers])
        with torch.no_grad():
            photo, painting = self.features(pairs.contents), self.features(pairs.styles)
            # Section 2 scales each filter to a mean activation of 1 over ImageNet. A few images are not
            # enough to scale each filter, but they are for each layer.
            self.scale = {name: 2 / (photo[name].mean() + painting[name].mean()) for name in photo}
            self.photo = {name: photo[name] * self.scale[name] for name in self.content_layers}
            self.painting = {name: gram(painting[name] * self.scale[name]) for name in self.style_layers}

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the content loss [N] and the style loss [N] (equation 5) of pictures [N, 3, H, W]."""
        f = {name: features * self.scale[name] for name, features in self.features(x).items()}
        content = sum(content_loss(f[name], self.photo[name]) for name in self.content_layers)
        style = sum(style_loss(f[name], self.painting[name]) for name in self.style_layers)
        return content / len(self.content_layers), style / len(self.style_layers)


class StyleTransfer(Checkpointed):
    """The pictures that are optimised, and their optimiser."""

    parts = ("canvas", "optimizer")
    max_loss = math.inf  # L-BFGS without a line search may overshoot in its first steps, and comes back

    def __init__(self, settings: Settings, network: Network, pairs: Pairs):
        self.settings = settings = fill_unset(settings, DEFAULT_WEIGHTS[network.name])
        self.losses = PairLosses(network, pairs, settings.content_layers, settings.style_layers)
        start = pairs.contents
        if settings.start_from == "noise":
            start = (torch.rand(start.shape, generator=rng(settings.seed, "noise")) * 2 - 1).to(start)
        self.canvas = nn.ParameterList([start.clone(memory_format=torch.contiguous_format)])
        if settings.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.canvas, settings.lr)
        else:  # tolerance 0: only the schedule decides when to stop
            self.optimizer = torch.optim.LBFGS(
                self.canvas, settings.lr, max_iter=1, history_size=LBFGS_HISTORY, tolerance_grad=0,
                tolerance_change=0)

    def update(self) -> dict[str, torch.Tensor]:
        """Take one step; return each loss before the step by name, unweighted, averaged over the pictures."""
        s, means = self.settings, {}

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            losses = dict(zip(("content", "style"), self.losses(self.canvas[0])))
            if s.variation_weight:
                losses["variation"] = variation_loss(self.canvas[0])
            total = sum(getattr(s, f"{name}_weight") * loss for name, loss in losses.items()).sum()
            total.backward()
            means.update({name: loss.detach().mean() for name, loss in losses.items()})
            return total.detach()

        self.optimizer.step(closure)
        self.step += 1
        return means

    def paint(self) -> torch.Tensor:
        """Return the pictures, float [N, 3, H, W] in [-1, 1]."""
        return self.canvas[0].detach().clamp(-1, 1)


class PairScorer:
    """Scores pictures by their distances to their photographs and paintings, and by the judge."""

    def __init__(self, network: Network, pairs: Pairs):
        self.pairs = pairs
        self.losses = PairLosses(network, pairs)  # of the default layers, so that trials can be compared
        with torch.no_grad():  # photograph and painting may be the same image: their distance is 0 then
            self.content_between = self.losses(pairs.styles)[0].clamp(min=1e-12)
            self.style_between = self.losses(pairs.contents)[1].clamp(min=1e-12)

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> Score:
        """Return the score of `pictures`, float [N, 3, H, W] in [-1, 1].

        Parts, beside the judge's (`judge.score.Scorer`) or, without a judge, beside `content` and `scene`:
            style_distance: style loss as a share of the photograph's, which has 1; 0 for the painting.
            content_distance: content loss as a share of the painting's, which has 1; 0 for the photograph.

        `default` is the judge's combination. Without a judge it is (1 - style_distance) x scene^3, which
        rises while the style comes and the scene stays to be seen. It does not see speckle.
        """
        content, style = self.losses(pictures)  # each [N]; the parts are means over the pairs
        parts = {"style_distance": (style / self.style_between).mean().item(),
                 "content_distance": (content / self.content_between).mean().item()}
        if self.pairs.scorer:
            score = self.pairs.scorer(pictures)
            return replace(score, parts=score.parts | parts)
        parts["content"] = structure_similarity(pictures, self.pairs.contents).mean().item()
        parts["scene"] = scene_visibility(pictures, self.pairs.contents).mean().item()
        style = max(0.0, 1 - parts["style_distance"])
        return Score(style_and_scene({"style": style, "scene": parts["scene"]}), parts)


# ---------------------------------------------------------------------------------------------
# Trial


def train(settings: Settings, session: Session) -> None:
    """Optimise the pictures to the end of the budget, and report their distances and the judge's score."""
    pairs = (load_own_pair if settings.content else load_data_pairs)(settings, session.device)
    network, reason = load_network(settings, session.device)
    session.record.add_inputs(**pairs.inputs, features=network.record)
    net, scorer = StyleTransfer(settings, network, pairs), PairScorer(network, pairs)
    weights = {name: getattr(net.settings, name) for name in DEFAULT_WEIGHTS[network.name]}
    session.record.update(features_because=reason, weights=weights)
    session.restore(net)
    last = settings.last_step()
    print(f"Style transfer, {settings.describe_inputs()['data']}, {last} of {settings.steps} steps")
    print(f"features: {network.name}, {reason}; {', '.join(f'{name} {w:g}' for name, w in weights.items())}")
    if network.name == "judge":
        print(f"note: {JUDGE_FEATURES}")
    if pairs.scorer and network.name == "judge":
        print(f"warning: {CIRCULAR_SCORE}")
        session.record.update(warning=CIRCULAR_SCORE)

    for _ in session.steps(net, last, settings.report_interval()):
        session.add_losses(net.update())
        if session.report_due(net):
            with session.scoring():
                pictures = net.paint()
                score = scorer(pictures)
            if settings.content:
                with as_user_error(session.folder):
                    write = partial(save_image, (pictures[0] + 1) / 2, format="png")
                    atomic_write(session.folder / "picture.png", write)
            session.report(net, score, pictures, sheet(pairs, pictures))
    if settings.content:
        print(f"picture: {session.folder / 'picture.png'}")


def check(settings: Settings) -> DiskUse:
    """Return the disk space that a trial needs. Raises UserError if an input or a layer is missing."""
    device = torch.device("cpu")
    (load_own_pair if settings.content else find_data_and_judge)(settings, device)
    network, _ = load_network(settings, device)
    for layers in layer_names(network, settings.content_layers, settings.style_layers):
        network.features(layers)
    pixels = 3 * (1 if settings.content else settings.photos) * settings.edge**2  # as if --content was square
    copies = 2 * LBFGS_HISTORY + 5  # tensors as large as the pictures: history, last step, the pictures
    return DiskUse(4 * pixels * copies, (settings.report_count() + 1) * 2 * 2 * pixels)


def sheet(pairs: Pairs, pictures: torch.Tensor) -> torch.Tensor:
    """Return a sample sheet, float [3, H, W] in [0, 1]: the photographs, each with its painting in the corner
    as in the paper's figure 3, above the pictures."""
    height, width = (edge // 3 for edge in pictures.shape[-2:])
    above = pairs.contents[:SHEET_PAIRS].clone()
    above[..., -height:, :width] = resize(pairs.styles[:SHEET_PAIRS], [height, width])
    return sheets.sheet(above, pictures, SHEET_PAIRS)
