"""The training of StarGAN; `trials/stargan.py` has the losses and the settings."""

from collections.abc import Sequence
from functools import partial

import torch
from PIL import Image
from torch.nn.functional import cross_entropy, l1_loss

from judge.class_score import TranslationScorer
from judge.classifier import TrainedClassifier, load_or_train
from judge.common.files import as_user_error, atomic_write
from judge.common.rng import rng, seeded
from judge.images import to_float
from judge.labelled import LabelledImages, load_domains
from trials.parts.batches import epoch_indices, place, send
from trials.parts.ema import Averaged
from trials.parts.gan_base import minimise
from trials.parts.losses import gradient_penalty
from trials.parts.networks import StarganDiscriminator, StarganGenerator, with_planes
from trials.parts.schedule import decay_factor, set_lr
from trials.parts.sheets import COLUMNS, captioned_grid, sheet, sheet_pixels
from trials.session import DiskUse, Session
from trials.stargan import Settings

DOMAINS_ROWS = 8  # images in domains.png

class StarGAN(Averaged):
    """Generator, discriminator, their optimisers and the step, for a number of `domains`."""

    parts = ("G", "D", "optimizer_G", "optimizer_D")

    def __init__(self, settings: Settings, domains: int, device: torch.device):
        self.settings, self.domains, self.device, s = settings, domains, device, settings
        # The memory format of the weights becomes that of the images; on a CPU channels_last is faster.
        layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=s.precision == "bf16")
        with seeded(s.seed, "networks"):
            self.G = StarganGenerator(s.ngf, s.blocks, domains).to(device, memory_format=layout)
            self.D = StarganDiscriminator(s.ndf, s.layers, domains, s.edge).to(device, memory_format=layout)
        self.start_averages()
        betas = (s.beta1, s.beta2)  # `update` sets the learning rates
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), betas=betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), betas=betas, fused=True)

    def update(self, real: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take `n_critic` steps of D, each on a batch of N images, and then one of G on the last batch.

        `real` is float [n_critic x N, 3, edge, edge] in [-1, 1], and `labels`, int64, are its domains. Return
        each loss of the last updates by name, unweighted.
        """
        s = self.settings
        factor = decay_factor(self.step, s.steps, s.decay)
        set_lr(self.optimizer_G, s.generator_lr * factor)
        set_lr(self.optimizer_D, s.discriminator_lr * factor)
        draw = rng(s.seed, "update", self.step)
        self.D.requires_grad_(True)
        for x, source in zip(real.chunk(s.n_critic), labels.chunk(s.n_critic), strict=True):
            # Targets are the batch's labels shuffled, as in the authors' code: generated images have the
            # same mix of domains as real ones, so D cannot tell them apart by the domain.
            target = source[torch.randperm(len(source), generator=draw).to(source.device)]
            share = torch.rand(len(x), 1, 1, 1, generator=draw).to(x.device)
            losses = self._update_discriminator(x, source, target, share)
        self.D.requires_grad_(False)  # gradients pass through, none are kept
        losses |= self._update_generator(x, source, target)
        self.end_step()
        return losses

    def _update_discriminator(self, x, source, target, share) -> dict[str, torch.Tensor]:
        """Minimise equations 8 and 5. `share` is that of the real images in equation 8's interpolation."""
        s = self.settings
        with torch.no_grad():
            fake = self.translate(x, target)
        on_real, domain = self.D(x)
        on_fake, _ = self.D(fake)
        losses = {
            "critic": on_fake.mean() - on_real.mean(),
            "penalty": gradient_penalty(lambda between: self.D(between)[0], x, fake, share),
            "domain_real": cross_entropy(domain, source),
        }
        loss = losses["critic"] + s.penalty_weight * losses["penalty"]
        minimise(loss + s.domain_weight * losses["domain_real"], self.optimizer_D)
        return losses

    def _update_generator(self, x, source, target) -> dict[str, torch.Tensor]:
        """Minimise equation 6."""
        s = self.settings
        fake = self.translate(x, target)
        on_fake, domain = self.D(fake)
        losses = {
            "adversarial": -on_fake.mean(),
            "domain_fake": cross_entropy(domain, target),
            "reconstruction": l1_loss(self.translate(fake, source), x),
        }
        loss = losses["adversarial"] + s.domain_weight * losses["domain_fake"]
        minimise(loss + s.reconstruction_weight * losses["reconstruction"], self.optimizer_G)
        return losses

    def translate(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return G(x, c), float [N, 3, edge, edge] in [-1, 1]: the images `x` in the domains `targets`."""
        with self.autocast:
            return self.G(with_planes(x, targets, self.domains)).float()

    @torch.no_grad()
    def make(self, sources: torch.Tensor, targets: torch.Tensor, batch: int = 16) -> torch.Tensor:
        """Translate as `translate` does, but with G or --ema's average of it, in fp32 and `batch` images at a
        time."""
        parts = zip(sources.split(batch), targets.split(batch))
        return torch.cat([self.G_average(with_planes(*part, self.domains)) for part in parts])


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, and report a classifier's score of translated test images."""
    device = session.device
    data, classifier = load_inputs(settings, device)
    session.record.add_inputs(data=data.summary(), judge=classifier.summary(data))
    count = len(data.classes)
    net = StarGAN(settings, count, device)
    session.restore(net)
    last = settings.last_step()
    title = f"StarGAN, {settings.edge} px, {data.name}: {', '.join(data.classes)}"
    print(f"{title}, {last} of {settings.steps} steps")
    [pixels], labels = place([data.pixels], device), data.labels.to(device)
    chosen, targets = held_out(data.test_labels, settings.samples)
    sources, targets = to_float(data.test_pixels[chosen]).to(device), targets.to(device)
    own_domains = data.test_labels[chosen].to(device)
    scorer = TranslationScorer(classifier.network, sources, own_domains, targets, data.classes)
    images_per_step, pairs = settings.n_critic * settings.batch_size, count * (count - 1)

    for step in session.steps(net, last, settings.report_interval()):
        batch = epoch_indices(settings.seed, "real", step, images_per_step, len(pixels))
        real = to_float(send(pixels[batch], device))
        session.add_losses(net.update(flipped(real, settings.seed, step), labels[batch]))
        if session.report_due(net):
            with session.scoring():
                made = net.make(sources, targets)
                score, given = scorer(made), scorer.count_given(made)
                picture = in_each_domain(net, sources[:DOMAINS_ROWS], data.classes)
            session.record.update(asked_given=given)
            with as_user_error(session.folder):
                atomic_write(session.folder / "domains.png", partial(picture.save, format="png"))
            session.report(
                net, score, made, sheet(sources, made, pairs * max(1, COLUMNS // pairs)),
                lr_factor=decay_factor(step, settings.steps, settings.decay),
            )  # fmt: skip
            if net.step == last:
                print(f"asked for (rows), and what the classifier calls it:\n{as_table(given)}")
                print(f"each image in each domain: {session.folder / 'domains.png'}")


def in_each_domain(net: StarGAN, sources: torch.Tensor, names: Sequence[str]) -> Image.Image:
    """Return a picture of `sources`, float [N, 3, edge, edge] in [-1, 1]: a row for each, itself at the left
    and then in each of the domains `names`, as in the paper's figures."""
    columns = [net.make(sources, torch.full((len(sources),), domain, device=sources.device))
               for domain in range(len(names))]
    rows = torch.stack([sources, *columns], 1)
    return captioned_grid(rows.flatten(0, 1), rows.shape[1], ["input", *names])


def as_table(counts: dict[str, dict[str, int]]) -> str:
    """Return counts by row and column name as lines of text."""
    rows = [["", *counts], *([name, *map(str, row.values())] for name, row in counts.items())]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def check(settings: Settings) -> DiskUse:
    """Return what a trial leaves on the disk. Raises UserError if there is one domain only."""
    data = load_domains(settings.data, settings.edge)
    net = StarGAN(settings, len(data.classes), torch.device("cpu"))
    return net.footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> tuple[LabelledImages, TrainedClassifier]:
    """Return the data and a classifier of its domains. Raises UserError if there is one domain only."""
    data = load_domains(settings.data, settings.edge)
    return data, load_or_train(data, device)


def held_out(labels: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices of test images and the domains that they are translated to, both int64 [K x N].

    `labels`, int64 [M], are the domains of all test images. Each of the K domains gives equally many, up to
    `most`, spread evenly over it, in turn: the pairs of source and target repeat every K x (K - 1) images.
    """
    by_domain = [(labels == domain).nonzero()[:, 0] for domain in labels.unique()]
    domains, count = len(by_domain), min(most, *map(len, by_domain))
    chosen = torch.stack([indices[torch.arange(count) * len(indices) // count] for indices in by_domain], 1)
    shift = 1 + torch.arange(count)[:, None] % (domains - 1)
    return chosen.flatten(), ((torch.arange(domains) + shift) % domains).flatten()


def flipped(batch: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Return `batch`, [N, C, H, W], with each image mirrored with probability 0.5 (section 5.3)."""
    mirrored = torch.rand(len(batch), 1, 1, 1, generator=rng(seed, "flips", step)) < 0.5
    return torch.where(mirrored.to(batch.device), batch.flip(-1), batch)
