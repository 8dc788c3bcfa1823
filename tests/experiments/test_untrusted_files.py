"""Damaged files and files from others: no code in them runs, no name leads to other folders, no text is HTML.

A damaged file ends in one line for the user, or in a result.
"""

import ast
import json
import sqlite3
import tarfile

import pytest
import torch

from experiments import resume
from experiments.nni_adapter import remote
from experiments.nni_adapter.database import Experiment, find_experiment
from experiments.report import comparison, importance, page, results
from experiments.report.page_data import PageData
from judge.common.errors import UserError
from tests.experiments.helpers import ROOT
from trials.cyclegan import Settings
from trials.inspection import adapters, translation
from trials.training.cyclegan import CycleGAN

CPU = torch.device("cpu")


def test_all_code_reads_tensors_as_weights_only_and_nothing_else_unpickles_or_evaluates():
    unsafe = {"pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "np.load", "marshal.loads",
              "pd.read_pickle", "joblib.load", "os.system", "torch.jit.load"}  # fmt: skip
    loads = []
    for file in [file for room in ("judge", "trials", "experiments") for file in (ROOT / room).rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        assert not unsafe & {ast.unparse(n) for n in nodes if isinstance(n, ast.Name | ast.Attribute)}, file
        calls = [ast.unparse(node) for node in nodes if isinstance(node, ast.Call)]
        loads += [call for call in calls if call.startswith("torch.load(")]
    assert loads and all("weights_only=True" in call for call in loads)


@pytest.mark.parametrize("read", [translation.load_trained, adapters.load])
def test_a_damaged_checkpoint_or_record_is_named_in_one_line(tmp_path, sample_data, judge_file, read):
    settings = Settings(size="sketch", data=str(sample_data), judge=str(judge_file), ngf=2, blocks=1, ndf=2,
                        steps=10, photos=8, pool_size=2).complete(CPU)  # fmt: skip
    state = CycleGAN(settings, 10, CPU).state_dict()
    record = {"system": "cyclegan", "settings": vars(settings), "schedule": {"steps": 10}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    checkpoint = tmp_path / "checkpoint.pt"

    def refused(name: str) -> None:
        with pytest.raises(UserError, match=name) as error:
            read(tmp_path, CPU)
        assert "\n" not in str(error.value)

    for damage in ({"G_AB": None}, {"G_AB": {}}, {"G_BA": state["D_A"]}, {"step": "x"}, {"optimizer_G": 3}):
        torch.save(state | damage, checkpoint)
        refused("checkpoint.pt")
    torch.save(state, checkpoint)
    good = checkpoint.read_bytes()
    checkpoint.write_bytes(good[:1000])
    refused("checkpoint.pt")
    checkpoint.write_bytes(good)
    read(tmp_path, CPU)
    for damage in ({"system": 3}, {"system": "../evil"}, {"system": "session"}, {"settings": []},
                   {"settings": {"size": "huge"}}, {"settings": vars(settings) | {"ngf": "x"}}):
        (tmp_path / "run.json").write_text(json.dumps(record | damage))
        refused(str(tmp_path))


CONFIG = {"trialCommand": "python -m trials.cyclegan --budget 0.2", "experimentName": "A search",
          "experimentWorkingDirectory": "/runs", "trainingService": {},
          "tuner": {"className": "experiments.tuner.Tpe", "classArgs": {"reference": "trials.cyclegan"}}}


def search(recorded, words: str = "words") -> Experiment:
    """Return a search of nine trials in whose files every text is `words`."""
    trials = [(f"t{n}", {"cycle_weight": 10.0 + n, words: f"{words}{n % 2}"}, "SUCCEEDED", [0.5], 0.1 * n)
              for n in range(9)]
    folder = recorded("searched", CONFIG | {"experimentName": words}, trials)
    record = {"system": "cyclegan", "status": "diverged", "reason": words, "seconds": 1.0,
              "data": {"name": words, "stand_in": True, "skipped": [words]},
              "judge": {"file": words, "data": words, "auc": 0.9},
              "settings": {"data": words, "judge": words, "size": words, "budget": 0.5}}  # fmt: skip
    line = {"step": 5, "score": {"default": 0.5, words: 0.25}, "losses": {words: 1.0}}
    for number, (id_, *_) in enumerate(trials):
        (folder / "trials" / id_).mkdir(parents=True)
        (folder / "trials" / id_ / "run.json").write_text(
            json.dumps(record | ({"status": "finished"} if number else {})))
        (folder / "trials" / id_ / "stats.jsonl").write_text(json.dumps(line) + "\n")
    return find_experiment(str(folder))


ODD = (None, True, -1, 1e308, float("nan"), "../../x\x00\n", [], {"": 0})


def damaged(value: dict):
    """Yield the JSON object with one of its values, or of theirs, missing or replaced."""
    for key, part in value.items():
        yield {name: value[name] for name in value if name != key}
        for other in (*ODD, *(damaged(part) if isinstance(part, dict) else ())):
            yield value | {key: other}


def test_damaged_records_and_rows_of_a_search_are_read_or_named_in_one_line(recorded, monkeypatch):
    monkeypatch.setattr(importance, "MIN_TRIALS", 99)  # each takes a second
    folder = search(recorded).folder
    trial, database = folder / "trials/t1", folder / "db/nni.sqlite"
    record, line = (json.loads((trial / name).read_text()) for name in ("run.json", "stats.jsonl"))
    content = database.read_bytes()

    def read() -> None:
        try:
            experiment = find_experiment(str(folder))
            results.text(experiment)
            results.frame(results.rows(experiment)).to_csv()
            json.dumps(PageData(experiment).document(live=True), allow_nan=False)
            resume.config(experiment)
        except UserError as error:
            assert "\n" not in str(error)

    for value in damaged(record):
        (trial / "run.json").write_text(json.dumps(value))
        read()
    (trial / "stats.jsonl").write_text("\n".join(map(json.dumps, damaged(line))) + "\n{")
    page.write(find_experiment(str(folder)))
    for table, column in (("TrialJobEvent", "data"), ("MetricData", "data"), ("ExperimentProfile", "params")):
        database.write_bytes(content)
        with sqlite3.connect(database) as db:
            ((row, old),) = db.execute(f"select max(rowid), {column} from {table} where {column} is not null")
        for value in damaged(json.loads(old) if table != "MetricData" else json.loads(json.loads(old))):
            text = json.dumps(value)
            with sqlite3.connect(database) as db:
                db.execute(f"update {table} set {column} = ? where rowid = ?",
                           (json.dumps(text) if table == "MetricData" else text, row))
            read()


def test_an_archive_of_a_worker_writes_nowhere_else(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    monkeypatch.setattr(remote.Worker, "ssh", lambda self, script: ["cat", str(tmp_path / "evil.tar")])
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="root@worker: .*outside the destination"):
        remote.Worker({"user": "root", "host": "worker"}).fetch("abc", tmp_path / "into")
    assert not (tmp_path / "evil").exists()


HOSTILE = "".join([
    "{{ 7 * 7 }}{% raw %}", "'\"><svg onload=document.title='pwned'>",
    "<img src=x onerror=\"document.title='pwned'\">", "</script><script>document.title='pwned'</script>",
    "<a href=\"javascript:document.title='pwned'\">click</a>", "<!--<script>",
    "\\u003cscript>document.title='pwned'</script>",
])  # fmt: skip


def test_no_text_of_a_file_is_markup_in_a_page(recorded, tmp_path):
    hostile = search(recorded, HOSTILE)
    compared = comparison.write([hostile], comparison.groups([hostile]), tmp_path)
    for file in (page.write(hostile, tmp_path), compared):
        html = file.read_text().replace(page.get_plotlyjs(), "")
        assert "7 * 7" in html and ("pwned" in html or file == compared)  # it is shown, there in short
        for tag in ("<img src=x", "<svg onload", "<script>document", '<a href="javascript', "<!--<script"):
            assert tag not in html
