"""What every trial shares, with the smallest system there can be."""

import errno
import json
import math
import os
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch

from judge.common.errors import UserError
from judge.score import Score
from trials.session import Checkpointed, RunOptions, Session
from trials.session.engine import NniEngine, NoEngine
from trials.session.records import read_lines
from trials.session.steady import steady

SHEET = torch.zeros(3, 4, 4)
SHADES = torch.linspace(-1, 1, 256).expand(2, 3, 4, 256)  # as outputs; in uint8 they are 0 to 255


@dataclass(frozen=True)
class Settings:
    budget: float = 1.0
    weight: float = 1.0


class Counter(Checkpointed):
    """A model that counts."""

    parts = ()


class Large(Counter):
    def state_dict(self) -> dict:
        return {"step": self.step, "weights": torch.zeros(250_000)}  # 1 MB


class Listener(NoEngine):
    """An engine that remembers."""

    def __init__(self, folder: Path):
        self.folder, self.intermediates, self.finals = folder, [], []

    def report_intermediate(self, values: dict) -> None:
        self.intermediates.append(values)

    def report_final(self, values: dict) -> None:
        self.finals.append(values)


def session(folder: Path, earlier: Path | None = None, keep: bool = False, **settings) -> Session:
    options = RunOptions(device="cpu", earlier=earlier, keep=keep)
    return Session("counter", replace(Settings(), **settings), options, Listener(folder), {})


def training(last=10, every=5, value=lambda step: 0.5, loss=lambda step: 1.0, at=lambda step: None,
             Model=Counter, sheet=SHEET):  # fmt: skip
    """A training that reports `value` and calls `at` before each step."""

    def train(settings: Settings, session: Session) -> None:
        model = Model()
        session.restore(model)
        for step in session.steps(model, last, every):
            at(step)
            session.add_losses({"loss": torch.tensor(loss(step))})
            model.step += 1
            if session.report_due(model):
                session.report(model, Score(value(model.step), {"part": 0.1}), SHADES, sheet)

    return train


def failing(error: Exception, times: int = 1, step: int = 7):
    """Raises `error` at `step`, the first so many times."""
    errors = [error] * times

    def fail(at: int) -> None:
        if at == step and errors:
            raise errors.pop()
    return fail


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def reported_steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_lines(folder / "stats.jsonl")]


def trained_steps(trial: Session, last: int, code: int = 0, **options) -> list[int]:
    steps = []
    assert trial.run(training(last=last, at=steps.append, **options)) == code
    return steps


@pytest.mark.parametrize("keep", [False, True])
def test_a_trial_leaves_its_record_reports_samples_checkpoint_and_if_asked_its_paintings(tmp_path, keep):
    trial = session(tmp_path, keep=keep, weight=0.1 + 0.2)
    assert trial.run(training(value=lambda step: step / 100)) == 0
    facts = record(tmp_path)
    assert facts["status"] == "finished"
    assert facts["settings"] == asdict(Settings(weight=0.1 + 0.2))  # to the last digit
    assert torch.__version__.startswith(facts["versions"]["torch"])
    lines = read_lines(tmp_path / "stats.jsonl")
    assert [line["step"] for line in lines] == [5, 10]
    assert lines[0]["losses"] == {"loss": 1.0} and lines[0]["score"]["default"] == 0.05
    assert facts["score"] == steady([line["score"] for line in lines]) and facts["score"]["error"] > 0
    samples = sorted(file.name for file in (tmp_path / "samples").iterdir())
    assert samples == ["step_000005.png", "step_000010.png"]
    assert list((tmp_path / "tensorboard").glob("events*")) and not list(tmp_path.glob("*.part"))
    assert checkpoint(tmp_path) == {"step": 10}
    assert trial.engine.intermediates == [steady([lines[0]["score"]]), facts["score"]]
    assert trial.engine.finals == [facts["score"]]
    assert (tmp_path / "paintings").exists() == keep
    if keep:
        kept = torch.load(tmp_path / "paintings/step_000005.pt", weights_only=True)
        assert kept.dtype == torch.uint8 and kept[0, 0, 0].tolist() == list(range(256))


@pytest.mark.parametrize(("every", "value", "loss", "reason", "steps"), [
    (5, 0.5, math.nan, "loss loss is nan", 10), (5, 0.5, 1e9, "loss loss is ", 10),
    (5, math.inf, 1.0, "the score is not finite", 10), (500, 0.5, 9e3, "loss loss is 9000", 20),
])  # fmt: skip
def test_a_diverged_trial_ends_within_20_steps_with_the_worst_score_and_its_last_good_checkpoint(
        tmp_path, every, value, loss, reason, steps):  # fmt: skip
    trial = session(tmp_path)
    trained = trained_steps(trial, 1000, code=1, every=every, value=lambda step: value if step > 6 else 0.5,
                            loss=lambda step: loss if step > 6 else 1.0)
    assert len(trained) == steps and record(tmp_path)["status"] == "diverged"
    assert record(tmp_path)["reason"].startswith(reason)
    assert trial.engine.finals == [{"default": 0.0}]
    if every == 5:
        assert checkpoint(tmp_path) == {"step": 5} and len(trial.engine.intermediates) == 1


def test_a_model_without_a_limit_diverges_only_if_a_loss_is_not_finite(tmp_path):
    class Unlimited(Counter):
        max_loss = math.inf

    trained_steps(session(tmp_path / "large"), 10, loss=lambda step: 1e30, Model=Unlimited)
    trained_steps(session(tmp_path / "nan"), 10, code=1, loss=lambda step: math.nan, Model=Unlimited)


def test_nni_does_not_take_a_trial_that_diverged_for_a_failed_one():
    """It would drop its score, the worst one; by hand, a script must see that there is nothing to use."""
    assert (NniEngine.diverged_code, NoEngine.diverged_code) == (0, 1)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_progress_bar_is_for_terminals_and_git_need_not_be_installed(
        tmp_path, monkeypatch, capsys, terminal):  # fmt: skip
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("PATH", str(tmp_path))
    session(tmp_path / "run").run(training())
    assert ("step/s" in capsys.readouterr().err) == terminal
    assert record(tmp_path / "run")["commit"] is None


def test_the_share_of_time_that_scoring_takes_is_recorded_over_all_runs(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def train(settings: Settings, session: Session) -> None:
        model = Counter()
        session.restore(model)
        for _ in session.steps(model, model.step + 3, 1):
            model.step += 1
            clock[0] += 9
            session.add_losses({"loss": torch.tensor(1.0)})
            with session.scoring():
                clock[0] += 1
            session.report(model, Score(0.5, {}), SHADES, SHEET)

    for seconds in (30, 60):
        assert session(tmp_path).run(train) == 0
        assert (record(tmp_path)["seconds"], record(tmp_path)["scoring_share"]) == (seconds, 0.1)
        clock[0] += 1000  # between the runs


def test_a_stopped_trial_saves_reports_no_result_and_continues_where_it_was(tmp_path):
    stopped = session(tmp_path)
    stop = training(at=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 7 else None)
    assert stopped.run(stop) == 128 + signal.SIGTERM
    assert stopped.engine.finals == [] and checkpoint(tmp_path)["step"] == 8
    assert record(tmp_path)["status"] == "stopped" and record(tmp_path)["reason"] == "SIGTERM at step 8"
    again = session(tmp_path)
    assert trained_steps(again, 10) == [8, 9]
    assert reported_steps(tmp_path) == [5, 10] and len(again.engine.finals) == 1


@pytest.mark.parametrize("step", [5, None])
def test_reports_after_the_checkpoint_are_made_again(tmp_path, step):
    """Killed between a report and its checkpoint, the first perhaps, or in the middle of a line."""
    session(tmp_path).run(training())
    (tmp_path / "checkpoint.pt").unlink()
    if step:
        torch.save({"step": step}, tmp_path / "checkpoint.pt")
    with open(tmp_path / "stats.jsonl", "a") as stats:
        stats.write('{"step": 15, "sco')
    session(tmp_path).run(training())
    assert reported_steps(tmp_path) == [5, 10]


def test_a_larger_budget_continues_a_trial_the_same_reports_again_and_a_smaller_is_refused(tmp_path):
    first = Session("counter", Settings(0.5), RunOptions(), Listener(tmp_path), {"weight": 1.0})
    first.run(training(last=5))
    assert trained_steps(session(tmp_path, budget=1.0), 10) == [5, 6, 7, 8, 9]
    assert record(tmp_path)["parameters"] == {"weight": 1.0}  # what the tuner proposed is kept
    again = session(tmp_path)
    assert trained_steps(again, 10) == []
    assert again.engine.intermediates == [] and again.engine.finals == [
        {"default": pytest.approx(0.5), "error": 0, "part": 0.1}]
    smaller = session(tmp_path, budget=0.5)
    with pytest.raises(UserError, match="trained to step 10, this budget ends at 5"):
        smaller.run(training(last=5))
    assert smaller.engine.finals == []


def tree(folder: Path) -> dict[str, bytes | None]:
    """Names and contents of all that is below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*")}


def by_hand(folder: Path, **options) -> Session:
    """A trial of half the budget that its user has started."""
    settings = replace(Settings(), budget=options.pop("budget", 0.5), weight=options.pop("weight", 1.0))
    return Session("counter", settings, RunOptions(device="cpu", out=folder, **options), NoEngine(), {})


def refusing(error: str):
    """A training that finds the data missing, before its first step."""

    def train(settings: Settings, session: Session) -> None:
        session.record.add_inputs(data={"name": "a"})
        raise UserError(error)

    return train


def test_what_is_refused_before_its_first_step_leaves_a_finished_trial_as_it_was(tmp_path):
    by_hand(tmp_path / "t").run(training())
    (tmp_path / "t/checkpoint.pt.7.part").touch()  # of a killed run
    before = tree(tmp_path)
    for train, error in ((training(last=5), "trained to step 10"), (refusing("no judge"), "no judge"),
                         (training(last=20, Model=type("Other", (Counter,), {"parts": ("G",)})), "not fit")):
        with pytest.raises(UserError, match=error):
            by_hand(tmp_path / "t", budget=1.0).run(train)
        assert tree(tmp_path) == before
    with pytest.raises(UserError, match="another weight"):
        by_hand(tmp_path / "t", weight=2.0)
    stopped = by_hand(tmp_path / "t", budget=1.0)
    stopped.stop_signal = signal.SIGTERM  # while its data are loaded
    assert stopped.run(training(last=20)) == 128 + signal.SIGTERM
    assert tree(tmp_path) == before
    assert trained_steps(by_hand(tmp_path / "t", budget=1.0), 20) == list(range(10, 20))


def test_a_trial_that_has_finished_is_not_written_again_by_the_same_command(tmp_path, capsys):
    by_hand(tmp_path / "t").run(training())
    before, said = tree(tmp_path), capsys.readouterr().out.splitlines()[-1]
    assert trained_steps(by_hand(tmp_path / "t"), 10) == []
    assert tree(tmp_path) == before
    assert capsys.readouterr().out.splitlines()[-1].split(",")[0] == said.split(",")[0]  # the score


@pytest.mark.parametrize("earlier", [False, True])
def test_a_refused_new_trial_leaves_no_folder(tmp_path, earlier):
    by_hand(tmp_path / "runs/a").run(training())
    before = tree(tmp_path)
    with pytest.raises(UserError):
        if earlier:  # it would be copied, and has trained longer than this budget
            by_hand(tmp_path / "new/t", earlier=tmp_path / "runs").run(training(last=5))
        else:
            by_hand(tmp_path / "new/t").run(refusing("no data folder"))
    assert tree(tmp_path) == before


def test_a_refused_trial_of_a_search_says_why_in_its_folder(tmp_path):
    """It is the trial's own, and the report reads the reason there."""
    with pytest.raises(UserError):
        session(tmp_path).run(refusing("no judge"))
    assert (record(tmp_path)["status"], record(tmp_path)["reason"]) == ("failed", "no judge")


def test_a_folder_of_another_trial_is_left_alone_and_another_judge_refused(tmp_path):
    first = session(tmp_path, weight=1.0)
    first.record.add_inputs(judge={"sha256": "a"})
    first.run(training())
    before = {file: file.read_bytes() for file in tmp_path.glob("*.*")}
    with pytest.raises(UserError, match="another weight: choose another --out"):
        session(tmp_path, weight=2.0)
    assert {file: file.read_bytes() for file in tmp_path.glob("*.*")} == before
    again = session(tmp_path, weight=1.0)
    again.record.add_inputs(judge={"sha256": "a"})
    with pytest.raises(UserError, match="another judge: choose another --out"):
        again.record.add_inputs(judge={"sha256": "b"})


def test_one_process_at_a_time_trains_in_a_folder_and_removes_what_a_killed_one_left(tmp_path):
    first = session(tmp_path)
    with pytest.raises(UserError, match="another process is training"):
        session(tmp_path)
    (tmp_path / "checkpoint.pt.123.part").touch()
    del first  # releases the lock
    session(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    session(tmp_path).run(training())
    (tmp_path / "checkpoint.pt").write_bytes(b"\x80\x04garbage")
    with pytest.raises(UserError, match="checkpoint.pt cannot be read"):
        session(tmp_path).run(training())
    assert record(tmp_path)["status"] == "failed"


def test_a_new_folder_continues_from_a_copy_of_the_run_that_trained_longest(tmp_path):
    for name, last in (("a", 5), ("b", 10), ("c", 5)):
        session(tmp_path / "runs" / name, budget=0.5).run(training(last=last))
    new = tmp_path / "runs/new"
    assert trained_steps(session(new, tmp_path / "runs"), 20) == list(range(10, 20))
    assert reported_steps(new) == [5, 10, 15, 20] and len(list((new / "samples").iterdir())) == 4
    assert record(new)["continues"] == str(tmp_path / "runs/b")
    assert reported_steps(tmp_path / "runs/b") == [5, 10]  # left as it was
    assert record(tmp_path / "runs/b")["settings"]["budget"] == 0.5
    assert trained_steps(session(tmp_path / "runs/c", tmp_path / "runs"), 10)[0] == 5  # its own checkpoint


def test_a_checkpoint_that_does_not_fit_is_one_line(tmp_path):
    session(tmp_path).run(training())
    torch.save({"steps": 5}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="checkpoint.pt does not fit this trial"):
        session(tmp_path).run(training())


def test_a_checkpoint_is_read_onto_the_cpu_wherever_the_trial_runs(tmp_path):
    """On a GPU that is nearly full there is no room for the weights twice."""
    devices = []

    class Weights(Large):
        def load_state_dict(self, state: dict) -> None:
            devices.append(state["weights"].device.type)

    session(tmp_path).run(training(Model=Weights))
    again = session(tmp_path)
    again.device = torch.device("meta")
    again.restore(Weights())
    assert devices == ["cpu"]


@pytest.mark.parametrize("name", ["weight", "judge"])
def test_a_trial_that_failed_before_its_first_report_refuses_no_other_settings(tmp_path, name):
    """Its data folder was misspelt, perhaps: there is nothing to protect."""
    first = session(tmp_path, weight=1.0)
    first.record.add_inputs(judge={"sha256": "a"})
    with pytest.raises(UserError):
        first.run(training(at=failing(UserError("no such folder"), step=0)))
    again = session(tmp_path, weight=2.0 if name == "weight" else 1.0)
    again.record.add_inputs(judge={"sha256": "b"})
    assert trained_steps(again, 10)[0] == 0
    assert record(tmp_path)["settings"]["weight"] == (2.0 if name == "weight" else 1.0)
    with pytest.raises(UserError, match="another weight: choose another --out"):
        session(tmp_path, weight=3.0)


def test_other_settings_another_judge_or_no_folder_start_from_the_beginning(tmp_path):
    session(tmp_path / "runs/a", weight=2.0).run(training())
    assert trained_steps(session(tmp_path / "settings", tmp_path / "runs"), 10)[0] == 0
    session(tmp_path / "judged/a").run(training())
    another = session(tmp_path / "judge", tmp_path / "judged")
    another.record.add_inputs(judge={"sha256": "another"})
    assert trained_steps(another, 10)[0] == 0
    assert trained_steps(session(tmp_path / "nothing", tmp_path / "nowhere"), 10)[0] == 0


@pytest.mark.parametrize("kilobytes", range(3_000, 3_500, 50))
def test_a_full_disk_is_one_line_and_leaves_the_last_good_checkpoint(small_disk, kilobytes):
    """Wherever in a report it is that the disk fills up: each one adds about 200 kB."""
    folder, sheet = small_disk(kilobytes), torch.rand(3, 180, 180)
    with pytest.raises(UserError, match=f"cannot write to {folder}") as caught:
        session(folder).run(training(last=50, every=1, Model=Large, sheet=sheet))
    assert "\n" not in str(caught.value)
    kept = checkpoint(folder)
    assert 0 < kept["step"] < 50 and len(kept["weights"]) == 250_000
    assert not list(folder.glob("*.part"))
    assert record(folder)["status"] in ("running", "failed")  # whole JSON in either case


@pytest.mark.parametrize(("place", "name", "calls"), [
    *[(os, "fsync", calls) for calls in range(9)],
    (Listener, "report_intermediate", 0), (Listener, "report_intermediate", 1), (Listener, "report_final", 0),
])  # fmt: skip
def test_a_spent_quota_at_any_write_is_one_line_and_leaves_the_last_good_checkpoint(
        tmp_path, monkeypatch, place, name, calls):  # fmt: skip
    write, left = getattr(place, name), list(range(calls))

    def limited(*arguments) -> None:
        if not left:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        left.pop()
        write(*arguments)

    monkeypatch.setattr(place, name, limited)
    with pytest.raises(UserError, match="Disk quota exceeded: make room and start it again"):
        session(tmp_path).run(training(last=30))
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "checkpoint.pt").exists() or checkpoint(tmp_path)["step"] % 5 == 0
