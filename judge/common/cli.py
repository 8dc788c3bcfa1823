"""Command lines: the fields of a dataclass become options, a user's mistake becomes one line.

    @dataclass(frozen=True)
    class Options:
        lr: LearningRate = 1e-3
        '''Peak learning rate.'''          # the option's help

    parser = Parser("Train a judge.")
    parser.add_fields(Options)             # --lr
    options = from_namespace(Options, parser.parse_args())
"""

import argparse
import ast
import inspect
import os
import re
import signal
import sys
import textwrap
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import cache, partial
from math import inf
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from judge.common.errors import UserError, is_out_of_memory, one_line

if TYPE_CHECKING:  # most command lines need no torch, which takes a second to import
    import torch


class Range(NamedTuple):
    """The numbers that an option accepts, and their description for error messages."""

    description: str
    contains: Callable[[float], bool]


PositiveInt = Annotated[int, Range("a whole number from 1", lambda x: x >= 1)]
NonNegativeInt = Annotated[int, Range("a whole number from 0", lambda x: x >= 0)]
PositiveFloat = Annotated[float, Range("a number above 0", lambda x: 0 < x < inf)]
NonNegativeFloat = Annotated[float, Range("a number from 0", lambda x: 0 <= x < inf)]
Fraction = Annotated[float, Range("a number above 0, up to 1", lambda x: 0 < x <= 1)]
UnitInterval = Annotated[float, Range("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Weight = NonNegativeFloat  # of a loss
LearningRate = PositiveFloat
Beta = Annotated[float, Range("a number from 0, below 1", lambda x: 0 <= x < 1)]  # Adam's decay rates

DESCRIPTIONS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
STOP_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
JSON_TYPES = {float: (float, int), Path: (str, Path)}  # accepted for a type besides itself


@dataclass(frozen=True)
class ThreadOptions:
    """The option of every command that computes for a long time."""

    threads: PositiveInt | None = None
    """CPU threads; by default one per core, or one in a trial that a search starts. Keep threads x (commands
    at once) within the number of cores: threads that wait for each other slow everything down."""


@dataclass(frozen=True)
class ComputeOptions(ThreadOptions):
    """The options of every command that computes on a GPU, where there is one."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto is the GPU if there is one."""

    def torch_device(self) -> "torch.device":
        """Return the device that `device` names. Raises UserError if it is cuda, and there is no GPU."""
        import torch

        has_gpu = torch.cuda.is_available()
        if self.device == "cuda" and not has_gpu:
            raise UserError("--device cuda: torch finds no GPU here, use --device cpu")
        return torch.device("cuda" if has_gpu and self.device != "cpu" else "cpu")


def convert(value: Any, hint: Any, is_text: bool) -> Any:
    """Return `value` as the type `hint`; raise a ValueError that describes what is expected.

    Args:
        hint: str, int, float, bool, Path, a Literal, one of the number types above, or one of them `| None`.
        is_text: True for a word of a command line; False for a JSON value, where "5" is not a number.
    """
    if value is None and NoneType in get_args(hint):
        return None
    hint = _without_none(hint)
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in arguments:
            raise ValueError(f"one of {', '.join(map(str, arguments))}")
        return value
    kind, allowed = arguments or (hint, Range(DESCRIPTIONS[hint], lambda x: True))
    if is_text and kind is bool:
        value = {"true": True, "false": False}.get(value.lower())
    try:
        if is_text or _is_json_of(value, kind):
            result = kind(value)
            if allowed.contains(result) and value is not None:
                return result
    except (ValueError, OverflowError):  # the latter: a whole number too large for a float
        pass
    raise ValueError(allowed.description)


def _is_json_of(value: Any, kind: type) -> bool:
    if isinstance(value, bool) != (kind is bool):  # to Python, True is an int too
        return False
    return isinstance(value, JSON_TYPES.get(kind, kind))


def _without_none(hint: Any) -> Any:
    """Return `int` for `int | None`, and other types unchanged."""
    arguments = get_args(hint)
    return next(option for option in arguments if option is not NoneType) if NoneType in arguments else hint


def parse_values(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON `values` converted to the types of the fields of the dataclass `cls`.

    Raises UserError if `cls` has no field of that name, or a value does not fit its type.
    """
    hints, converted = get_type_hints(cls, include_extras=True), {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{name} is no setting; there are {', '.join(sorted(hints))}")
        try:
            converted[name] = convert(value, hints[name], is_text=False)
        except ValueError as error:
            raise UserError(f"{name} is {value!r}, expected {error}") from None
    return converted


class Parser(argparse.ArgumentParser):
    """An argument parser with number types and defaults in its help, that raises a UserError for a mistake.

    `--cycle_weight` is read as `--cycle-weight`. Descriptions keep their line breaks.
    """

    def __init__(self, description: str = "", **options: Any):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False, **options)

    def add_argument(self, *names: str, type: Any = None, **options: Any) -> argparse.Action:
        """Add an option as argparse does; `type` may be any that `convert` knows."""
        if type is not None:
            options["type"] = partial(_parse_word, hint=type)
        default = options.get("default")
        if default not in (None, argparse.SUPPRESS):
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            options["help"] = f"{options.get('help', '')} (default: {shown.replace('%', '%%')})"
        return super().add_argument(*names, **options)

    def add_fields(self, cls: type) -> None:
        """Add an option for each field of the dataclass `cls`, with its type, default and docstring."""
        hints, helps = get_type_hints(cls, include_extras=True), field_docstrings(cls)
        for field in fields(cls):
            hint = hints[field.name]
            options = {"type": hint, "help": helps[field.name].replace("%", "%%"), "metavar": _metavar(hint)}
            if hint is bool:  # `--keep` alone means yes
                options |= {"nargs": "?", "const": True}
            options |= {"required": True} if field.default is MISSING else {"default": field.default}
            self.add_argument("--" + field.name.replace("_", "-"), **options)

    def parse_args(self, arguments: Sequence[str] | None = None, namespace: Namespace | None = None):
        """Parse as argparse does, with an option's underscores read as dashes."""
        arguments = sys.argv[1:] if arguments is None else arguments
        dashed = [re.sub("^--[^=]+", lambda match: match[0].replace("_", "-"), word) for word in arguments]
        return super().parse_args(dashed, namespace)

    def error(self, message: str) -> None:
        """Raise the message that argparse would print below its usage."""
        raise UserError(message)


def _parse_word(word: str, hint: Any) -> Any:
    try:
        return convert(word, hint, is_text=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r}, expected {error}") from None


def _metavar(hint: Any) -> str:
    """Return the placeholder of the value in the help text."""
    hint = _without_none(hint)
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    kind = get_args(hint)[0] if get_args(hint) else hint
    return "true|false" if kind is bool else kind.__name__.upper()


@cache
def field_docstrings(cls: type) -> dict[str, str]:
    """Return the docstring under each field of the dataclass `cls` and of its parents, by field name."""
    texts = {}
    for parent in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0].body
        for statement, following in zip(body, body[1:]):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return {field.name: texts.get(field.name, "") for field in fields(cls)}


def from_namespace(cls: type, options: Namespace) -> Any:
    """Return an instance of the dataclass `cls` made from the options that `Parser.add_fields` added."""
    return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


def subcommands(prog: str, description: str, commands: dict[str, tuple[Callable, Callable]]) -> None:
    """Run the subcommand that the command line names.

    Args:
        commands: by name, a function that adds the subcommand's options to its parser, and one that runs it,
            whose docstring is the help.
    """
    parser = Parser(description, prog=prog)
    choices = parser.add_subparsers(dest="subcommand", required=True)
    for name, (add_options, command) in commands.items():
        text = inspect.getdoc(command)
        add_options(choices.add_parser(name, description=text, help=text.split("\n")[0]))

    def run(arguments: list[str]) -> int | None:
        options = parser.parse_args(arguments)
        return commands[options.subcommand][1](options)

    main(prog, run)


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to end. Its text is the signal's name."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number  # a shell's


def on_stop(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    """Call `handler` at Ctrl-C, SIGTERM, and SIGHUP, which comes when the terminal closes.

    What this process was started to ignore stays ignored: SIGHUP by nohup, SIGINT in a script's background.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def interrupt_on_signals() -> None:
    """Raise Interrupted at the signals of `on_stop`. One that comes within a second of another is ignored: it
    would interrupt the clean-up that the first has begun."""
    last = -inf

    def interrupt(number: int, _frame: Any) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last > before + 1:
            raise Interrupted(number)

    on_stop(interrupt)


@contextmanager
def importing() -> Iterator[None]:
    """Let a signal end the process at once during the `with` block, which imports what takes seconds before a
    command begins. An import may lose an exception that a signal raises in it; torch's does."""
    on_stop(signal.SIG_DFL)
    try:
        yield
    finally:
        interrupt_on_signals()


def main(prog: str, command: Callable[[list[str]], int | None]) -> None:
    """Call `command` with the command line's arguments and exit with the code that it returns.

    What ends it early is one line on stderr, but for a reader of stdout that has read enough (`| head`). The
    code is 2 for a UserError, a lack of memory, or a file that cannot be read or written, such as stdout on a
    full disk, and 128 + its number for a signal. A bug keeps its traceback.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by the shell
        stream.reconfigure(errors="backslashreplace")  # no character ends a job, whatever the terminal knows
    interrupt_on_signals()
    code = _exit_code(prog, command)
    try:
        sys.stdout.flush()
    except OSError as error:  # Python would report it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or _report(prog, error)
    sys.exit(code)


def _exit_code(prog: str, command: Callable[[list[str]], int | None]) -> int | None:
    """Return the code that `command` returns or exits with, or that of the error that ends it."""
    try:
        return command(sys.argv[1:])
    except SystemExit as ended:  # --help
        return ended.code
    except (UserError, MemoryError, RuntimeError, OSError, KeyboardInterrupt) as error:
        return _report(prog, error)


def _report(prog: str, error: BaseException) -> int:
    """Print the line of `error`, and return the exit code. Raise it if it is a bug."""
    code, text = 2, one_line(error)
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    if isinstance(error, KeyboardInterrupt):
        code, text = getattr(error, "exit_code", 128 + signal.SIGINT), f"stopped by {text or 'SIGINT'}"
    elif is_out_of_memory(error):
        text = f"out of memory, use smaller batches or images ({text})"
    elif isinstance(error, OSError):
        text = ": ".join(str(part) for part in (error.filename, error.strerror or text) if part)
    elif not isinstance(error, UserError):
        raise error
    print(f"{prog}: {text}", file=sys.stderr)
    return code
