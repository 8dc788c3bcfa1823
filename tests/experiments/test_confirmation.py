"""Confirmations: the best of a search against the published setting, over seeds."""

import json
from dataclasses import asdict, replace

import nni
import pandas as pd
import pytest
import torch
import yaml

from experiments import confirmation, trial_command
from experiments.__main__ import check_yardstick
from experiments.nni_adapter import database
from experiments.tuner import Listed
from judge import model
from judge.common.cli import Namespace
from judge.common.errors import UserError
from trials.cyclegan import Settings
from trials.training.cyclegan import CycleGAN

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
GOOD, BETTER = PUBLISHED | {"cycle_weight": 20.0}, PUBLISHED | {"cycle_weight": 30.0}


@pytest.fixture
def search(recorded, tmp_path) -> database.Experiment:
    """A search in which the published setting is the best, then trials 2 and 1; 3 was stopped, 4 crashed."""
    config = {
        "experimentName": "A search", "experimentWorkingDirectory": str(tmp_path),
        "trialCommand": "/env/bin/python -m trials.cyclegan --budget 0.2 --threads 1 --seed 5",
        "trialCodeDirectory": "/code", "trialConcurrency": 2, "trainingService": {
            "platform": "local", "reuseMode": False, "trialCommand": "python -m trials.cyclegan"},
        "tuner": {"className": "experiments.tuner.Tpe"}, "assessor": {"name": "Medianstop"},
    }  # fmt: skip
    trials = [
        ("aaaaa", PUBLISHED, "SUCCEEDED", [0.9], 0.9),
        ("bbbbb", GOOD, "SUCCEEDED", [0.4], 0.4),
        ("ccccc", BETTER, "SUCCEEDED", [0.5], 0.5),
        ("ddddd", PUBLISHED | {"cycle_weight": 2.0}, "EARLY_STOPPED", [0.99], None),
        ("eeeee", PUBLISHED | {"cycle_weight": 3.0}, "FAILED", [], None),
    ]
    folder = recorded("abcdefgh", config, trials)
    for id_, parameters, *_ in trials[:3]:
        settings = Settings(**parameters, data="/data/here", judge="j.pt", size="sketch", seed=5, budget=0.2,
                            ngf=16, steps=5000, precision="fp32")  # fmt: skip
        (folder / "trials" / id_).mkdir(parents=True)
        (folder / "trials" / id_ / "run.json").write_text(json.dumps({"settings": vars(settings)}))
    return database.find_experiment(str(folder))


def test_the_published_setting_and_the_best_are_trained_to_the_end_with_each_seed(search, tmp_path):
    config = yaml.safe_load(confirmation.write(search, top=2, seeds=3, folder=tmp_path).read_text())
    assert config["tuner"] == {
        "className": "experiments.tuner.Listed", "codeDirectory": "/code", "classArgs": {
            "settings": {"published": PUBLISHED, "trial 2": BETTER, "trial 1": GOOD},
            "seeds": [6, 7, 8], "search": "abcdefgh"}}  # fmt: skip
    _, settings, options = trial_command.parse(config["trialCommand"])
    recorded = {"ngf": 16, "steps": 5000, "precision": "fp32"}
    assert settings == Settings(data="/data/here", judge="j.pt", size="sketch", **recorded)  # budget 1
    assert options.threads == 1 and str(options.earlier) == str(tmp_path)
    assert trial_command.python_of(config["trialCommand"]) == "/env/bin/python"
    assert config["maxTrialNumber"] == 9 and config["trialConcurrency"] == 2 and "assessor" not in config
    assert config["trainingService"] == {"platform": "local", "reuseMode": False}  # without the old command
    assert config["searchSpace"]["seed"] == {"_type": "choice", "_value": [6, 7, 8]}  # the search had 5

    # More than have finished.
    config = yaml.safe_load(confirmation.write(search, top=9, seeds=1, folder=tmp_path).read_text())
    assert list(config["tuner"]["classArgs"]["settings"]) == ["published", "trial 2", "trial 1"]


@pytest.fixture
def draft_judge(tmp_path) -> str:
    """The file of an untrained judge for draft."""
    judge = model.Judge("resnet18", 128)
    model.save_judge(judge, model.ModelCard("resnet18", 128, model.CLASSES, {}, {}), tmp_path / "draft.pt")
    return str(tmp_path / "draft.pt")


@pytest.mark.parametrize("resumed", [False, True])
def test_at_a_larger_size_its_preset_fills_in_what_the_smaller_ones_did_and_choices_stay(
    search, recorded, draft_judge, resumed, tmp_path,
):
    command = "python -m trials.cyclegan --batch-size 2 --blocks 5"
    search.config["trialCommand"] = command
    for file in search.folder.glob("trials/*/run.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({"settings": record["settings"] | {"batch_size": 2, "blocks": 5}}))
    if resumed:  # whose command then names what the preset had filled in
        first = recorded("first", search.config, [])
        search.config["tuner"]["classArgs"] = {"resumes": str(first)}
        search.config["trialCommand"] = f"{command} --ngf 16 --steps 5000"
    file = confirmation.write(search, 2, 3, size="draft", judge=draft_judge, folder=tmp_path)
    config = yaml.safe_load(file.read_text())
    _, settings, _ = trial_command.parse(config["trialCommand"])
    assert settings == Settings(
        data="/data/here", judge=draft_judge, size="draft", batch_size=2, blocks=5)
    assert config["tuner"]["classArgs"]["settings"]["trial 2"] == BETTER
    assert config["experimentName"] == "confirmation of abcdefgh (sketch) at draft"
    assert file.name == "promotion-2x3-sketch-draft.yml"


def test_at_a_larger_size_the_schedule_can_have_another_length(search, draft_judge, tmp_path):
    file = confirmation.write(search, 2, 3, size="draft", judge=draft_judge, steps=700, folder=tmp_path)
    config = yaml.safe_load(file.read_text())
    assert trial_command.parse(config["trialCommand"])[1].steps == 700
    assert file.name.endswith("-700.yml") and config["experimentName"].endswith("at draft, 700 steps")


@pytest.mark.parametrize("length", ["--steps 600", "--epochs 3"])
def test_the_length_of_the_schedule_is_not_the_commands_which_is_for_its_size(
    search, draft_judge, tmp_path, length,
):
    search.config["trialCommand"] += f" {length}"
    file = confirmation.write(search, 2, 3, size="draft", judge=draft_judge, folder=tmp_path)
    _, settings, _ = trial_command.parse(yaml.safe_load(file.read_text())["trialCommand"])
    assert settings.size == "draft" and settings.steps is settings.epochs is None


def test_a_judge_is_found_from_the_users_folder_by_trials_that_run_elsewhere(
    search, draft_judge, tmp_path, monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    file = confirmation.write(search, 2, 3, size="draft", judge="draft.pt", folder=tmp_path)
    _, settings, _ = trial_command.parse(yaml.safe_load(file.read_text())["trialCommand"])
    assert settings.judge == draft_judge


def test_another_score_chooses_the_trials_and_scores_them(search, tmp_path, monkeypatch):
    (tmp_path / "mine.json").write_text('{"format": "salon score 1", "weights": {"content": 1}}')
    for trial in search.trials()[:3]:
        (trial.folder / "stats.jsonl").write_text(json.dumps({"step": 1, "score": trial.final}))
    monkeypatch.chdir(tmp_path)
    file = confirmation.write(search, top=1, seeds=2, score="mine.json", folder=tmp_path)
    config = yaml.safe_load(file.read_text())
    assert list(config["tuner"]["classArgs"]["settings"]) == ["published", "trial 1"]  # content is 1 - score
    assert trial_command.parse(config["trialCommand"])[1].score == str(tmp_path / "mine.json")
    assert file.name == "promotion-1x2-mine.yml" and config["experimentName"].endswith(", by mine.json")
    with pytest.raises(UserError, match="^--score combined: the trials recorded no clean, "):
        confirmation.write(search, top=1, seeds=2, score="combined", folder=tmp_path)


@pytest.mark.parametrize(("options", "line"), [
    ({"size": "draft"}, "--size draft: the search's judge is of size sketch, give one of size draft by --j"),
    ({"size": "paper", "judge": "draft.pt"}, r"was trained at draft \(128 px\), and this is paper"),
    ({"size": "draft", "judge": "nowhere.pt"}, "no judge at nowhere.pt"),
    ({"size": "huge", "judge": "draft.pt"}, "size is 'huge', expected one of auto, sketch, draft, paper"),
    ({"size": "auto", "judge": "draft.pt"}, "need a --size, given by name"),
    ({"steps": 5}, "need a --size, given by name"),
])
def test_a_size_that_does_not_fit_is_refused_in_one_line(search, draft_judge, options, line, tmp_path):
    if options.get("judge") == "draft.pt":
        options = options | {"judge": draft_judge}
    with pytest.raises(UserError, match=line) as caught:
        confirmation.write(search, 2, 3, **options, folder=tmp_path)
    assert "\n" not in str(caught.value) and not list(search.folder.glob("*.yml"))


def test_an_independent_judge_of_another_size_is_refused_before_training(judge_file, sample_data):
    options = Namespace(yardstick=str(judge_file), yardstick_data=str(sample_data))
    check_yardstick(options, "sketch")
    with pytest.raises(UserError, match=r"^--yardstick: .* was trained at sketch .*, and this is draft"):
        check_yardstick(options, "draft")


def test_a_search_without_a_finished_trial_is_refused_in_one_line(recorded, tmp_path):
    folder = recorded("zzz", {"trialCommand": "python -m trials.cyclegan"}, [("a", GOOD, "FAILED", [], None)])
    with pytest.raises(UserError, match="^experiment zzz has no finished trial to promote$"):
        confirmation.write(database.find_experiment(str(folder)), 3, 3, folder=tmp_path)


def test_the_tuner_proposes_every_setting_with_the_first_seed_then_the_next():
    tuner = Listed({"published": PUBLISHED, "trial 1": GOOD}, [5, 6], search="abcdefgh")
    proposed = [tuner.generate_parameters(number) for number in range(4)]
    assert proposed == [{**setting, "seed": seed} for seed in (5, 6) for setting in (PUBLISHED, GOOD)]
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(4)


@pytest.fixture
def confirmed(recorded) -> database.Experiment:
    settings = {"published": PUBLISHED, "trial 2": BETTER}
    tuner = {"className": "experiments.tuner.Listed",
             "classArgs": {"settings": settings, "seeds": [0, 1], "search": "abcdefgh"}}
    config = {"trialCommand": "python -m trials.cyclegan", "experimentName": "Seeds", "tuner": tuner}
    finals = {("published", 0): 0.2, ("trial 2", 0): 0.5, ("published", 1): 0.3, ("trial 2", 1): None}
    return database.find_experiment(str(recorded("pppppppp", config, [
        (f"t{number}", {**settings[name], "seed": seed}, final and "SUCCEEDED", [0.1], final)
        for number, ((name, seed), final) in enumerate(finals.items())
    ])))


def test_the_table_has_the_scores_in_the_search_at_its_size_beside_the_results(confirmed, search):
    for file in search.folder.glob("trials/*/run.json"):
        inputs = {"data": {"name": "monets", "stand_in": False}}
        file.write_text(json.dumps(json.loads(file.read_text()) | inputs))
    lines = confirmation.text(confirmed, confirmation.ends(confirmed)).splitlines()
    _, _, header, _, best, published, *_ = lines
    assert header.split()[:5] == ["seeds", "search", "at", "sketch", "score"]
    assert best.split()[:5] == ["trial", "2", "1", "0.500", "0.500"]
    assert published.split()[:5] == ["published", "2", "0.900", "0.250", "±"]
    (search.folder / "db/nni.sqlite").unlink()
    assert "search" not in confirmation.text(confirmed, confirmation.ends(confirmed))


def test_a_diverged_run_is_the_worst_and_is_not_measured_by_an_earlier_checkpoint(
    confirmed, sample_data, judge_file,
):
    settings = Settings(data=str(sample_data), judge=str(judge_file), size="sketch", ngf=4, blocks=1, ndf=4,
                        photos=4).complete(torch.device("cpu"))  # fmt: skip
    for number in range(3):
        folder = confirmed.folder / "trials" / f"t{number}"
        folder.mkdir(parents=True)
        record = {"system": "cyclegan", "settings": asdict(replace(settings, seed=number)),
                  "status": "diverged" if number == 1 else "finished"}
        (folder / "run.json").write_text(json.dumps(record))
        if number != 1:  # which diverged before its first report
            net = CycleGAN(replace(settings, seed=number), 1, torch.device("cpu"))
            torch.save(net.state_dict(), folder / "checkpoint.pt")
    ends = confirmation.ends(confirmed)
    assert ends["diverged"].tolist() == [False, True, False]
    table = confirmation.measure_independently(ends, str(judge_file), str(sample_data))
    assert table["quality"].tolist()[1] == 0 and (table["quality"][[0, 2]] > 0).all()
    assert table["final_kid"].isna().tolist() == [False, True, False]
    text = confirmation.text(confirmed, table)
    assert "trial 2 diverged with seed 0: it counts as the worst, 0" in text and "nan" not in text
    ends["diverged"] = True
    assert "quality" not in confirmation.measure_independently(ends, str(judge_file), str(sample_data))


def test_a_confirmation_names_its_search_and_its_ends_are_those_of_finished_trials(confirmed, search):
    assert database.is_confirmation(confirmed) and not database.is_confirmation(search)
    assert confirmation.search_of(confirmed) == search.id and confirmation.search_of(search) is None
    table = confirmation.ends(confirmed)
    assert table[["setting", "seed", "score"]].to_numpy().tolist() == [
        ["published", 0, 0.2], ["trial 2", 0, 0.5], ["published", 1, 0.3]]
    assert list(table["folder"]) == [confirmed.folder / "trials" / f"t{number}" for number in range(3)]


@pytest.mark.parametrize(("winner", "verdict"), [
    ([0.60, 0.61, 0.62], "winner is better than published: score +0.300 ["),
    ([0.10, 0.11, 0.12], "winner is worse than published: score -0.200 ["),
    ([0.35, 0.60, 0.20], "winner is not clearly different from published: score +0.073 ["),
    ([0.9], "winner: no comparison with one seed"),
])
def test_the_text_has_mean_and_spread_the_best_first_and_a_verdict(confirmed, winner, verdict):
    table = pd.DataFrame([{"setting": name, "seed": seed, "score": score, "folder": "f", "diverged": False}
                          for name, scores in (("published", [0.30, 0.31, 0.32]), ("winner", winner))
                          for seed, score in enumerate(scores)])
    *lines, last = confirmation.text(confirmed, table).splitlines()
    assert last.startswith(verdict) and any("0.310 ± 0.010" in line for line in lines)
    names = [line.split()[0] for line in lines[-3:-1]]
    assert names == (["published", "winner"] if "worse" in verdict else ["winner", "published"])
    assert "no trial has finished yet" in confirmation.text(confirmed, table[:0])


def test_the_intervals_of_several_comparisons_hold_together():
    scores = {"published": [0.30, 0.32, 0.34], "a": [0.36, 0.38, 0.40], "b": [0.1, 0.2, 0.3]}
    table = pd.DataFrame([{"setting": name, "score": score} for name in scores for score in scores[name]])
    alone, among_six = (confirmation.verdict(table, "a", "score", count) for count in (1, 6))
    assert alone.startswith("a is better than") and alone.endswith("95 %, 3 seeds")
    assert among_six.startswith("a is not clearly") and among_six.endswith("95 % for all together, 3 seeds")
