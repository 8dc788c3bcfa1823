"""Every command, ended in every way: its exit code, one line, nothing changed, nothing left.

A new command, or form of one, joins by one line of `COMMANDS`; `pytest -v tests/test_endings.py` prints the
table.
"""

import hashlib
import json
import os
import runpy
import shutil
import signal
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from judge.common import cli
from tests.experiments.helpers import ROOT, snapshot, write_experiment
from tests.experiments.preferences.viewers import random_parts
from tests.experiments.report.conftest import write_trial
from tests.fork_server import OURS, Done, Fault, ForkServer

TINY = "--size sketch --ngf 4 --blocks 1 --ndf 4 --photos 4 --data {data} --judge {judge}"
SHORT = "--steps 12 --reports 2 --threads 1 --out out"


@dataclass(frozen=True)
class Command:
    """A row of the table, in the folder of `world`."""

    line: str
    """What to type after `python -m`."""
    wrong: str
    """Words that, added to it, make it a mistake of the user's."""
    makes: str = ""
    """Patterns of the files that it may make or change, with blanks between them; none: it only reads."""
    said: str | None = None
    """What it has printed when it waits for Ctrl-C; None: it ends by itself."""
    replaces: bool = False
    """It writes over what an earlier run of it has made."""
    form: str = ""
    """What tells it from other rows of the same program."""

    @property
    def module(self) -> str:
        """The program."""
        return self.line.split()[0]

    @property
    def program(self) -> str:
        """The program, with its subcommand if it has any."""
        return " ".join(self.line.split()[: 1 + (self.module in SUBCOMMANDS)])

    @property
    def name(self) -> str:
        """The name of the row."""
        return f"{self.program} {self.form}".strip()


NOTHING = Fault()
OLD = hashlib.sha256(b"old").hexdigest()
TIMED = ("j.pt", "run.json", "stats.jsonl", ".html", "notes.json", "checkpoint.pt")  # hold times
SUBCOMMANDS = ("judge", "experiments", "trials.inspect")
SYSTEMS = {f"trials.{name}" for name in ("cyclegan", "gan", "dcgan", "conditional_gan", "stargan",
                                         "style_transfer")}  # fmt: skip
ELSEWHERE = {  # commands whose endings are tested where they are, and why
    **{f"experiments {name}": "starts NNI: tests/experiments/test_search.py" for name in (
        "run", "resume", "promote")},
    "experiments study": "starts trials: tests/experiments/study/test_study.py",
    "experiments.gpu_check": "starts all others, on a GPU: tests/experiments/test_gpu_check.py",
    "experiments.answer": "writes tables of this repository: tests/experiments/answer",
}
INTERNAL = {  # which only programs start
    "experiments.nni_adapter.dispatcher": "NNI: tests/experiments/nni_adapter/test_dispatcher.py",
    "experiments.nni_adapter.nnictl": "`run`",
    "experiments.nni_adapter.place": "`make`: tests/experiments/nni_adapter/test_place.py",
    "judge.common.children": "whatever starts a process: tests/judge/common/test_children.py",
}
COMMANDS = [
    Command("judge train --data {data} --size sketch --epochs 1 --weights none --out out/j.pt",
            "--epochs 0", "out/j.pt", replaces=True),
    Command("judge evaluate --data {data} --judge {judge} --sheet m.png", "--judge no.pt", "m.png",
            replaces=True),
    Command("judge score --images {data}/testA --data {data} --judge {judge}", "--images nowhere"),
    Command("judge controls --data {data} --judge {judge}", "--families blur"),
    Command("judge data sample --url {zip}", "--url file:///nowhere.zip", "data/sample/*"),
    Command("judge halves --data {data} --out out", "--out trials", "out/*"),
    Command(f"trials.cyclegan {TINY} {SHORT}", "--judge no.pt", "out/*"),
    Command(f"trials.gan --data pattern {SHORT}", "--batch-size 0", "out/*"),
    Command(f"trials.dcgan --data digits --ngf 4 --ndf 4 --samples 50 {SHORT}", "--data nowhere", "out/*"),
    Command(f"trials.conditional_gan --data digits --samples 50 {SHORT}", "--data nowhere", "out/*"),
    Command(f"trials.stargan --data {{data}} --size sketch --ngf 4 --blocks 1 --ndf 4 --samples 4 "
            f"--batch-size 2 --n-critic 1 {SHORT}", "--data nowhere", "out/*"),
    Command(f"trials.style_transfer --content {{photo}} --style {{painting}} --judge {{judge}} {SHORT}",
            "--style no.png", "out/*"),
    Command("trials.translate --run trials/cyclegan --photos {data}/testB --out out", "--run no", "out/*"),
    Command("trials.translate --run trials/cyclegan --onnx painter.onnx", "--run no", "painter.onnx",
            replaces=True, form="--onnx"),
    Command("trials.draw --run trials/gan --out out", "--class 3", "out/*"),
    Command("trials.bench --size sketch --ngf 4 --blocks 1 --ndf 4 --seconds 0.1 --rounds 1 "
            "--against batch_size=2", "--rounds 0"),
    *(Command(f"trials.inspect {tool} trials/gan --out out {options}", wrong, "out/*", replaces=True)
      for tool, options, wrong in (
        ("curves", "", "--most 1"), ("progress", "", "--most 0"), ("metrics", "--samples 50", "--samples 1"),
        ("histogram", "--samples 50", "--samples 1"), ("features", "--images 50", "--data nowhere"),
        ("walk", "", "--through 1"), ("arithmetic", "--a 0 --b 1 --c 2", "--a -1"),
        ("neighbours", "--samples 50", "--show 5000"))),
    Command("experiments check {gan} --unmeasured", "--set wings=2"),
    Command("experiments list", "--nonsense"),
    Command("experiments note runs/search splendid", "--trial 99", "runs/search/*notes*"),
    Command("experiments pin runs/search", "--trial 99", "runs/search/*notes*"),
    Command("experiments rm runs/search --yes", "nosuchid", "runs/search/* ~/nni-experiments/*"),
    Command("experiments compare runs/search runs/other --out out", "nosuchid", "out/*", replaces=True),
    Command("experiments report runs/search --out out", "--score nonsense", "out/*", replaces=True),
    Command("experiments taste {votes} --out score.json", "--voter nobody", "score.json", replaces=True),
    Command("experiments ranks {study}", "--style 2"),
    Command("experiments reliability {seeds}", "no.csv"),
    Command("experiments simulate --searches 2 --table curves.csv", "--trials 0"),
    Command("experiments show runs/search", "--port 99999", said="Ctrl-C ends this"),
    Command("experiments prefer runs/search", "nosuchid", "runs/preferences.jsonl", said="Ctrl-C ends this"),
    Command("experiments.early_images trials/cyclegan --out out", "--reports 0", "out/*", replaces=True),
]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and prints nothing."""

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class World:
    """A folder with what commands need, copied anew for each of them."""

    template: Path
    inputs: dict[str, Path]
    """Files outside of the folder, by the names in a command's line."""
    server: ForkServer
    finished: dict[str, tuple[Done, dict[str, str]]] = field(default_factory=dict)
    """How each command ends that nothing disturbs, and what there is then."""
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Bytes of each file then."""
    endings: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """The exit codes seen, by command and kind of ending."""

    def copy(self, folder: Path) -> Path:
        """Copy the folder to a new one."""
        return shutil.copytree(self.template, folder / "world", symlinks=True)

    def run(self, line: str, folder: Path, fault: Fault = NOTHING, out: str | None = None) -> Done:
        """Run a line in such a folder."""
        module, *words = line.format(**self.inputs).split()
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
            "XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "matplotlib"),
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            "NNI_NO_TELEMETRY": "1"}  # fmt: skip
        return self.server.run(module, words, folder, environment, fault, out)

    def finish(self, command: Command, folder: Path) -> tuple[Done, dict[str, str]]:
        """Run a command that nothing disturbs, once for all its endings."""
        if command.line not in self.finished:
            cached = self.cached()
            place = self.copy(folder / "undisturbed")
            for _ in range(1 + command.replaces):  # with the touches of a run that replaces
                done = self.run(command.line, place, stop_by_hand(command))
            shutil.copytree(place / "cache", self.template / "cache", dirs_exist_ok=True)
            if self.cached() != cached:  # a run that need not fill the cache touches fewer files
                shutil.rmtree(place)
                return self.finish(command, folder)
            self.finished[command.line] = done, snapshot(place)
            self.sizes[command.line] = {str(file.relative_to(place)): file.lstat().st_size
                                        for file in place.rglob("*")
                                        if file.is_file() and not file.is_symlink()}
            shutil.rmtree(place)
        return self.finished[command.line]

    def cached(self) -> set[str]:
        """Return the names of what is in the cache."""
        return {file.name for file in (self.template / "cache").rglob("*")}


@pytest.fixture(scope="module")
def world(tmp_path_factory, sample_data, judge_file, pytestconfig) -> Iterator[World]:
    base = tmp_path_factory.mktemp("endings")
    archive = shutil.make_archive(str(base / "archive"), "zip", sample_data.parent, sample_data.name)
    votes = (ROOT / "experiments/study/votes.jsonl").read_text().splitlines(keepends=True)
    (base / "votes.jsonl").write_text("".join(votes[:30]))
    handler = partial(QuietHandler, directory=str(base))
    web = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    inputs = {"data": sample_data, "judge": judge_file, "zip": f"http://127.0.0.1:{web.server_port}/{Path(archive).name}",
              "photo": sample_data / "testB/000.png", "painting": sample_data / "testA/000.png",
              "gan": ROOT / "experiments/gan.yml", "votes": base / "votes.jsonl",
              "study": ROOT / "experiments/study/study.csv", "seeds": ROOT / "experiments/study/seeds.csv"}
    template = base / "template"
    for name in ("work", "home", "tmp", "cache", "matplotlib"):
        (template / name).mkdir(parents=True)
    with ForkServer() as server:
        world = World(template, inputs, server)
        for system, options in {"cyclegan": TINY, "gan": "--data digits --samples 50"}.items():
            done = world.run(f"trials.{system} {options} {SHORT} --out trials/{system}", template)
            assert done.code == 0, done
        write_search(template / "work/runs", "search")
        write_search(template / "work/runs", "other")
        nni_list = template / "home/nni-experiments/.experiment"
        nni_list.parent.mkdir()
        nni_list.write_text(json.dumps({id_: {"id": id_, "logDir": "runs"} for id_ in ("search", "other")}))
        pd.DataFrame([(trial, step, 0.1 + trial * step / 800) for trial in range(30) for step in range(20)],
                     columns=["trial", "step", "score"]).to_csv(template / "work/curves.csv", index=False)
        assert world.run("experiments note runs/search old", template).code == 0
        yield world
    web.shutdown()
    web.server_close()
    if pytestconfig.get_verbosity() > 0:
        with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{table(world.endings)}")


def write_search(runs: Path, id_: str) -> None:
    """Write a search of three trials with sample sheets, as NNI and its trials leave it."""
    parameters = [{"identity_weight": 1.0 + number, "cycle_weight": 10.0 - number} for number in range(3)]
    folder = write_experiment(runs, id_, {
        "trialCommand": "python -m trials.cyclegan", "experimentName": id_, "maxTrialNumber": 3,
        "trialConcurrency": 1, "experimentWorkingDirectory": str(runs), "searchSpace": {
            name: {"_type": "uniform", "_value": [0, 20]} for name in parameters[0]},
    }, [(f"t{number}", values, "SUCCEEDED", [0.1, 0.2], 0.3 + 0.1 * number)
        for number, values in enumerate(parameters)])  # fmt: skip
    photos, paintings = 2 * torch.rand(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 1
    for number in range(3):
        trial = folder / f"trials/t{number}"
        record = {"system": "cyclegan", "status": "finished", "reason": None, "seconds": 12.0}
        write_trial(trial, record, photos, paintings.roll(number, 0), 2)
        scores = random_parts(np.random.default_rng(number), 2)
        (trial / "stats.jsonl").write_text("".join(
            json.dumps({"step": 100 * (at + 1), "score": {"default": 0.1, **parts}}) + "\n"
            for at, parts in enumerate(scores)))


def is_allowed(name: str, command: Command) -> bool:
    """Return whether a command may make or change this file, or a folder for it."""
    patterns = [f"work/{pattern}".replace("work/~", "home") for pattern in command.makes.split()]
    return name.startswith("cache") or name.endswith(".lock") or any(
        fnmatch(name, pattern) or pattern.startswith(f"{name}/") for pattern in patterns)


def is_temporary(name: str) -> bool:
    """Return whether a killed command may leave this file, or a later one does not need it."""
    return name.startswith(("tmp/", "cache/")) or any(part in name for part in (".part", "/.", "tfevents"))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the names of what differs."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def lines_of(command: Command, done: Done) -> list[str]:
    """Return the lines that tell why a command ended."""
    program = f"python -m {command.module}:"
    return [line for line in done.err.splitlines() if line.startswith(program)] + [
        line for line in done.out.splitlines() if line.startswith("stopped: S")]


@pytest.fixture(params=COMMANDS, ids=lambda command: command.name)
def command(request) -> Command:
    return request.param


def end(world: World, command: Command, place: Path, kind: str, codes: set[int], fault: Fault = NOTHING,
        out: str | None = None) -> Done:  # fmt: skip
    """Run a command in `place`, end it, and return how it ended, one of the ways `codes`."""
    before = snapshot(place)
    done = world.run(command.line, place, fault, out)
    assert_ended(world, command, kind, codes, done, before, snapshot(place))
    return done


def assert_ended(world: World, command: Command, kind: str, codes: set[int], done: Done,
                 before: dict[str, str], after: dict[str, str]) -> None:  # fmt: skip
    """Assert what holds at every end: the code, one line, no other change than is allowed, nothing left."""
    world.endings[command.name][kind] = done.code
    assert done.code in codes, done
    assert "Traceback" not in done.err and "Exception ignored" not in done.err, done.err
    silent = done.code <= 0 or done.code == 128 + signal.SIGPIPE  # below 0: the shell says it
    assert silent or len(lines_of(command, done)) == 1, done
    assert not done.left, "processes are left"
    killed = done.code == -signal.SIGKILL
    wrong = {name: after.get(name) for name in changed(before, after) if not killed and ".part" in name
             or not is_allowed(name, command) and not (killed and is_temporary(name))}
    assert not wrong, "changed, or left"


def repeat(world: World, command: Command, place: Path) -> None:
    """Assert that what a stopped command has left is complete, and that it succeeds when started again."""
    database = place / "work/runs/search/db/nni.sqlite"
    if not command.makes or command.name == "experiments rm" and not database.exists():
        return  # there is nothing to repeat
    _, finished = world.finish(command, place.parent)
    left, given = snapshot(place), snapshot(world.template)
    for name in finished if command.module not in SYSTEMS else ():  # a trial goes on from what there is
        if is_temporary(name):
            continue
        size = len((place / name).read_bytes()) if left.get(name) else 0
        complete = not size or left[name] in (OLD, given.get(name), finished[name])
        assert complete or name.endswith(TIMED) and size > 0.9 * world.sizes[command.line][name], name
    done = world.run(command.line, place, stop_by_hand(command))
    codes = {130 if command.said else 0, *[2] * (not different(left, finished))}  # 2: it is there already
    assert done.code in codes, done
    assert not different(snapshot(place), finished), "another result than if nothing had disturbed it"


def different(now: dict[str, str], finished: dict[str, str]) -> set[str]:
    """Return the names of results that are missing, or differ in more than the times that they hold."""
    return {name for name in changed(now, finished) if not (
        is_temporary(name) or name in now and name in finished and name.endswith(TIMED))}


def stop_by_hand(command: Command) -> Fault:
    """Return what ends a command that would wait for Ctrl-C; nothing for others."""
    return Fault((signal.SIGINT,), said=command.said) if command.said else NOTHING


@pytest.fixture
def place(world, command, tmp_path) -> Path:
    """Return the folder in which the command runs; what it replaces is there, as an old file."""
    _, finished = world.finish(command, tmp_path)  # first of all: it fills the cache
    place = world.copy(tmp_path)
    for name in changed(snapshot(place), finished) if command.replaces else ():
        if name in world.sizes[command.line] and not is_temporary(name):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("old")
    return place


def moment(world: World, command: Command, place: Path, share: float, signals: tuple[int, ...]) -> Fault:
    """Return these signals at a share of the moments at which a command writes; reads, if it never writes."""
    if command.said:
        return Fault(signals, said=command.said)
    touches = world.finish(command, place.parent)[0].touches
    in_charge = touches.index(("judge", False)) + 1  # from here on, nothing else answers a signal
    writes = [at for at, (_, written) in enumerate(touches) if written] or range(in_charge, len(touches))
    return Fault(signals, writes[round(share * (len(writes) - 1))])


def test_finished(world, command, tmp_path):
    (done, after), code = world.finish(command, tmp_path), 130 if command.said else 0
    assert_ended(world, command, "finished", {code}, done, snapshot(world.template), after)


def test_refused(world, command, place):
    before = snapshot(place)
    refused = replace(command, line=f"{command.line} {command.wrong}", makes="")
    done = end(world, refused, place, "refused", {2})
    assert done.err.count("\n") == 1 and snapshot(place) == before


@pytest.mark.parametrize("share", [0.5, 0.9], ids=["midway", "late"])
def test_killed(world, command, place, share):
    fault = moment(world, command, place, share, (signal.SIGKILL,))
    end(world, command, place, "killed", {-signal.SIGKILL}, fault)
    repeat(world, command, place)


@pytest.mark.parametrize(("share", "number"), [
    (0, signal.SIGINT), (0.5, signal.SIGTERM), (0.9, signal.SIGHUP)], ids=["SIGINT", "SIGTERM", "SIGHUP"])
def test_stopped(world, command, place, share, number):
    # -number: while it was imported; 0: a trial at its last step.
    codes = {128 + number, -number, *[0] * (command.module in SYSTEMS)}
    end(world, command, place, number.name, codes, moment(world, command, place, share, (number,)))


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.program == "judge train"],
                         ids=["judge train"], indirect=True)
@pytest.mark.parametrize("share", [0, 0.3, 0.6, 1])
@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,),
                                     (signal.SIGHUP, signal.SIGHUP)])  # fmt: skip
def test_a_training_is_stopped_at_every_phase_in_every_way(world, command, place, share, numbers):
    codes = {128 + numbers[0], -numbers[0]}
    end(world, command, place, numbers[0].name, codes, moment(world, command, place, share, numbers))


def test_stopped_twice(world, command, place):
    fault = moment(world, command, place, 0.6, (signal.SIGINT, signal.SIGINT))
    codes = {130, -signal.SIGINT, *[0] * (command.module in SYSTEMS)}
    end(world, command, place, "SIGINT twice", codes, fault)
    repeat(world, command, place)


def test_a_full_disk(world, command, place):
    _, finished = world.finish(command, place.parent)
    made = changed(snapshot(world.template), finished) - {name for name in finished if is_temporary(name)}
    largest = max((world.sizes[command.line].get(name, 0) for name in made), default=0)
    if not largest:
        pytest.skip("it writes nothing that needs room")
    done = end(world, command, place, "disk full", {2}, Fault(room=largest // 2))
    assert "File too large" in done.err or "disk full" in done.err, done.err
    repeat(world, command, place)


def test_stdout_on_a_full_disk(world, command, place):
    done, _ = world.finish(command, place.parent)
    end(world, command, place, "stdout full", {2 if done.out else 0}, out="/dev/full")


def test_stdout_that_nobody_reads(world, command, place):
    done, _ = world.finish(command, place.parent)
    end(world, command, place, "| head", {128 + signal.SIGPIPE if done.out else 0}, out="closed")


def programs() -> set[str]:
    """Return the modules that `python -m` can run."""
    files = [file for package in OURS for file in (ROOT / package).rglob("*.py")
             if '\nif __name__ == "__main__":\n' in file.read_text()]
    names = {str(file.relative_to(ROOT).with_suffix("")).replace("/", ".") for file in files}
    return {name.removesuffix(".__main__").replace("inspection.command.", "") for name in names}


def subcommands(module: str, monkeypatch) -> set[str]:
    """Return the names of a program with their subcommands."""
    found = set()
    monkeypatch.setattr(cli, "subcommands", lambda prog, text, commands: found.update(commands))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return {f"{module} {name}" for name in found}


def test_every_command_is_in_the_table(monkeypatch):
    commands = programs() - set(SUBCOMMANDS)
    for module in SUBCOMMANDS:
        commands |= subcommands(module, monkeypatch)
    assert {command.program for command in COMMANDS} == commands - ELSEWHERE.keys() - INTERNAL.keys()


def table(endings: dict[str, dict[str, int]]) -> str:
    """Return the exit codes as text, a row for each command."""
    return pd.DataFrame(endings).T.to_string(na_rep="", float_format="{:.0f}".format)
