"""One run of a trial: settings in; reports, images and checkpoints out; one final score.

The file trials/NAME.py has a system's frozen dataclass `Settings`, and is its command:

    if __name__ == "__main__":
        run(Settings)

trials/training/NAME.py has a function `train(settings, session)`:

    def train(settings, session):
        model = ...                                     # a Checkpointed, with `step`
        session.restore(model)                          # from the checkpoint, if there is one
        for step in session.steps(model, last, every):
            session.add_losses(model.update(...))       # `update` adds 1 to model.step
            if session.report_due(model):               # each `every` steps, at the end, and once early
                session.report(model, score, images, sheet)

CONTRIBUTING.md lists the other methods and functions of a system. `Settings.describe_inputs()` returns the
data, the judge and so on as text by name, `data` first. `Settings.budget` may grow when a trial is continued.
"""

import importlib
from typing import Any

HOMES = {
    "Checkpointed": "checkpoint", "DiskUse": "checkpoint", "RunOptions": "settings", "Scheduled": "settings",
    "Session": "session", "fill_unset": "settings", "parse_trial": "settings", "run": "command",
    "training_of": "command", "with_parameters": "settings", "without_presets": "settings",
}  # fmt: skip
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a name at its first use (PEP 562): some need torch, and command lines are read without it."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
