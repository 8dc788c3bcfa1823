"""The TPE tuner: the published setting comes first, and each result counts once."""

import json

import pytest
from nni.runtime import msg_dispatcher

from experiments.tuner import Tpe
from tests.experiments.helpers import ROOT
from trials.cyclegan import Settings

SPACE = json.loads((ROOT / "search_spaces/cyclegan.json").read_text())


@pytest.fixture
def tuner() -> Tpe:
    tpe = Tpe(reference="trials.cyclegan", optimize_mode="maximize", seed=1, tpe_args={"n_startup_jobs": 5})
    tpe.update_search_space(SPACE)
    return tpe


def test_the_published_setting_is_the_first_trial_exactly(tuner):
    published = vars(Settings())
    assert tuner.generate_parameters(0) == {name: published[name] for name in SPACE}
    assert tuner.generate_parameters(1) != tuner.generate_parameters(2)


def test_proposals_stay_in_their_ranges_and_move_to_good_settings(tuner):
    """Higher is better near cycle weight 30: later proposals are there more often than early ones."""
    distances = []
    for number in range(60):
        parameters = tuner.generate_parameters(number)
        for name, value in parameters.items():
            low, high = SPACE[name]["_value"]
            assert low <= value <= high or value == pytest.approx(low) or value == pytest.approx(high)
        distances.append(abs(parameters["cycle_weight"] - 30))
        tuner.receive_trial_result(number, None, {"default": -distances[-1] / 40})
    assert sum(distances[40:]) / 20 < 0.75 * sum(distances[1:21]) / 20


def test_a_result_counts_also_after_the_trials_end_and_only_once(tuner):
    tuner.generate_parameters(0)
    tuner.trial_end(0, False)  # early-stopped: NNI's own TPE raises KeyError at the next line
    tuner.receive_trial_result(0, None, {"default": 0.5})
    tuner.receive_trial_result(0, None, {"default": 0.9})
    assert [record.loss for records in tuner._history.values() for record in records] == [-0.5] * len(SPACE)


def test_equal_seeds_propose_equally():
    proposals = []
    for _ in range(2):
        tpe = Tpe(reference="trials.cyclegan", seed=3)
        tpe.update_search_space(SPACE)
        proposals.append([tpe.generate_parameters(number) for number in range(5)])
    assert proposals[0] == proposals[1]


def test_the_last_report_of_an_early_stopped_trial_reaches_the_tuner(tuner):
    assert msg_dispatcher.dispatcher_env_vars.NNI_INCLUDE_INTERMEDIATE_RESULTS == "true"
