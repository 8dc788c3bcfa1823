"""The state that a model saves and loads, and the disk space that it takes."""

from typing import NamedTuple

from torch import nn


class DiskUse(NamedTuple):
    """Bytes that a trial takes on the disk."""

    checkpoint: int
    sheets: int
    """Upper limit for the PNG files in samples/ and the copies in TensorBoard's file."""


class Checkpointed:
    """Base of a model whose next update depends only on `step` and on the states of its `parts`."""

    step = 0
    max_loss = 1e3
    """A larger loss is a divergence: healthy losses of GANs stay near 1, and LSGAN's has no upper bound."""
    parts: tuple[str, ...]
    """Names of the attributes that have a state: networks and optimizers."""

    def state_dict(self) -> dict:
        return {"step": self.step, **{name: getattr(self, name).state_dict() for name in self.parts}}

    def load_state_dict(self, state: dict) -> None:
        self.step = int(state["step"])
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])

    def footprint(self, reports: int, pixels: int) -> DiskUse:
        """Return the disk space of a trial with so many reports and an early look, and so many pixels on each
        sample sheet."""
        parts = [getattr(self, name) for name in self.parts]
        weights = sum(p.nbytes for part in parts if isinstance(part, nn.Module) for p in part.parameters())
        return DiskUse(3 * weights, (reports + 1) * 2 * 3 * pixels)  # 3: a weight and Adam's two moments
