"""One run of a trial: settings in; reports, images and checkpoints out; one final score.

A system is a file with a frozen dataclass `Settings` and a function `train(settings, session)`:

    def train(settings, session):
        model = ...                                     # a Checkpointed, with `step`
        session.restore(model)                          # from the checkpoint, if there is one
        for step in session.steps(model, last, every):
            session.add_losses(model.update(...))       # `update` adds 1 to model.step
            if session.report_due(model):               # each `every` steps, at the end, and once early
                session.report(model, score, images, sheet)

    if __name__ == "__main__":
        run(train, Settings)

CONTRIBUTING.md lists the other methods and functions of a system. `Settings.describe_inputs()` returns the
data, the judge and so on as text by name, `data` first. `Settings.budget` may grow when a trial is continued.
"""

import importlib
from typing import Any

from trials.session.settings import (
    RunOptions,
    Scheduled,
    fill_unset,
    parse_trial,
    trial_parser,
    with_parameters,
    without_presets,
)

# These need torch, which takes seconds to import, and the commands that list searches do not.
NEED_TORCH = {"Checkpointed": "checkpoint", "DiskUse": "checkpoint", "Session": "session", "run": "command"}
__all__ = ["RunOptions", "Scheduled", "fill_unset", "parse_trial", "trial_parser", "with_parameters",
           "without_presets", *NEED_TORCH]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what needs torch at its first use (PEP 562)."""
    if name not in NEED_TORCH:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{NEED_TORCH[name]}"), name)
