"""The best of a search against the published setting, over seeds."""

import json
import shlex

import pandas as pd
import pytest
import yaml

from experiments import confirmation
from experiments.nni_adapter import database
from experiments.tuner import Listed
from judge.common.errors import UserError
from trials.cyclegan import Settings

PUBLISHED = {"identity_weight": Settings().identity_weight, "cycle_weight": Settings().cycle_weight}
GOOD, BETTER = PUBLISHED | {"cycle_weight": 20.0}, PUBLISHED | {"cycle_weight": 30.0}


@pytest.fixture
def search(recorded, tmp_path) -> database.Experiment:
    """A search in which the published setting is the best, then trials 2 and 1; 3 was stopped, 4 crashed."""
    config = {
        "experimentName": "A search", "experimentWorkingDirectory": str(tmp_path),
        "trialCommand": "python -m trials.cyclegan --budget 0.2 --threads 1 --seed 5",
        "trialCodeDirectory": "/code", "trialConcurrency": 2, "trainingService": {
            "platform": "local", "reuseMode": False, "trialCommand": "python -m trials.cyclegan"},
        "tuner": {"className": "experiments.tuner.Tpe"}, "assessor": {"name": "Medianstop"},
    }  # fmt: skip
    folder = recorded("abcdefgh", config, [
        ("aaaaa", PUBLISHED, "SUCCEEDED", [0.9], 0.9),
        ("bbbbb", GOOD, "SUCCEEDED", [0.4], 0.4),
        ("ccccc", BETTER, "SUCCEEDED", [0.5], 0.5),
        ("ddddd", PUBLISHED | {"cycle_weight": 2.0}, "EARLY_STOPPED", [0.99], None),
        ("eeeee", PUBLISHED | {"cycle_weight": 3.0}, "FAILED", [], None),
    ])
    record = {"settings": {"data": "/data/here", "judge": "j.pt", "size": "sketch", "seed": 5}}
    for id_ in ("aaaaa", "bbbbb", "ccccc"):
        (folder / "trials" / id_).mkdir(parents=True)
        (folder / "trials" / id_ / "run.json").write_text(json.dumps(record))
    return database.find_experiment(str(folder))


def test_the_published_setting_and_the_best_are_trained_to_the_end_with_each_seed(search):
    config = yaml.safe_load(confirmation.write(search, top=2, seeds=3).read_text())
    arguments = config["tuner"]["classArgs"]
    assert arguments["settings"] == {"published": PUBLISHED, "trial 2": BETTER, "trial 1": GOOD}
    assert arguments["seeds"] == [5, 6, 7] and config["maxTrialNumber"] == 9
    command = shlex.split(config["trialCommand"])
    for option, value in {"--budget": "1.0", "--data": "/data/here", "--judge": "j.pt", "--size": "sketch",
                          "--threads": "1", "--earlier": str(search.folder.parent)}.items():
        assert command.count(option) == 1 and command[command.index(option) + 1] == value
    assert config["trialConcurrency"] == 2 and "assessor" not in config
    assert config["trainingService"] == {"platform": "local", "reuseMode": False}  # no older command
    assert config["searchSpace"]["seed"] == {"_type": "choice", "_value": [5, 6, 7]}


def test_fewer_finished_trials_than_asked_for_are_all_promoted(search):
    config = yaml.safe_load(confirmation.write(search, top=9, seeds=1).read_text())
    assert list(config["tuner"]["classArgs"]["settings"]) == ["published", "trial 2", "trial 1"]


def test_a_search_without_a_finished_trial_is_refused_in_one_line(recorded):
    config = {"trialCommand": "python -m trials.cyclegan", "experimentWorkingDirectory": "/x"}
    folder = recorded("zzzzzzzz", config, [("aaaaa", GOOD, "FAILED", [], None)])
    with pytest.raises(UserError, match="^experiment zzzzzzzz has no finished trial to promote$"):
        confirmation.write(database.find_experiment(str(folder)), 3, 3)


def test_the_tuner_proposes_every_setting_with_the_first_seed_then_the_next():
    import nni

    tuner = Listed({"published": PUBLISHED, "trial 1": GOOD}, [5, 6])
    proposed = [tuner.generate_parameters(number) for number in range(4)]
    assert proposed == [{**one, "seed": seed} for seed in (5, 6) for one in (PUBLISHED, GOOD)]
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(4)


@pytest.fixture
def promoted(recorded) -> database.Experiment:
    arguments = {"settings": {"published": PUBLISHED, "trial 2": BETTER}, "seeds": [0, 1]}
    config = {"trialCommand": "python -m trials.cyclegan --budget 1.0", "experimentName": "promotion of a",
              "tuner": {"className": "experiments.tuner.Listed", "classArgs": arguments}}
    finals = {("published", 0): 0.2, ("trial 2", 0): 0.5, ("published", 1): 0.3, ("trial 2", 1): None}
    return database.find_experiment(str(recorded("pppppppp", config, [
        (f"t{at}", {**arguments["settings"][name], "seed": seed}, final and "SUCCEEDED", [0.1], final)
        for at, ((name, seed), final) in enumerate(finals.items())
    ])))


def test_ends_are_those_of_finished_trials_by_setting_and_seed(promoted):
    found = confirmation.ends(promoted)
    assert found[["setting", "seed", "score"]].to_numpy().tolist() == [
        ["published", 0, 0.2], ["trial 2", 0, 0.5], ["published", 1, 0.3]]
    assert list(found["folder"]) == [promoted.folder / "trials" / f"t{at}" for at in range(3)]


def test_a_promotion_is_known_from_a_search(promoted, search):
    assert confirmation.is_confirmation(promoted) and not confirmation.is_confirmation(search)


def frame(**scores: list[float]) -> pd.DataFrame:
    return pd.DataFrame([{"setting": name, "seed": seed, "score": score, "folder": "f"}
                         for name, values in scores.items() for seed, score in enumerate(values)])


@pytest.mark.parametrize(("winner", "word"), [
    ([0.60, 0.61, 0.62], "better than"), ([0.10, 0.11, 0.12], "worse than"),
    ([0.35, 0.60, 0.20], "not told apart from"),
])
def test_a_verdict_counts_the_spread_over_seeds(winner, word):
    found = frame(published=[0.30, 0.31, 0.32], winner=winner)
    assert confirmation.verdict(found, "winner", "score").startswith(f"winner is {word} published: score ")


def test_one_seed_gives_no_verdict():
    found = frame(published=[0.3], winner=[0.9])
    assert confirmation.verdict(found, "winner", "score") == "winner: one seed tells no spread"


def test_the_table_shows_mean_and_spread_the_best_first(promoted):
    text = confirmation.text(promoted, frame(published=[0.2, 0.4], winner=[0.5, 0.9]))
    assert "0.300 ± 0.141" in text and "0.700 ± 0.283" in text
    assert text.index("winner") < text.index("published ")


def test_a_promotion_without_a_finished_trial_says_so(promoted):
    assert "no trial has finished yet" in confirmation.text(promoted, pd.DataFrame())
