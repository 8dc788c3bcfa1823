"""Learning rates as a function of the step."""


import torch


def decay_factor(step: int, schedule: int, decay: float) -> float:
    """1, and over the last `decay` of the schedule linearly down to 0 (section 4)."""
    return min(1.0, (schedule - step) / (schedule * decay))


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give `optimizer` a learning rate that is a function of the step, not a state of its own."""
    for group in optimizer.param_groups:
        group["lr"] = rate
