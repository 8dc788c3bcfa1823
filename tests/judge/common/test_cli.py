"""Command lines: fields become options, mistakes become one line and exit code 2."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from judge.common import cli
from judge.common.cli import Parser, from_namespace, parse_values
from judge.common.errors import UserError
from tests.experiments.helpers import ROOT


@dataclass(frozen=True)
class Settings:
    cycle_weight: cli.Weight = 10.0
    """Weight of 100 % of the cycle."""
    generator_lr: cli.LearningRate = 2e-4
    budget: cli.Fraction = 1.0
    beta: cli.Beta = 0.5
    name: str = "trial_1"
    seed: int = 0
    laps: cli.PositiveInt | None = None
    """Laps."""
    out: Path | None = None
    """Folder."""
    mode: Literal["fast", "slow"] = "fast"
    """Mode."""
    keep: bool = False
    """Keep."""


@dataclass(frozen=True)
class Required:
    images: Path


@pytest.fixture
def run(monkeypatch, capsys) -> Callable:
    def run(command: Callable, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main("python -m x", command)
        return caught.value.code or 0, *capsys.readouterr()

    return run


def parse(*arguments: str, cls: type = Settings):
    parser = Parser("Do x.")
    parser.add_fields(cls)
    return from_namespace(cls, parser.parse_args(arguments))


@pytest.mark.parametrize(("arguments", "field", "value"), [
    (["--cycle-weight", "3"], "cycle_weight", 3.0),
    (["--cycle_weight=3"], "cycle_weight", 3.0),
    (["--name=my_trial_2"], "name", "my_trial_2"),
    (["--name", "7"], "name", "7"),
    (["--seed", "-1"], "seed", -1),
    (["--laps", "2"], "laps", 2),
    (["--out", "a_b"], "out", Path("a_b")),
    (["--mode", "slow"], "mode", "slow"),
    (["--keep"], "keep", True),
    (["--keep", "True"], "keep", True),
    (["--keep=false"], "keep", False),
    (["--generator-lr", "1e-12"], "generator_lr", 1e-12),
    (["--beta", "0"], "beta", 0.0),
])
def test_an_option_sets_its_field_alone_with_a_plain_value_of_its_type(arguments, field, value):
    settings = parse(*arguments)
    assert settings == Settings(**{field: value})
    assert type(getattr(settings, field)) is type(value)


@pytest.mark.parametrize("arguments", [
    ["--nonsense", "1"], ["--cycle", "1"], ["stray"],
    ["--seed", "many"], ["--seed", "1.5"], ["--seed"], ["--laps", "0"], ["--mode", "medium"], ["--keep", "x"],
    ["--cycle-weight", "-1"], ["--cycle-weight", "nan"], ["--cycle-weight", "inf"],
    ["--generator-lr", "0"], ["--generator-lr", "nan"], ["--generator-lr=-1e-4"],
    ["--generator-lr", "-1e-4"], ["--budget", "0"], ["--budget", "1.01"], ["--beta", "1"],
], ids=" ".join)
def test_a_wrong_option_is_one_line_that_names_it(run, arguments):
    code, out, err = run(lambda words: parse(*words), *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("python -m x: ")
    assert arguments[0].split("=")[0] in err


def test_an_option_without_a_default_is_required():
    assert parse("--images", "x", cls=Required) == Required(Path("x"))
    with pytest.raises(UserError, match="required: --images"):
        parse(cls=Required)


def test_help_shows_docstrings_defaults_and_the_lines_of_the_description(run):
    parser = Parser("Do x.\n\n    python -m x     # an example")
    parser.add_fields(Settings)
    parser.add_argument("--count", type=cli.PositiveInt, default=3, help="how many")
    parser.add_argument("--csv", action="store_true", help="as CSV")
    code, out, err = run(parser.parse_args, "--help")
    assert code == 0 and err == "" and "Do x.\n\n    python -m x     # an example\n" in out
    out = " ".join(out.split())
    for words in ("--cycle-weight FLOAT Weight of 100 % of the cycle. (default: 10.0)", "--laps INT Laps. --",
                  "--out PATH Folder. --mode", "--mode {fast,slow} Mode. (default: fast)",
                  "--keep [true|false] Keep. (default: false)", "how many (default: 3)"):
        assert words in out
    assert out.endswith("--csv as CSV") and "cycle_weight" not in out


def test_values_of_json_are_checked_like_options_but_text_is_no_number():
    parsed = parse_values(Settings, {"cycle_weight": 3, "laps": None, "keep": True, "out": "x"})
    assert parsed == {"cycle_weight": 3.0, "laps": None, "keep": True, "out": Path("x")}
    assert type(parsed["cycle_weight"]) is float


@pytest.mark.parametrize(("values", "message"), [
    ({"cycle": 1}, "cycle is no setting; there are beta, budget"),
    ({"cycle_weight": "3"}, "cycle_weight is '3', expected a number from 0"),
    ({"cycle_weight": True}, "expected a number from 0"), ({"cycle_weight": 10**400}, "expected a number"),
    ({"seed": 1.0}, "expected a whole number"), ({"keep": 1}, "expected true or false"),
    ({"name": 1}, "expected text"), ({"out": 1}, "expected a path"), ({"mode": "x"}, "one of fast, slow"),
])
def test_a_wrong_value_of_json_is_one_line_that_names_it(values, message):
    with pytest.raises(UserError, match=message):
        parse_values(Settings, values)


@pytest.mark.parametrize(("error", "text"), [
    (UserError("no folder x:\n  make\tone"), "no folder x: make one"),
    (FileNotFoundError(2, "No such file", "a.txt"), "a.txt: No such file"),
    (RuntimeError("DefaultCPUAllocator: can't\n allocate"), "out of memory, use smaller batches or images ("
     "DefaultCPUAllocator: can't allocate)"),
])
def test_a_users_mistake_a_file_and_a_lack_of_memory_are_one_line_on_stderr_and_code_2(run, error, text):
    def wrong(arguments):
        print("so far so good")
        raise error

    assert run(wrong) == (2, "so far so good\n", f"python -m x: {text}\n")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_is_what_the_command_returns(run, returned, code):
    assert run(lambda arguments: returned) == (code, "", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_one_line_and_its_code_and_a_second_one_leaves_the_clean_up_alone(run, name):
    cleaned = []

    def stopped(arguments):
        try:
            signal.raise_signal(signal.Signals[name])
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    assert run(stopped) == (128 + signal.Signals[name], "", f"python -m x: stopped by {name}\n")
    assert cleaned


def test_a_signal_long_after_the_first_ends_a_clean_up_that_hangs(run, monkeypatch):
    def hanging(arguments):
        for now in (0.0, 0.5, 2.0):
            monkeypatch.setattr(cli.time, "monotonic", lambda now=now: now)
            with suppress(KeyboardInterrupt) if now < 1 else nullcontext():
                signal.raise_signal(signal.SIGTERM)
        return 0

    assert run(hanging)[0] == 143


def test_what_a_command_was_started_to_ignore_stays_ignored(run):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's background does, and nohup with SIGHUP
    assert run(lambda arguments: signal.raise_signal(signal.SIGINT)) == (0, "", "")


def test_ctrl_c_while_a_command_is_imported_has_no_traceback(tmp_path):
    """Before `main` is called."""
    for module in ("judge", "trials.gan", "experiments"):
        code = f"""if True:
            import os, runpy, signal, sys
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["-m", "--help"]
            class Stop:
                def find_spec(name, *_):
                    if name == "judge.common":
                        os.kill(os.getpid(), signal.SIGINT)
            sys.meta_path.insert(0, Stop)
            runpy.run_module({module!r}, run_name="__main__", alter_sys=True)"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(("inside", "code"), [(True, -signal.SIGTERM), (False, 128 + signal.SIGTERM)])
def test_a_signal_ends_a_command_at_once_while_it_imports_what_takes_seconds(inside, code):
    """An import may lose an exception: after a first Ctrl-C in the wrong moment a trial would go on."""
    stop = "os.kill(os.getpid(), signal.SIGTERM)"
    command = f"""if True:
        import os, signal
        from judge.common.cli import importing, main
        def command(arguments):
            with importing():
                try: {stop if inside else "pass"}
                except BaseException: pass
            {stop}
        main("x", command)"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (code, "" if inside else "x: stopped by SIGTERM\n")


@pytest.mark.parametrize("words", ["'y' * 10**6", "'y'"], ids=["at once", "at the end"])
def test_a_full_disk_below_stdout_is_one_line(words):
    command = f"from judge.common.cli import main; main('x', lambda _: print({words}))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "x: No space left on device\n")


def test_a_closed_pipe_ends_a_command_without_a_traceback():
    command = "from judge.common.cli import main; main('x', lambda words: print('y' * 10**6))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", command], **pipes)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError])
def test_a_bug_keeps_its_traceback(error):
    def buggy(arguments):
        raise error

    with pytest.raises(error):
        cli.main("python -m x", buggy)


@pytest.fixture
def greet(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    def hello(options) -> None:
        """Say hello.

        More of it."""
        print(f"hello {options.first_name}")

    def bye(options) -> int:
        """Say goodbye."""
        return 4

    def add_name(parser: Parser) -> None:
        parser.add_argument("--first-name", required=True)

    def greet(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["greet", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.subcommands("greet", "Greet.", {"hello": (add_name, hello), "bye": (lambda _: None, bye)})
        return caught.value.code or 0, *capsys.readouterr()

    return greet


def test_a_subcommand_has_options_an_exit_code_and_a_help_of_its_own(greet):
    assert greet("hello", "--first_name", "Ada") == (0, "hello Ada\n", "")
    assert greet("bye") == (4, "", "")
    code, out, _ = greet("--help")
    assert code == 0 and all(words in out for words in ("Greet.", "Say hello.", "bye", "Say goodbye."))
    code, out, _ = greet("hello", "--help")
    assert code == 0 and "Say hello.\n\nMore of it.\n" in out and "--first-name" in out


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["hello"], ["bye", "--first-name", "Ada"], ["hello", "--first-name", "A", "--x"],
])
def test_a_wrong_subcommand_is_one_line_and_code_2(greet, arguments):
    code, out, err = greet(*arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("greet: ")
