"""Files from strangers: nothing in them is run, no name leads elsewhere, no text is code."""

import ast
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.check import module_of
from experiments.nni_adapter import database
from experiments.report import comparison, page, results
from judge import model, training
from judge.common import cache
from judge.common.errors import UserError
from trials import cyclegan, translate
from trials.cyclegan import Settings
from trials.inspection import adapters

ROOT = Path(__file__).parents[3]
SOURCES = [file for room in ("judge", "trials", "experiments") for file in (ROOT / room).glob("*.py")]
CPU = torch.device("cpu")
CONFIG = {"trialCommand": "python -m trials.cyclegan --budget 0.2", "experimentName": "A search"}
PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
OTHER = {"identity_weight": 2.0, "cycle_weight": 20.0}
TRIALS = [("aaaaa", PUBLISHED, "SUCCEEDED", [0.3], 0.4), ("bbbbb", OTHER, "SUCCEEDED", [0.5], 0.6)]

# ---------------------------------------------------------------------------------------------
# Pickles


def test_every_file_of_tensors_is_read_as_weights_only():
    calls = [
        (file, node)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls
    for file, call in calls:
        safe = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert safe.get("weights_only") == "True", f"{file}:{call.lineno}"


def test_nothing_else_unpickles_or_evaluates():
    unsafe = {"pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "np.load", "marshal.loads",
              "pd.read_pickle", "joblib.load", "os.system", "torch.jit.load"}  # fmt: skip
    for file in SOURCES:
        names = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Name | ast.Attribute)
        }
        assert not names & unsafe, file


class Evil:
    """Makes a folder when it is unpickled by a reader who allows that."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def evil(tmp_path):
    """A folder that an evil file would make; that it was not made is checked, and that it could be."""
    folder = tmp_path / "evil"
    yield folder
    assert not folder.exists()
    torch.save(Evil(folder), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert folder.exists(), "the file was harmless: this test shows nothing"


@pytest.fixture
def trial(tmp_path, judge_file, sample_data) -> Path:
    """The folder of a CycleGAN trial, without its checkpoint."""
    settings = Settings(size="sketch", data=str(sample_data), judge=str(judge_file), ngf=4, blocks=1, ndf=4,
                        steps=10, photos=8).complete(CPU)  # fmt: skip
    folder = tmp_path / "trial"
    folder.mkdir()
    record = {"system": "cyclegan", "settings": vars(settings), "schedule": {"steps": 10}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def resumed(folder: Path) -> None:
    from trials.session import RunOptions, Session
    from trials.session.engine import NoEngine

    settings = Settings(**json.loads((folder / "run.json").read_text())["settings"])
    session = Session("cyclegan", settings, RunOptions(device="cpu", out=folder), NoEngine(), {})
    session.restore(cyclegan.CycleGAN(settings, 10, CPU))


READERS = {
    "resumed": resumed,
    "translated": lambda folder: translate.load_trained(folder, CPU),
    "inspected": lambda folder: adapters.load(folder, CPU),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(trial, evil, reader):
    torch.save({"step": 3, "G_AB": Evil(evil)}, trial / "checkpoint.pt")
    with pytest.raises(UserError, match="checkpoint.pt cannot be read") as caught:
        READERS[reader](trial)
    assert "\n" not in str(caught.value)


def test_paintings_weights_and_caches_that_would_run_code_do_not(tmp_path, evil, monkeypatch):
    from experiments.study.study import kept

    (tmp_path / "paintings").mkdir()
    torch.save(Evil(evil), tmp_path / "paintings/step_000001.pt")
    with pytest.raises(UserError, match="step_000001.pt"):
        kept(tmp_path, 1)
    torch.save({"conv1.weight": Evil(evil)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="does not hold the weights"):
        training._load_file(str(tmp_path / "weights.pt"), model.Judge("resnet18", 64))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "salon").mkdir()
    torch.save({"x": Evil(evil), "checksum": 0}, tmp_path / "salon/x.pt")
    assert cache.get("x.pt") is None


# ---------------------------------------------------------------------------------------------
# Names


def changed(folder: Path, sql: str, *values) -> Path:
    with sqlite3.connect(folder / "db/nni.sqlite") as db:
        db.execute(sql, values)
    return folder


def one_line(caught: pytest.ExceptionInfo, *words: str) -> None:
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("id_", ["../../evil", "/tmp/evil", "..", "a/b", "<b>", "", "a b", "a\nb", None])
def test_an_id_that_would_name_another_file_is_refused(recorded, id_):
    folder = changed(recorded("good", CONFIG, TRIALS), "update ExperimentProfile set id = ?", id_)
    with pytest.raises(UserError) as caught:
        database.find_experiment(str(folder))
    one_line(caught, "cannot be read")


@pytest.mark.parametrize("id_", ["../../../evil", "/etc", "..", "a/b", None])
def test_a_trial_id_that_would_name_another_folder_is_refused(recorded, id_):
    folder = recorded("good", CONFIG, TRIALS)
    changed(folder, "update TrialJobEvent set trialJobId = ? where sequenceId = 1", id_)
    with pytest.raises(UserError) as caught:
        database.find_experiment(str(folder)).trials()
    one_line(caught, "cannot be read")


@pytest.mark.parametrize("name", ["runs#1", "a%41", "a?mode=rwc&b", "a b", "ü", "$(touch x)", "a;b"])
def test_a_folder_may_have_any_name(recorded, tmp_path, name):
    """In the database's address, ?, # and % mean something."""
    folder = recorded("good", CONFIG, TRIALS).rename(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    assert len(database.find_experiment(str(folder)).trials()) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../../x", "no/such", "x" * 5000, "*", "", "--", "\x1b[31m"])
def test_what_names_no_experiment_is_one_line(name):
    with pytest.raises(UserError, match="no experiment"):
        database.find_experiment(name)


def test_a_page_goes_where_it_was_asked_to_and_nowhere_else(recorded, tmp_path):
    experiment = database.find_experiment(str(recorded("good", CONFIG, TRIALS)))
    before = set(tmp_path.rglob("*"))
    assert page.write(experiment, tmp_path / "out/../other") == tmp_path / "out/../other/good.html"
    comparison.write([experiment], comparison.groups([experiment]), tmp_path / "out")
    new = {str(path.relative_to(tmp_path)) for path in set(tmp_path.rglob("*")) - before}
    assert new == {"out", "other", "other/good.html", "out/compare-good.html"}


@pytest.mark.parametrize(
    "command",
    [
        "python -m this",
        "python -m antigravity",
        "python -m os",
        "python -m ..evil",
        "python -m .",
        "python -m ''",
        "python -m trials.",
        "python -m trials/cyclegan",
        "python -m 'trials.cyclegan",
        "python",
        "",
        "python -m tests",
        "python -m trials.engine",
        "python -m ../../tmp/evil.py",
    ],
)
def test_a_command_that_names_no_trial_imports_nothing(tmp_path, monkeypatch, command):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("this", "antigravity"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'evil')!r}, 'w')")
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match="trialCommand") as caught:
        module_of(command)
    assert "\n" not in str(caught.value) and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("system", ["this", "../evil", "session", "inspect", "os.path", "", None, 3, "a b"])
def test_a_record_of_no_system_of_ours_is_one_line(tmp_path, system, judge_file):
    (tmp_path / "run.json").write_text(json.dumps({"system": system, "settings": {"size": "sketch"}}))
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(UserError) as caught:
        adapters.load(tmp_path, CPU)
    one_line(caught, str(tmp_path))


SHELL = [
    "$(touch {0})",
    "`touch {0}`",
    "; touch {0};",
    "' ; touch {0} ; '",
    '" && touch {0} && "',
    "| touch {0}",
]


@pytest.mark.parametrize("payload", SHELL)
def test_the_command_that_repeats_a_trial_can_be_pasted_into_a_shell(recorded, tmp_path, payload):
    """Settings of a record are a file's."""
    evil = tmp_path / "evil"
    folder = recorded("good", CONFIG, [("aaaaa", {"name": payload.format(evil)}, "SUCCEEDED", [0.3], 0.4)])
    (folder / "trials/aaaaa").mkdir(parents=True)
    record = {"settings": {"data": payload.format(evil), "judge": payload.format(evil)}}
    (folder / "trials/aaaaa/run.json").write_text(json.dumps(record))
    experiment = database.find_experiment(str(folder))
    command = results.command(experiment, results.rows(experiment)[0])
    subprocess.run(["bash", "-c", "true " + command], check=True)
    assert not evil.exists() and payload.format(evil) in shlex.split(command)


# ---------------------------------------------------------------------------------------------
# Texts

PAYLOADS = [
    "<img src=x onerror=\"document.title='pwned'\">",
    "</script><script>document.title='pwned'</script>",
    "'\"><svg onload=document.title='pwned'>",
    "<a href=\"javascript:document.title='pwned'\">click</a>",
    "{{ 7 * 7 }}{% raw %}",
    "<!--<script>",
    "\\u003cscript>document.title='pwned'</script>",
]


def hostile(recorded, payload: str) -> database.Experiment:
    """A search all of whose texts are `payload`."""
    score = {"default": 0.5, payload: 0.25, "style": 0.5, "content": 0.5}
    trials = [
        (f"t{at}", {payload: f"{payload}{at % 2}", "cycle_weight": 10.0 + at}, "SUCCEEDED", [0.5], 0.1 * at)
        for at in range(9)
    ]
    folder = recorded("hostile", CONFIG | {"experimentName": payload}, trials)
    changed(folder, "update MetricData set data = ? where type = 'PERIODICAL'", json.dumps(json.dumps(score)))
    changed(
        folder, "update TrialJobEvent set event = ? where trialJobId = 't3' and event = 'SUCCEEDED'", payload
    )
    for id_, *_ in trials:
        (folder / "trials" / id_).mkdir(parents=True)
        record = {
            "system": "cyclegan", "status": "diverged" if id_ == "t0" else "finished", "reason": payload,
            "data": {"name": payload, "stand_in": True, "skipped": [payload]}, "seconds": 1.0,
            "judge": {"file": payload, "data": payload, "auc": 0.9},
            "settings": {"data": payload, "judge": payload, "size": payload, "budget": 0.5, "seed": 0},
        }  # fmt: skip
        (folder / "trials" / id_ / "run.json").write_text(json.dumps(record))
        line = {"step": 5, "score": score, "losses": {payload: 1.0}}
        (folder / "trials" / id_ / "stats.jsonl").write_text(json.dumps(line) + "\n")
    return database.find_experiment(str(folder))


def pages(recorded, payload: str, out: Path) -> list[Path]:
    search = hostile(recorded, payload)
    return [page.write(search, out), comparison.write([search], comparison.groups([search]), out)]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_a_file_is_markup_in_a_page(recorded, tmp_path, payload):
    for file in pages(recorded, payload, tmp_path / "out"):
        html = file.read_text()
        assert "pwned" in html or "7 * 7" in html or "!--" in html  # it is shown
        assert payload not in html or "<" not in payload
        for tag in ("<img src=x", "<svg onload", "<script>document", '<a href="javascript', "<!--<script"):
            assert tag not in html.replace(page.get_plotlyjs(), "")


@pytest.mark.slow
@pytest.mark.parametrize("payload", PAYLOADS)
def test_in_a_browser_no_script_of_a_file_runs(recorded, browser, tmp_path, payload):
    for file in pages(recorded, payload, tmp_path / "out"):
        tab, complaints = browser(file)
        asked = []
        tab.on("dialog", lambda dialog, asked=asked: asked.append(dialog.message))
        tab.wait_for_selector(".js-plotly-plot .main-svg")
        if tab.locator("#trials").count():  # whatever can be pressed
            for button in tab.locator("#trials th button").all():
                button.click()
            for summary in tab.locator("summary").all():
                summary.click()
        for link in tab.locator("a[href^='javascript']").all() + tab.locator("svg a").all():
            link.dispatch_event("click")
        tab.wait_for_timeout(300)
        assert tab.title() != "pwned"
        assert (
            tab.evaluate("document.querySelectorAll('img[src=x], svg[onload], a[href^=javascript]').length")
            == 0
        )
        assert not complaints and not asked, complaints


@pytest.mark.slow
def test_a_browser_would_have_told(browser, tmp_path):
    """The payloads above do what they say where nothing is escaped."""
    for payload in PAYLOADS[:3]:
        file = tmp_path / "page.html"
        file.write_text(f"<!doctype html><title>quiet</title><p title='{payload}'>{payload}</p>")
        tab, _ = browser(file)
        tab.wait_for_function("document.title == 'pwned'")
