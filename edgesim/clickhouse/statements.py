"""Just enough SQL: where statements end, what kind one is, where its FORMAT and its data are.

Everything is looked for in a masked copy in which quoted text and comments are blanks, so a ``;``
or a FORMAT inside a string is never taken for one.  The database parses; this only cuts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from edgesim.errors import ClickHouseError

BAD_ARGUMENTS = 36
READ_KINDS = {"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN"}

_OPAQUE = re.compile(
    r"'(?:\\.|''|[^'\\])*'|\"(?:\\.|\"\"|[^\"\\])*\"|`(?:\\.|``|[^`\\])*`"
    r"|--[^\n]*|#[ !][^\n]*|/\*.*?\*/",
    re.DOTALL,
)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT_FORMAT = re.compile(r"\bFORMAT\s+(\w+)[ \t]*(?:\r?\n|\s|;|$)", re.IGNORECASE)
_INSERT_BODY = re.compile(r"\b(?:SELECT|WITH|VALUES|FORMAT)\b", re.IGNORECASE)
_SELECT = re.compile(r"\b(?:SELECT|WITH)\b", re.IGNORECASE)
_SETTINGS = re.compile(r"\bSETTINGS\b", re.IGNORECASE)
_INPUT = re.compile(r"\binput\s*\(", re.IGNORECASE)
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Insert(msgspec.Struct, frozen=True):
    """An INSERT with data: the statement up to FORMAT, the format, data that came in the SQL."""

    head: str
    format: str
    inline: str


def masked(sql: str) -> str:
    """The SQL with the inside of strings, quoted names and comments blanked, positions kept."""
    return _OPAQUE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), sql)


def split(sql: str) -> list[str]:
    """The statements of a script, without their semicolons and without empty ones."""
    mask = masked(sql)
    ends = [found.start() for found in re.finditer(";", mask)] + [len(sql)]
    starts = [0] + [end + 1 for end in ends]
    pieces = [(sql[start:end], mask[start:end]) for start, end in zip(starts, ends, strict=False)]
    return [piece.strip() for piece, blank in pieces if blank.strip()]


def kind(sql: str) -> str:
    """The first word, in capitals; "" for nothing but comments."""
    words = masked(sql).lstrip(" \t\r\n(").split(None, 1)
    return words[0].upper().rstrip("(") if words else ""


def as_insert(sql: str) -> Insert | None:
    """The parts of an INSERT whose rows come as data in some FORMAT; None for all else."""
    if kind(sql) != "INSERT":
        return None
    found = _INSERT_FORMAT.search(masked(sql))
    if found is None:
        return None
    return Insert(sql[: found.start()].rstrip(), found[1], sql[found.end() :])


def brings_rows(sql: str) -> bool:
    """Whether it is an INSERT whose rows come with it (VALUES, FORMAT), not from a SELECT."""
    return kind(sql) == "INSERT" and _SELECT.search(masked(sql)) is None


def cut_format(sql: str) -> tuple[str, str | None]:
    """The statement without a trailing FORMAT, and that format."""
    found = _FORMAT.search(masked(sql))
    if found is None:
        return sql.rstrip().rstrip(";"), None
    return sql[: found.start()].rstrip(), found[1]


def with_settings(sql: str, settings: Mapping[str, str]) -> str:
    """The statement (no FORMAT) with a SETTINGS clause where its kind has one.

    Statements that only read and know no such clause go without.  ClickHouseError for a setting
    that is no setting, or a statement that could not honour it.
    """
    if not settings:
        return sql
    clause = ", ".join(f"{_checked(name)} = {quoted(value)}" for name, value in settings.items())
    what = kind(sql)
    mask = masked(sql)
    if what == "INSERT":
        body = _INSERT_BODY.search(mask)
        at = body.start() if body else len(sql)
        existing = _SETTINGS.search(mask, 0, at)
        if existing:
            return f"{sql[: existing.end()]} {clause},{sql[existing.end() :]}"
        return f"{sql[:at].rstrip()} SETTINGS {clause} {sql[at:]}".rstrip()
    if what in {"SELECT", "WITH"}:
        existing_all = list(_SETTINGS.finditer(mask))
        joint = ", " if existing_all else " SETTINGS "
        return f"{sql}{joint}{clause}"
    if what in READ_KINDS:
        return sql
    raise ClickHouseError(
        BAD_ARGUMENTS, f"settings are not supported with {what} here: {', '.join(settings)}"
    )


def replace_input(head: str, source: str) -> str | None:
    """input(structure) replaced by ``source`` with {structure} filled in; None without input."""
    found = _INPUT.search(masked(head))
    if found is None:
        return None
    structure = _OPAQUE.match(head, _skip_space(head, found.end()))
    if structure is None:
        raise ClickHouseError(BAD_ARGUMENTS, "input() needs its structure as a string")
    close = head.index(")", structure.end())
    return head[: found.start()] + source.replace("{structure}", structure[0]) + head[close + 1 :]


def quoted(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _checked(name: str) -> str:
    if not _SETTING_NAME.fullmatch(name):
        raise ClickHouseError(BAD_ARGUMENTS, f"{name!r} is not the name of a setting")
    return name


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
