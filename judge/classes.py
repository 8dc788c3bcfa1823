"""Images by class, and what scores images that pretend to belong: a small classifier, trained here.

MNIST, scikit-learn's digits as the built-in sample, or a folder of images for each class. Pretrained
Inception features say little of digits; a classifier of the data at hand gives features, classes and
confidence instead (Salimans et al. 2016, 1606.03498, section 4, with their classifier for ours).
"""

import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, pad
from torchvision import datasets

from judge import cache, images
from judge.command import UserError
from judge.score import FEWEST, Patterns, Score, combined, kernel_distance, structure, vendi
from judge.seeds import generator

DIGITS, MNIST, FOLDER = "digits", "mnist", "folder"  # kinds of data
EDGE = 2  # black pixels around MNIST: 32 px halve to 4, and LeNet-5 read them so (LeCun et al. 1998)
HELD_OUT = 5  # one in five of the built-in digits is a test image

SEEN = 180_000  # images by the classifier in training: three passes over MNIST
BATCH = 128
PEAK_RATE = 3e-3
REAL = 2000  # test images, about, that distances are measured to
VARIED = 256  # images that diversity is measured over: its unit grows with their number
VERSION = 2  # of the classifier: raise it when it is trained, or kept, in another way

# ---------------------------------------------------------------------------------------------
# Data


@dataclass(frozen=True)
class Labelled:
    """Images with the number of their class."""

    name: str
    classes: tuple[str, ...]
    pixels: torch.Tensor
    """uint8 [N, C, H, W], to train on."""
    labels: torch.Tensor
    """int64 [N], below `len(classes)`."""
    test_pixels: torch.Tensor
    """uint8 [M, C, H, W], held out."""
    test_labels: torch.Tensor
    """int64 [M]."""
    stand_in: bool = False
    """Whether this is the built-in sample."""
    skipped: tuple[str, ...] = ()
    """Files that could not be read, with the reason."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.pixels.shape[1:])

    def facts(self) -> dict:
        """For records: name, and how many images."""
        counts = {"images": len(self.pixels), "test": len(self.test_pixels), "skipped": list(self.skipped)}
        return {"name": self.name, "stand_in": self.stand_in, "classes": list(self.classes), **counts}


def resolved(data: str) -> str:
    """`auto` as what it stands for here: MNIST where it has been downloaded, else the built-in digits."""
    if data != "auto":
        return data
    return MNIST if _has_mnist(images.DATA) else DIGITS


def notice(data: str) -> str:
    """What to say of the data wherever results are shown."""
    return f"{data} (built-in stand-in for MNIST)" if data == DIGITS else data


def kind(data: str) -> str:
    """`DIGITS`, `MNIST`, or `FOLDER`, whose size is for the trial to choose."""
    if data == DIGITS:
        return DIGITS
    return MNIST if data == MNIST or _has_mnist(Path(data)) else FOLDER


def load(data: str, size: int = 0) -> Labelled:
    """The images that `data` names.

    Args:
        data: `digits` (8 px, built in), `mnist` (32 px, downloaded into data/ on first use), a folder
            that holds `MNIST/raw`, or a folder of images: a class for each subfolder, or one class
            where there are none. Of a folder in CycleGAN's layout the paintings, testA held out; of
            another every tenth image.
        size: edge of a folder's images, in pixels; other data has its own.

    Raises:
        UserError: there is no such folder or no image in it, or MNIST cannot be had.
    """
    if kind(data) == DIGITS:
        return _digits()
    if kind(data) == MNIST:
        return _mnist(images.DATA if data == MNIST else Path(data))
    found = _folder(Path(data) if Path(data).is_dir() else images.DATA / data, size)
    if len(found.test_pixels) < FEWEST:
        raise UserError(f"{data}: {len(found.test_pixels)} test images, a score takes at least {FEWEST}")
    return found


def load_domains(data: str, size: int) -> Labelled:
    """The images that `data` names, of two domains or more, a class each.

    Args:
        data: what `images.find` knows, whose domains are paintings and photographs, or a folder with a
            subfolder of images for each domain, every tenth of them held out.
        size: edge of the images, in pixels.

    Raises:
        UserError: there is no such data, of one domain only, or too few images of a domain.
    """
    folder = Path(data) if Path(data).is_dir() else images.DATA / data
    if folder.is_dir() and not _is_cyclegans(folder):
        loaded = _folder(folder, size)
    else:
        found = images.find(data)
        files = {"paintings": _split(found, images.PAINTINGS), "photos": _split(found, images.PHOTOS)}
        loaded = replace(_loaded(found.name, files, size), stand_in=found.stand_in)
    if len(loaded.classes) < 2:
        raise UserError(f"{data} has one domain: give a folder with a subfolder of images for each")
    for name, count in zip(loaded.classes, torch.bincount(loaded.test_labels).tolist()):
        if count < FEWEST:
            raise UserError(f"{data}: {count} test images of {name}, a score takes at least {FEWEST}")
    return loaded


def _digits() -> Labelled:
    from sklearn.datasets import load_digits  # not above: takes a second

    found = load_digits()
    pixels = torch.from_numpy(found.images / 16 * 255).round().byte()[:, None]
    labels = torch.from_numpy(found.target).long()
    # At random: the file goes from writer to writer.
    test = torch.randperm(len(pixels), generator=generator("digits")) % HELD_OUT == 0
    classes = tuple(map(str, found.target_names))
    return Labelled(DIGITS, classes, pixels[~test], labels[~test], pixels[test], labels[test], stand_in=True)


def _has_mnist(root: Path) -> bool:
    return (root / "MNIST" / "raw").is_dir()


def _mnist(root: Path) -> Labelled:
    try:
        train, test = (datasets.MNIST(root, train=of, download=root == images.DATA) for of in (True, False))
    except (OSError, RuntimeError) as error:  # no network, damaged files
        raise UserError(f"MNIST cannot be had ({error}): put its four files into {root}/MNIST/raw, or give "
                        f"--data {DIGITS}") from None
    (pixels, labels), (test_pixels, test_labels) = (
        (pad(part.data[:, None], (EDGE,) * 4), part.targets) for part in (train, test))
    classes = tuple(map(str, range(10)))
    return Labelled(MNIST, classes, pixels, labels, test_pixels, test_labels)


def _folder(folder: Path, size: int) -> Labelled:
    if not folder.is_dir():
        raise UserError(f"no data folder {folder}: give --data {DIGITS}, {MNIST}, or a folder with a "
                        "subfolder of images for each class")
    if _is_cyclegans(folder):
        found = images.find(str(folder))
        return _loaded(found.name, {found.name: _split(found, images.PAINTINGS)}, size)
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {}
    for part in inside or [folder]:
        paths = images.listed([part])
        if len(paths) < 2:
            raise UserError(f"{part}: one image, of which none is left to hold out")
        files[part.name] = [p for i, p in enumerate(paths) if i % 10], paths[::10]
    return _loaded(folder.resolve().name, files, size)


def _is_cyclegans(folder: Path) -> bool:
    return (folder / f"train{images.PAINTINGS}").is_dir()


def _split(found: images.DataSet, domain: str) -> tuple[list[Path], list[Path]]:
    return found.train[domain], found.test[domain]


def _loaded(name: str, files: dict[str, tuple[list[Path], list[Path]]], size: int) -> Labelled:
    """Files to train on and files held out, by class, as images of `size` pixels."""
    loaded = [[images.load(paths, size) for paths in of_class] for of_class in files.values()]
    (pixels, labels), (test_pixels, test_labels) = (
        (torch.cat([part.pixels for part in split]),
         torch.cat([torch.full((len(part.pixels),), label) for label, part in enumerate(split)]))
        for split in zip(*loaded))
    skipped = tuple(file for of_class in loaded for part in of_class for file in part.skipped)
    return Labelled(name, tuple(files), pixels, labels, test_pixels, test_labels, skipped=skipped)


# ---------------------------------------------------------------------------------------------
# Classifier


class Classifier(nn.Module):
    """Convolutions down to 4 px, then two layers; images are float [N, C, size, size] in [-1, 1].

    Args:
        shape: channels, height and width of an image; the edge a power of two, 8 px and up.
        classes: how many.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, edge, _ = shape
        layers, width = [], 16
        while edge > 4:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
                       nn.ReLU(inplace=True), nn.MaxPool2d(2)]  # fmt: skip
            channels, width, edge = width, min(2 * width, 256), edge // 2
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, [N, classes]."""
        return self.head(self.features(x))


@dataclass(frozen=True)
class Trained:
    """A classifier and how good it is."""

    network: Classifier
    accuracy: float
    """On the test images."""
    file: str
    """Its name in the cache."""

    def facts(self, data: Labelled) -> dict:
        """For records, in the form of a judge's."""
        return {"file": self.file, "data": data.name, "accuracy": self.accuracy}


def classifier(data: Labelled, device: torch.device) -> Trained:
    """The classifier of `data`, trained on first use (some minutes on a CPU for MNIST) and then kept
    in the cache, by what it learnt from."""
    seen = hashlib.sha256(repr((VERSION, data.classes, data.shape)).encode())
    for part in (data.pixels, data.labels, data.test_pixels, data.test_labels):
        seen.update(part.numpy().tobytes())
    name = f"classifier-{data.name}-{seen.hexdigest()[:16]}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(0, "classifier").get_state())
        network = Classifier(data.shape, len(data.classes)).to(device)
    found = cache.kept(name)
    if not found:
        print(f"training a classifier of {data.name}", file=sys.stderr)
        found = {"accuracy": _train(network, data, device), **network.state_dict()}
        cache.keep(name, found)
    accuracy = found.pop("accuracy")
    network.load_state_dict(found)
    return Trained(network.eval().requires_grad_(False), accuracy, name)


def _train(network: Classifier, data: Labelled, device: torch.device) -> float:
    """Train by Adam under a one-cycle schedule; returns the accuracy on the test images."""
    steps = min(SEEN, 30 * len(data.pixels)) // BATCH
    optimizer = torch.optim.Adam(network.parameters(), PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps)
    for step in range(steps):
        chosen = torch.randint(len(data.pixels), (BATCH,), generator=generator(0, "classifier", step))
        x, labels = images.to_float(data.pixels[chosen]).to(device), data.labels[chosen].to(device)
        optimizer.zero_grad()
        cross_entropy(network(x), labels).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    logits, _ = outputs(network, images.to_float(data.test_pixels).to(device))
    return (logits.argmax(1).cpu() == data.test_labels).float().mean().item()


@torch.no_grad()
def outputs(network: Classifier, x: torch.Tensor, batch: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, classes] and features [N, 128] of many images, computed in batches.

    Features are scaled to a mean square of 1 each: KID's kernel, (x y / d + 1)^3, is made for that scale.
    """
    features = torch.cat([network.features(part) for part in x.split(batch)])
    return network.head(features), normalize(features) * features.shape[1] ** 0.5


# ---------------------------------------------------------------------------------------------
# Score


class ClassScorer:
    """Scores images of classes again and again, as a trial does.

    Args:
        network: see `classifier`.
        real: images to measure the distance to, float [M, C, H, W] in [-1, 1].
        names: of the K classes.
    """

    def __init__(self, network: Classifier, real: torch.Tensor, names: tuple[str, ...]):
        self.network, self.names = network, names
        self.real, self.mean = outputs(network, real)[1], real.mean(0)
        self.varied = self._vendi(real)

    def __call__(self, made: torch.Tensor, asked: torch.Tensor | None = None) -> Score:
        """The score of `made`, float [N, C, H, W] in [-1, 1], N at least 4.

        Parts:
            right: with `asked`, int64 [N] with every class in it, the share of images that are put in the
                class asked for.
            confidence: mean probability of the class that an image is put in, in [1 / K, 1].
            inception: Inception Score, exp of the mean KL(p(y|x) || p(y)), as a share of the number
                of classes K, in [1 / K, 1]: 1 where every image is surely of one class and all are
                equally frequent. Salimans et al. 2016 (1606.03498), section 4.
            coverage: share of the classes that some image is put in, at least a tenth as often as if
                all were equally frequent.
            diversity: how many different images there are (`vendi`, of pixels less the mean real image)
                as a share of the real ones', at most 1. The classifier's features, made to tell
                classes apart, hardly see whether the images of one are all alike; this does.
            kid: distance to the real images in the classifier's features, and `kid_error`.

        `default` is right (or else inception) x diversity / (1 + kid), in [0, 1]. `facts` are the share of
        `made` that is put in each class, `class_NAME`, or with `asked` right for each, `right_NAME`.
        """
        logits, features = outputs(self.network, made)
        probabilities = logits.double().softmax(1)
        found = logits.argmax(1)
        shares = torch.bincount(found, minlength=len(self.names)) / len(found)
        facts = {f"class_{name}": share for name, share in zip(self.names, shares.tolist())}
        parts = {
            "confidence": probabilities.amax(1).mean().item(),
            "inception": inception(probabilities) / len(shares),
            "coverage": (shares >= 0.1 / len(shares)).double().mean().item(),
        }
        if asked is not None:
            hits = (found == asked).double()
            facts = {f"right_{name}": hits[asked == label].mean().item()
                     for label, name in enumerate(self.names)}
            parts = {"right": hits.mean().item(), **parts}
        parts["diversity"] = min(1.0, self._vendi(made) / self.varied)
        parts["kid"], parts["kid_error"] = kernel_distance(features, self.real)
        quality = parts["inception"] if asked is None else parts["right"]
        return Score(quality * parts["diversity"] / (1 + max(0.0, parts["kid"])), parts, facts)

    def _vendi(self, images: torch.Tensor) -> float:
        return vendi((images[:VARIED] - self.mean).flatten(1))


class TranslationScorer:
    """Scores translations of the same images to other domains again and again, as a trial does.

    Args:
        network: see `classifier`.
        sources: the images, float [N, 3, H, W] in [-1, 1], at least 4 of each of the K domains.
        labels: int64 [N], the domain that each is of.
        targets: int64 [N], the domain that each is to become of, with at least 4 for each domain.
        names: of the domains.
    """

    def __init__(self, network: Classifier, sources: torch.Tensor, labels: torch.Tensor,
                 targets: torch.Tensor, names: tuple[str, ...]):
        self.sources, self.targets, self.names = sources, targets, names
        real = [sources[labels == domain] for domain in range(len(names))]
        self.towards = [ClassScorer(network, images, names) for images in real]
        self.patterns = Patterns(real)

    def __call__(self, made: torch.Tensor) -> Score:
        """The score of `made`, float [N, 3, H, W] in [-1, 1], in the sources' order.

        Parts, of which domain, diversity and kid are means over the targets, so that each is worth as much
        and the images made to be of one are compared with real ones of it:
            domain: share of the images that are put in the domain they were to become of.
            content: mean structure kept of the source, in [0, 1] (`judge.score.structure`).
            diversity: as `ClassScorer`'s.
            clean: 1 without patterns of a few pixels that no real image has (`judge.score.Patterns`).
            kid: as `ClassScorer`'s, and `kid_error`.

        `default` is `judge.score.combined` with domain for style, domain x content^3 x diversity x clean /
        (1 + kid)^2, in [0, 1] and monotone in each. `facts` are the shares for each domain, `domain_NAME`.
        """
        scores = [scorer(made[self.targets == domain]) for domain, scorer in enumerate(self.towards)]
        shares = {f"domain_{name}": score.facts[f"class_{name}"] for name, score in zip(self.names, scores)}
        mean = {name: fmean(score.parts[name] for score in scores) for name in ("diversity", "kid")}
        error = sum(score.parts["kid_error"] ** 2 for score in scores) ** 0.5 / len(scores)
        parts = {
            "domain": fmean(shares.values()), "content": structure(made, self.sources).mean().item(),
            "diversity": mean["diversity"], "clean": self.patterns.clean(made),
            "kid": mean["kid"], "kid_error": error,
        }  # fmt: skip
        return Score(combined({**parts, "style": parts["domain"]}), parts, shares)


def scorer(data: Labelled, device: torch.device) -> tuple[ClassScorer, dict]:
    """What scores images that pretend to be of `data`, and what to record of it."""
    trained = classifier(data, device)
    spread = max(1, len(data.test_pixels) // REAL)  # MNIST's first half is the easier one
    real = images.to_float(data.test_pixels[::spread]).to(device)
    return ClassScorer(trained.network, real, data.classes), trained.facts(data)


def inception(probabilities: torch.Tensor) -> float:
    """Inception Score of p(y|x), double [N, K], from 1 to K: Salimans et al. 2016, section 4."""
    marginal = torch.special.entr(probabilities.mean(0)).sum()
    return (marginal - torch.special.entr(probabilities).sum(1).mean()).exp().item()
