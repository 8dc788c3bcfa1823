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
from trials.session.engine import NoEngine
from trials.session.records import read_lines
from trials.session.session import RunOptions, Session


@dataclass(frozen=True)
class Settings:
    budget: float = 1.0
    weight: float = 1.0


class Counter:
    """A model that counts."""

    def __init__(self):
        self.step = 0

    def state_dict(self) -> dict:
        return {"step": self.step}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]


class Listener(NoEngine):
    """An engine that remembers."""

    def __init__(self, folder: Path):
        self.folder, self.intermediates, self.finals = folder, [], []

    def report_intermediate(self, values: dict) -> None:
        self.intermediates.append(values)

    def report_final(self, values: dict) -> None:
        self.finals.append(values)


def session(folder: Path, **settings) -> Session:
    return Session("counter", replace(Settings(), **settings), RunOptions(device="cpu"), Listener(folder), {})


def training(last=10, every=5, value=lambda step: 0.5, loss=lambda step: 1.0, at=lambda step: None):
    """A training that reports `value` and calls `at` before each step."""

    def train(settings: Settings, session: Session) -> None:
        model = Counter()
        session.restore(model)
        for step in session.steps(model, last):
            at(step)
            session.add_losses({"loss": torch.tensor(loss(step))})
            model.step += 1
            if session.is_report_due(model.step, every, last):
                session.report(model, Score(value(model.step), {"part": 0.1}), torch.zeros(3, 4, 4))

    return train


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_trial_leaves_its_story_behind(tmp_path):
    s = session(tmp_path, weight=2.0)
    assert s.run(training()) == 0
    assert record(tmp_path)["status"] == "finished"
    assert record(tmp_path)["settings"] == {"budget": 1.0, "weight": 2.0}
    assert record(tmp_path)["score"] == {"default": 0.5, "part": 0.1}
    assert torch.__version__.startswith(record(tmp_path)["versions"]["torch"])
    lines = read_lines(tmp_path / "stats.jsonl")
    assert [line["step"] for line in lines] == [5, 10]
    assert lines[0]["losses"] == {"loss": 1.0} and lines[0]["score"]["default"] == 0.5
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["step_000005.png", "step_000010.png"]
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == {"step": 10}
    assert not list(tmp_path.glob("*.part"))


def test_there_is_one_final_result_the_last_report(tmp_path):
    s = session(tmp_path)
    s.run(training(value=lambda step: step / 100))
    assert [v["default"] for v in s.host.intermediates] == [0.05, 0.10]
    assert s.host.finals == [{"default": 0.10, "part": 0.1}]


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
def test_a_diverged_trial_reports_the_worst_score_and_why(tmp_path, loss):
    s = session(tmp_path)
    assert s.run(training(last=100, every=50, loss=lambda step: loss if step > 10 else 1.0)) == 0
    assert s.host.finals == [{"default": 0.0}]
    assert record(tmp_path)["status"] == "diverged"
    assert "loss is" in record(tmp_path)["reason"]


def test_a_score_that_is_not_finite_is_a_divergence(tmp_path):
    s = session(tmp_path)
    s.run(training(value=lambda step: math.nan))
    assert s.host.intermediates == [] and s.host.finals == [{"default": 0.0}]


def test_a_diverged_trial_keeps_its_last_good_checkpoint(tmp_path):
    session(tmp_path).run(training(last=100, every=5, loss=lambda step: math.nan if step > 6 else 1.0))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == {"step": 5}


def test_a_stopped_trial_saves_and_reports_no_final(tmp_path):
    s = session(tmp_path)
    stop = training(at=lambda step: step == 7 and os.kill(os.getpid(), signal.SIGTERM))
    assert s.run(stop) == 128 + signal.SIGTERM
    assert s.host.finals == []
    assert record(tmp_path)["status"] == "stopped"
    assert record(tmp_path)["reason"] == "SIGTERM at step 8"
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == {"step": 8}


def test_started_again_it_continues_and_reports_each_step_once(tmp_path):
    session(tmp_path).run(training(at=lambda step: step == 7 and os.kill(os.getpid(), signal.SIGTERM)))
    seen = []
    s = session(tmp_path)
    assert s.run(training(at=seen.append)) == 0
    assert seen == [8, 9]
    assert [line["step"] for line in read_lines(tmp_path / "stats.jsonl")] == [5, 10]
    assert len(s.host.finals) == 1


def test_reports_made_after_the_checkpoint_are_made_again(tmp_path):
    """Killed between the report and its checkpoint."""
    session(tmp_path).run(training(last=10))
    torch.save({"step": 5}, tmp_path / "checkpoint.pt")
    with open(tmp_path / "stats.jsonl", "a") as stats:
        stats.write('{"step": 15, "sco')  # and one cut off in the middle
    session(tmp_path).run(training(last=10))
    assert [line["step"] for line in read_lines(tmp_path / "stats.jsonl")] == [5, 10]


def test_a_finished_trial_started_again_reports_its_result_again(tmp_path):
    session(tmp_path).run(training())
    s = session(tmp_path)
    assert s.run(training()) == 0
    assert s.host.intermediates == [] and s.host.finals == [{"default": 0.5, "part": 0.1}]


def test_a_longer_budget_is_the_same_trial(tmp_path):
    session(tmp_path, budget=0.5).run(training(last=5))
    seen = []
    session(tmp_path, budget=1.0).run(training(last=10, at=seen.append))
    assert seen == [5, 6, 7, 8, 9]


def test_a_folder_of_another_trial_is_left_alone(tmp_path):
    session(tmp_path, weight=1.0).run(training())
    before = {p: p.read_bytes() for p in tmp_path.glob("*.*")}
    with pytest.raises(UserError, match="other weight: choose another --out"):
        session(tmp_path, weight=2.0)
    assert {p: p.read_bytes() for p in tmp_path.glob("*.*")} == before


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    first = session(tmp_path)
    with pytest.raises(UserError, match="another process is training"):
        session(tmp_path)
    del first  # releases the lock
    session(tmp_path)


def test_what_a_killed_start_had_half_written_is_removed(tmp_path):
    session(tmp_path)
    (tmp_path / "checkpoint.pt.123.part").touch()
    session(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    session(tmp_path).run(training())
    (tmp_path / "checkpoint.pt").write_bytes(b"\x80\x04garbage")
    with pytest.raises(UserError, match="checkpoint.pt cannot be read"):
        session(tmp_path).run(training())
    assert record(tmp_path)["status"] == "failed"


def test_a_crash_is_recorded_and_not_swallowed(tmp_path):
    def crash(step: int) -> None:
        raise RuntimeError("a bug")

    s = session(tmp_path)
    with pytest.raises(RuntimeError, match="a bug"):
        s.run(training(at=crash))
    assert record(tmp_path)["status"] == "failed"
    assert record(tmp_path)["reason"] == "RuntimeError: a bug"
    assert s.host.finals == []


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        session(tmp_path / "taken")


def test_a_read_only_folder_is_one_line(tmp_path):
    if os.geteuid() == 0:
        folder = Path("/proc/salon")  # root may write everywhere else
    else:
        folder = tmp_path / "readonly" / "run"
        folder.parent.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write to"):
        session(folder)


class Large(Counter):
    def state_dict(self) -> dict:
        return {"step": self.step, "weights": torch.zeros(250_000 * (1 + self.step))}  # 1 MB a step


class OnDisk(Listener):
    """An engine that keeps results in the trial's folder, as NNI does."""

    def report_intermediate(self, values: dict) -> None:
        with open(self.folder / "metrics", "a") as metrics:
            metrics.write(json.dumps(values) * 300)

    report_final = report_intermediate


def filling(settings: Settings, session: Session) -> None:
    """A training whose checkpoints grow by 1 MB a step, with sheets of 100 kB."""
    model, noise = Large(), torch.Generator().manual_seed(0)
    for _ in session.steps(model, 10):
        session.add_losses({"loss": torch.tensor(1.0)})
        model.step += 1
        session.report(model, Score(0.5, {}), torch.rand(3, 180, 180, generator=noise))


def ends_in_one_line_with_a_whole_checkpoint(s: Session, folder: Path) -> None:
    with pytest.raises(UserError, match=f"cannot write to {folder}") as caught:
        s.run(filling)
    assert "\n" not in str(caught.value)
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert 0 < kept["step"] < 10 and len(kept["weights"]) == 250_000 * (1 + kept["step"])
    assert not list(folder.glob("*.part"))
    assert record(folder)["status"] in ("running", "failed")  # whole JSON in either case


@pytest.mark.parametrize("kilobytes", range(12_000, 13_000, 100))
def test_a_full_disk_is_one_line_and_leaves_the_last_good_checkpoint(small_disk, kilobytes):
    """Wherever in a report it is that the disk fills up."""
    folder = small_disk(kilobytes)
    ends_in_one_line_with_a_whole_checkpoint(
        Session("counter", Settings(), RunOptions(device="cpu"), OnDisk(folder), {}), folder)


@pytest.mark.parametrize("what", ["report_intermediate", "report_final"])
def test_a_result_that_the_engine_cannot_write_is_one_line(tmp_path, monkeypatch, what):
    def full(self, values: dict) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Listener, what, full)
    with pytest.raises(UserError, match="No space left on device: make room and start it again"):
        session(tmp_path).run(training())
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] in (5, 10)


@pytest.mark.parametrize("at", range(1, 10))
def test_a_spent_quota_is_one_line_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, at):
    """Injected at each write in turn: no file system that counts is at hand."""
    fsync, calls = os.fsync, []

    def counted(file) -> None:
        calls.append(file)
        if len(calls) >= at:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        fsync(file)

    monkeypatch.setattr(os, "fsync", counted)
    with pytest.raises(UserError, match="Disk quota exceeded: make room and start it again"):
        session(tmp_path).run(training(last=30))
    assert not list(tmp_path.glob("*.part"))
    if (tmp_path / "checkpoint.pt").exists():
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] % 5 == 0


def test_an_explosion_late_in_a_long_window_is_not_averaged_away(tmp_path):
    steps = []
    session(tmp_path).run(
        training(last=1000, every=1000, loss=lambda step: 9e3 if step > 900 else 1.0, at=steps.append))
    assert len(steps) <= 940 and record(tmp_path)["status"] == "diverged"


def test_a_crash_before_the_first_checkpoint_leaves_no_half_line(tmp_path):
    (tmp_path / "stats.jsonl").write_text('{"step": 5, "sco')
    session(tmp_path).run(training())
    assert [line["step"] for line in read_lines(tmp_path / "stats.jsonl")] == [5, 10]


def test_a_smaller_budget_than_trained_is_refused(tmp_path):
    session(tmp_path, budget=1.0).run(training(last=10))
    s = session(tmp_path, budget=0.5)
    with pytest.raises(UserError, match="trained to step 10, this budget ends at 5"):
        s.run(training(last=5))
    assert s.host.finals == []


def test_a_trial_does_not_go_on_with_another_judge(tmp_path):
    first = session(tmp_path)
    first.record_inputs(judge={"sha256": "a"})
    first.run(training())
    again = session(tmp_path)
    again.record_inputs(judge={"sha256": "a"})
    with pytest.raises(UserError, match="another judge: choose another --out"):
        again.record_inputs(judge={"sha256": "b"})


def test_seconds_go_on_where_they_stopped(tmp_path):
    session(tmp_path).run(training(last=5))
    lines = read_lines(tmp_path / "stats.jsonl")
    (tmp_path / "stats.jsonl").write_text(json.dumps(lines[0] | {"seconds": 1000.0}) + "\n")
    session(tmp_path).run(training(last=10))
    assert record(tmp_path)["seconds"] >= 1000


def test_a_trial_continued_by_hand_keeps_the_parameters_it_received(tmp_path):
    first = Session("counter", Settings(), RunOptions(), Listener(tmp_path), {"weight": 1.0})
    first.run(training(last=5))
    session(tmp_path).run(training(last=10))
    assert record(tmp_path)["parameters"] == {"weight": 1.0}


def test_on_a_terminal_a_bar_shows_steps_a_second_and_elsewhere_nothing(tmp_path, monkeypatch, capsys):
    session(tmp_path / "a").run(training())
    assert "step/s" not in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    session(tmp_path / "b").run(training())
    assert "step/s" in capsys.readouterr().err


def test_a_machine_without_git_can_train(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    session(tmp_path / "run").run(training())
    assert record(tmp_path / "run")["commit"] is None


def test_divergence_is_looked_for_between_reports(tmp_path):
    steps = []
    session(tmp_path).run(
        training(last=1000, every=1000, loss=lambda step: math.nan, at=steps.append))
    assert len(steps) <= 20


def test_the_record_repeats_the_settings_exactly(tmp_path):
    weight = 0.1 + 0.2
    session(tmp_path, weight=weight).run(training())
    assert record(tmp_path)["settings"] == asdict(Settings(weight=weight))



def test_the_share_of_time_that_scoring_takes_is_recorded_and_goes_on(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("trials.session.session.time.perf_counter", lambda: clock[0])

    def train(last):
        def steps(settings: Settings, session: Session) -> None:
            model = Counter()
            session.restore(model)
            for _ in session.steps(model, last):
                model.step += 1
                clock[0] += 9
                session.add_losses({"loss": torch.tensor(1.0)})
                with session.scoring():
                    clock[0] += 1
                session.report(model, Score(0.5, {}), torch.zeros(3, 8, 8))
        return steps

    assert session(tmp_path).run(train(3)) == 0
    assert json.loads((tmp_path / "run.json").read_text())["scoring_share"] == 0.1
    clock[0] += 1000  # between the starts
    assert session(tmp_path).run(train(6)) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["seconds"], record["scoring_share"]) == (60, 0.1)


def test_paintings_are_kept_when_asked_for_and_only_then(tmp_path):
    painted = torch.linspace(-1, 1, 256).expand(2, 3, 4, 256)
    for keep in (False, True):
        machine = RunOptions(device="cpu", keep=keep)
        Session("counter", Settings(), machine, Listener(tmp_path / str(keep)), {}).save_paintings(7, painted)
    assert not (tmp_path / "False" / "paintings").exists()
    kept = torch.load(tmp_path / "True" / "paintings" / "step_000007.pt", weights_only=True)
    assert kept.dtype == torch.uint8 and kept[0, 0, 0].tolist() == list(range(256))


# ---------------------------------------------------------------------------------------------
# Going on from an earlier trial


def later(folder: Path, earlier: Path, **settings) -> Session:
    """A session in a fresh folder that may go on from what is in `earlier`."""
    machine = RunOptions(device="cpu", earlier=earlier)
    return Session("counter", replace(Settings(), **settings), machine, Listener(folder), {})


def test_a_fresh_folder_goes_on_from_a_copy_of_the_same_trial(tmp_path):
    session(tmp_path / "runs/search/a", budget=0.5).run(training(last=10))
    began = []
    second = later(tmp_path / "runs/promotion/b", tmp_path / "runs")
    assert second.run(training(last=20, at=began.append)) == 0
    assert began[0] == 10  # not from the start
    steps = [line["step"] for line in read_lines(tmp_path / "runs/promotion/b/stats.jsonl")]
    assert steps == [5, 10, 15, 20]
    assert record(tmp_path / "runs/promotion/b")["continues"] == str(tmp_path / "runs/search/a")
    assert len(list((tmp_path / "runs/promotion/b/samples").iterdir())) == 4
    assert len(read_lines(tmp_path / "runs/search/a/stats.jsonl")) == 2  # left as it was
    assert record(tmp_path / "runs/search/a")["settings"]["budget"] == 0.5


def test_the_furthest_of_several_is_taken(tmp_path):
    for name, last in (("a", 10), ("b", 20), ("c", 5)):
        session(tmp_path / "runs" / name).run(training(last=last))
    began = []
    later(tmp_path / "new", tmp_path / "runs").run(training(last=25, at=began.append))
    assert began[0] == 20


def test_a_finished_trial_is_not_trained_again(tmp_path):
    session(tmp_path / "runs/a").run(training(last=10))
    began, again = [], later(tmp_path / "new", tmp_path / "runs")
    again.run(training(last=10, at=began.append))
    assert not began and again.host.finals == [{"default": 0.5, "part": 0.1}]


def test_other_settings_another_judge_or_nothing_begin_from_the_start(tmp_path):
    session(tmp_path / "runs/a", weight=2.0).run(training(last=10))
    began = []
    later(tmp_path / "new", tmp_path / "runs").run(training(last=10, at=began.append))
    assert began[0] == 0
    session(tmp_path / "judged/a").run(training(last=10))
    other = later(tmp_path / "other", tmp_path / "judged")
    other.record_inputs(judge={"sha256": "another"})
    began.clear()
    other.run(training(last=10, at=began.append))
    assert began[0] == 0
    began.clear()
    later(tmp_path / "nothing", tmp_path / "nowhere").run(training(last=10, at=began.append))
    assert began[0] == 0


def test_a_folder_with_a_checkpoint_goes_on_from_its_own(tmp_path):
    session(tmp_path / "runs/a").run(training(last=20))
    session(tmp_path / "own").run(training(last=10))
    began = []
    later(tmp_path / "own", tmp_path / "runs").run(training(last=25, at=began.append))
    assert began[0] == 10
