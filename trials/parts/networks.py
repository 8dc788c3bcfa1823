"""The networks of the papers, as their authors published them: CycleGAN's (1703.10593), StarGAN's
(1711.09020), DCGAN's (1511.06434), and the fully connected ones before them."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, interpolate, one_hot


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation, by default without affine parameters, so the convolutions before keep a bias.

    On a CPU it trains by batch normalisation of one image at a time, which is the same function, because of
    two faults of torch 2.15 there: its output is never channels_last, in which a CPU convolves faster, and
    for a batch of one image its input gradient is wrong if the output's gradient is channels_last.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or not self.training:
            return super().forward(x)
        images = [batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)
                  for image in x.split(1)]
        return torch.cat(images) if len(images) > 1 else images[0]


class ReflectionPad(nn.ReflectionPad2d):
    """Reflection padding in the precision of its input; autocast on a CPU would compute it in fp32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda:  # autocast on a GPU leaves it alone
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class ResidualBlock(nn.Module):
    """`layers` in a row, with a skip connection around them."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def _norm_relu(convolution: nn.Conv2d | nn.ConvTranspose2d, affine: bool = False) -> list[nn.Module]:
    return [convolution, InstanceNorm(convolution.out_channels, affine=affine), nn.ReLU(inplace=True)]


class ResnetGenerator(nn.Sequential):
    """CycleGAN's generator: image to image, [N, 3, H, W] in [-1, 1] -> the same; 2^downsamplings divides H
    and W.

    Paper, section 7.2: c7s1-64, d128, d256, R256 x `blocks`, u128, u64, c7s1-3 for `channels` (ngf) 64 and
    2 `downsamplings`. resnet_9blocks, for 256 px, has 11.378 M parameters; resnet_6blocks is for 128 px.
    `upsampling` is `transposed`, as published, or `resize`: the nearest neighbour and a convolution, which
    leave no grid (Odena et al. 2016, distill.pub/2016/deconv-checkerboard).
    """

    def __init__(self, channels: int, blocks: int, downsamplings: int = 2, upsampling: str = "transposed"):
        n, upsample = channels * 2**downsamplings, UPSAMPLING[upsampling]
        levels = [channels * 2**level for level in range(downsamplings)]
        super().__init__(
            ReflectionPad(3), *_norm_relu(nn.Conv2d(3, channels, 7)),
            *[layer for m in levels for layer in _norm_relu(nn.Conv2d(m, 2 * m, 3, stride=2, padding=1))],
            *[ResidualBlock(
                ReflectionPad(1), *_norm_relu(nn.Conv2d(n, n, 3)),
                ReflectionPad(1), nn.Conv2d(n, n, 3), InstanceNorm(n),
            ) for _ in range(blocks)],
            *[layer for m in reversed(levels) for layer in upsample(2 * m, m)],
            ReflectionPad(3), nn.Conv2d(channels, 3, 7), nn.Tanh(),
        )  # fmt: skip
        self.stride = 2**downsamplings  # H and W are multiples of it
        init_weights(self)


def _transposed(inputs: int, outputs: int) -> list[nn.Module]:
    return _norm_relu(nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1))


def _resize(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), ReflectionPad(1), *_norm_relu(nn.Conv2d(inputs, outputs, 3))]


UPSAMPLING = {"transposed": _transposed, "resize": _resize}  # layers that double the resolution, by name


class PatchDiscriminator(nn.Sequential):
    """CycleGAN's discriminator of overlapping patches, [N, 3, H, W] -> [N, 1, H/8 - 2, W/8 - 2].

    Paper, section 7.2: C64, C128, C256, C512 for `channels` (ndf) 64 and a one-channel output, the 70x70
    PatchGAN of pix2pix (1611.07004, appendix 6.1.2); 2.765 M parameters.
    """

    def __init__(self, channels: int):
        n = channels
        body = [nn.Conv2d(3, n, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for inputs, outputs, stride in ((n, 2 * n, 2), (2 * n, 4 * n, 2), (4 * n, 8 * n, 1)):
            body += [nn.Conv2d(inputs, outputs, 4, stride, padding=1), InstanceNorm(outputs),
                     nn.LeakyReLU(0.2, inplace=True)]  # fmt: skip
        super().__init__(*body, nn.Conv2d(8 * n, 1, 4, padding=1))
        init_weights(self)


def init_weights(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02) (1703.10593, section 7.1; 1511.06434, section 4) and scales of batch
    normalisation from N(1, 0.02) (DCGAN's code); set biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class StarganGenerator(nn.Sequential):
    """Image with the planes of its target domain (`with_planes`) to image, [N, 3 + domains, H, W] ->
    [N, 3, H, W] in [-1, 1]; 4 divides H and W.

    StarGAN paper, table IV: 8.431 M parameters for `channels` 64, 6 `blocks` and 5 `domains`. Zero padding,
    affine normalisation and so no biases, and PyTorch's own initial weights, as in the authors' code.
    """

    def __init__(self, channels: int, blocks: int, domains: int):
        n, affine = channels, {"affine": True}
        super().__init__(
            *_norm_relu(nn.Conv2d(3 + domains, n, 7, padding=3, bias=False), **affine),
            *_norm_relu(nn.Conv2d(n, 2 * n, 4, 2, 1, bias=False), **affine),
            *_norm_relu(nn.Conv2d(2 * n, 4 * n, 4, 2, 1, bias=False), **affine),
            *[ResidualBlock(
                *_norm_relu(nn.Conv2d(4 * n, 4 * n, 3, padding=1, bias=False), **affine),
                nn.Conv2d(4 * n, 4 * n, 3, padding=1, bias=False), InstanceNorm(4 * n, **affine),
            ) for _ in range(blocks)],
            *_norm_relu(nn.ConvTranspose2d(4 * n, 2 * n, 4, 2, 1, bias=False), **affine),
            *_norm_relu(nn.ConvTranspose2d(2 * n, n, 4, 2, 1, bias=False), **affine),
            nn.Conv2d(n, 3, 7, padding=3, bias=False), nn.Tanh(),
        )  # fmt: skip


class StarganDiscriminator(nn.Module):
    """Two outputs for images [N, 3, edge, edge]: D_src, how real each patch is, [N, 1, edge / 2^layers,
    edge / 2^layers], and D_cls, the logits of the image's domain, [N, domains].

    StarGAN paper, table V: 44.762 M parameters for `channels` 64, 6 `layers` of stride 2, 5 `domains` and
    128 px. Without normalisation over the batch, as the gradient penalty is of each image by itself.
    """

    def __init__(self, channels: int, layers: int, domains: int, edge: int):
        super().__init__()
        widths = [3, *(channels * 2**i for i in range(layers))]
        body = []
        for inputs, outputs in pairwise(widths):
            body += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.01, inplace=True)]
        self.body = nn.Sequential(*body)
        self.source = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)
        self.domain = nn.Conv2d(widths[-1], domains, edge // 2**layers, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x)
        return self.source(features), self.domain(features).flatten(1)


def with_planes(images: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Append a plane for each of `count` classes to `images`, 1 for the image's class in `labels` and else 0:
    [N, C, H, W] -> [N, C + count, H, W] (1411.1784, section 3.2; StarGAN paper, section 3.1)."""
    planes = one_hot(labels, count)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, planes.to(images)], 1)


def perceptron(inputs: int, hidden: int, outputs: int, leaky: bool, normalise: bool) -> nn.Sequential:
    """Return a network with one hidden layer, [N, inputs] -> [N, outputs], without a last activation. The
    hidden layer's is `leaky` ReLU or else a sigmoid, whose gradient vanishes at both ends; `normalise` adds
    LayerNorm after it (Ba et al. 2016, 1607.06450)."""
    between = [nn.LeakyReLU(0.2) if leaky else nn.Sigmoid()] + [nn.LayerNorm(hidden)] * normalise
    return nn.Sequential(nn.Linear(inputs, hidden), *between, nn.Linear(hidden, outputs))


def dcgan_widths(channels: int, edge: int) -> list[int]:
    """Return the features at 4 px, 8 px and so on up to half the `edge`, where they are `channels`."""
    return [channels * edge // 8 // 2**level for level in range((edge // 8).bit_length())]


def _up(inputs: int, outputs: int, stride: int = 2, padding: int = 1) -> list[nn.Module]:
    """Return DCGAN's layers that double the resolution, without a bias as batch normalisation has its own."""
    return [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True)]  # fmt: skip


def _from_noise(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Unflatten(1, (inputs, 1, 1)), *_up(inputs, outputs, stride=1, padding=0)]


def _to_image(inputs: int, colours: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, colours, 4, stride=2, padding=1, bias=False), nn.Tanh()]


def _down(inputs: int, outputs: int, normalise: bool = True) -> list[nn.Module]:
    """Return DCGAN's layers that halve the resolution; the first ones of a discriminator do not normalise."""
    norm = [nn.BatchNorm2d(outputs)] if normalise else []
    return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2, inplace=True)]


class DcganGenerator(nn.Sequential):
    """Noise to images of a `shape` [C, edge, edge], [N, inputs] -> [N, *shape] in [-1, 1].

    DCGAN paper, figure 1: 1024, 512, 256 and 128 features from 4 px up for `channels` (ngf) 128 and 64 px;
    3.577 M parameters for `channels` 64, 3 colours. The edge is a power of two from 8.
    """

    def __init__(self, inputs: int, channels: int, shape: tuple[int, int, int]):
        widths = dcgan_widths(channels, shape[1])
        body = [layer for pair in pairwise(widths) for layer in _up(*pair)]
        super().__init__(*_from_noise(inputs, widths[0]), *body, *_to_image(widths[-1], shape[0]))
        init_weights(self)


class DcganDiscriminator(nn.Sequential):
    """Images of a `shape` [C, edge, edge] to logits of being real, [N, *shape] -> [N, 1]: the generator
    mirrored, with `channels` (ndf) features after the first layer.

    DCGAN paper, section 3: strided convolutions, LeakyReLU of slope 0.2, batch normalisation in all but
    the first and last layer; 2.766 M parameters for `channels` 64, 3 colours and 64 px.
    """

    def __init__(self, channels: int, shape: tuple[int, int, int]):
        widths = dcgan_widths(channels, shape[1])[::-1]
        body = [layer for pair in pairwise(widths) for layer in _down(*pair)]
        super().__init__(*_down(shape[0], channels, normalise=False), *body,
                         nn.Conv2d(widths[-1], 1, 4, bias=False), nn.Flatten())
        init_weights(self)


class GrowingGenerator(nn.Module):
    """DCGAN's generator from 8 px up: progressive growing, Karras et al. 2018 (1710.10196), section 2.

    It has the layers of `DcganGenerator`, and for each smaller resolution one more that turns the features
    there into an image. `place` is how far it has grown: 0 makes images of 8 px, 1 of 16 px, and 0.3 fades
    the second in. Images are enlarged to the full edge, which is more than 8.
    """

    def __init__(self, inputs: int, channels: int, shape: tuple[int, int, int]):
        super().__init__()
        colours, self.edge, _ = shape
        widths = dcgan_widths(channels, self.edge)
        self.place = float(len(widths) - 1)
        self.stem = nn.Sequential(*_from_noise(inputs, widths[0]))
        self.blocks = nn.ModuleList(nn.Sequential(*_up(before, after)) for before, after in pairwise(widths))
        self.heads = nn.ModuleList(nn.Sequential(*_to_image(width, colours)) for width in widths)
        init_weights(self)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        level, fade = int(self.place), self.place % 1
        features = self.stem(z)
        for block in self.blocks[:level]:
            features = block(features)
        image = self.heads[level](features)
        if fade:
            finer = self.heads[level + 1](self.blocks[level](features))
            image = torch.lerp(interpolate(image, scale_factor=2), finer, fade)
        return interpolate(image, self.edge)


class GrowingDiscriminator(nn.Module):
    """DCGAN's discriminator that grows with a `GrowingGenerator`, which it mirrors. It takes images of the
    full edge and reduces them to the resolution of its `place`."""

    def __init__(self, channels: int, shape: tuple[int, int, int]):
        super().__init__()
        widths = dcgan_widths(channels, shape[1])
        self.place = float(len(widths) - 1)
        self.heads = nn.ModuleList(nn.Sequential(*_down(shape[0], width, False)) for width in widths)
        self.blocks = nn.ModuleList(nn.Sequential(*_down(fine, coarse)) for coarse, fine in pairwise(widths))
        self.stem = nn.Sequential(nn.Conv2d(widths[0], 1, 4, bias=False), nn.Flatten())
        init_weights(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level, fade = int(self.place), self.place % 1
        coarse = adaptive_avg_pool2d(images, 8 * 2**level)
        features = self.heads[level](coarse)
        if fade:
            fine = adaptive_avg_pool2d(images, 16 * 2**level)
            fine = torch.lerp(interpolate(coarse, scale_factor=2), fine, fade)  # section 2, of real images
            finer = self.blocks[level](self.heads[level + 1](fine))
            features = torch.lerp(features, finer, fade)
        for block in reversed(self.blocks[:level]):
            features = block(features)
        return self.stem(features)
