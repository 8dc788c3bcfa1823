"""Confirmations: the best of a search against the published setting, over seeds."""

import json

import nni
import pandas as pd
import pytest
import yaml

from experiments import confirmation, trial_command
from experiments.nni_adapter import database
from experiments.tuner import Listed
from judge.common.errors import UserError
from trials.cyclegan import Settings

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
GOOD, BETTER = PUBLISHED | {"cycle_weight": 20.0}, PUBLISHED | {"cycle_weight": 30.0}


@pytest.fixture
def search(recorded) -> database.Experiment:
    """A search in which the published setting is the best, then trials 2 and 1; 3 was stopped, 4 crashed."""
    config = {
        "experimentName": "A search", "experimentWorkingDirectory": "/runs",
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
        settings = Settings(**parameters, data="/data/here", judge="j.pt", size="sketch", seed=5, budget=0.2)
        (folder / "trials" / id_).mkdir(parents=True)
        (folder / "trials" / id_ / "run.json").write_text(json.dumps({"settings": vars(settings)}))
    return database.find_experiment(str(folder))


def test_the_published_setting_and_the_best_are_trained_to_the_end_with_each_seed(search):
    config = yaml.safe_load(confirmation.write(search, top=2, seeds=3).read_text())
    assert config["tuner"] == {
        "className": "experiments.tuner.Listed", "codeDirectory": "/code", "classArgs": {
            "settings": {"published": PUBLISHED, "trial 2": BETTER, "trial 1": GOOD},
            "seeds": [5, 6, 7], "search": "abcdefgh"}}  # fmt: skip
    _, settings, options = trial_command.parse(config["trialCommand"])
    assert settings == Settings(data="/data/here", judge="j.pt", size="sketch")  # whose budget is 1
    assert options.threads == 1 and str(options.earlier) == "/runs"
    assert trial_command.python_of(config["trialCommand"]) == "/env/bin/python"
    assert config["maxTrialNumber"] == 9 and config["trialConcurrency"] == 2 and "assessor" not in config
    assert config["trainingService"] == {"platform": "local", "reuseMode": False}  # without the old command
    assert config["searchSpace"]["seed"] == {"_type": "choice", "_value": [5, 6, 7]}

    config = yaml.safe_load(confirmation.write(search, top=9, seeds=1).read_text())  # more than have finished
    assert list(config["tuner"]["classArgs"]["settings"]) == ["published", "trial 2", "trial 1"]


def test_a_search_without_a_finished_trial_is_refused_in_one_line(recorded):
    folder = recorded("zzz", {"trialCommand": "python -m trials.cyclegan"}, [("a", GOOD, "FAILED", [], None)])
    with pytest.raises(UserError, match="^experiment zzz has no finished trial to promote$"):
        confirmation.write(database.find_experiment(str(folder)), 3, 3)


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


def test_a_confirmation_names_its_search_and_its_ends_are_those_of_finished_trials(confirmed, search):
    assert confirmation.is_confirmation(confirmed) and not confirmation.is_confirmation(search)
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
    table = pd.DataFrame([{"setting": name, "seed": seed, "score": score, "folder": "f"}
                          for name, scores in (("published", [0.30, 0.31, 0.32]), ("winner", winner))
                          for seed, score in enumerate(scores)])
    *lines, last = confirmation.text(confirmed, table).splitlines()
    assert last.startswith(verdict) and any("0.310 ± 0.010" in line for line in lines)
    names = [line.split()[0] for line in lines[-3:-1]]
    assert names == (["published", "winner"] if "worse" in verdict else ["winner", "published"])
    assert "no trial has finished yet" in confirmation.text(confirmed, table[:0])
