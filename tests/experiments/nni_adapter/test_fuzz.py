"""Mutated files of every kind: each ends soon, in a UserError or a sound result, and writes nothing else.

`SALON_FUZZ` is how many inputs of a kind are tried: 25 unless it says more, 400 of those marked slow.
"""

import json
import os
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from experiments import check as checks
from experiments import resume
from experiments.nni_adapter import database
from experiments.report import page, results
from judge import images, model
from judge.common.errors import UserError
from trials import translate
from trials.cyclegan import CycleGAN, Settings
from trials.inspection import adapters
from trials.session.engine import NoEngine
from trials.session.session import RunOptions, Session

FEW = int(os.environ.get("SALON_FUZZ", 25))
MANY = int(os.environ.get("SALON_FUZZ", 400))
SECONDS = 20  # that an input may take
CPU = torch.device("cpu")

# ---------------------------------------------------------------------------------------------
# Mutations

ODD = [None, True, False, 0, -1, 1, 2**63, 10**400, 1e308, -0.0, float("nan"), float("inf"),
       "", "x", "../../x", "0",
       "NaN", "\x00", "\ud800", "<b>", "'", "a\nb", "%s{}",
       [], {}, [[]], [1, 2], {"": 0}, {"_type": "choice"},
       {"_name": 1}, "x" * 10_000]  # fmt: skip


def odd(value, draw: random.Random):
    """`value`, JSON, with something else somewhere."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        choice = draw.random()
        rest = {k: v for k, v in value.items() if k != key}
        if choice < 0.1:
            return rest
        return rest | {draw.choice([key, key, key, key, key, "x", "", key + " "]): odd(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], odd(value[at], draw), *value[at + draw.randrange(2) :]]
    return draw.choice(ODD)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """`content` with bits turned, parts cut out, doubled, or put in."""
    found = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 30])):
        at, length = draw.randrange(len(found) + 1), draw.choice([1, 2, 4, 8, 100])
        kind = draw.randrange(5)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found[at : at + length] = draw.randbytes(length)
        elif kind == 2:
            del found[at : at + length]
        elif kind == 3:
            found[at:at] = found[max(0, at - length) : at]
        else:
            found[at:at] = draw.choice(
                [b"\0", b"\xff" * 4, b"[" * 5000, b"{", b'"', b"\n", b"\xed\xa0\x80", b"1e999"]
            )
    return bytes(found[: draw.randrange(len(found) + 1)] if draw.random() < 0.1 else found)


def text(value, draw: random.Random) -> bytes:
    """JSON that is well formed and says odd things, or is not well formed."""
    content = value
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        content = odd(content, draw)
    found = json.dumps(content).encode()
    return damaged(found, draw) if draw.random() < 0.3 else found


# ---------------------------------------------------------------------------------------------
# What may happen


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def late(*_) -> None:
        raise TimeoutError(f"{seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def fuzz(
    count: int, outside: Path, attempt: Callable[[random.Random], object], prepared=lambda draw: None
) -> int:
    """Try so many inputs: `prepared` writes one, `attempt` reads it. Returns how many were read well."""
    well = 0
    for seed in range(count):
        draw = random.Random(seed)
        prepared(draw)
        before = listing(outside)
        try:
            with within(SECONDS):
                attempt(draw)
            well += 1
        except UserError as error:
            assert "\n" not in str(error), (seed, str(error))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert listing(outside) == before, seed
    return well


both = pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])

# ---------------------------------------------------------------------------------------------
# Experiments

SPACE = {
    "cycle_weight": {"_type": "loguniform", "_value": [5, 20]},
    "batch_size": {"_type": "choice", "_value": [1, 2]},
    "pool_size": {"_type": "randint", "_value": [1, 60]},
}


@both
def test_search_spaces(experiment, tmp_path, count):
    file = experiment(SPACE)

    def prepared(draw: random.Random) -> None:
        (tmp_path / "space.json").write_bytes(text(SPACE, draw))

    fuzz(count, tmp_path, lambda draw: checks.check(file), prepared)


@both
def test_experiment_files(experiment, tmp_path, count):
    file = experiment(SPACE)
    config = yaml.safe_load(file.read_text())

    def prepared(draw: random.Random) -> None:
        content = odd(config, draw)
        found = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
        file.write_bytes(damaged(found, draw) if draw.random() < 0.3 else found)

    fuzz(count, tmp_path, lambda draw: checks.check(file), prepared)


def test_an_alias_that_stands_for_a_billion_is_one_line(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "bomb.yml").write_text("\n".join(lines))
    with pytest.raises(UserError), within(SECONDS):
        checks.check(tmp_path / "bomb.yml")


# ---------------------------------------------------------------------------------------------
# What searches leave

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
RECORD = {
    "system": "cyclegan", "status": "diverged", "reason": "a reason", "seconds": 1.5,
    "data": {"name": "monets", "stand_in": False}, "score": {"default": 0.5}, "schedule": {"steps": 10},
    "judge": {"file": "j.pt", "data": "monets", "auc": 0.9, "sha256": "a"}, "parameters": PUBLISHED,
    "settings": {"size": "sketch", "budget": 0.2, "seed": 0, "data": "monets", "judge": "j.pt"},
}  # fmt: skip
LINE = {"step": 5, "seconds": 1.0, "scoring_seconds": 0.1,
        "score": {"default": 0.5, "style": 0.5, "content": 0.2},
        "losses": {"a": 1.0}}  # fmt: skip


@pytest.fixture
def search(recorded, tmp_path) -> Path:
    """A search's folder of four trials."""
    tuner = {"className": "experiments.tuner.Tpe", "classArgs": {"reference": "trials.cyclegan"}}
    config = {"trialCommand": "python -m trials.cyclegan --budget 0.2", "experimentName": "A search",
              "tuner": tuner,
              "maxTrialNumber": 9, "experimentWorkingDirectory": str(tmp_path),
              "trainingService": {}}  # fmt: skip
    ends = ["SUCCEEDED", "SUCCEEDED", "EARLY_STOPPED", None]
    folder = recorded(
        "ssssssss",
        config,
        [
            (f"t{at}", PUBLISHED | {"cycle_weight": 10.0 + at}, end, [0.1, 0.2], 0.3 if at < 2 else None)
            for at, end in enumerate(ends)
        ],
    )
    for at in range(len(ends)):
        own = folder / "trials" / f"t{at}"
        own.mkdir(parents=True)
        (own / "run.json").write_text(json.dumps(RECORD))
        (own / "stats.jsonl").write_text((json.dumps(LINE) + "\n") * 2)
    return folder


def read(folder: Path) -> None:
    """All that reads a search, but for plotly, which takes a second an input."""
    found = database.find_experiment(str(folder))
    results.text(found)
    results.frame(results.rows(found)).to_csv()
    resume.config(found)


def rendered(folder: Path) -> None:
    page.render(database.find_experiment(str(folder)))


@both
def test_records_and_reports(search, tmp_path, count):
    own = search / "trials/t1"

    def prepared(draw: random.Random) -> None:
        (own / "run.json").write_bytes(text(RECORD, draw))
        lines = [json.dumps(LINE).encode(), text(LINE, draw), json.dumps(LINE).encode()]
        (own / "stats.jsonl").write_bytes(b"\n".join(lines))

    read(search)
    fuzz(count, tmp_path, lambda draw: read(search), prepared)
    fuzz(max(5, count // 20), tmp_path, lambda draw: rendered(search), prepared)


@both
def test_rows_of_nni(search, tmp_path, count):
    database = search / "db/nni.sqlite"
    whole = database.read_bytes()
    tables = {
        "TrialJobEvent": ["timestamp", "trialJobId", "event", "data", "sequenceId"],
        "MetricData": ["trialJobId", "type", "data"],
        "ExperimentProfile": ["params", "id", "revision"],
    }

    def prepared(draw: random.Random) -> None:
        database.write_bytes(whole)
        if draw.random() < 0.15:
            database.write_bytes(damaged(whole, draw))
            return
        with sqlite3.connect(database) as db:
            table = draw.choice(list(tables))
            column = draw.choice(tables[table])
            row, old = draw.choice(db.execute(f"select rowid, {column} from {table}").fetchall())
            if column in ("data", "params") and old:
                inner = json.loads(old)
                new = (
                    json.dumps(text(json.loads(inner), draw).decode("utf-8", "replace"))
                    if isinstance(inner, str)
                    else text(inner, draw).decode("utf-8", "replace")
                )
            else:
                new = draw.choice(
                    ["x", "", "../..", None, -1, 1.5, b"\xff", 2**62, "WAITING", "FINAL", "RUNNING"]
                )
            db.execute(f"update {table} set {column} = ? where rowid = ?", (new, row))
        db.close()

    fuzz(count, tmp_path, lambda draw: read(search), prepared)
    fuzz(max(5, count // 20), tmp_path, lambda draw: rendered(search), prepared)


# ---------------------------------------------------------------------------------------------
# Images, judges, checkpoints


@both
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "gif", "bmp", "avif"])
def test_images(tmp_path, count, ending, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name("cache")))
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    noise = Image.effect_noise((40, 30), 60).convert("RGB")
    noise.save(tmp_path / f"0.{ending}", **({"exif": exif} if ending not in ("gif", "bmp") else {}))
    whole = (tmp_path / f"0.{ending}").read_bytes()
    file = tmp_path / f"1.{ending}"

    def attempt(draw: random.Random) -> None:
        loaded = images._decode_all([file], 16)  # without the cache
        assert loaded.pixels.shape == (1, 3, 16, 16) and loaded.pixels.dtype == torch.uint8

    fuzz(max(10, count // 3), tmp_path, attempt, lambda draw: file.write_bytes(damaged(whole, draw)))


def mutated(state, draw: random.Random):
    """A state of tensors and plain data with something else somewhere."""
    if isinstance(state, dict) and state and (draw.random() < 0.9 or "step" in state):
        key = draw.choice(list(state))
        if draw.random() < 0.1:
            return {k: v for k, v in state.items() if k != key}
        return {**state, key: mutated(state[key], draw)}
    if isinstance(state, torch.Tensor):
        return draw.choice(
            [state.flatten()[:1], state * float("nan"), state.double(), state.long(), torch.zeros(3), None, 0]
        )
    return draw.choice([*ODD, torch.zeros(2), torch.zeros(0), -5])


@both
def test_judges(tmp_path, judge_file, count):
    content, whole = torch.load(judge_file, weights_only=True), judge_file.read_bytes()
    file, photos = tmp_path / "judge.pt", torch.rand(1, 3, 64, 64) * 2 - 1

    def prepared(draw: random.Random) -> None:
        if draw.random() < 0.3:
            file.write_bytes(damaged(whole, draw))
        else:
            torch.save(mutated(content, draw), file)

    def attempt(draw: random.Random) -> None:
        judge, card = model.load_judge(file)
        card.summary(str(file))
        assert judge.painting_probability(judge.features(photos)).shape == (1,)  # or one line

    fuzz(max(10, count // 4), tmp_path, attempt, prepared)


@pytest.fixture
def trial(tmp_path, sample_data, judge_file) -> tuple[Path, dict, dict]:
    """A trial's folder, its record and its state."""
    settings = Settings(size="sketch", data=str(sample_data), judge=str(judge_file), ngf=2, blocks=1, ndf=2,
                        steps=10, photos=8, pool_size=2).complete(CPU)  # fmt: skip
    net = CycleGAN(settings, 10, CPU)
    net.update(*torch.rand(2, 1, 3, 64, 64) * 2 - 1)
    folder = tmp_path / "trial"
    folder.mkdir()
    record = RECORD | {
        "settings": vars(settings),
        "judge": {"file": str(judge_file), "data": "d", "auc": 0.5},
    }
    return folder, record, net.state_dict()


@both
def test_checkpoints_that_are_painted_with(tmp_path, trial, count):
    folder, record, state = trial
    (folder / "run.json").write_text(json.dumps(record))

    def prepared(draw: random.Random) -> None:
        torch.save(mutated(state, draw), folder / "checkpoint.pt")
        if draw.random() < 0.3:
            (folder / "checkpoint.pt").write_bytes(damaged((folder / "checkpoint.pt").read_bytes(), draw))

    fuzz(max(10, count // 4), tmp_path, lambda draw: translate.trained(folder, CPU), prepared)
    (folder / "checkpoint.pt").unlink()
    torch.save(state, folder / "checkpoint.pt")
    fuzz(
        max(10, count // 8),
        tmp_path,
        lambda draw: translate.trained(folder, CPU),
        lambda draw: (folder / "run.json").write_bytes(text(record, draw)),
    )


@both
def test_checkpoints_that_are_gone_on_from(tmp_path, trial, count):
    folder, record, state = trial
    settings = Settings(**record["settings"])

    # A state of whole form but odd numbers within its optimisers or pools fails as it trains.
    open_to = {name: part for name, part in state.items() if "optimizer" not in name and "pool" not in name}

    def prepared(draw: random.Random) -> None:
        torch.save(state | mutated(open_to, draw), folder / "checkpoint.pt")
        if draw.random() < 0.3:
            (folder / "checkpoint.pt").write_bytes(damaged((folder / "checkpoint.pt").read_bytes(), draw))
        (folder / "run.json").write_text(json.dumps(record))
        if draw.random() < 0.3:
            (folder / "run.json").write_bytes(text(record, draw))
        (folder / "stats.jsonl").write_bytes(text(LINE, draw) + b"\n" + text(LINE, draw))

    def attempt(draw: random.Random) -> None:
        session = Session("cyclegan", settings, RunOptions(device="cpu", out=folder), NoEngine(), {})
        try:
            net = CycleGAN(settings, 10, CPU)
            session.restore(net)
            for _ in session.steps(net, net.step + 1):
                net.update(*torch.rand(2, 1, 3, 64, 64) * 2 - 1)
        finally:
            session._lock.close()

    fuzz(max(10, count // 4), tmp_path / "nowhere", attempt, prepared)


@pytest.mark.slow
def test_records_that_are_inspected(tmp_path, trial):
    folder, record, state = trial
    torch.save(state, folder / "checkpoint.pt")
    fuzz(
        MANY // 8,
        tmp_path,
        lambda draw: adapters.load(folder, CPU),
        lambda draw: (folder / "run.json").write_bytes(text(record, draw)),
    )
