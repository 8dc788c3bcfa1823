"""A trial's command is read and written without loss."""

from pathlib import Path

import pytest

from experiments import trial_command
from judge.common.errors import UserError
from trials import cyclegan


def test_a_command_is_read_and_written_without_loss():
    command = trial_command.render(
        cyclegan, {"data": "a folder", "cycle_weight": 1 / 3, "beta1": 0.5, "generator_lr": 1e-05, "gone": 1},
        threads=1, keep=True, earlier=None, out=Path("$(it's)"))
    assert command == ("python -m trials.cyclegan --data 'a folder' --cycle-weight 0.3333333333333333 "
                       "--generator-lr 1e-05 --threads 1 --keep true --out '$(it'\"'\"'s)'")
    module, settings, options = trial_command.parse(command)
    assert module is cyclegan
    assert settings == cyclegan.Settings(data="a folder", cycle_weight=1 / 3, generator_lr=1e-5)
    assert (options.threads, options.keep, options.out) == (1, True, Path("$(it's)"))


def test_an_option_replaces_the_setting_of_its_name_and_the_interpreter_is_kept():
    old = "/opt/venv/bin/python -m trials.cyclegan --budget=0.2 --identity_weight 3"
    _, settings, _ = trial_command.parse(old)
    new = trial_command.render(cyclegan, vars(settings), python=trial_command.python_of(old), budget=1.0)
    assert new == "/opt/venv/bin/python -m trials.cyclegan --identity-weight 3.0 --budget 1.0"


@pytest.mark.parametrize("command, problem", [
    ("exec python -m trials.cyclegan", "exec"),
    ("python trials/cyclegan.py", "form"),
    ("python -m 'trials.cyclegan", "No closing quotation"),
    ("", "form"),
    ("python -m trials.cyclegam", "no trial trials.cyclegam"),
    ("python -m trials.session.engine", "no trial"),
    ("python -m os", "no trial os"),
    ("python -m ../../tmp/evil.py", "no trial"),
    ("python -m trials.cyclegan --cycle-weight much", "'much', expected a number from 0"),
    ("python -m trials.cyclegan --cyle-weight 1", "--cyle-weight"),
])  # fmt: skip
def test_a_wrong_command_is_one_sentence(command, problem):
    with pytest.raises(UserError, match=problem):
        trial_command.parse(command)
