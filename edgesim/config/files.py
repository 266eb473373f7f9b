"""Reading configuration files, and their conversion to structs.

TOML is version 1.1 (multi-line inline tables), as in wrangler's parser; Python's tomllib reads 1.0.
A byte-order mark, which editors on Windows write, is skipped in every file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import tomli

from edgesim.config.choices import choices, known_keys
from edgesim.errors import ConfigError, hint

_SAFE_INTEGER_MAX = 2**53 - 1
_ANY_KEY = "[...]"
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_TYPES = {"object": "table", "array": "list"}
"""Words of msgspec's messages -> those of TOML and of the documentation."""
_TYPE = re.compile(r"\b(?:object|array)\b(?=[^`]*`)")
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[}\]])')


class InvalidKeyError(ValueError):
    """Raised by a struct during ``convert``: the key, relative to the struct, and the problem."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def is_file(path: Path) -> bool:
    """True if the path is a file; ConfigError if its folder must not be entered."""
    try:
        return path.is_file()
    except PermissionError as error:
        raise ConfigError(path, None, f"cannot be read: {error.strerror}") from error
    except OSError:  # a name that is too long
        return False


def read_text(file: Path) -> str:
    """The file as UTF-8, without a byte-order mark; ConfigError if it cannot be read."""
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(file, None, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(file, None, f"is not UTF-8 ({error}); save it as UTF-8") from error


def read_table(file: Path) -> dict[str, Any]:
    """A TOML, JSON or JSONC file as a dict; ConfigError with the line of a syntax error."""
    text = read_text(file)
    try:
        table = tomli.loads(text) if file.suffix == ".toml" else parse_jsonc(text)
    except (json.JSONDecodeError, tomli.TOMLDecodeError) as error:
        raise ConfigError(file, None, f"not valid {file.suffix[1:].upper()}: {error}") from error
    except RecursionError as error:
        raise ConfigError(file, None, "is nested too deeply; write it with fewer levels") from error
    except ValueError as error:  # Python converts no number of more than 4,300 digits
        raise ConfigError(file, None, "has a number of too many digits") from error
    if not isinstance(table, dict):
        raise ConfigError(file, None, "must be a table of keys at the top")
    for key in _not_finite(table):
        raise ConfigError(file, key, "is not a finite number; write digits")
    return table


def _not_finite(value: Any, key: str = "") -> Iterator[str]:
    """Keys of values that are ``nan`` or ``inf``, which TOML has and JSON has not."""
    if isinstance(value, float) and not isfinite(value):
        yield key
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _not_finite(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _not_finite(each, f"{key}[{index}]")


def parse_jsonc(text: str) -> Any:
    """Parse JSON with // and /* */ comments and trailing commas; error positions stay correct."""
    text = _STRING_OR_COMMENT.sub(lambda m: m[1] or re.sub(r"[^\n]", " ", m[0]), text)
    text = _STRING_OR_TRAILING_COMMA.sub(lambda m: m[1] or " ", text)
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


def convert(file: Path, table: Any, kind: type[Any]) -> Any:
    """The table as a struct; ConfigError names the key that does not fit."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        whole, cause = str(error), error.__cause__
        text = whole
        while _ANY_KEY in text and (narrowed := _narrowed(text, whole, table, kind)):
            text, table = narrowed
        problem, _, path = text.rpartition(" - at `$")
        if not problem:
            problem, path = path, ""
        key = path.rstrip("`").lstrip(".")
        unknown = _UNKNOWN.fullmatch(problem)
        if isinstance(cause, InvalidKeyError):
            key, problem = f"{key}.{cause.key}".lstrip("."), cause.problem
        elif unknown is not None:
            problem = f"unknown key; {hint(unknown[1], known_keys(kind, key))}"
            key = f"{key}.{unknown[1]}".lstrip(".")
        elif known := choices(kind, key):
            value = _ENUM.fullmatch(problem)
            wrong = f"{value[1]} is not" if value else "must be"
            problem = f"{wrong} one of {', '.join(known)}"
        problem = _TYPE.sub(lambda kind: _TYPES[kind[0]], problem)
        raise ConfigError(file, key or None, problem) from error


def _narrowed(text: str, whole: str, table: Any, kind: type[Any]) -> tuple[str, Any] | None:
    """The message with the first ``[...]`` of its path replaced by the key, and the reduced table.

    msgspec leaves the keys out.  They are found by trial: a table with only that key causes the
    same message, ``whole``.
    """
    path = text.rpartition(" - at `$")[2].partition(_ANY_KEY)[0]
    inner = table
    for part in re.findall(r"[^.\[\]]+", path):
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    everything = dict(inner)
    for key, value in everything.items():
        inner.clear()
        inner[key] = value
        try:
            msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            if str(error) == whole:
                head, _, tail = text.rpartition(f"${path}{_ANY_KEY}")
                return f"{head}${path}.{key}{tail}", table
    return None


def whole_numbers(value: Any) -> Any:
    """The value with integral floats as integers: JavaScript has a single number type."""
    if isinstance(value, dict):
        return {key: whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole_numbers(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _SAFE_INTEGER_MAX:
        return int(value)
    return value
