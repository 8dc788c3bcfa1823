"""The CycleGAN step as others write it, for comparison by `python -m trials.bench --peer`.

`PlainCycleGAN` follows the paper (1703.10593: equations 1 to 3, sections 4, 5.2 and 7.2) and the structure
of its authors' loop: eager, fp32, one call for each term (six of the generators, six of the
discriminators), plain Adam, and every loss read as a number at every step. `AuthorsCycleGAN` runs that loop
itself, from a checkout of their code.
"""

import sys
from argparse import ArgumentParser
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import l1_loss

from judge.common.errors import UserError, one_line
from judge.common.rng import rng
from trials.parts.networks import ResidualBlock
from trials.parts.pool import HistoryPool
from trials.parts.schedule import decay_factor, set_lr
from trials.training.cyclegan import CycleGAN


def plain_generator(n: int, blocks: int, downsamplings: int, upsampling: str) -> nn.Sequential:
    """Return c7s1-n, d2n, d4n, R4n x blocks, u2n, un, c7s1-3 of section 7.2, or with other downsamplings."""
    widths = [n * 2**level for level in range(downsamplings + 1)]
    widest = widths[-1]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, n, 7), nn.InstanceNorm2d(n), nn.ReLU(True)]
    for m in widths[1:]:
        layers += [nn.Conv2d(m // 2, m, 3, 2, 1), nn.InstanceNorm2d(m), nn.ReLU(True)]
    layers += [ResidualBlock(
        nn.ReflectionPad2d(1), nn.Conv2d(widest, widest, 3), nn.InstanceNorm2d(widest), nn.ReLU(True),
        nn.ReflectionPad2d(1), nn.Conv2d(widest, widest, 3), nn.InstanceNorm2d(widest),
    ) for _ in range(blocks)]  # fmt: skip
    for m in reversed(widths[:-1]):
        if upsampling == "resize":
            layers += [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(2 * m, m, 3)]
        else:
            layers += [nn.ConvTranspose2d(2 * m, m, 3, stride=2, padding=1, output_padding=1)]
        layers += [nn.InstanceNorm2d(m), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(n, 3, 7), nn.Tanh())


def plain_discriminator(n: int) -> nn.Sequential:
    """Return Cn, C2n, C4n, C8n of section 7.2 and the one-channel output."""
    return nn.Sequential(
        nn.Conv2d(3, n, 4, 2, 1), nn.LeakyReLU(0.2, True),
        nn.Conv2d(n, 2 * n, 4, 2, 1), nn.InstanceNorm2d(2 * n), nn.LeakyReLU(0.2, True),
        nn.Conv2d(2 * n, 4 * n, 4, 2, 1), nn.InstanceNorm2d(4 * n), nn.LeakyReLU(0.2, True),
        nn.Conv2d(4 * n, 8 * n, 4, 1, 1), nn.InstanceNorm2d(8 * n), nn.LeakyReLU(0.2, True),
        nn.Conv2d(8 * n, 1, 4, 1, 1),
    )  # fmt: skip


class PlainCycleGAN:
    """A copy of `net`, whose pools must be empty, with a plain training step."""

    def __init__(self, net: CycleGAN):
        s = self.settings = net.settings
        self.step, self.schedule = net.step, net.schedule
        device = net.device
        generator = (s.ngf, s.blocks, s.downsamplings, s.upsampling)
        self.G_AB, self.G_BA = (plain_generator(*generator).to(device) for _ in range(2))
        self.D_A, self.D_B = (plain_discriminator(s.ndf).to(device) for _ in range(2))
        for name in ("G_AB", "G_BA", "D_A", "D_B"):
            getattr(self, name).load_state_dict(getattr(net, name).state_dict())
        betas = (s.beta1, s.beta2)
        self.optimizer_G = torch.optim.Adam([*self.G_AB.parameters(), *self.G_BA.parameters()], betas=betas)
        self.optimizer_D = torch.optim.Adam([*self.D_A.parameters(), *self.D_B.parameters()], betas=betas)
        self.pool_A, self.pool_B = HistoryPool(s.pool_size), HistoryPool(s.pool_size)

    def update(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
        """Take one step, as `CycleGAN.update`; return the losses as numbers."""
        s = self.settings
        factor = decay_factor(self.step, self.schedule, s.decay)
        set_lr(self.optimizer_G, s.generator_lr * factor)
        set_lr(self.optimizer_D, s.discriminator_lr * factor)

        for D in (self.D_A, self.D_B):
            D.requires_grad_(False)
        fake_b, fake_a = self.G_AB(a), self.G_BA(b)
        losses = {
            "adversarial_A": ((self.D_A(fake_a) - 1) ** 2).mean(),
            "adversarial_B": ((self.D_B(fake_b) - 1) ** 2).mean(),
            "cycle_A": l1_loss(self.G_BA(fake_b), a),
            "cycle_B": l1_loss(self.G_AB(fake_a), b),
        }
        total = s.adversarial_weight * (losses["adversarial_A"] + losses["adversarial_B"])
        total = total + s.cycle_weight * (losses["cycle_A"] + losses["cycle_B"])
        if s.identity_weight:
            losses |= {"identity_A": l1_loss(self.G_BA(a), a), "identity_B": l1_loss(self.G_AB(b), b)}
            total = total + s.identity_weight * (losses["identity_A"] + losses["identity_B"])
        self.optimizer_G.zero_grad()
        total.backward()
        self.optimizer_G.step()

        draw = rng(s.seed, "pool", self.step)
        shown_a, shown_b = self.pool_A.swap(fake_a.detach(), draw), self.pool_B.swap(fake_b.detach(), draw)
        self.optimizer_D.zero_grad()
        for name, D, real, shown in (("A", self.D_A, a, shown_a), ("B", self.D_B, b, shown_b)):
            D.requires_grad_(True)
            loss = (((D(real) - 1) ** 2).mean() + (D(shown) ** 2).mean()) / 2
            losses[f"discriminator_{name}"] = loss
            if loss.item() >= s.discriminator_threshold:
                loss.backward()
        self.optimizer_D.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}


class AuthorsCycleGAN:
    """The step of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix, from a checkout.

    The checkout's code is run, and its packages are imported as `models`, `options`, `util` and `data`. It
    has the sizes, loss weights, pools and Adam settings of `net`, but its own learning rate and initial
    weights.

    Raises UserError if `checkout` is not a checkout, or its code fails.
    """

    def __init__(self, net: CycleGAN, checkout: Path):
        s = self.settings = net.settings
        self.step, device = net.step, net.device
        if not (checkout / "models" / "cycle_gan_model.py").is_file():
            raise UserError(f"--peer-path {checkout} is not a checkout of pytorch-CycleGAN-and-pix2pix: "
                            "it has no models/cycle_gan_model.py")
        if (s.downsamplings, s.upsampling) != (2, "transposed"):
            raise UserError("--peer-path: the authors' generator has two downsamplings and transposed "
                            "convolutions: add --downsamplings 2 --upsampling transposed")
        arguments = {
            "dataroot": "none", "netG": "resnet_9blocks", "ngf": s.ngf, "ndf": s.ndf,
            "lambda_A": s.cycle_weight, "lambda_B": s.cycle_weight,
            "lambda_identity": s.identity_weight / s.cycle_weight if s.cycle_weight else 0.0,
            "pool_size": s.pool_size, "batch_size": s.batch_size, "beta1": s.beta1,
        }  # fmt: skip
        sys.path.insert(0, str(checkout.resolve()))
        try:
            with redirect_stdout(sys.stderr):  # stdout is for our result
                networks, model, train_options = map(
                    import_module, ("models.networks", "models.cycle_gan_model", "options.train_options"))
                Generator = networks.ResnetGenerator
                init = Generator.__init__  # patched because their options allow six and nine blocks only
                Generator.__init__ = lambda self, *sizes, **more: init(
                    self, *sizes, **more | {"n_blocks": s.blocks})
                parser = train_options.TrainOptions().initialize(ArgumentParser())
                model.CycleGANModel.modify_commandline_options(parser, True)
                options = parser.parse_args([f"--{name}={value}" for name, value in arguments.items()])
                options.isTrain, options.gpu_ids, options.device = True, [], device
                self.model = model.CycleGANModel(options)
        except Exception as error:  # their code may raise anything
            raise UserError(f"--peer-path {checkout}: {one_line(error)}") from None
        finally:
            sys.path.remove(str(checkout.resolve()))
        self.model.device = device
        self.model.criterionGAN.to(device)
        for name in self.model.model_names:
            getattr(self.model, f"net{name}").to(device)

    def update(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Take one step, as `CycleGAN.update`; the losses stay in the model."""
        self.model.set_input({"A": a, "B": b, "A_paths": [], "B_paths": []})
        self.model.optimize_parameters()
        self.step += 1
