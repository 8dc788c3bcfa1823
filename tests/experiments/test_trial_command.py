"""A trial's command is read and written without loss."""

import shlex
import subprocess
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


GAN = "python -m trials.gan --data pattern"
LINES = [
    GAN + " --steps 200\n  --reports 2\n", GAN + " --steps 200 \\\n  --reports 2",
    GAN + " --steps 200 \\\r\n--reports 2\r\n", GAN + "\t--steps=200 --reports '2'",
    GAN + ' --st""eps 200 --reports "2"',
]
WORDS = [
    "a;b", "a&&b", "a|b", "$HOME", "${HOME}", "$(id)", "`id`", "a>b", "<a", "*", "?", "[ab]", "~", "~/x",
    "{a,b}", "#a", "!a", "a b", "it's", 'a"b', "a\\b", "ä", "%PATH%", "a&", "(a)",
]  # fmt: skip


def shell_words(command: str) -> list[str]:
    """Return the words that NNI's `eval` passes to a program, of a command without its interpreter."""
    script = "eval " + shlex.quote("printf '%s\\0' " + command.split(" ", 1)[1])
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd="/")
    assert not run.stderr
    return run.stdout.split("\0")[:-1]


@pytest.mark.parametrize("command", LINES)
def test_a_command_of_several_lines_is_one_command_also_for_the_shell(command):
    _, settings, _ = trial_command.parse(command)
    assert (settings.data, settings.steps, settings.reports) == ("pattern", 200, 2)
    words = ["-m", "trials.gan", "--data", "pattern"]
    assert shell_words(trial_command.quoted(command))[:4] == words
    assert trial_command.parse(trial_command.quoted(command)) == trial_command.parse(command)
    assert trial_command.quoted(trial_command.quoted(command)) == trial_command.quoted(command)


def test_the_shell_reads_the_words_that_we_read_whatever_they_hold():
    command = f"python -m trials.gan --data {' '.join(map(shlex.quote, WORDS))}"
    assert shell_words(trial_command.quoted(command))[3:] == WORDS
    for word in set(WORDS) - {"it's", 'a"b', "a\\b", "a b"}:  # the others also without quotes
        assert shell_words(trial_command.quoted(f"python {word}")) == [word]


@pytest.mark.parametrize("rest", [
    "; touch x", "&& touch x", "|| touch x", "| tee log", "> log", "2>&1", "& touch x", "# a comment",
    "$(touch x)", "`touch x`", "\ntouch x", "--steps $STEPS", "--steps 5;", "*", "< in",
])
def test_what_a_shell_would_do_beside_the_trial_is_refused(rest):
    with pytest.raises(UserError, match="^trialCommand: "):
        trial_command.parse(f"{GAN} {rest}")


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
