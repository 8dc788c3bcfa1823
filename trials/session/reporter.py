"""The reports of a trial: mean losses, seconds, stats.jsonl, TensorBoard and sample sheets."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from judge.common.files import as_user_error, atomic_write
from judge.score import Score
from trials.session.failures import Diverged
from trials.session.records import read_lines
from trials.session.steady import steady

LOSS_CHECK_STEPS = 20  # steps between checks of the losses: each one waits for the device


class Reporter:
    """Writes the reports of one attempt at the trial in `folder`, and measures its time."""

    max_loss = math.inf
    """Of the model (`Checkpointed.max_loss`), which `restore` sets."""

    def __init__(self, folder: Path):
        self.reports: list[dict] = []
        self._folder, self._stats = folder, folder / "stats.jsonl"
        self._start, self.scoring_seconds = time.perf_counter(), 0.0
        self._loss_sums, self._loss_count = {}, 0
        self.bar, self._writer = tqdm(disable=True), None

    def state_dict(self) -> dict:
        """Return what a checkpoint needs for the next report: the losses since the last one, if any."""
        losses = {"sums": self._loss_sums, "count": self._loss_count}
        return {"losses_since_report": losses} if self._loss_count else {}

    def restore(self, step: int, state: dict, max_loss: float, folder: Path) -> None:
        """Continue at `step` the run in `folder`, with what `state_dict` has added to its checkpoint `state`.

        Its reports up to `step` are kept; later ones will be made again.
        """
        self.max_loss = max_loss
        self.reports = [report for report in read_lines(folder / "stats.jsonl") if report["step"] <= step]
        if self.reports:
            self._start -= self.reports[-1].get("seconds") or 0
            self.scoring_seconds = self.reports[-1].get("scoring_seconds") or 0
        if losses := state.get("losses_since_report"):  # on the CPU: torch adds scalars across devices
            self._loss_sums, self._loss_count = losses["sums"], losses["count"]

    def begin(self) -> None:
        """Write the reports that are kept."""
        text = "".join(json.dumps(report) + "\n" for report in self.reports)
        with as_user_error(self._folder):
            atomic_write(self._stats, lambda part: part.write_text(text))

    def add_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Add to the mean losses of the next report, and check them every `LOSS_CHECK_STEPS` steps."""
        sums = self._loss_sums
        self._loss_sums = {name: sums.get(name, 0) + loss.detach() for name, loss in losses.items()}
        self._loss_count += 1
        if self._loss_count % LOSS_CHECK_STEPS == 0:
            self._check(losses, 1)

    def times(self) -> dict[str, float]:
        """Return the seconds of the whole trial, and the share of them that scoring took."""
        seconds = time.perf_counter() - self._start
        return {"seconds": round(seconds, 1), "scoring_share": round(self.scoring_seconds / seconds, 3)}

    def score(self, is_scheduled: Callable[[int], bool]) -> dict[str, float]:
        """Return the steady score of the reports at scheduled steps: not of an early look, nor of those that
        a smaller budget has made between them."""
        return steady([report["score"] for report in self.reports if is_scheduled(report["step"])])

    def mean_losses(self) -> dict[str, float]:
        """Return the mean losses since the last report. Raises Diverged if one is not finite or too large."""
        return self._check(self._loss_sums, self._loss_count)

    def _check(self, sums: dict[str, torch.Tensor], count: int) -> dict[str, float]:
        """Return the mean losses of `count` steps. Raises Diverged as `mean_losses` does."""
        values = (torch.stack(list(sums.values())) / count).tolist() if sums else []
        for name, value in zip(sums, values):
            if not math.isfinite(value) or abs(value) > self.max_loss:
                raise Diverged(f"{name} loss is {value:g}")
        return dict(zip(sums, values))

    def write(self, step: int, score: Score, sheet: torch.Tensor, facts: dict[str, float],
              early: bool = False) -> None:  # fmt: skip
        """Write a report with the mean losses since the last one, and `sheet`, float [3, H, W] in [0, 1].

        An `early` look is marked, and leaves the losses to the next report, which is the same without it.
        """
        losses = self.mean_losses()
        values, facts = score.as_dict(), score.extras | facts
        if not all(map(math.isfinite, values.values())):
            raise Diverged(f"the score is not finite: {values}")
        report = {
            "step": step, "seconds": self.times()["seconds"],
            "scoring_seconds": round(self.scoring_seconds, 2), **facts, "score": values, "losses": losses,
            **({"early": True} if early else {}),
        }  # fmt: skip
        with as_user_error(self._folder):
            with open(self._stats, "a") as stats:
                stats.write(json.dumps(report) + "\n")
            self._show(step, {"score": values, "loss": losses, "progress": facts}, sheet)
        self.reports.append(report)
        if not early:
            self._loss_sums, self._loss_count = {}, 0

    def _show(self, step: int, groups: dict[str, dict[str, float]], sheet: torch.Tensor) -> None:
        """Write the sheet to samples/, and the sheet and the scalars in `groups` to TensorBoard's folder."""
        from torch.utils.tensorboard import SummaryWriter  # not above: the import takes a second

        file = self._folder / "samples" / f"step_{step:06d}.png"
        file.parent.mkdir(exist_ok=True)
        from torchvision.utils import save_image  # takes seconds to import

        # Half a sheet would take the last of a full disk, and the log could not say what is wrong.
        atomic_write(file, lambda part: save_image(sheet, part, format="png"))
        if self._writer is None:  # NNI's TensorBoard button opens a folder of this name
            self._writer = SummaryWriter(self._folder / "tensorboard", purge_step=step)
        for group, scalars in groups.items():
            for name, value in scalars.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.add_image("samples", sheet, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the progress bar and TensorBoard's file."""
        self.bar.close()
        if self._writer:
            self._writer.close()
