"""Argument parser whose errors are one line, with the most similar option or choice."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from edgesim.cli.output import complain
from edgesim.errors import UsageError

_CHOICES = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)\Z", re.DOTALL)
_OPTION = re.compile(r"--[a-z][a-z0-9-]*")


class Parser(argparse.ArgumentParser):
    """Parser of the command, and of every subcommand: argparse makes those of the same class."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.set_defaults(parser=self)  # the innermost subcommand's is the one that stays

    def parse(self, words: Sequence[str] | None) -> argparse.Namespace:
        """Parse the words of a command line; exit with status 2 if they are not valid."""
        arguments, unknown = self.parse_known_args(words)
        if unknown:
            parser: Parser = arguments.parser
            parser.error(f"unrecognized argument {unknown[0]!r}{parser.hint(unknown[0])}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage, which can be longer than a screen, and exit."""
        message = message.replace("invalid int value: ", "not a whole number: ")
        wrong = _CHOICES.search(message)
        if wrong is not None:
            word, known = wrong[1], re.findall(r"[\w-]+", wrong[2])
            choices = f" (choose from {', '.join(known)}){did_you_mean(word, known)}"
            message = f"{message[: wrong.start()]}invalid choice {word!r}{choices}"
        more = "" if message.endswith("?") else f"; `{self.prog} --help` lists the arguments"
        complain(f"{self.prog}: {message}{more}")
        raise SystemExit(UsageError.exit_code)

    def option_of(self, name: str) -> str:
        """The option that sets an attribute, with a blank; empty for a positional argument."""
        option = f"--{name.replace('_', '-')}"
        return f"{option} " if option in _OPTION.findall(self.format_help()) else ""

    def hint(self, option: str) -> str:
        """Suggest the option of this parser that is most similar."""
        known = _OPTION.findall(self.format_help())
        return did_you_mean(option.partition("=")[0], known)


class ShowVersion(argparse.Action):
    """Prints the version, which is read from the installed package only then."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, nargs=0)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"edgesim {version('edgesim')}")
        parser.exit()


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The suggestion of the most similar known word, to follow a message; empty without one."""
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
