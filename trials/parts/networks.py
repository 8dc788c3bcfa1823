"""The networks of the papers, as their authors published them: CycleGAN's (1703.10593), StarGAN's
(1711.09020), DCGAN's (1511.06434), and the fully connected ones before them."""

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, interpolate, one_hot


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation, without affine parameters unless told, so the convolutions before keep a bias.

    What it is, batch normalisation of one image, is also how it is trained on a CPU: torch's own
    instance normalisation leaves channels_last, and its gradient there is wrong (2.15, one image).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or not self.training:
            return super().forward(x)
        images = [batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)
                  for image in x.split(1)]
        return torch.cat(images) if len(images) > 1 else images[0]


class ReflectionPad(nn.ReflectionPad2d):
    """Reflection padding in the precision of its input: on a CPU autocast would have it in fp32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class Residual(nn.Module):
    """`layers` in a row, and a skip past them."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class ResidualBlock(Residual):
    """Two 3x3 convolutions around a skip; paper, section 7.2: `Rk`."""

    def __init__(self, channels: int):
        super().__init__(
            ReflectionPad(1), nn.Conv2d(channels, channels, 3), InstanceNorm(channels),
            nn.ReLU(inplace=True),
            ReflectionPad(1), nn.Conv2d(channels, channels, 3), InstanceNorm(channels),
        )  # fmt: skip


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
        init_weights(self)


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
        init_weights(self)


def init_weights(network: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0 (1703.10593, section 7.1; 1511.06434, section 4), scales of batch
    normalisation from N(1, 0.02) (DCGAN's code), drawn from torch's global generator."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# ---------------------------------------------------------------------------------------------
# Of several domains


class StarganGenerator(nn.Sequential):
    """Image and the domain it is to be of (`with_planes`) to image, [N, 3 + domains, H, W] ->
    [N, 3, H, W] in [-1, 1]; H and W must divide by 4.

    StarGAN paper, table IV: for `channels` 64, 6 blocks and 5 domains 8.431 M parameters. Zero padding,
    affine normalisation and so no biases, and PyTorch's own initial weights, as in the authors' code.

    Args:
        channels: features after the first convolution (`conv_dim`).
        blocks: residual blocks at a quarter of the resolution (`repeat_num`).
        domains: how many.
    """

    def __init__(self, channels: int, blocks: int, domains: int):
        n = channels
        super().__init__(
            *_normalised(nn.Conv2d(3 + domains, n, 7, padding=3, bias=False)), nn.ReLU(inplace=True),
            *_normalised(nn.Conv2d(n, 2 * n, 4, 2, 1, bias=False)), nn.ReLU(inplace=True),
            *_normalised(nn.Conv2d(2 * n, 4 * n, 4, 2, 1, bias=False)), nn.ReLU(inplace=True),
            *[Residual(
                *_normalised(nn.Conv2d(4 * n, 4 * n, 3, padding=1, bias=False)), nn.ReLU(inplace=True),
                *_normalised(nn.Conv2d(4 * n, 4 * n, 3, padding=1, bias=False)),
            ) for _ in range(blocks)],
            *_normalised(nn.ConvTranspose2d(4 * n, 2 * n, 4, 2, 1, bias=False)), nn.ReLU(inplace=True),
            *_normalised(nn.ConvTranspose2d(2 * n, n, 4, 2, 1, bias=False)), nn.ReLU(inplace=True),
            nn.Conv2d(n, 3, 7, padding=3, bias=False), nn.Tanh(),
        )  # fmt: skip


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, InstanceNorm(convolution.out_channels, affine=True)]


class StarganDiscriminator(nn.Module):
    """Whether patches are real, D_src, [N, 1, edge / 2^layers, edge / 2^layers], and the logits of the
    image's domain, D_cls, [N, domains], of images [N, 3, edge, edge].

    StarGAN paper, table V: for `channels` 64, 6 layers, 5 domains and 128 px 44.762 M parameters. Without
    normalisation, in which the images that the gradient penalty looks at one by one would meet.

    Args:
        channels: features after the first convolution (`conv_dim`), doubled with each layer.
        layers: convolutions of stride 2 (`repeat_num`).
        domains: how many.
        edge: of an image, a multiple of 2^layers.
    """

    def __init__(self, channels: int, layers: int, domains: int, edge: int):
        super().__init__()
        widths = [3, *(channels * 2**i for i in range(layers))]
        body = [(nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.01, inplace=True))
                for before, after in zip(widths, widths[1:])]  # fmt: skip
        self.body = nn.Sequential(*sum(body, ()))
        self.source = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)
        self.domain = nn.Conv2d(widths[-1], domains, edge // 2**layers, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x)
        return self.source(features), self.domain(features).flatten(1)


def with_planes(images: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """[N, C, H, W] and behind them, for each of `count` classes, a plane of 1 where an image is labelled so
    (int64 [N]) and of 0 elsewhere: [N, C + count, H, W]. Mirza and Osindero 2014 (1411.1784), section 3.2;
    StarGAN paper, section 3.1."""
    planes = one_hot(labels, count)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, planes.to(images)], 1)


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
        init_weights(self)


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
        init_weights(self)


class GrowingGenerator(nn.Module):
    """DCGAN's generator from 8 px up: progressive growing, Karras et al. 2018 (1710.10196), section 2.

    Its layers are those of `DcganGenerator`, and for each smaller edge one more that makes an image of the
    features there. `place` says how far it has grown: 0 makes 8 px, 1 makes 16 px, and 0.3 fades the second
    in. Whatever it makes has the full edge, enlarged.

    Args:
        inputs, channels, shape: as `DcganGenerator`; an edge of more than 8.
    """

    def __init__(self, inputs: int, channels: int, shape: tuple[int, int, int]):
        super().__init__()
        colours, edge, _ = shape
        widths = growing_widths(channels, edge)
        self.edge, self.place = edge, float(len(widths) - 1)
        self.stem = nn.Sequential(
            nn.Unflatten(1, (inputs, 1, 1)), nn.ConvTranspose2d(inputs, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.blocks = nn.ModuleList(nn.Sequential(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after), nn.ReLU(inplace=True),
        ) for before, after in zip(widths, widths[1:]))  # fmt: skip
        self.heads = nn.ModuleList(nn.Sequential(
            nn.ConvTranspose2d(width, colours, 4, stride=2, padding=1, bias=False), nn.Tanh(),
        ) for width in widths)  # fmt: skip
        init_weights(self)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        level, fade = divmod(self.place, 1)
        features = self.stem(z)
        for block in self.blocks[: int(level)]:
            features = block(features)
        image = self.heads[int(level)](features)
        if fade:
            finer = self.heads[int(level) + 1](self.blocks[int(level)](features))
            image = torch.lerp(interpolate(image, scale_factor=2), finer, fade)
        return interpolate(image, self.edge)


class GrowingDiscriminator(nn.Module):
    """DCGAN's discriminator that grows with a `GrowingGenerator`: its mirror image, which looks at images of
    the full edge in the resolution of its `place`.

    Args:
        channels, shape: as `DcganDiscriminator`; an edge of more than 8.
    """

    def __init__(self, channels: int, shape: tuple[int, int, int]):
        super().__init__()
        colours, edge, _ = shape
        widths = growing_widths(channels, edge)
        self.place = float(len(widths) - 1)
        self.heads = nn.ModuleList(nn.Sequential(
            nn.Conv2d(colours, width, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        ) for width in widths)  # fmt: skip
        self.blocks = nn.ModuleList(nn.Sequential(
            nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after), nn.LeakyReLU(0.2, inplace=True),
        ) for after, before in zip(widths, widths[1:]))  # fmt: skip
        self.stem = nn.Sequential(nn.Conv2d(widths[0], 1, 4, bias=False), nn.Flatten())
        init_weights(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level, fade = divmod(self.place, 1)
        coarse = adaptive_avg_pool2d(images, 8 * 2 ** int(level))
        features = self.heads[int(level)](coarse)
        if fade:
            fine = adaptive_avg_pool2d(images, 16 * 2 ** int(level))
            fine = torch.lerp(interpolate(coarse, scale_factor=2), fine, fade)  # section 2, of real images
            finer = self.blocks[int(level)](self.heads[int(level) + 1](fine))
            features = torch.lerp(features, finer, fade)
        for block in reversed(self.blocks[: int(level)]):
            features = block(features)
        return self.stem(features)


def growing_widths(channels: int, edge: int) -> list[int]:
    """Features at 4 px, 8 px and so on, to half the edge, where they are `channels`."""
    return [channels * edge // 8 // 2**level for level in range((edge // 8).bit_length())]
