"""Command lines: the fields of a dataclass become options, a user's mistake becomes one line.

    @dataclass(frozen=True)
    class Options:
        lr: LearningRate = 1e-3
        '''Peak learning rate.'''          # the option's help

    parser = Parser("What the command does.")
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
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from math import inf
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from judge.common.errors import UserError, is_out_of_memory, one_line


class Range(NamedTuple):
    """The numbers that an option takes."""

    words: str
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


@dataclass(frozen=True)
class ThreadOptions:
    """The option of every command that computes for long."""

    threads: PositiveInt | None = None
    """CPU threads; by default one per core, and one in a trial that a search starts. Keep (commands at once) x
    threads within the number of cores: threads that wait for each other slow everything down."""


# ---------------------------------------------------------------------------------------------
# Values


def convert(value: Any, hint: Any, is_text: bool) -> Any:
    """Return `value` as the type `hint`.

    Args:
        hint: str, int, float, bool, Path, a Literal, one of the number types above, or one of them `| None`.
        is_text: whether `value` is a word of a command line; in JSON, no string stands for a number.

    Raises:
        ValueError: it does not fit; the text says what is expected.
    """
    options = get_args(hint)
    if get_origin(hint) is Annotated:
        base, allowed = options
        try:
            number = convert(value, base, is_text)
        except ValueError:
            number = None
        if number is None or not allowed.contains(number):
            raise ValueError(allowed.words)
        return number
    if NoneType in options:
        (inner,) = (option for option in options if option is not NoneType)
        return None if value is None else convert(value, inner, is_text)
    if get_origin(hint) is Literal:
        if value not in options:
            raise ValueError(f"one of {', '.join(map(str, options))}")
        return value
    return _convert_plain(value, hint, is_text)


def _convert_plain(value: Any, kind: type, is_text: bool) -> Any:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}[kind]
    if kind is bool:
        value = {"true": True, "false": False}.get(str(value).lower()) if is_text else value
    elif kind in (int, float) and is_text:
        try:
            value = kind(value)
        except ValueError:
            value = None
    accepted = {float: (float, int), Path: (str, Path)}.get(kind, kind)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(words)
    return kind(value)


def parse_values(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return JSON `values` as the types that the fields of the dataclass `cls` have.

    Raises:
        UserError: a name is no field, or a value does not fit.
    """
    hints, parsed = get_type_hints(cls, include_extras=True), {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{name} is no setting; there are {', '.join(sorted(hints))}")
        try:
            parsed[name] = convert(value, hints[name], is_text=False)
        except ValueError as error:
            raise UserError(f"{name} is {value!r}, expected {error}") from None
    return parsed


# ---------------------------------------------------------------------------------------------
# Parsers


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the line breaks of descriptions alone."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reads `--cycle_weight` as `--cycle-weight`, and raises a UserError for a mistake."""

    def __init__(self, description: str = "", **options: Any):
        super().__init__(**{"description": description, "formatter_class": Help, "allow_abbrev": False, **options})

    def add_argument(self, *names: str, type: Any = None, **options: Any) -> argparse.Action:
        """As argparse, and `type` may be one of the number types above."""
        if type is not None:
            options["type"] = partial(_from_text, hint=type)
        return super().add_argument(*names, **options)

    def add_fields(self, cls: type) -> None:
        """Add an option for each field of the dataclass `cls`, with its type, default and docstring."""
        hints, helps = get_type_hints(cls, include_extras=True), field_docstrings(cls)
        for field in fields(cls):
            hint = hints[field.name]
            options = {"type": hint, "default": field.default, "help": helps[field.name].replace("%", "%%"),
                       "metavar": _metavar(hint)}  # fmt: skip
            if hint is bool:  # `--keep` alone means yes
                options |= {"nargs": "?", "const": True}
            if field.default is field.default_factory:  # both MISSING
                options |= {"default": None, "required": True}
            self.add_argument("--" + field.name.replace("_", "-"), **options)

    def parse_args(self, arguments: Sequence[str] | None = None, namespace: Namespace | None = None) -> Namespace:
        """As argparse; an option's underscores count as dashes.

        Raises:
            UserError: an option is unknown, missing or has a wrong value.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        dashed = [re.sub(r"^--\w+", lambda match: match[0].replace("_", "-"), word) for word in arguments]
        return super().parse_args(dashed, namespace)

    def error(self, message: str) -> None:
        """Raise what argparse would print with its usage."""
        raise UserError(message)


def _from_text(word: str, hint: Any) -> Any:
    try:
        return convert(word, hint, is_text=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r}, expected {error}") from None


def _metavar(hint: Any) -> str:
    """Return what stands for the value in the help text."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    while get_args(hint):
        hint = get_args(hint)[0]
    return {bool: "true|false", Path: "PATH"}.get(hint, hint.__name__.upper())


@cache
def field_docstrings(cls: type) -> dict[str, str]:
    """Return the text under each field of the dataclass `cls`, those of its parents included, by name."""
    found = {}
    for parent in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0].body
        for field, text in zip(body, body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(
                    text.value, ast.Constant):
                found[field.target.id] = " ".join(text.value.value.split())
    return {field.name: found.get(field.name, "") for field in fields(cls)}


def from_namespace(cls: type, options: Namespace) -> Any:
    """Return an instance of the dataclass `cls` made from the options that `Parser.add_fields` added."""
    return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


# ---------------------------------------------------------------------------------------------
# Running


def subcommands(prog: str, description: str, commands: dict[str, tuple[Callable, Callable]]) -> None:
    """Run one of `commands`, by name a pair of functions: one adds its options, the other runs it."""
    parser = Parser(description, prog=prog)
    choices = parser.add_subparsers(dest="subcommand", required=True)
    for name, (add_options, command) in commands.items():
        choice = choices.add_parser(name, description=command.__doc__, help=command.__doc__.split("\n")[0])
        add_options(choice)

    def run(arguments: list[str]) -> int | None:
        options = parser.parse_args(arguments)
        return commands[options.subcommand][1](options)

    main(prog, run)


def main(prog: str, command: Callable[[list[str]], int | None]) -> None:
    """Call `command` with the command line's arguments and exit with the code that it returns.

    A `UserError` or a lack of memory ends in one line on stderr and exit code 2; Ctrl-C in 130.
    """
    try:
        code = command(sys.argv[1:])
    except UserError as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{prog}: out of memory, reduce what it works on at once ({one_line(error)})", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # `| head` has read enough; Python would report it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)
