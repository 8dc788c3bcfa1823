"""What the terminal shows of a search, and when a search counts as failed, without NNI."""

import signal
from types import SimpleNamespace

import pytest

from experiments import search
from experiments.nni_adapter.database import Trial
from judge.common.cli import STOP_SIGNALS, Interrupted


def trials(folder, states: str) -> list[Trial]:
    """Return a trial per letter, one started after the other, for a minute each.

    s succeeded, f failed with a line in its log, r runs, e was stopped early, c canceled.
    """
    names, made = {"s": "SUCCEEDED", "f": "FAILED", "r": "RUNNING", "e": "EARLY_STOPPED",
                   "c": "USER_CANCELED"}, []
    for number, state in enumerate(states):
        place = folder / f"t{number}"
        place.mkdir()
        if state == "f":
            (place / "stderr").write_text("Traceback\nModuleNotFoundError: No module named '[red]x'\n")
        made.append(Trial(f"t{number}", number, place, names[state], started=100.0 + number,
                          ended=160.0 + number, final={"default": 0.5} if state == "s" else None))
    return made


def test_failed_trials_are_counted_in_red_and_each_has_the_last_line_of_its_log(tmp_path):
    several = trials(tmp_path, "sfrf")
    line = search.progress(several, 8, 2)
    assert line.plain.startswith("3 of 8 trials, 2 failed, best so far 0.500, expected end ")
    (span,) = line.spans
    assert "red" in str(span.style) and line.plain[span.start : span.end] == "2 failed, "
    shown = search.failures(several)
    assert shown.plain.splitlines() == [
        f"trial {number} failed: ModuleNotFoundError: No module named '[red]x' ({tmp_path}/t{number}/stderr)"
        for number in (1, 3)]
    assert "failed" not in search.progress(several[:1], 8, 2).plain and not search.failures(several[:1]).plain


def test_where_there_is_no_terminal_a_failed_trials_line_has_its_log(tmp_path, capsys):
    search.print_changes(trials(tmp_path, "f"), {})
    assert "ModuleNotFoundError" in capsys.readouterr().out


@pytest.mark.parametrize("states, words", [
    ("ssss", None), ("ssff", None), ("sfff", "3 of 4 trials failed, the last one with: ModuleNotFound"),
    ("ffff", "4 of 4 trials failed"), ("cc", "no trial came to its end: 2 user canceled"),
    ("ec", "no trial came to its end: 1 early stopped, 1 user canceled by maxTrialDuration 1m"),
])
def test_a_search_has_failed_when_most_of_its_trials_failed_or_none_came_to_its_end(tmp_path, states, words):
    several = trials(tmp_path, states)
    experiment = SimpleNamespace(trials=lambda: several, config={"maxTrialDuration": "1m"})
    problem = search.failure(experiment)
    assert problem is None if words is None else problem.startswith(f"the search failed: {words}")


@pytest.mark.parametrize("states, repeated", [
    ("f", False), ("ff", False), ("fff", True), ("ffrfr", True), ("fcff", False), ("sfff", False),
    ("sffffff", True), ("ffffff" "s", False), ("", False),
])
def test_trials_that_fail_one_after_the_other_for_the_same_reason_end_the_search(tmp_path, states, repeated):
    several = trials(tmp_path, states)
    line = search.repeated_failure(several)
    assert bool(line) == repeated
    if repeated:
        assert "in a row failed for the same reason: ModuleNotFoundError" in line and "stderr" in line


def test_trials_that_fail_for_several_reasons_do_not_and_numbers_and_paths_are_no_reason(tmp_path):
    several = trials(tmp_path, "fff")
    for number, trial in enumerate(several):
        (trial.folder / "stderr").write_text(f"{trial.folder}/run.sh: line 10: {number}77 Killed\n")
    assert search.repeated_failure(several)
    (several[1].folder / "stderr").write_text("CUDA error\n")
    assert not search.repeated_failure(several)


@pytest.fixture
def stops():
    """Return signals as a search takes them."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    return search.Stops()


def test_the_first_signal_interrupts_and_later_ones_do_not_but_a_second_ctrl_c_hurries(stops):
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    for number, hurry in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        signal.raise_signal(number)
        assert stops.hurry() is hurry
    stops.release()  # it stays: the command is about to end
    signal.raise_signal(signal.SIGINT)


def test_nothing_interrupts_the_end_of_a_search_and_what_comes_after_it_can_be_interrupted(stops):
    stops.hold()
    stops.release()
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_at_the_end_of_a_search_only_counts_and_one_that_was_ignored_stays_so(stops):
    stops.hold()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
    assert not stops.hurry()


@pytest.mark.parametrize("name, short", [
    ("CycleGAN, photographs to paintings", "CycleGAN, photographs to paintings"),
    ("CycleGAN, photographs to paintings, several machines", "CycleGAN, photographs to paintings,…"),
    ("x" * 60, "x" * 39 + "…"), ("", "cyclegan"), (" \n a   b ", "a b"),
])
def test_the_title_in_nnis_web_ui_is_short_and_cut_at_a_word(tmp_path, name, short):
    plan = SimpleNamespace(config=SimpleNamespace(experiment_name=name), file=tmp_path / "cyclegan.yml")
    assert search.title(plan) == short and len(short) <= search.TITLE
