"""Checks that refuse statements to the embedded engine, because all Workers share it.

The engine's user has every right and none can be revoked, and its settings cannot be constrained.
So each statement is checked before it runs, token by token as the engine reads it
(``statements.tokens``).

Files: the kernel limits the engine to its database's folder, but that holds the metadata of every
table, and one bad file there keeps the engine from starting.  So what can be given a path is
refused: table engines and functions other than those listed here, disks, and three settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec

from edgesim.clickhouse import statements
from edgesim.clickhouse.chdb.limits import StatementLimits, lower
from edgesim.clickhouse.chdb.paths import ACCESS_DENIED, check_paths
from edgesim.errors import ClickHouseError

_HARMLESS_SYSTEM = {"FLUSH", "SYNC", "RELOAD", "WAIT"}
_SYSTEM = "SYSTEM {} is refused: it would stop or change the engine that all Workers share"
_KILL = "KILL QUERY is refused: a statement ends when its client leaves, or with its time"
_REFRESH = "REFRESH is refused: no limit holds what runs in the background; use a cron trigger"
_SOURCE = "a dictionary's SOURCE({}) is refused: no limit holds what it loads in the background"
_SCHEDULING = "{} {} is refused: it would schedule the statements of all Workers"
_OF_THE_ENGINE = "{} {} is refused: without that database the engine answers no Worker any more"
_DIALECT = "{} is refused: statements are read as ClickHouse's own SQL"
_FUNCTION = "the embedded engine writes no files of others: insert into a table, not into {}()"
_PATH = "the embedded engine gives tables their own files: leave out the path of ENGINE = {}"
_ENGINE = "the embedded engine opens no files or servers of others: ENGINE = {} is refused"
_PLACE = "the embedded engine gives tables their own files: {} is refused"
_SETTING = "the setting {} is refused: it would write or rename a file by its path"
_UNREADABLE = "Syntax error: the character U+{:04X} at position {} is not SQL"
_BEGINNING = "Syntax error: a statement does not begin with {}"

_FILE_SETTINGS = {
    "input_format_record_errors_file_path",
    "output_format_schema",
    "rename_files_after_processing",
}
_OWN_ENGINES = {
    *("ALIAS", "ATOMIC", "BUFFER", "DICTIONARY", "EMBEDDEDROCKSDB", "FILE", "FUZZJSON"),
    *("FUZZQUERY", "GENERATERANDOM", "JOIN", "LOG", "LOOP", "MATERIALIZEDVIEW", "MEMORY", "MERGE"),
    *("NULL", "ORDINARY", "SET", "STRIPELOG", "TIMESERIES", "TINYLOG", "VIEW", "WINDOWVIEW"),
}
"""Engines of tables and databases that keep their data in the database, with all of MergeTree's."""
_TAKING_PATHS = {"FILE", "EMBEDDEDROCKSDB"}
_OWN_FUNCTIONS = {
    *("DICTIONARY", "GENERATERANDOM", "GENERATESERIES", "GENERATE_SERIES", "MERGE", "NULL"),
    *("NUMBERS", "NUMBERS_MT", "PRIMES", "VALUES", "VIEW", "ZEROS", "ZEROS_MT"),
}
"""Table functions that a table can be made from: none of them takes a path."""
_AFTER_A_COLUMN = {
    *("AS", "ASC", "COMMENT", "DESC", "EMPTY", "FROM", "ORDER", "PARTITION", "POPULATE", "PRIMARY"),
    *("SAMPLE", "SETTINGS", "TTL"),
}
"""Words after a column called ``engine``; no engine has such a name."""
_DEFINING = {"ALTER", "ATTACH", "CREATE", "DELETE", "DETACH", "DROP", "EXCHANGE", "MOVE", "RENAME"}
_DEFINING |= {"REPLACE", "TRUNCATE", "UNDROP", "UPDATE"}
_WITH_ENGINE = {"ATTACH", "CREATE", "REPLACE"}
_ENGINE_DATABASES = {"SYSTEM", "INFORMATION_SCHEMA"}
_ENDS_TARGET = {"AS", "SELECT", "ENGINE", "("}
_MINUS = "\u2212"
_QUOTES = {"'", "$", "\u2018"}


class _Word(NamedTuple):
    """A token in capitals: ``name`` is without quotes, ``keyword`` is "" for a quoted token."""

    name: str
    keyword: str


def check(
    sql: str, limits: StatementLimits, settings: dict[str, str], database: str | None
) -> None:
    """Raise ClickHouseError for a statement that would harm the engine or lift its limits.

    ``sql`` is without the data of an INSERT; ``settings`` and ``database`` are the request's.
    """
    for name in settings:
        if "dialect" in name.lower():
            raise ClickHouseError(ACCESS_DENIED, _DIALECT.format(name))
        _check_setting(name)
    words = list(_words(sql, settings))
    _check_targets(words)
    check_paths(sql)
    for part in _parallel(words):
        match [each.keyword for each in part[:2]]:
            case ["SYSTEM", what] if what not in _HARMLESS_SYSTEM:
                raise ClickHouseError(ACCESS_DENIED, _SYSTEM.format(part[1].name))
            case ["KILL", "QUERY"]:
                raise ClickHouseError(ACCESS_DENIED, _KILL)
            case [what, *_] if what in _DEFINING:
                _check_kind(part)
                _check_places(part)
                _check_databases(part, database)
    _check_settings(words, limits)


def _words(sql: str, settings: dict[str, str]) -> Iterator[_Word]:
    """Yield the tokens; an identifier parameter as the name that it stands for."""
    words = [_word(token) for token in statements.tokens(sql)]
    if words and not (words[0].keyword == "(" or words[0].keyword[:1].isidentifier()):
        # chdb 26 accepts `! INSERT ...` and does nothing.
        problem = _BEGINNING.format(words[0].name[:20] or "a quoted name")
        raise ClickHouseError(statements.SYNTAX_ERROR, problem)
    at = 0
    while at < len(words):
        match [each.keyword for each in words[at : at + 5]]:
            case ["{", name, ":", "IDENTIFIER", "}"]:
                yield _Word(_parameter(name, settings), "")
                at += 5
            case _:
                yield words[at]
                at += 1


def _word(token: statements.Token) -> _Word:
    if token.kind == "quoted" and token.text[0] in '`"\u201c':
        return _Word(_unquoted(token.text).upper(), "")
    if token.kind in {"word", "sign"}:
        for at, char in enumerate(token.text, token.start + 1):
            if not ("!" <= char <= "~" or char == _MINUS):
                problem = _UNREADABLE.format(ord(char), at)
                raise ClickHouseError(statements.SYNTAX_ERROR, problem)
    return _Word(token.text, token.text)


def _unquoted(name: str) -> str:
    return name[1:-1] if name[0] == "\u201c" else statements.unquoted(name)


def _parameter(name: str, settings: dict[str, str]) -> str:
    """Return a query parameter's value in capitals; with escapes, "SYSTEM", so that it is refused.

    The engine would resolve the escapes.
    """
    values = {key.upper(): value for key, value in settings.items()}
    value = values.get(f"PARAM_{name}", "")
    return "SYSTEM" if "\\" in value else value.upper()


def _parallel(words: list[_Word]) -> Iterator[list[_Word]]:
    """Yield the statements that PARALLEL WITH joins."""
    start = 0
    for at in range(len(words)):
        if [each.keyword for each in words[at : at + 2]] == ["PARALLEL", "WITH"]:
            yield words[start:at]
            start = at + 2
    yield words[start:]


def _check_targets(words: list[_Word]) -> None:
    """Refuse writes to anything but a table; an INSERT may follow WITH, an export ALTER."""
    for at, (before, word) in enumerate(pairwise(words)):
        match before.keyword, word.keyword:
            case "INTO", "OUTFILE":
                raise ClickHouseError(ACCESS_DENIED, _PLACE.format("INTO OUTFILE"))
            case "INSERT" | "INTO" | "TABLE", "FUNCTION" if function := _call(words, at + 2):
                if function != "NULL":
                    raise ClickHouseError(ACCESS_DENIED, _FUNCTION.format(function.lower()))


def _call(words: list[_Word], at: int) -> str:
    """Return the name of the function called at this position; "" if there is no call."""
    called = len(words) > at + 1 and words[at + 1].keyword == "("
    return words[at].name if called else ""


def _check_kind(words: list[_Word]) -> None:
    """Refuse workloads and resources, and dictionaries that load from somewhere.

    Both outlive the statement, and the engine's restart.
    """
    kinds = [word.keyword for word in words[1:] if word.keyword not in {"OR", "REPLACE"}][:1]
    if kinds in (["WORKLOAD"], ["RESOURCE"]):
        raise ClickHouseError(ACCESS_DENIED, _SCHEDULING.format(words[0].keyword, kinds[0]))
    if kinds == ["DICTIONARY"]:
        for word, bracket, source in zip(words, words[1:], words[2:], strict=False):
            if (word.keyword, bracket.keyword) == ("SOURCE", "(") and source.name != "NULL":
                raise ClickHouseError(ACCESS_DENIED, _SOURCE.format(source.name))


def _check_places(words: list[_Word]) -> None:
    """Refuse definitions of objects that take a path, or that run by a schedule."""
    for word, after in pairwise(words):
        match word.keyword, after.keyword:
            case "REFRESH", "EVERY" | "AFTER":
                raise ClickHouseError(ACCESS_DENIED, _REFRESH)
            case "DISK", "(":
                raise ClickHouseError(ACCESS_DENIED, _PLACE.format("a disk of its own"))
            case ("SSD_CACHE" | "COMPLEX_KEY_SSD_CACHE") as layout, "(":
                raise ClickHouseError(ACCESS_DENIED, _PLACE.format(f"LAYOUT({layout})"))
            case "FROM", path if words[0].keyword == "ATTACH" and path[:1] in _QUOTES:
                raise ClickHouseError(ACCESS_DENIED, _PLACE.format("ATTACH ... FROM a path"))
    if words[0].keyword in _WITH_ENGINE:
        _check_engines(words)


def _check_engines(words: list[_Word]) -> None:
    for at in _head(words):
        if words[at].keyword == "AS":
            function = _call(words, at + 1)
            if function.isidentifier() and function not in _OWN_FUNCTIONS:
                raise ClickHouseError(ACCESS_DENIED, _PLACE.format(f"AS {function.lower()}()"))
        elif words[at].keyword == "ENGINE":
            rest = words[at + 1 :]
            rest = rest[1:] if rest and rest[0].keyword == "=" else rest
            _check_engine(rest)


def _head(words: list[_Word]) -> Iterator[int]:
    """Yield the positions outside of brackets, up to a SELECT."""
    depth = 0
    for at, word in enumerate(words):
        depth += (word.keyword == "(") - (word.keyword == ")")
        if depth == 0 and word.keyword in {"SELECT", "WITH"}:
            return
        if depth == 0:
            yield at


def _check_engine(words: list[_Word]) -> None:
    """``words`` follow ENGINE, which may also be a column."""
    name = words[0].name if words else ""
    if not name.isidentifier() or words[0].keyword in _AFTER_A_COLUMN:
        return
    if name not in _OWN_ENGINES and not name.endswith("MERGETREE"):
        raise ClickHouseError(ACCESS_DENIED, _ENGINE.format(name))
    if name in _TAKING_PATHS and _call(words, 0) and _has_comma(words[1:]):
        raise ClickHouseError(ACCESS_DENIED, _PATH.format(name))


def _has_comma(words: list[_Word]) -> bool:
    """Return True if there is a comma before the first bracket of these closes."""
    depth = 0
    for word in words:
        depth += (word.keyword == "(") - (word.keyword == ")")
        if depth == 0 or word.keyword == ",":
            return depth > 0
    return False


def _check_databases(words: list[_Word], current: str | None) -> None:
    """Refuse a statement that defines or removes something in the engine's own databases."""
    ends = [at for at, word in enumerate(words) if word.keyword in _ENDS_TARGET]
    words = words[: ends[0] if ends else None]
    what = words[0].keyword
    whole = what != "CREATE" and any(w.keyword in {"DATABASE", "TABLES"} for w in words[1:4])
    protected = _ENGINE_DATABASES | ({"DEFAULT"} if what in {"DETACH", "DROP", "RENAME"} else set())
    named = [
        word.name
        for word, after in zip(words, [*words[1:], _Word("", "")], strict=True)
        if (whole and word.name in protected)
        or (word.name in _ENGINE_DATABASES and after.keyword == ".")
    ]
    if current is not None and current.upper() in _ENGINE_DATABASES:
        named.append(current)
    if named:
        raise ClickHouseError(ACCESS_DENIED, _OF_THE_ENGINE.format(what, named[0].lower()))


def _check_setting(name: str) -> None:
    if name.lower() in _FILE_SETTINGS:
        raise ClickHouseError(ACCESS_DENIED, _SETTING.format(name.lower()))


def _check_settings(words: list[_Word], limits: StatementLimits) -> None:
    """Refuse a SETTINGS clause that raises a limit, names a file, or sets ``log_comment``.

    The watchdog finds a statement by its tag in ``log_comment``.
    """
    bounds: dict[str, float] = msgspec.structs.asdict(limits)
    inside = False
    for name, sign, value in zip(words, words[1:], words[2:], strict=False):
        inside = inside or name.keyword == "SETTINGS"
        if sign.keyword != "=":
            continue
        _check_setting(name.name)
        setting = name.name.lower()
        if inside and setting == "log_comment":
            problem = "log_comment is a parameter of the request here, not of the statement"
            raise ClickHouseError(statements.BAD_ARGUMENTS, problem)
        if inside and setting in bounds:
            lower(setting, value.name.strip("'"), bounds[setting], strict=True)
