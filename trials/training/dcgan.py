"""The training of DCGAN; `trials/dcgan.py` has the losses and the settings."""

import torch

from judge import labelled, model
from judge.common.rng import seeded
from judge.score import Scorer
from trials.dcgan import Settings
from trials.parts.gan_base import Inputs, NoiseGAN, add_class_scorer, minimise, train_on_images
from trials.parts.losses import bce
from trials.parts.networks import DcganDiscriminator, DcganGenerator, GrowingDiscriminator, GrowingGenerator
from trials.parts.sheets import sheet_pixels
from trials.session import DiskUse, Session


class DCGAN(NoiseGAN):
    """Generator and discriminator of images of a `shape` [C, edge, edge], of convolutions; they may grow."""

    def __init__(self, settings: Settings, shape: tuple[int, int, int], device: torch.device):
        s = settings
        with seeded(s.seed, "networks"):
            G = (GrowingGenerator if s.growing else DcganGenerator)(s.latent_size, s.ngf, shape)
            D = (GrowingDiscriminator if s.growing else DcganDiscriminator)(s.ndf, shape)
        super().__init__(s, G, D, device)
        self._grow()

    def update(self, real: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Take one step of D, unless its loss is below the threshold, and one of G. `labels` are not used."""
        fake = self.G(self.noise(len(real), "step", self.step))
        # Two calls of D: in one, batch normalisation would mix real and generated images.
        loss_D = bce(self.D(real), True) + bce(self.D(fake.detach()), False)
        threshold = self.settings.discriminator_threshold
        if not threshold or loss_D.item() >= threshold:
            minimise(loss_D, self.optimizer_D)
        loss_G = bce(self.D(fake), True)
        minimise(loss_G, self.optimizer_G)
        self.end_step()
        self._grow()
        return {"discriminator": loss_D, "generator": loss_G}

    def _grow(self) -> None:
        """Set the networks to the resolution of the step."""
        s = self.settings
        if s.growing:
            place = growth(self.step / (s.steps * s.growing), len(self.G.blocks))
            self.G.place = self.G_average.place = self.D.place = place

    def load_state_dict(self, state: dict) -> None:
        """Load a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._grow()


def growth(share: float, levels: int) -> float:
    """Return how many of `levels` doublings of the resolution are done after a `share` of the growing phase:
    a resolution is trained for as long as the next one is faded in, the last one after the phase."""
    level, part = divmod(2 * levels * min(share, 1), 2)
    return min(levels, level + max(0.0, part - 1))


def train(settings: Settings, session: Session) -> None:
    """Train for the budget, and report how good G's outputs are."""
    data, scorer, facts = load_inputs(settings, session.device)
    session.record.add_inputs(**facts)
    if warning := warn_of_judge(data.name, facts["judge"]["data"]):
        print(f"warning: {warning}")
        session.record.update(warning=warning)
    net = DCGAN(settings, data.shape, session.device)
    title = f"DCGAN, {settings.edge} px"
    train_on_images(session, net, data, scorer, title=title, samples=settings.samples)


def warn_of_judge(data: str, judged: str | None) -> str | None:
    """Return what is wrong if a judge of the data `judged` scores images like those of `data`, else None."""
    if judged and data in judged.split(" + "):  # how the data of loose folders are named
        return None
    return (f"the judge was trained on {judged}, not on {data}: style, diversity and kid mean little; "
            "train one (python -m judge train --paintings DIR --photos OTHER_IMAGES)")


def check(settings: Settings) -> DiskUse:
    """Return what a trial leaves on the disk. Raises what `load_inputs` raises, and trains nothing."""
    data, cpu = labelled.load_labelled(settings.data, settings.edge), torch.device("cpu")
    if len(data.classes) == 1:
        model.load_judge(settings.judge, cpu, settings.edge)
    return DCGAN(settings, data.shape, cpu).footprint(settings.report_count(), sheet_pixels(data.shape))


def load_inputs(settings: Settings, device: torch.device) -> Inputs:
    """Return what the trial is trained on and scored by.

    Raises UserError if the data cannot be loaded, or if all images are of one class and the judge is missing
    or of another size.
    """
    data = labelled.load_labelled(settings.data, settings.edge)
    if len(data.classes) > 1:
        return add_class_scorer(data, device)
    judge, card = model.load_judge(settings.judge, device, settings.edge)
    scorer = Scorer(judge, None, data.test_pixels)
    return data, scorer, {"data": data.summary(), "judge": card.summary(settings.judge)}
