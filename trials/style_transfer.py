"""Neural style transfer: a photograph painted in the manner of one painting (Gatys et al. 2016, 1508.06576).

    python -m trials.style_transfer --content me.jpg --style monet.jpg      # -> picture.png
    python -m trials.style_transfer --content me.jpg --style monet.jpg --start-from noise --edge 400
    python -m trials.style_transfer --data data/monet2photo                 # many pairs, scored by the judge

No network learns: the pixels of the picture are what is optimised, over the features of a network that is
left as it is. F and P are a layer's features of the picture and of the photograph, N_l of them at M_l
places; G and A the Gram matrices of the picture and of the painting.

    content    1/2 of the mean (F - P)^2                       equation 1, there a sum; see `content_loss`
    style      sum of w_l / (4 N_l^2 M_l^2) * sum (G - A)^2    equations 3 to 5, w_l = 1 / layers
    total      content and style weighted                      equation 7
    variation  mean |difference to the neighbour|              not in the paper; 0 leaves it out

The features are those of VGG-19 where torchvision's weights can be had, and of the judge's ResNet where
not. The paper scales VGG-19 so that the mean activation of each filter is 1 (section 2), which torchvision's
weights are not; here each layer is divided by its mean activation on the trial's own pictures, so that the
weights mean the same at every layer and in both networks.

A judge whose own features were optimised is no judge of the outcome: `style` and `kid` then grow as images
made against a classifier fool it, and not only as the picture gets like a painting. A trial with
`--features judge` says so and records it; what counts there is what another judge says of the pictures
(--keep true keeps them).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize
from torchvision.utils import make_grid, save_image

from judge import images, model
from judge.common.cli import Fraction, LearningRate, PositiveInt, Weight
from judge.common.errors import UserError, one_line
from judge.common.files import as_user_error, atomic_write
from judge.common.rng import rng
from judge.score import MIN_IMAGES, Score, Scorer, check_test_images, combined, structure_similarity
from trials.parts.batches import load_held_out
from trials.session.records import DiskUse
from trials.session.session import Checkpointed, Scheduled, Session, run

# Pixels of the shorter edge of pictures of one's own, by the size that the machine is for.
OWN_EDGE = {"sketch": 256, "paper": 512}
LEAST_EDGE = 32  # pixels: VGG-19 halves four times, the ResNet five
PAIRS = 10  # steps that L-BFGS has the curvature from; each keeps two pictures more
VGG19 = models.VGG19_Weights.IMAGENET1K_V1
PICTURE = "picture.png"  # in the trial's folder: what became of a photograph of one's own
SHEET = 8  # pairs on the sample sheet
CIRCULAR = "the judge's own features are optimised, so its style and kid flatter: ask another judge"
RATES = {"lbfgs": 1.0, "adam": 0.02}


class Published(NamedTuple):
    """A network's layers by default."""

    content: str
    style: str


# The ResNet's have the same distances between places as VGG-19's have, but for its first.
PUBLISHED = {
    "vgg19": Published("conv4_2", "conv1_1,conv2_1,conv3_1,conv4_1,conv5_1"),
    "judge": Published("layer2", "conv1,layer1,layer2,layer3"),
}


@dataclass(frozen=True)
class Settings(Scheduled):
    """What a trial computes. None is what the device says."""

    content: str | None = None
    """A photograph of your own, to be painted as --style: the two replace the data's pairs, and the picture
    is written to picture.png in the trial's folder."""
    style: str | None = None
    """A painting of your own; it is enlarged or reduced, and cut, to what the photograph measures."""
    data: str = "auto"
    """monet2photo, sample, or a folder with trainA testA (paintings) and trainB testB (photographs): held-out
    photographs, each with a painting; auto is data/monet2photo where it is and the built-in sample
    otherwise."""
    judge: str = model.DEFAULT_FILE
    """File of the judge that scores a data set's pictures, and may give the features."""
    features: Literal["auto", "vgg19", "judge"] = "auto"
    """The network whose features are matched: VGG-19 with torchvision's weights (548 MB, downloaded on first
    use), the judge's ResNet; auto is VGG-19 where the weights can be had, and says when not."""
    budget: Fraction = 1.0
    """Share of the full schedule. A trial goes on when started again with more."""
    seed: int = 0
    """Of the pairs and of the noise."""

    content_weight: Weight = 1.0
    """Of the content loss (equation 7)."""
    style_weight: Weight = 1e3
    """Of the style loss: the paper's ratios of content to style are near 1e-3 (figure 3)."""
    variation_weight: Weight = 0.0
    """Of the total variation, which smooths (Mahendran and Vedaldi 2015, 1412.0035, section 2)."""
    content_layers: str = "auto"
    """Layers, with commas between; auto is conv4_2 of VGG-19, as published, and layer2 of the judge."""
    style_layers: str = "auto"
    """Layers, with commas between; auto is conv1_1 to conv5_1 of VGG-19, as published, and conv1 to layer3 of
    the judge."""
    start_from: Literal["content", "noise"] = "content"
    """What the picture is before the first step: the photograph, as in the authors' code, or noise, as in
    the paper's figures (section 3.3)."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """L-BFGS as published, over all pictures together, or Adam."""
    photos: PositiveInt = 16
    """Held-out photographs of the data that are painted and scored, each with a painting."""
    steps: PositiveInt = 200
    """The full schedule in steps."""
    reports: PositiveInt = 10
    """Reports over the full schedule."""

    lr: LearningRate | None = None
    """Learning rate; None is 1 for L-BFGS and 0.02 for Adam."""
    edge: PositiveInt | None = None
    """Pixels: of a data set's square images, those that the judge was trained on; of the shorter edge of
    pictures of your own, which are not enlarged."""

    def complete(self, device: torch.device) -> "Settings":
        """These settings with everything filled in that the device decides.

        Raises:
            UserError: a photograph without a painting or the reverse, too small an edge, or too few
                photographs to score.
        """
        if bool(self.content) != bool(self.style):
            raise UserError("--content and --style go together: the photograph, and whose manner it takes")
        if self.edge is not None and self.edge < LEAST_EDGE:
            raise UserError(f"--edge {self.edge}: at least {LEAST_EDGE}")
        if self.photos < MIN_IMAGES:
            raise UserError(f"--photos {self.photos}: a score takes at least {MIN_IMAGES}")
        size = images.default_size(device)
        edge = self.edge or (OWN_EDGE if self.content else images.SIZES)[size]
        lr = self.lr or RATES[self.optimizer]
        return replace(self, data=images.resolve_name(self.data), edge=edge, lr=lr)

    def describe_inputs(self) -> dict[str, str]:
        """What a trial works on and is scored by, in words."""
        if self.content:
            return {"data": f"{self.content} as {self.style}", "size": f"{self.edge} px",
                    "features": self.features}
        return {"data": images.find_dataset(self.data).description, "size": f"{self.edge} px",
                "judge": self.judge, "features": self.features}


# ---------------------------------------------------------------------------------------------
# Features


class Network(NamedTuple):
    """A frozen network on ImageNet's normalisation, whose features are matched."""

    name: str
    body: nn.Module
    nodes: dict[str, str]
    """By name of layer, the node of `body` behind its ReLU."""
    prepare: Callable[[torch.Tensor], torch.Tensor]
    """What images in [-1, 1] go through before they are normalised."""
    facts: dict[str, str]
    """For records: which network it is."""

    def features(self, layers: str) -> "Features":
        """What gives the features at `layers`, names with commas between.

        Raises:
            UserError: one of them is not there.
        """
        return Features(self, names(layers))


class Features(nn.Module):
    """A network's features at some of its layers."""

    def __init__(self, network: Network, layers: list[str]):
        super().__init__()
        if missing := [name for name in layers if name not in network.nodes]:
            raise UserError(f"no layer {missing[0]!r}: {network.name} has {', '.join(network.nodes)}")
        self.body = create_feature_extractor(network.body, {network.nodes[name]: name for name in layers})
        self.prepare = network.prepare
        for name, values in (("mean", model.MEAN), ("std", model.STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """[N, N_l, H_l, W_l] by layer, of images float [N, 3, H, W] in [-1, 1]."""
        return self.body(((self.prepare(x) + 1) / 2 - self.mean) / self.std)


def names(layers: str) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in layers.split(",")]


def network_of(settings: Settings, device: torch.device) -> tuple[Network, str]:
    """The network that the settings ask for, and why it is this one, in words.

    Raises:
        UserError: its weights cannot be had.
    """
    if settings.features == "judge":
        return judge_network(settings.judge, device), "as asked"
    try:
        network = vgg19_network(device)
    except Exception as error:  # no network, no room, a damaged file: each in its own way
        why = f"VGG-19's weights cannot be had ({one_line(error) or type(error).__name__})"
        if settings.features == "vgg19":
            raise UserError(f"{why}: download {VGG19.url} into {torch.hub.get_dir()}/checkpoints, or give "
                            "--features judge") from None
        return judge_network(settings.judge, device), why
    return network, "as asked" if settings.features == "vgg19" else "its weights can be had"


def vgg19_network(device: torch.device) -> Network:
    """VGG-19's convolutions with torchvision's weights, average pooling in place of maximum (section 2).

    Raises:
        Exception: what downloading, reading and unpickling raise.
    """
    state = VGG19.get_state_dict(progress=False, check_hash=True, weights_only=True)
    with torch.device("meta"):  # weights about to be replaced need not be drawn
        layers = models.vgg19().features
    part = "features."
    kept = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
    layers.load_state_dict(kept, assign=True)
    body = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))
    nodes, block, nth = {}, 1, 0
    for at, layer in enumerate(body):
        if isinstance(layer, nn.ReLU):
            nth += 1
            nodes[f"conv{block}_{nth}"] = str(at)
        elif isinstance(layer, nn.AvgPool2d):
            block, nth = block + 1, 0
    body = body.eval().requires_grad_(False).to(device)
    return Network("vgg19", body, nodes, lambda x: x, {"network": "vgg19", "weights": VGG19.name})


def judge_network(file: str, device: torch.device) -> Network:
    """The ResNet of the judge in `file`.

    Raises:
        UserError: there is no judge, or it is no ResNet.
    """
    judge, card = model.load_judge(file, device)
    if not isinstance(judge.backbone, models.ResNet):
        raise UserError(f"{file} is a {card.arch}: features are taken from a ResNet")
    stages = [name for name, _ in judge.backbone.named_children() if name.startswith("layer")]
    nodes = {"conv1": "relu", **{name: name for name in stages}}
    facts = {"network": "judge", "file": file, "sha256": model.sha256_of(file)}
    return Network("judge", judge.backbone, nodes, model.subsample_chroma, facts)


# ---------------------------------------------------------------------------------------------
# Losses


def gram(features: torch.Tensor) -> torch.Tensor:
    """Correlations of the filters over all places, [N, C, H, W] to [N, C, C] (equation 3)."""
    rows = features.flatten(2)
    return rows @ rows.mT


def content_loss(features: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """Half the squared difference of features [N, C, H, W], [N]: equation 1 as the mean over filters and
    places that it is in the authors' code, so that its weight means the same at every size."""
    return (features - photo).square().flatten(1).mean(1) / 2


def style_loss(features: torch.Tensor, painting: torch.Tensor) -> torch.Tensor:
    """E_l of features [N, C, H, W] against the painting's Gram matrix [N, C, C], [N] (equation 4)."""
    filters, places = features.shape[1], features[0, 0].numel()
    return (gram(features) - painting).square().sum((1, 2)) / (4 * filters**2 * places**2)


def variation_loss(x: torch.Tensor) -> torch.Tensor:
    """Mean difference between neighbours, down and across, of [N, 3, H, W]: [N]."""
    from torchmetrics.functional.image import total_variation  # not above: takes a second

    return total_variation(x, reduction="none") / x[0].numel()


class Target:
    """What pictures are to be like: their photographs in content, their paintings in style.

    Args:
        network: gives the features.
        contents, styles: float [N, 3, H, W] in [-1, 1], one pair a picture.
        content_layers, style_layers: names with commas between.

    Raises:
        UserError: a layer that the network does not have.
    """

    def __init__(self, network: Network, contents: torch.Tensor, styles: torch.Tensor,
                 content_layers: str, style_layers: str):
        self.content_layers, self.style_layers = names(content_layers), names(style_layers)
        self.network = network.features(f"{content_layers},{style_layers}").to(contents.device)
        with torch.no_grad():
            photo, painting = self.network(contents), self.network(styles)
            # Section 2 scales each filter to a mean activation of 1, over ImageNet; of few pictures there
            # is too little to scale each, but each layer there is.
            self.scale = {name: 2 / (photo[name].mean() + painting[name].mean()) for name in photo}
            self.photo = {name: photo[name] * self.scale[name] for name in self.content_layers}
            self.painting = {name: gram(painting[name] * self.scale[name]) for name in self.style_layers}

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Content loss and style loss (equation 5) of pictures [N, 3, H, W] in [-1, 1], [N] each."""
        f = {name: features * self.scale[name] for name, features in self.network(x).items()}
        content = sum(content_loss(f[name], self.photo[name]) for name in self.content_layers)
        style = sum(style_loss(f[name], self.painting[name]) for name in self.style_layers)
        return content / len(self.content_layers), style / len(self.style_layers)


# ---------------------------------------------------------------------------------------------
# Model


class StyleTransfer(Checkpointed):
    """Pictures, their optimiser and step: all that the next step depends on.

    Args:
        settings: complete.
        target: what the pictures are to be like.
        contents: the photographs, float [N, 3, H, W] in [-1, 1].
    """

    parts = ("canvas", "optimizer")

    def __init__(self, settings: Settings, target: Target, contents: torch.Tensor):
        self.settings, self.target = settings, target
        start = contents
        if settings.start_from == "noise":
            start = torch.rand(contents.shape, generator=rng(settings.seed, "noise")) * 2 - 1
        self.canvas = nn.ParameterList([start.to(contents).clone(memory_format=torch.contiguous_format)])
        if settings.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.canvas, settings.lr)
        else:
            # Tolerances are for stopping, which is the schedule's business.
            self.optimizer = torch.optim.LBFGS(self.canvas, settings.lr, max_iter=1, history_size=PAIRS,
                                               tolerance_grad=0, tolerance_change=0)

    def update(self) -> dict[str, torch.Tensor]:
        """One step; returns each loss before it by name, unweighted, the mean over the pictures."""
        s, seen = self.settings, []

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            x = self.canvas[0]
            losses = dict(zip(("content", "style"), self.target(x)))
            total = s.content_weight * losses["content"] + s.style_weight * losses["style"]
            if s.variation_weight:
                losses["variation"] = variation_loss(x)
                total = total + s.variation_weight * losses["variation"]
            total.sum().backward()
            seen.append({name: loss.detach().mean() for name, loss in losses.items()})
            return total.sum().detach()

        self.optimizer.step(closure)
        self.step += 1
        return seen[0]

    def paint(self) -> torch.Tensor:
        """The pictures, float [N, 3, H, W] in [-1, 1]."""
        return self.canvas[0].detach().clamp(-1, 1)


# ---------------------------------------------------------------------------------------------
# Trial


class Subject(NamedTuple):
    """What is painted as what, and how the outcome is scored."""

    contents: torch.Tensor
    """float [N, 3, H, W] in [-1, 1]."""
    styles: torch.Tensor
    """float [N, 3, H, W] in [-1, 1], one for each of `contents`."""
    scorer: Scorer | None
    """None for a pair of one's own: a judge looks at many images of its own size."""
    given: dict[str, dict]
    """For records: data, and judge where there is one."""
    skipped: list[str]
    """Files that could not be read, with the reason."""


def train(settings: Settings, session: Session) -> None:
    """Optimise for the budget, reporting how near photographs and paintings are, and what the judge says."""
    device = session.device
    subject = own(settings, device) if settings.content else pairs(settings, device)
    network, because = network_of(settings, device)
    session.record_inputs(**subject.given, features=network.facts)
    session.update_record(features_because=because)
    published = PUBLISHED[network.name]
    layers = [chosen if chosen != "auto" else auto
              for chosen, auto in zip((settings.content_layers, settings.style_layers), published)]
    pair = (subject.contents, subject.styles)
    net = StyleTransfer(settings, Target(network, *pair, *layers), subject.contents)
    session.restore(net)
    score_of = PairScorer(Target(network, *pair, *published), subject)
    last, every = settings.last_step(), settings.report_interval()
    print(f"Style transfer, {settings.describe_inputs()['data']}, {last} of {settings.steps} steps")
    print(f"features: {network.name}, {because}")
    for file in subject.skipped:
        print(f"warning: left out, cannot be read: {file}")
    if subject.scorer and network.name == "judge":
        print(f"warning: {CIRCULAR}")
        session.update_record(warning=CIRCULAR)

    for _ in session.steps(net, last):
        session.add_losses(net.update())
        if session.is_report_due(net.step, every, last):
            with session.scoring():
                pictures = net.paint()
                score = score_of(pictures)
            session.save_paintings(net.step, pictures)
            if settings.content:
                write(pictures[0], session.folder)
            session.report(net, score, sheet(subject, pictures))


def check(settings: Settings) -> DiskUse:
    """What a trial of these settings leaves on the disk, once all is there that it needs.

    Raises:
        UserError: as `own`, `judged` and `network_of`; a layer that is not there.
    """
    device = torch.device("cpu")
    if settings.content:
        own(settings, device)
    else:
        judged(settings, device)
    network, _ = network_of(settings, device)
    for layers in (settings.content_layers, settings.style_layers):
        if layers != "auto":
            network.features(layers)
    count = 1 if settings.content else settings.photos
    pixels = 3 * count * settings.edge**2  # of one's own, a square would have
    states = 2 * PAIRS + 5  # as much as the pictures takes each: the pairs, the last step, the pictures
    return DiskUse(4 * pixels * states, settings.report_count() * 2 * 2 * pixels)


def own(settings: Settings, device: torch.device) -> Subject:
    """The user's photograph, its shorter edge `edge` pixels unless it is smaller, and the painting cut to
    the same size, as the paper has it (section 3), without being squashed.

    Raises:
        UserError: one of the two cannot be read, or the photograph is too small.
    """
    photo, painting = (opened(Path(file)) for file in (settings.content, settings.style))
    shorter = min(photo.shape[1:])
    if shorter < LEAST_EDGE:
        raise UserError(f"{settings.content} is {shorter} px wide or high: at least {LEAST_EDGE}")
    photo = resize(photo, [min(settings.edge, shorter)], InterpolationMode.BICUBIC)
    cover = max(ours / theirs for ours, theirs in zip(photo.shape[1:], painting.shape[1:]))
    covering = [math.ceil(edge * cover) for edge in painting.shape[1:]]
    painting = center_crop(resize(painting, covering, InterpolationMode.BICUBIC), list(photo.shape[1:]))
    contents, styles = (images.to_float(image[None]).to(device) for image in (photo, painting))
    data = {"name": settings.describe_inputs()["data"], "stand_in": False,
            "content": model.sha256_of(settings.content), "style": model.sha256_of(settings.style)}
    return Subject(contents, styles, None, {"data": data}, [])


def opened(file: Path) -> torch.Tensor:
    """The image in `file`, uint8 [3, H, W].

    Raises:
        UserError: it cannot be read.
    """
    try:
        return images.read_full_size(file)
    except Exception as error:  # each format's decoder fails in its own ways, all with one meaning
        raise UserError(f"{file} cannot be read as an image ({one_line(error)})") from None


def pairs(settings: Settings, device: torch.device) -> Subject:
    """Held-out photographs of the data, each with a training painting by the seed, and the judge's scorer,
    which measures distances to the held-out paintings.

    Raises:
        UserError: as `judged`, or a domain's images cannot be read.
    """
    data, judge, card = judged(settings, device)
    test = load_held_out(data, settings.edge, settings.photos, device)
    files = data.train[images.PAINTINGS]
    order = torch.randperm(len(files), generator=rng(settings.seed, "pairs"))
    found = images.load_images([files[at] for at in order[: len(test.photos)]], settings.edge)
    styles = images.to_float(found.pixels).to(device)
    styles = styles[torch.arange(len(test.photos), device=device) % len(styles)]  # if there are fewer
    given = {
        "data": {"name": data.name, "stand_in": data.stand_in, "test": test.counts, "styles": found.counts()},
        "judge": card.summary(settings.judge),
    }
    skipped = [file for counts in (found.counts(), *test.counts.values()) for file in counts["skipped"]]
    return Subject(test.photos, styles, Scorer(judge, test.photos, test.paintings), given, skipped)


def judged(settings: Settings, device: torch.device) -> tuple[images.DataSet, model.Judge, model.ModelCard]:
    """The data set and the judge that the settings name. Opens no image.

    Raises:
        UserError: no data, too few test images to score, no judge, or one of another size.
    """
    data = images.find_dataset(settings.data)
    check_test_images(data)
    return data, *model.load_judge(settings.judge, device, settings.edge)


class PairScorer:
    """Scores pictures between their photographs and their paintings, again and again as a trial does.

    Args:
        target: over the published layers, whichever are optimised, so that trials can be compared.
        subject: the pairs.
    """

    def __init__(self, target: Target, subject: Subject):
        self.target, self.subject = target, subject
        with torch.no_grad():
            self.content_between = target(subject.styles)[0].clamp(min=1e-12)  # one image twice: no distance
            self.style_between = target(subject.contents)[1].clamp(min=1e-12)

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> Score:
        """The score of `pictures`, float [N, 3, H, W] in [-1, 1].

        Parts, beside the judge's (`judge.score.Scorer`) or, of a pair of one's own, `content` alone:
            style_distance: what is left of the style loss between photograph and painting, mean over the
                pairs: 0 as the painting, 1 as the photograph, more than 1 where it is further away.
            content_distance: content loss as a share of that between painting and photograph: 0 as the
                photograph, 1 as far from it as the painting.

        `default` is the judge's combination; of a pair of one's own the same with 1 - style_distance, at
        least 0, in the place of style.
        """
        content, style = self.target(pictures)
        parts = {"style_distance": (style / self.style_between).mean().item(),
                 "content_distance": (content / self.content_between).mean().item()}
        if self.subject.scorer:
            score = self.subject.scorer(pictures)
            return replace(score, parts=score.parts | parts)
        parts["content"] = structure_similarity(pictures, self.subject.contents).mean().item()
        near = max(0.0, 1 - parts["style_distance"])
        return Score(combined({"style": near, "content": parts["content"]}), parts)


def write(picture: torch.Tensor, folder: Path) -> None:
    """`picture`, float [3, H, W] in [-1, 1], as a PNG in the trial's folder, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    with as_user_error(folder):
        atomic_write(folder / PICTURE, lambda part: save_image((picture + 1) / 2, part, format="png"))


def sheet(subject: Subject, pictures: torch.Tensor) -> torch.Tensor:
    """The photographs, each with its painting in the corner as in the paper's figure 3, above what became
    of them: float [3, H, W] in [0, 1]."""
    height, width = (size // 3 for size in pictures.shape[-2:])
    above = subject.contents[:SHEET].clone()
    above[..., -height:, :width] = resize(subject.styles[:SHEET], [height, width])
    rows = torch.cat([above, pictures[:SHEET]])
    return make_grid(rows, nrow=len(above), normalize=True, value_range=(-1, 1))


if __name__ == "__main__":
    run(train, Settings)
