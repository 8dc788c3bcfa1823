"""What every command of Salon shares: dataclasses become options, mistakes become one line, and what two
would write at once is one's at a time."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from math import inf

import jsonargparse
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt, restricted_number_type

from judge.common.errors import UserError, is_out_of_memory, one_line

# The docstring under a dataclass field is its option's help.
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

Weight = restricted_number_type("Weight", float, [(">=", 0), ("<", inf)])  # a loss weight
LearningRate = restricted_number_type("Rate", float, [(">", 0), ("<", inf)])  # a learning rate
Beta = restricted_number_type("Decay", float, [(">=", 0), ("<", 1)])  # of a moving average
Fraction = restricted_number_type("Share", float, [(">", 0), ("<=", 1)])  # a part of a whole


@dataclass(frozen=True)
class ThreadOptions:
    """The option of every command that computes for long."""

    threads: PositiveInt | None = None
    """CPU threads; by default as many as cores, and one in a trial that a search starts. Commands at
    once x threads must not pass the cores: threads that wait for each other take them in vain."""


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the line breaks of descriptions alone."""


class Parser(jsonargparse.ArgumentParser):
    """A parser whose options read `--cycle-weight` for a field `cycle_weight`, and that raises."""

    def __init__(self, description: str = "", **options):
        super().__init__(
            description=description, formatter_class=Help, exit_on_error=False, **options
        )

    def add_argument(self, *names, **options):
        dashed = [name.replace("_", "-") if name.startswith("--") else name for name in names]
        return super().add_argument(*dashed, **options)

    def add_fields(self, cls: type) -> None:
        """An option for each field of the dataclass `cls`, with its type, default and docstring."""
        self.add_class_arguments(cls, as_group=False)
        for action in self._actions:
            if getattr(action, "_typehint", None) is bool:  # `--keep` alone says yes
                action.nargs, action.const = "?", True


@cache
def parser_for(Settings: type) -> Parser:
    """What reads values by name; to make it takes longer than to use it, which a check does often."""
    parser = Parser()
    parser.add_fields(Settings)
    return parser


def from_namespace(cls: type, options: Namespace):
    """An instance of the dataclass `cls` from the options that `Parser.add_fields` added."""
    return cls(**{field.name: plain_number(options[field.name]) for field in fields(cls)})


def plain_number(value):
    """A number of a restricted type (`Weight`) as a mere int or float: files hold no others."""
    for base in (bool, int, float):
        if isinstance(value, base):
            return base(value)
    return value


def subcommands(prog: str, description: str, commands: dict[str, tuple[Callable, Callable]]) -> None:
    """Run one of `commands`, each a pair: what adds its options, and what does it."""
    parser = Parser(description, prog=prog)
    choices = parser.add_subcommands()
    for name, (add_options, command) in commands.items():
        choice = Parser(command.__doc__)
        add_options(choice)
        choices.add_subcommand(name, choice, help=command.__doc__.split("\n")[0])

    def chosen(arguments: list[str]) -> int | None:
        options = parser.parse_args(arguments)
        return commands[options.subcommand][1](options[options.subcommand])

    main(prog, chosen)


def main(prog: str, command: Callable[[list[str]], int | None]) -> None:
    """Call `command` with the command line's arguments and exit with what it returns.

    A `UserError`, a wrong option or want of memory ends in one line on stderr and exit code 2; Ctrl-C
    in 130.
    """
    arguments = [re.sub(r"^--\w+", lambda m: m[0].replace("_", "-"), a) for a in sys.argv[1:]]
    try:
        code = command(arguments)
    except (UserError, argparse.ArgumentError) as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{prog}: out of memory: give it less at once ({one_line(error)})", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # `| head` has read enough: Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)
