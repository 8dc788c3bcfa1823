"""What every trial shares: settings in; reports, pictures and checkpoints out; one final result.

A system is a file with a frozen dataclass `Settings` and a function `train(settings, session)`:

    def train(settings, session):
        model = ...                                     # has `step`, state_dict, load_state_dict
        session.restore(model)                          # nothing happens on a fresh folder
        for step in session.steps(model, last):
            losses = model.update(...)                  # adds 1 to model.step
            session.add_losses(losses)
            if session.is_report_due(model.step, every, last):
                session.report(model, score, sheet)

    if __name__ == "__main__":
        run(train, Settings)

`Settings` has a method `complete(device)` that fills in what depends on the machine, and a field
`budget` that may grow when a trial goes on. What goes round a search asks two things more of it:
`inputs()`, what it trains on and is scored by, in words, by name and `data` first; and `report_count()`.
The file itself has `check(settings)`, which raises what would stop a trial before it trains, and
returns what one leaves on the disk. A sample sheet has what is given or aimed at in its upper half, and
what the trial makes of it in the lower.
"""

import gc
import math
import operator
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from tqdm import tqdm

from judge.common.cli import NonNegativeInt, Parser, ThreadOptions, from_namespace, main, parse_values
from judge.common.device import device_name
from judge.common.errors import UserError, is_out_of_memory, one_line
from judge.common.files import as_user_error, atomic_write, file_lock
from judge.common.schema import matches
from judge.common.tensors import read_tensors
from judge.images import to_bytes
from judge.score import WORST_SCORE, Score
from trials.session import engine
from trials.session.failures import backoff_seconds, describe_error, is_transient
from trials.session.records import (
    DiskUse,
    git_commit,
    hash_of,
    json_line,
    read_json,
    read_lines,
    read_record,
    settings_hash,
    versions,
    write_json,
)

RUNS = Path("runs")  # where trials started by hand leave their folders
CHECK_LOSSES_EVERY = 20  # steps between looks at the losses, each of which waits for the device
MAX_LOSS = 1e3  # healthy losses stay near 1; LSGAN's are unbounded


class Diverged(Exception):
    """Training left the finite world: the trial ends now, with the worst score."""


class Stopped(Exception):
    """Someone asked the trial to end: NNI, Ctrl-C, or the manager's death."""


@dataclass(frozen=True)
class RunOptions(ThreadOptions):
    """How a trial runs, as against what it computes."""

    out: Path | None = None
    """Folder for what the trial leaves behind; by default runs/ and a name that depends on the
    settings, so that the same command continues the same trial."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto is the GPU where there is one."""
    earlier: Path | None = None
    """Folder in which to look for the same trial, shorter perhaps: a fresh one goes on from a copy."""
    retries: NonNegativeInt = 3
    """How often a trial goes on from its checkpoint after a failure that passes, such as a neighbour's
    taking the GPU's memory; 10 s later, and each next time after three times as long."""
    keep: bool = False
    """Keep every painting that is scored, in paintings/, so that another score can be tried on it."""

    def torch_device(self) -> torch.device:
        """The device asked for.

        Raises:
            UserError: cuda where there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU here, use --device cpu")
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(name)


class Scheduled:
    """Of settings with a schedule of `steps`, a `budget` and `reports`: what follows from them."""

    def last_step(self) -> int:
        """The step that the budget ends at."""
        return max(1, round(self.steps * self.budget))

    def report_interval(self) -> int:
        """Steps between reports."""
        return max(1, self.steps // self.reports)

    def report_count(self) -> int:
        """How many reports a trial of this budget makes."""
        return -(-self.last_step() // self.report_interval())


class Checkpointed:
    """Of a model whose next step depends on `step` and on the states of its `parts`."""

    step = 0
    parts: tuple[str, ...]
    """Attributes with states of their own: networks and optimisers."""

    def state_dict(self) -> dict:
        """All that the next step depends on, as tensors and plain data."""
        return {"step": self.step, **{name: getattr(self, name).state_dict() for name in self.parts}}

    def footprint(self, reports: int, pixels: int) -> DiskUse:
        """What a trial leaves that makes so many reports, each with a sheet of so many pixels.

        A checkpoint holds each weight three times: Adam has two moments of it.
        """
        networks = [part for part in (getattr(self, name) for name in self.parts)
                    if isinstance(part, torch.nn.Module)]
        weights = sum(p.nbytes for network in networks for p in network.parameters())
        return DiskUse(3 * weights, reports * 2 * 3 * pixels)

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave."""
        self.step = operator.index(state["step"])
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])


# ---------------------------------------------------------------------------------------------
# Starting


def run(train: Callable[[Any, "Session"], None], Settings: type) -> None:
    """Run a trial from the command line or under the engine, and exit."""
    module = Path(sys.modules[train.__module__].__file__).stem
    prog = f"python -m trials.{module}"

    def command(arguments: list[str]) -> int:
        sys.stdout.reconfigure(line_buffering=True)  # under the engine a log is read as it grows
        options = trial_parser(Settings, prog).parse_args(arguments)
        machine = from_namespace(RunOptions, options)
        device = machine.torch_device()
        host = engine.current_engine()
        if threads := machine.threads or host.threads:
            torch.set_num_threads(threads)
        parameters = host.get_parameters()
        try:
            given = with_parameters(from_namespace(Settings, options), parameters)
            settings = given.complete(device)
            session = Session(module, settings, machine, host, parameters)
        except UserError as error:  # no session yet to say so
            if host.folder and not (host.folder / "run.json").exists():
                with suppress(OSError):  # the first reason is the one
                    write_json(host.folder / "run.json", {
                        "parameters": parameters, "status": "failed", "reason": one_line(error)})
            raise
        return session.run(train)

    main(prog, command)


def trial_parser(Settings: type, prog: str) -> Parser:
    """The command line of a trial: an option for each setting, and for how it runs."""
    parser = Parser(sys.modules[Settings.__module__].__doc__, prog=prog)
    parser.add_fields(Settings)
    parser.add_fields(RunOptions)
    return parser


def with_parameters(settings: Any, parameters: dict) -> Any:
    """`settings` with the tuner's `parameters` in the fields of their names.

    Raises:
        UserError: a name that is no setting, a value of the wrong type, sign or range.
    """
    for name, value in parameters.items():
        if value is None:
            raise UserError(f"parameter {name} has no value")
    try:
        return replace(settings, **parse_values(type(settings), parameters))
    except UserError as error:
        raise UserError(f"parameters {dumps(parameters)}: {error}") from None


def fill_unset(settings: Any, values: dict) -> Any:
    """Return `settings` with those of `values`, by name, whose fields are None."""
    return replace(settings, **{name: value for name, value in values.items() if getattr(settings, name) is None})


# ---------------------------------------------------------------------------------------------
# The session


class Session:
    """One trial's folder, its device, its engine and what it has reported."""

    def __init__(self, system: str, settings: Any, machine: RunOptions, host, parameters: dict):
        self.settings, self.host, self._keep, self._earlier = settings, host, machine.keep, machine.earlier
        self.device = machine.torch_device()
        self.folder = host.folder or machine.out or RUNS / f"{system}-{settings_hash(settings)}"
        self._retries = machine.retries
        self._before = self._claim()
        self._stop, self._given = None, {}
        self._begin()
        self._record = {
            "system": system, "parameters": parameters or self._before.get("parameters", {}),
            "settings": asdict(settings),
            "status": "running", "reason": None, "score": None, "device": device_name(self.device),
            "threads": torch.get_num_threads(), "versions": versions(), "commit": git_commit(),
        }  # fmt: skip
        self._write_record()

    def _claim(self) -> dict:
        """Make the folder and lock it: an orphan of an earlier start may still be writing there.

        Returns:
            The record that an earlier start left, empty on a fresh folder.

        Raises:
            UserError: not writable, in use, another trial's, or none's.
        """
        self._lock = file_lock(self.folder / ".lock", f"training in {self.folder}")
        before = read_json(self.folder / "run.json")
        if not matches(before, {"settings?": {}, "parameters?": {}}):
            raise UserError(f"{self.folder / 'run.json'} is no trial's: choose another --out")
        settings = before.get("settings")
        if settings is not None and hash_of(settings) != settings_hash(self.settings):
            now = asdict(self.settings)
            changed = ", ".join(name for name in now if settings.get(name) != now[name])
            raise UserError(f"{self.folder} holds a trial with other {changed}: choose another --out")
        for part in self.folder.glob("*.part") if before else ():  # a start that was killed as it wrote
            part.unlink()
        return before

    def _begin(self) -> None:
        """All that a try begins with; `restore` makes of it what it was at the checkpoint."""
        self._started, self._scoring = time.perf_counter(), 0.0
        self._bar, self._writer = None, None
        self._sums, self._count = {}, 0
        self._reports: list[dict] = []

    def run(self, train: Callable) -> int:
        """Train to the end of the budget, or to whatever ends it before; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._try(train)
            return self._end("finished", None, self._reports[-1]["score"], 0)
        except Diverged as error:
            print(f"diverged: {error}")
            return self._end("diverged", str(error), {"default": WORST_SCORE}, 0)
        except Stopped as error:
            print(f"stopped: {error}")
            return self._end("stopped", str(error), None, 128 + self._stop)
        except UserError as error:
            self._end("failed", one_line(error), None, 1)
            raise
        except Exception as error:
            reason = describe_error(error, self.settings, self.device)
            self._end("failed", reason, None, 1)
            if is_out_of_memory(error):  # there is nothing to find in the code
                raise UserError(reason) from None
            raise

    def _try(self, train: Callable) -> None:
        """Train; after a failure that passes wait, and go on from the checkpoint."""
        for attempt in range(self._retries):
            try:
                return train(self.settings, self)
            except Exception as error:
                if not is_transient(error, self.device):
                    raise
                reason = describe_error(error, self.settings, self.device)
            # Outside of `except`, which would keep the failed try's tensors alive.
            self._close()
            self._record.setdefault("retries", []).append(reason)
            self._write_record()
            print(f"tries again in {backoff_seconds(attempt)} s: {reason}")
            self._wait(backoff_seconds(attempt))
            self._begin()
        train(self.settings, self)

    def _wait(self, seconds: float) -> None:
        """Let others have the machine, for `seconds` or until someone asks the trial to end."""
        gc.collect()  # networks and optimisers refer to each other
        torch.cuda.empty_cache()
        end = time.monotonic() + seconds
        while not self._stop and time.monotonic() < end:
            time.sleep(min(1.0, seconds))

    def _close(self) -> None:
        for part in (self._bar, self._writer):
            if part:
                part.close()

    def _end(self, status: str, reason: str | None, score: dict | None, code: int) -> int:
        """Write how the trial ended, and only then tell the engine its one result."""
        self._record |= {"status": status, "reason": reason, "score": score}
        seconds = time.perf_counter() - self._started
        self._record |= {"seconds": round(seconds, 1), "scoring_share": round(self._scoring / seconds, 3)}
        self._close()
        try:
            self._write_record()
        except UserError:  # already failing, of a full disk perhaps: the first reason is the one
            if status != "failed":
                raise
        self._lock.close()
        if score:
            with as_user_error(self.folder):
                self.host.report_final(score)
            print(f"{status}: score {score['default']:.4f}, {self._record['seconds']:.0f} s, {self.folder}")
        return code

    def _on_signal(self, number: int, _frame) -> None:
        if self._stop:  # asked twice: now, checkpoint or not
            raise KeyboardInterrupt
        self._stop = number

    # -----------------------------------------------------------------------------------------
    # What a system calls

    def update_record(self, **facts) -> None:
        """Put facts into run.json."""
        self._record |= facts
        self._write_record()

    def record_inputs(self, **inputs: dict) -> None:
        """Put what the trial is made from into run.json: data set and counts, judge.

        Raises:
            UserError: the folder's trial was made from something else.
        """
        for name, facts in inputs.items():
            if self._before.get(name, facts) != facts:
                raise UserError(f"{self.folder} was trained with another {name}: choose another --out")
        self._given = inputs
        self.update_record(**inputs)

    def restore(self, model: Any) -> None:
        """Continue from the folder's checkpoint, if there is one, or from that of the same trial
        among the earlier ones.

        Raises:
            UserError: it cannot be read, or is of another system.
        """
        file = self.folder / "checkpoint.pt"
        if self._earlier and not file.exists():
            self._take_over()
        if file.exists():
            try:
                model.load_state_dict(read_tensors(file, self.device))
            except Exception as error:  # unpickling foreign bytes fails in many ways
                why = one_line(error)
                raise UserError(f"{file} cannot be read ({why}): move {self.folder} away") from None
            self.update_record(resumed_at=model.step)
            print(f"continues at step {model.step} from {file}")
        # Reports after the checkpoint will be made again; a crash may have cut the last one off.
        self._reports = [line for line in read_lines(self._stats) if line["step"] <= model.step]
        with as_user_error(self.folder):
            text = "".join(map(json_line, self._reports))
            atomic_write(self._stats, lambda part: part.write_text(text))
        if self._reports:
            self._started -= self._reports[-1].get("seconds") or 0
            self._scoring = self._reports[-1].get("scoring_seconds") or 0

    def _take_over(self) -> None:
        """Copy what the furthest of the earlier trials that are this one has left, if there is one.

        Raises:
            UserError: the copy cannot be written.
        """
        found = [(len(read_lines(folder / "stats.jsonl")), folder)
                 for folder in sorted({file.parent for file in self._earlier.rglob("checkpoint.pt")})
                 if self._is_this(read_record(folder))]
        if not found:
            return
        _, folder = max(found)
        print(f"goes on from a copy of {folder}")
        with as_user_error(self.folder):
            for name in ("samples", "paintings", "tensorboard"):
                if (folder / name).is_dir():
                    shutil.copytree(folder / name, self.folder / name, dirs_exist_ok=True)
            for name in ("stats.jsonl", "checkpoint.pt"):  # the checkpoint last: with it, all is there
                atomic_write(self.folder / name, lambda part, name=name: shutil.copy2(folder / name, part))
        self.update_record(continues=str(folder))

    def _is_this(self, record: dict) -> bool:
        """Whether `record` is of a trial of these settings, made from the same things."""
        return (record.get("system") == self._record["system"]
                and hash_of(record.get("settings") or {}) == settings_hash(self.settings)
                and all(record.get(name) == facts for name, facts in self._given.items()))

    def steps(self, model: Any, last: int) -> Iterator[int]:
        """Steps from `model.step` up to `last`, with a progress bar; ends early when asked to.

        Raises:
            Stopped: by a signal, after the checkpoint is written.
            UserError: the trial is already beyond `last`.
        """
        if model.step > last:
            raise UserError(f"{self.folder} is trained to step {model.step}, this budget ends at {last}: "
                            "choose another --out, or a larger budget")
        if "retries" not in self._record:
            self.update_record(first_step_after=round(time.time() - psutil.Process().create_time(), 1))
        self._bar = tqdm(initial=model.step, total=last, unit="step", disable=None)
        while model.step < last:
            if self._stop:
                self.save_checkpoint(model)
                raise Stopped(f"{signal.Signals(self._stop).name} at step {model.step}")
            yield model.step
            self._bar.update()

    def add_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Take a step's losses (scalars on the device) into the means of the next report.

        Raises:
            Diverged: one is not finite or has exploded; looked at every `CHECK_EVERY` steps, so
                that the device is not waited for at each.
        """
        self._sums = {name: self._sums.get(name, 0) + loss.detach() for name, loss in losses.items()}
        self._count += 1
        if self._count % CHECK_LOSSES_EVERY == 0:
            check_losses(losses, 1)

    def _means(self) -> dict[str, float]:
        return check_losses(self._sums, self._count)

    def is_report_due(self, step: int, every: int, last: int) -> bool:
        """Whether to report after `step` steps."""
        return step % every == 0 or step == last

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Around painting and scoring: the share of the trial's time that they take is recorded."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # the steps before are not to be counted
        began = time.perf_counter()
        yield
        self._scoring += time.perf_counter() - began

    def report(self, model: Any, score: Score, sheet: torch.Tensor, **facts: float) -> None:
        """Report: engine, stats.jsonl, TensorBoard, sample sheet (float [3, H, W] in [0, 1]),
        then the checkpoint. Losses are means since the last report.

        Raises:
            Diverged: the score is not finite.
            UserError: the folder cannot be written; the last checkpoint is whole.
        """
        named, losses, step = score.as_dict(), self._means(), model.step
        facts = score.extras | facts
        if not all(map(math.isfinite, named.values())):
            raise Diverged(f"the score is not finite: {named}")
        seconds = round(time.perf_counter() - self._started, 1)
        line = {"step": step, "seconds": seconds, "scoring_seconds": round(self._scoring, 2), **facts,
                "score": named, "losses": losses}
        with as_user_error(self.folder):
            with open(self._stats, "a") as stats:
                stats.write(json_line(line))
            self._show(step, named, losses, facts, sheet)
        self.save_checkpoint(model)
        self._reports.append(line)
        self._sums, self._count = {}, 0
        with as_user_error(self.folder):  # NNI keeps results in the trial's folder
            self.host.report_intermediate(named)
        tqdm.write(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in named.items()))

    def save_paintings(self, step: int, painted: torch.Tensor) -> None:
        """With --keep: `painted`, float [N, 3, H, W] in [-1, 1], as uint8 in paintings/."""
        if self._keep:
            with as_user_error(self.folder):
                file = self.folder / "paintings" / f"step_{step:06d}.pt"
                file.parent.mkdir(exist_ok=True)
                atomic_write(file, lambda part: torch.save(to_bytes(painted).cpu(), part))

    def save_checkpoint(self, model: Any) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            UserError: it cannot be written; the last one is still there.
        """
        with as_user_error(self.folder):
            atomic_write(self.folder / "checkpoint.pt", lambda part: torch.save(model.state_dict(), part))

    def _show(self, step: int, named: dict, losses: dict, facts: dict, sheet: torch.Tensor) -> None:
        from torch.utils.tensorboard import SummaryWriter  # not above: takes a second
        from torchvision.utils import save_image

        (self.folder / "samples").mkdir(exist_ok=True)
        save_image(sheet, self.folder / "samples" / f"step_{step:06d}.png")
        if self._writer is None:  # NNI's TensorBoard button looks into this folder
            self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=step)
        for group, values in (("score", named), ("loss", losses), ("progress", facts)):
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.add_image("samples", sheet, step)
        self._writer.flush()

    @property
    def _stats(self) -> Path:
        return self.folder / "stats.jsonl"

    def _write_record(self) -> None:
        with as_user_error(self.folder):
            write_json(self.folder / "run.json", self._record)


def check_losses(losses: dict[str, torch.Tensor], count: int) -> dict[str, float]:
    """`losses` divided by `count`, as numbers. Waits for the device.

    Raises:
        Diverged: one is not finite or has exploded.
    """
    values = (torch.stack(list(losses.values())) / count).tolist()
    for name, value in zip(losses, values):
        if not math.isfinite(value) or abs(value) > MAX_LOSS:
            raise Diverged(f"{name} loss is {value:g}")
    return dict(zip(losses, values))
