"""Checks that refuse statements to the embedded engine, because all Workers share it.

The engine's user has every right and none can be revoked, and its settings cannot be constrained.
So each statement is checked before it runs, token by token as the engine reads it
(``statements.tokens``).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edgesim.clickhouse import statements
from edgesim.clickhouse.chdb.limits import StatementLimits, lower
from edgesim.errors import ClickHouseError

ACCESS_DENIED = 497
_HARMLESS_SYSTEM = {"FLUSH", "SYNC", "RELOAD", "WAIT"}
_SYSTEM = "SYSTEM {} is refused: it would stop or change the engine that all Workers share"
_KILL = "KILL QUERY is refused: a statement ends when its client leaves, or with its time"
_REFRESH = "REFRESH is refused: no limit holds what runs in the background; use a cron trigger"
_OF_THE_ENGINE = "{} {} is refused: without that database the engine answers no Worker any more"
_DIALECT = "{} is refused: statements are read as ClickHouse's own SQL"
_FUNCTION = "the embedded engine writes no files of others: insert into a table"
_FILE_FUNCTIONS = {"FILE", "FILECLUSTER", "SQLITE", "EXECUTABLE"}
_PATH = "the embedded engine gives tables their own files: leave out the path of ENGINE = {}"
_FILE_ENGINES = {"FILE", "LOG", "TINYLOG", "STRIPELOG", "SQLITE", "EMBEDDEDROCKSDB", "FILELOG"}
_DEFINING = {"ALTER", "ATTACH", "CREATE", "DELETE", "DETACH", "DROP", "EXCHANGE", "MOVE", "RENAME"}
_DEFINING |= {"REPLACE", "TRUNCATE", "UNDROP", "UPDATE"}
_ENGINE_DATABASES = {"SYSTEM", "INFORMATION_SCHEMA"}
_ENDS_TARGET = {"AS", "SELECT", "ENGINE", "("}


def check(
    sql: str, limits: StatementLimits, settings: dict[str, str], database: str | None
) -> None:
    """Raise ClickHouseError for a statement that would harm the engine or lift its limits.

    ``sql`` is without the data of an INSERT; ``settings`` and ``database`` are the request's.
    """
    for name in settings:
        if "dialect" in name.lower():
            raise ClickHouseError(ACCESS_DENIED, _DIALECT.format(name))
    words = list(_words(sql, settings))
    for part in _parallel(words):
        match part:
            case ["SYSTEM", what, *_] if what not in _HARMLESS_SYSTEM:
                raise ClickHouseError(ACCESS_DENIED, _SYSTEM.format(what))
            case ["KILL", "QUERY", *_]:
                raise ClickHouseError(ACCESS_DENIED, _KILL)
            case ["INSERT", *_] if _target_function(part) in _FILE_FUNCTIONS:
                raise ClickHouseError(ACCESS_DENIED, _FUNCTION)
            case [what, *_] if what in _DEFINING:
                _check_engine(part)
                _check_databases(part, database)
    _check_settings(words, limits)


def _words(sql: str, settings: dict[str, str]) -> Iterator[str]:
    """Yield the tokens in capitals: names unquoted, identifier parameters as their values."""
    texts: list[str] = []
    for token in statements.tokens(sql):
        is_name = token.kind == "quoted" and token.text[0] in '`"\u201c'
        texts.append(_unquoted(token.text).upper() if is_name else token.text)
    at = 0
    while at < len(texts):
        match texts[at : at + 5]:
            case ["{", name, ":", "IDENTIFIER", "}"]:
                yield _parameter(name, settings)
                at += 5
            case [text, *_]:
                yield text
                at += 1


def _unquoted(name: str) -> str:
    return name[1:-1] if name[0] == "\u201c" else statements.unquoted(name)


def _parameter(name: str, settings: dict[str, str]) -> str:
    """Return a query parameter's value in capitals; with escapes, "SYSTEM", so that it is refused.

    The engine would resolve the escapes.
    """
    values = {key.upper(): value for key, value in settings.items()}
    value = values.get(f"PARAM_{name}", "")
    return "SYSTEM" if "\\" in value else value.upper()


def _parallel(words: list[str]) -> Iterator[list[str]]:
    """Yield the statements that PARALLEL WITH joins."""
    start = 0
    for at in range(len(words)):
        if words[at : at + 2] == ["PARALLEL", "WITH"]:
            yield words[start:at]
            start = at + 2
    yield words[start:]


def _target_function(words: list[str]) -> str:
    """Return the table function that an INSERT writes to; "" for a table."""
    rest = [each for each in words[1:5] if each not in {"INTO", "TABLE"}]
    return rest[1] if rest[:1] == ["FUNCTION"] and len(rest) > 1 else ""


def _check_engine(words: list[str]) -> None:
    for at, word in enumerate(words):
        rest = [each for each in words[at + 1 : at + 8] if each != "="]
        if word == "REFRESH" and rest[:1] in (["EVERY"], ["AFTER"]):
            raise ClickHouseError(ACCESS_DENIED, _REFRESH)
        is_file = word == "ENGINE" and rest[:1] and rest[0] in _FILE_ENGINES
        if is_file and rest[1:2] == ["("] and "," in rest:
            raise ClickHouseError(ACCESS_DENIED, _PATH.format(rest[0]))


def _check_databases(words: list[str], current: str | None) -> None:
    """Refuse a statement that defines or removes something in the engine's own databases."""
    ends = [at for at, word in enumerate(words) if word in _ENDS_TARGET]
    words = words[: ends[0] if ends else None]
    whole = bool({"DATABASE", "TABLES"} & set(words[1:4])) and words[0] != "CREATE"
    protected = _ENGINE_DATABASES | (
        {"DEFAULT"} if words[0] in {"DETACH", "DROP", "RENAME"} else set()
    )
    named = [
        word
        for at, word in enumerate(words)
        if (whole and word in protected)
        or (word in _ENGINE_DATABASES and words[at + 1 : at + 2] == ["."])
    ]
    if current is not None and current.upper() in _ENGINE_DATABASES:
        named.append(current)
    if named:
        raise ClickHouseError(ACCESS_DENIED, _OF_THE_ENGINE.format(words[0], named[0].lower()))


def _check_settings(words: list[str], limits: StatementLimits) -> None:
    """Refuse a SETTINGS clause that raises a limit or sets ``log_comment`` (the watchdog's tag)."""
    bounds: dict[str, float] = msgspec.structs.asdict(limits)
    inside = False
    for name, sign, value in zip(words, words[1:], words[2:], strict=False):
        inside = inside or name == "SETTINGS"
        if not inside or sign != "=":
            continue
        setting = name.lower()
        if setting == "log_comment":
            problem = "log_comment is a parameter of the request here, not of the statement"
            raise ClickHouseError(statements.BAD_ARGUMENTS, problem)
        if setting in bounds:
            lower(setting, value.strip("'"), bounds[setting], strict=True)
