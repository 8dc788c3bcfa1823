"""One trial's run: settings in; reports, pictures and checkpoints out; one final result."""

from trials.session.session import Checkpointed, RunOptions, Scheduled, Session, run

__all__ = ["Checkpointed", "RunOptions", "Scheduled", "Session", "run"]
