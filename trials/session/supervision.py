"""Around the training of a session: retries, signals, and one result for each way in which it can end."""

import gc
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from judge.common.errors import UserError, is_out_of_memory, one_line
from judge.common.files import as_user_error
from judge.score import WORST_SCORE
from trials.session.failures import Diverged, Stopped, backoff_seconds, describe_error, is_transient

if TYPE_CHECKING:
    from trials.session.session import Session

Train = Callable[[Any, "Session"], None]


def supervise(session: "Session", train: Train) -> int:
    """Train until the budget or something else ends it, and return the exit code."""

    def on_signal(number: int, _frame: Any) -> None:
        if session.stop_signal:  # the second one: stop now, without a checkpoint
            raise KeyboardInterrupt
        session.stop_signal = number

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        train_with_retries(session, train)
        end(session, "finished", None, session.reporter.reports[-1]["score"])
    except Diverged as error:
        print(f"diverged: {error}")
        end(session, "diverged", str(error), {"default": WORST_SCORE})
    except Stopped as error:
        print(f"stopped: {error}")
        end(session, "stopped", str(error))
        return 128 + session.stop_signal
    except UserError as error:
        end(session, "failed", one_line(error))
        raise
    except Exception as error:
        reason = describe_error(error, session.settings, session.device)
        end(session, "failed", reason)
        if is_out_of_memory(error):  # a traceback would not help
            raise UserError(reason) from None
        raise
    return 0


def train_with_retries(session: "Session", train: Train) -> None:
    """Train; after a temporary failure wait, and continue from the checkpoint."""
    for attempt in range(session.options.retries):
        try:
            return train(session.settings, session)
        except Exception as error:
            if not is_transient(error, session.device):
                raise
            reason = describe_error(error, session.settings, session.device)
        # Outside of `except`: the exception keeps the tensors of the failed attempt alive.
        session.close()
        session.update_record(retries=[*session.record.facts.get("retries", []), reason])
        print(f"retries in {backoff_seconds(attempt)} s: {reason}")
        wait(session, backoff_seconds(attempt))
        session.begin()
    train(session.settings, session)


def wait(session: "Session", seconds: float) -> None:
    """Free memory, and wait for `seconds` or until a signal comes."""
    gc.collect()  # networks and optimizers refer to each other
    torch.cuda.empty_cache()
    end_time = time.monotonic() + seconds
    while not session.stop_signal and time.monotonic() < end_time:
        time.sleep(min(1.0, seconds))


def end(session: "Session", status: str, reason: str | None, score: dict[str, float] | None = None) -> None:
    """Write to run.json how the trial ended, then report `score` to the engine as the final result."""
    times = session.reporter.times()
    session.close()
    try:
        session.update_record(status=status, reason=reason, score=score, **times)
    except UserError:  # a full disk, perhaps; if the trial has failed already, the user needs the first error
        if status != "failed":
            raise
    session.record.close()
    if score:
        with as_user_error(session.folder):  # NNI keeps results in the trial's folder
            session.engine.report_final(score)
        print(f"{status}: score {score['default']:.4f}, {times['seconds']:.0f} s, {session.folder}")
