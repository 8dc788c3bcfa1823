"""What the terminal shows of a search, and when a search counts as failed, without NNI."""

from types import SimpleNamespace

import pytest

from experiments import search
from experiments.nni_adapter.database import Trial


def trials(folder, states: str) -> list[Trial]:
    """Return a trial per letter: s succeeded, f failed with a line in its log, r runs."""
    names, made = {"s": "SUCCEEDED", "f": "FAILED", "r": "RUNNING"}, []
    for number, state in enumerate(states):
        place = folder / f"t{number}"
        place.mkdir()
        if state == "f":
            (place / "stderr").write_text("Traceback\nModuleNotFoundError: No module named '[red]x'\n")
        made.append(Trial(f"t{number}", number, place, names[state], started=100.0, ended=160.0,
                          final={"default": 0.5} if state == "s" else None))
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


@pytest.mark.parametrize("states, state, words", [
    ("ssss", "DONE", None), ("ssff", "DONE", None), ("sfff", "DONE", "3 of 4 trials failed"),
    ("ffff", "DONE", "4 of 4 trials failed"), ("ssss", "ERROR", "(ERROR)"),
])
def test_a_search_has_failed_when_it_broke_or_most_of_its_trials_failed(tmp_path, states, state, words):
    several = trials(tmp_path, states)
    experiment = SimpleNamespace(trials=lambda: several, folder=tmp_path)
    problem = search.failure(experiment, state)
    assert problem is None if words is None else words in problem


@pytest.mark.parametrize("name, short", [
    ("CycleGAN, photographs to paintings", "CycleGAN, photographs to paintings"),
    ("CycleGAN, photographs to paintings, several machines", "CycleGAN, photographs to paintings,…"),
    ("x" * 60, "x" * 39 + "…"), ("", "cyclegan"), (" \n a   b ", "a b"),
])
def test_the_title_in_nnis_web_ui_is_short_and_cut_at_a_word(tmp_path, name, short):
    plan = SimpleNamespace(config=SimpleNamespace(experiment_name=name), file=tmp_path / "cyclegan.yml")
    assert search.title(plan) == short and len(short) <= search.TITLE
