"""Tokens of SQL text, with their positions; comments and white space are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

Kind = Literal["word", "quoted", "string", "number", "symbol"]

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+ | --[^\n]* | /\*.*?\*/)
  | (?P<string>[XxEeNn]?'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")*" | `[^`]*`)
  | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)? | \.\d+(?:[eE][+-]?\d+)?)
  | (?P<word>[^\W\d]\w*)
  | (?P<symbol>->> | -> | :: | \|\| | <=> | <= | >= | <> | << | >> | <@ | @> | == | => | && | != |
      !~~\* | !~~ | !~\* | !~ | ~~\* | ~~ | ~\* | \S)
    """,
    re.VERBOSE | re.DOTALL,
)


class SqlError(ValueError):
    """An error in SQL text, at a line and a column counted from 1."""

    def __init__(self, place: tuple[int, int], problem: str) -> None:
        super().__init__(f"line {place[0]}, column {place[1]}: {problem}")
        self.place = place
        self.problem = problem


class SqlToken(msgspec.Struct, frozen=True):
    """A token; ``start`` and ``end`` are its place in the text, ``place`` is line and column."""

    kind: Kind
    text: str
    start: int
    end: int
    place: tuple[int, int]

    def is_word(self, *words: str) -> bool:
        """True for one of the keywords, in any case; a quoted identifier is none."""
        return self.kind == "word" and self.text.upper() in words

    def is_symbol(self, *symbols: str) -> bool:
        """True for one of the symbols."""
        return self.kind == "symbol" and self.text in symbols

    @property
    def is_name(self) -> bool:
        """True if the token can be an identifier."""
        return self.kind in {"word", "quoted"}

    @property
    def name(self) -> str:
        """The identifier: without quotes, or in lower case, as SQL reads it."""
        if self.kind == "quoted":
            quote = self.text[0]
            return self.text[1:-1].replace(quote * 2, quote)
        return self.text.lower()


def tokens_of(text: str) -> list[SqlToken]:
    """The tokens of the text; SqlError at a quote or a comment without an end."""
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[SqlToken]:
    line, line_start = 1, 0
    for match in _TOKEN.finditer(text):
        kind, found = match.lastgroup, match.group()
        place = (line, match.start() - line_start + 1)
        if kind == "symbol" and found in "'\"`":
            raise SqlError(place, f"the quote {found} has no end")
        if kind == "symbol" and found == "/" and text.startswith("/*", match.start()):
            raise SqlError(place, "the comment has no end")
        if kind != "blank":
            yield SqlToken(kind, found, match.start(), match.end(), place)  # type: ignore[arg-type]  # a group of the pattern
        if newlines := found.count("\n"):
            line += newlines
            line_start = match.start() + found.rindex("\n") + 1
