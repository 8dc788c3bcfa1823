"""The networks of the papers, as their authors published them: CycleGAN's (1703.10593), DCGAN's
(1511.06434), and the fully connected ones before them."""

import torch
from torch import nn
from torch.nn.functional import batch_norm


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation without affine parameters, so the convolutions before keep a bias.

    What it is, batch normalisation of one image, is also how it is trained on a CPU: torch's own
    instance normalisation leaves channels_last, and its gradient there is wrong (2.15, one image).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or not self.training:
            return super().forward(x)
        images = [batch_norm(image, None, None, training=True, eps=self.eps) for image in x.split(1)]
        return torch.cat(images) if len(images) > 1 else images[0]


class ReflectionPad(nn.ReflectionPad2d):
    """Reflection padding in the precision of its input: on a CPU autocast would have it in fp32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip; paper, section 7.2: `Rk`."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            ReflectionPad(1), nn.Conv2d(channels, channels, 3), InstanceNorm(channels),
            nn.ReLU(inplace=True),
            ReflectionPad(1), nn.Conv2d(channels, channels, 3), InstanceNorm(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class ResnetGenerator(nn.Sequential):
    """Image to image, [N, 3, H, W] in [-1, 1] -> the same; H and W must divide by 4.

    Paper, section 7.2: c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3 for `channels` 64;
    resnet_9blocks at 256 px has 11.378 M parameters, resnet_6blocks serves 128 px.

    Args:
        channels: features after the first convolution (`ngf`).
        blocks: residual blocks at a quarter of the resolution.
    """

    def __init__(self, channels: int, blocks: int):
        n = channels
        super().__init__(
            ReflectionPad(3), nn.Conv2d(3, n, 7), InstanceNorm(n), nn.ReLU(inplace=True),
            *_down(n, 2 * n),
            *_down(2 * n, 4 * n),
            *[ResidualBlock(4 * n) for _ in range(blocks)],
            *_up(4 * n, 2 * n),
            *_up(2 * n, n),
            ReflectionPad(3), nn.Conv2d(n, 3, 7), nn.Tanh(),
        )  # fmt: skip
        initialise(self)


def _down(before: int, after: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
    return [convolution, InstanceNorm(after), nn.ReLU(inplace=True)]


def _up(before: int, after: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
    return [convolution, InstanceNorm(after), nn.ReLU(inplace=True)]


class PatchDiscriminator(nn.Sequential):
    """Scores overlapping patches, [N, 3, H, W] -> [N, 1, H/8 - 2, W/8 - 2] for three layers.

    Paper, section 7.2: C64, C128, C256, C512 with 4x4 kernels and a one-channel output, the 70x70
    PatchGAN of pix2pix (1611.07004, appendix 6.1.2); 2.765 M parameters.

    Args:
        channels: features after the first convolution (`ndf`).
        layers: convolutions of stride 2, `n_layers_D`. 3 gives a receptive field of 70 px.
    """

    def __init__(self, channels: int, layers: int = 3):
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        body = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for i, (before, after) in enumerate(zip(widths, widths[1:]), start=1):
            stride = 2 if i < layers else 1
            body += [
                nn.Conv2d(before, after, 4, stride, padding=1), InstanceNorm(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]  # fmt: skip
        super().__init__(*body, nn.Conv2d(widths[-1], 1, 4, padding=1))
        initialise(self)


def initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0 (1703.10593, section 7.1; 1511.06434, section 4), scales of batch
    normalisation from N(1, 0.02) (DCGAN's code), drawn from torch's global generator."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# ---------------------------------------------------------------------------------------------
# Of generative networks


def perceptron(inputs: int, hidden: int, outputs: int, leaky: bool, normalise: bool) -> nn.Sequential:
    """One hidden layer, [N, inputs] -> [N, outputs], without an activation at its end.

    Args:
        leaky: LeakyReLU with a slope of 0.2, else a sigmoid, which dies out at both its ends.
        normalise: LayerNorm after the hidden layer's activation (Ba et al. 2016, 1607.06450).
    """
    between = [nn.LeakyReLU(0.2) if leaky else nn.Sigmoid()] + [nn.LayerNorm(hidden)] * normalise
    return nn.Sequential(nn.Linear(inputs, hidden), *between, nn.Linear(hidden, outputs))


class DcganGenerator(nn.Sequential):
    """Noise to images, [N, inputs] -> [N, C, edge, edge] in [-1, 1].

    DCGAN paper, figure 1: 1024, 512, 256 and 128 features from 4 px up for `channels` 128 and 64 px.
    Without biases, as batch normalisation has its own; 3.577 M parameters for `channels` 64, 3 colours.

    Args:
        inputs: numbers in a z.
        channels: features before the last layer (`ngf`), doubled for each halving of the edge below.
        shape: of an image, C, edge and edge, a power of two from 8.
    """

    def __init__(self, inputs: int, channels: int, shape: tuple[int, int, int]):
        colours, edge, _ = shape
        width = channels * edge // 8
        layers = [nn.Unflatten(1, (inputs, 1, 1)), nn.ConvTranspose2d(inputs, width, 4, bias=False)]
        while width > channels:
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                       nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False)]  # fmt: skip
            width //= 2
        super().__init__(
            *layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, colours, 4, stride=2, padding=1, bias=False), nn.Tanh(),
        )  # fmt: skip
        initialise(self)


class DcganDiscriminator(nn.Sequential):
    """Images to the logit of being real, [N, C, edge, edge] -> [N, 1]; the generator's mirror image.

    DCGAN paper, section 3: strided convolutions, LeakyReLU of slope 0.2, batch normalisation in all but
    the first and last layer; 2.766 M parameters for `channels` 64, 3 colours and 64 px.

    Args:
        channels: features after the first layer (`ndf`), doubled with each halving of the edge.
        shape: of an image, C, edge and edge, a power of two from 8.
    """

    def __init__(self, channels: int, shape: tuple[int, int, int]):
        colours, edge, _ = shape
        width = channels
        layers = [nn.Conv2d(colours, width, 4, stride=2, padding=1, bias=False),
                  nn.LeakyReLU(0.2, inplace=True)]  # fmt: skip
        while width < channels * edge // 8:
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
                       nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2, inplace=True)]  # fmt: skip
            width *= 2
        super().__init__(*layers, nn.Conv2d(width, 1, 4, bias=False), nn.Flatten())
        initialise(self)
