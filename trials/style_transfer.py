"""Neural style transfer: paint a photograph in the style of a painting (Gatys et al. 2016, 1508.06576).

    python -m trials.style_transfer --content me.jpg --style monet.jpg      # -> picture.png
    python -m trials.style_transfer --content me.jpg --style monet.jpg --start-from noise --edge 400
    python -m trials.style_transfer --data data/monet2photo                 # many pairs, scored by the judge

No network is trained. The pixels of the picture are optimised so that a fixed network sees the content of
the photograph and the style of the painting in them. F and P are the features of the picture and of the
photograph at layer l, with N_l filters and M_l places; G and A are the Gram matrices of the picture and of
the painting.

    content    1/2 mean (F - P)^2                              equation 1, there a sum: see `content_loss`
    style      sum of w_l / (4 N_l^2 M_l^2) sum (G - A)^2      equations 3 to 5, w_l = 1 / number of layers
    total      weighted sum of content and style               equation 7
    variation  mean |difference between neighbouring pixels|   not in the paper, weight 0 by default

The features are those of VGG-19 or, where its weights cannot be loaded, of the judge's ResNet. In the paper
each filter of VGG-19 has a mean activation of 1 (section 2). Here each layer is divided by its mean
activation on the trial's own images, so that the weights mean the same at every layer.

The paper's weights are made for VGG-19. With the judge's features they give coloured speckle: its ResNet
halves an image more coarsely and hardly sees single pixels. `DEFAULT_WEIGHTS` has other weights for it.

With `--features judge` the judge's `style` and `kid` are too good, because the picture is optimised against
the network that scores it: score the pictures with another judge (--keep true keeps them).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from judge.common.cli import Fraction, LearningRate, PositiveInt, Weight
from judge.common.constants import DEFAULT_JUDGE, SIZES
from judge.common.errors import UserError
from judge.folders import resolve_name
from trials.session import Scheduled, run

if TYPE_CHECKING:
    import torch

DEFAULT_WEIGHTS = {  # of each network: VGG-19's are the paper's, the judge's the best of a grid, by eye
    "vgg19": {"style_weight": 1e3, "variation_weight": 0.0},
    "judge": {"style_weight": 3.0, "variation_weight": 4.0},
}
DEFAULT_LR = {"lbfgs": 1.0, "adam": 0.02}
OWN_IMAGE_PIXELS = {"cpu": 256, "cuda": 512}  # default of the shorter edge, with --content and --style
MIN_EDGE_PIXELS = 32  # VGG-19 halves an image four times, the ResNet five times


@dataclass(frozen=True)
class Settings(Scheduled):
    """What a trial computes. None means a default by device, optimiser or network."""

    PUBLISHED: ClassVar = DEFAULT_WEIGHTS["vgg19"]  # the first trial of a search, whatever the network

    content: str | None = None
    """Your own photograph, instead of --data. The picture is written to picture.png in the trial's folder."""
    style: str | None = None
    """Your own painting. It is resized and cropped to the size of the photograph."""
    data: str = "auto"
    """monet2photo, sample, or a folder with trainA testA (paintings) and trainB testB (photographs); auto is
    data/monet2photo if it exists, and the built-in sample otherwise."""
    judge: str = DEFAULT_JUDGE
    """File of the judge: it scores the pictures of a data set, and --features judge uses its network."""
    features: Literal["auto", "vgg19", "judge"] = "auto"
    """Network whose features are matched: VGG-19 with torchvision's weights (548 MB, downloaded on first
    use), or the judge's ResNet. auto is VGG-19 if its weights can be loaded, and the judge otherwise."""
    budget: Fraction = 1.0
    """Share of the full schedule. A trial continues when it is started again with a larger budget."""
    seed: int = 0
    """Seed of the pairs and of the noise."""

    content_weight: Weight = 1.0
    """Weight of the content loss (equation 7)."""
    style_weight: Weight | None = None
    """Weight of the style loss: by default 1000 for VGG-19's features (the paper's ratios of content to style
    weight are near 1e-3, figure 3), and 3 for the judge's, with which 1000 gives speckle."""
    variation_weight: Weight | None = None
    """Weight of the total variation, which smooths (Mahendran and Vedaldi 2015, 1412.0035, section 2): by
    default 0 for VGG-19's features, as published, and 4 for the judge's."""
    content_layers: str = "auto"
    """Layers of the content loss, with commas. auto is VGG-19's conv4_2 (published) or the judge's layer2."""
    style_layers: str = "auto"
    """The same of the style loss. auto is conv1_1 to conv5_1 (published), or conv1 to layer3 of the judge."""
    start_from: Literal["content", "noise"] = "content"
    """First picture: the photograph, as in the authors' code, or noise, as in the paper's figures."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """L-BFGS as published, over all pictures together, or Adam."""
    photos: PositiveInt = 16
    """Number of held-out photographs to paint and score."""
    steps: PositiveInt = 200
    """Length of the full schedule in steps."""
    reports: PositiveInt = 10
    """Number of reports over the budget."""

    lr: LearningRate | None = None
    """Learning rate; by default 1 for L-BFGS and 0.02 for Adam."""
    edge: PositiveInt | None = None
    """Size in pixels: with --data of the square images, which must be the judge's; with --content of the
    shorter edge, if the photograph is not smaller."""

    def complete(self, device: "torch.device") -> "Settings":
        """Return these settings with the defaults filled in. Raises UserError if some do not go together."""
        from judge import images
        from judge.score import MIN_IMAGES

        if bool(self.content) != bool(self.style):
            raise UserError("--content and --style go together: give both or neither")
        if self.edge is not None and self.edge < MIN_EDGE_PIXELS:
            raise UserError(f"--edge {self.edge} is too small: give at least {MIN_EDGE_PIXELS}")
        if self.photos < MIN_IMAGES:
            raise UserError(f"--photos {self.photos}: a score needs at least {MIN_IMAGES}")
        default_pixels = (OWN_IMAGE_PIXELS[device.type] if self.content
                          else SIZES[images.default_size(device)])
        return replace(self, data=resolve_name(self.data), lr=self.lr or DEFAULT_LR[self.optimizer],
                       edge=self.edge or default_pixels)

    def describe_inputs(self) -> dict[str, str]:
        """Return the data, the size and what scores the trial, in words."""
        from judge import images

        size, features = {"size": f"{self.edge} px"}, {"features": self.features}
        if self.content:
            return {"data": f"{self.content} as {self.style}", **size, **features}
        return {"data": images.find_dataset(self.data).description, **size, "judge": self.judge, **features}


if __name__ == "__main__":
    run(Settings)
