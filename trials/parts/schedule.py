"""Learning rates as a function of the step."""

import torch


def decay_factor(step: int, schedule: int, decay: float) -> float:
    """Return 1 and, over the last share `decay` of the schedule, linearly less (CycleGAN, section 4).

    Args:
        schedule: steps of the full schedule; the factor is 0 when they are done.
    """
    return min(1.0, (schedule - step) / (schedule * decay))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group; a scheduler's state would have to be saved."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # a CUDA graph reads it there
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
