"""Claims about commands in general: fields become options, mistakes one line and exit code 2."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from judge.common import cli
from judge.common.cli import Fraction, LearningRate, Parser, PositiveInt, Weight, from_namespace
from judge.common.errors import UserError
from judge.common.files import file_lock


@dataclass(frozen=True)
class Settings:
    """What the commands of this file are set with."""

    cycle_weight: Weight = 10.0
    """How much the way back counts."""
    generator_lr: LearningRate = 2e-4
    """The generators' learning rate."""
    budget: Fraction = 1.0
    """Share of the schedule."""
    name: str = "trial_1"
    """What it is called."""
    steps: int | None = None
    """How many; all without."""
    laps: PositiveInt | None = None
    """How often; as often as possible without."""


@pytest.fixture
def run(monkeypatch) -> Callable:
    """Runs a command as from a command line, and returns its exit code."""
    def run(called: Callable, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main("python -m x", called)
        return caught.value.code or 0

    return run


@pytest.fixture
def settings(run) -> Callable[..., Settings]:
    """The settings that a command line makes."""
    def settings(*arguments: str) -> Settings:
        parser, found = Parser("Does x."), []
        parser.add_fields(Settings)
        assert run(lambda a: found.append(from_namespace(Settings, parser.parse_args(a))), *arguments) == 0
        return found[0]

    return settings


@pytest.fixture
def refusal(run, capsys) -> Callable[..., str]:
    """What is said of a wrong command line, having checked that it is one line and the code 2."""
    def refusal(*arguments: str) -> str:
        parser = Parser("Does x.")
        parser.add_fields(Settings)
        assert run(parser.parse_args, *arguments) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("python -m x: ")
        return said.err

    return refusal


# ---------------------------------------------------------------------------------------------
# Options


def test_without_options_the_defaults_are_taken(settings):
    assert settings() == Settings()


def test_a_field_is_an_option_with_dashes_and_underscores_do_too(settings):
    assert settings("--cycle-weight", "3").cycle_weight == 3
    assert settings("--cycle_weight", "3").cycle_weight == 3
    assert settings("--cycle-weight=3").cycle_weight == 3
    assert settings("--cycle_weight=3").cycle_weight == 3


def test_underscores_of_values_stay(settings):
    assert settings("--name", "my_trial_2").name == "my_trial_2"
    assert settings("--name=my_trial_2").name == "my_trial_2"


def test_values_have_the_types_of_their_fields(settings):
    found = settings("--generator-lr", "1e-3", "--steps", "7", "--name", "7")
    assert (found.generator_lr, found.steps, found.name) == (1e-3, 7, "7")


def test_numbers_of_a_range_are_plain_numbers_that_any_file_can_hold(settings):
    found = settings("--cycle-weight", "3", "--generator-lr", "1", "--budget", "0.5", "--laps", "2")
    types = [type(value) for value in (found.cycle_weight, found.generator_lr, found.budget, found.laps)]
    assert types == [float, float, float, int]


def test_the_docstring_of_a_field_is_the_help_of_its_option(run, capsys):
    parser = Parser("Does x.")
    parser.add_fields(Settings)
    assert run(parser.parse_args, "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Does x.", "--cycle-weight", "How much the way back counts.", "default: 10.0"):
        assert words in said
    assert "cycle_weight" not in said


@pytest.mark.parametrize("arguments", [
    ("--nonsense", "1"), ("--steps", "many"), ("--steps", "1.5"), ("--steps",), ("stray",),
    ("--cycle-weight", "-1"), ("--cycle-weight", "nan"), ("--cycle-weight", "inf"),
    ("--generator-lr", "0"), ("--generator-lr", "nan"), ("--generator-lr", "-1e-4"),
    ("--budget", "0"), ("--budget", "1.01"), ("--budget", "nan"),
])
def test_a_wrong_option_is_one_line_that_names_it(refusal, arguments):
    assert arguments[0].lstrip("-") in refusal(*arguments).replace("_", "-")


@pytest.mark.parametrize(("option", "values"), [
    ("cycle_weight", (0.0, 1e6)), ("generator_lr", (1e-12, 1.0)), ("budget", (1e-6, 1.0)),
])
def test_the_ends_of_a_range_are_allowed_as_documented(settings, option, values):
    for value in values:
        assert getattr(settings(f"--{option}", str(value)), option) == value


# ---------------------------------------------------------------------------------------------
# Exit codes


def test_a_users_mistake_is_one_line_on_stderr_and_code_2(run, capsys):
    def wrong(arguments):
        print("so far so good")
        raise UserError("no folder x:\n  make\tone")

    assert run(wrong) == 2
    said = capsys.readouterr()
    assert said.out == "so far so good\n" and said.err == "python -m x: no folder x: make one\n"


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_is_what_the_command_returns(run, returned, code):
    assert run(lambda arguments: returned) == code


def test_ctrl_c_is_code_130_without_a_traceback(run, capsys):
    def interrupted(arguments):
        signal.raise_signal(signal.SIGINT)

    assert run(interrupted) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(ZeroDivisionError):
        cli.main("python -m x", lambda arguments: 1 // 0)


# ---------------------------------------------------------------------------------------------
# Subcommands


@pytest.fixture
def greet(monkeypatch) -> Callable[..., int]:
    """A program of two subcommands."""
    def name_option(parser: Parser) -> None:
        parser.add_argument("--first-name", default="you")

    def hello(options) -> None:
        """Say hello.

        More of it."""
        print(f"hello {options.first_name}")

    def bye(options) -> int:
        """Say goodbye."""
        return 4

    def greet(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["greet", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.subcommands("greet", "Greets.", {
                "hello": (name_option, hello), "bye": (lambda parser: None, bye)
            })
        return caught.value.code or 0

    return greet


def test_a_subcommand_gets_its_own_options(greet, capsys):
    assert greet("hello", "--first-name", "Ada") == 0
    assert greet("hello", "--first-name", "Bob") == 0
    assert greet("bye") == 4
    assert capsys.readouterr().out == "hello Ada\nhello Bob\n"


def test_help_lists_the_subcommands_with_their_first_lines(greet, capsys):
    assert greet("--help") == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("Greets.", "hello", "Say hello.", "bye", "Say goodbye."))


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("bye", "--first-name", "Ada"), ("hello", "--x")])
def test_a_wrong_subcommand_is_one_line_and_code_2(greet, capsys, arguments):
    assert greet(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("greet: ")


HOLDER = """
import signal, sys
from pathlib import Path
from judge import command
held = command.claimed(Path(sys.argv[1]), "at work")
print("held", flush=True)
signal.pause()
"""


def test_a_claim_is_one_process_s_until_it_ends(tmp_path):
    """Also where it ends without another word."""
    file = tmp_path / "new" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, file], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is at work: wait for it to end"):
            file_lock(file, "at work")
    finally:
        holder.kill()
        holder.communicate()
    with file_lock(file, "at work"):
        with pytest.raises(UserError):
            file_lock(file, "at work")
    file_lock(file, "at work").close()


def test_a_claim_where_nothing_can_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write to {tmp_path / 'file'}"):
        file_lock(tmp_path / "file" / ".lock", "at work")
