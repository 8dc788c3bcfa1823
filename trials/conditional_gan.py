"""A conditional GAN: it makes what it is asked for (Mirza and Osindero 2014, 1411.1784).

    python -m trials.conditional_gan --data mnist                    # the digit asked for
    python -m trials.conditional_gan --data data/fruit --edge 64     # a subfolder for each class

A DCGAN whose G and D both see the class y, as one number for each class, 0 or 1: beside the noise for G, as
one plane for each class beside the image for D.

    D    -log D(x|y) - log(1 - D(G(z|y)|y))                 equation 2
    G    -log D(G(z|y)|y)                                   Goodfellow et al. 2014 (1406.2661), section 3
    architecture, initial weights, Adam, batch              DCGAN (1511.06434), sections 3 and 4
"""

from dataclasses import dataclass

from trials.dcgan import DcganSettings
from trials.session import run


@dataclass(frozen=True)
class Settings(DcganSettings):
    """Settings of a trial. The defaults are DCGAN's; the data decides what is None."""

    data: str = "auto"
    """digits (8 px, built in), mnist (32 px, downloaded on first use), or a folder with a subfolder of images
    for each class; auto is mnist if it is in data/, else digits."""


if __name__ == "__main__":
    run(Settings)
