r"""Local secrets of a Worker: ``.dev.vars`` or ``.env`` files, as wrangler 4.164 reads them.

wrangler uses the JavaScript packages dotenv 16.3 (the syntax of a file) and dotenv-expand 12
(references between values).  python-dotenv 1.2 was tried and dropped: it reads another dialect.
Of the unit tests' 17 files it reads 5 differently, and 5 of the 6 sets of references.  ``A=b#c`` is
``b#c`` in python-dotenv and ``b`` here; backquotes, ``KEY: value``, ``$A`` and ``${A:+b}`` are not
supported by it; and it decodes ``\t``, ``\"`` and ``\u0041`` in double quotes, where wrangler
decodes only ``\n`` and ``\r``.
tests/portability compares this module with wrangler itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edgesim.config.files import is_file, read_text
from edgesim.errors import ConfigError

# White space and line terminators of JavaScript; Python's sets differ.
_BLANKS = "\\t\\n\\v\\f\\r \\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff"
_TRIM = re.compile(f"^[{_BLANKS}]+|[{_BLANKS}]+$")
_ENDS = "\\n\\r\\u2028\\u2029"
_START, _END = f"(?:\\A|(?<=[{_ENDS}]))", f"(?=[{_ENDS}]|\\Z)"
_LINE = re.compile(
    rf"""{_START}[{_BLANKS}]*(?:export[{_BLANKS}]+)?([A-Za-z0-9_.-]+)"""
    rf"""(?:[{_BLANKS}]*=[{_BLANKS}]*?|:[{_BLANKS}]+?)"""
    rf"""([{_BLANKS}]*'(?:\\'|[^'])*'|[{_BLANKS}]*"(?:\\"|[^"])*"|[{_BLANKS}]*`(?:\\`|[^`])*`"""
    rf"""|[^#\r\n]+)?[{_BLANKS}]*(?:\#[^{_ENDS}]*)?{_END}"""
)
_QUOTED = re.compile(rf"{_START}(['\"`])([\s\S]*)\1{_END}")
_REFERENCE = re.compile(r"(?<!\\)\$\{([^{}]+)\}|(?<!\\)\$([A-Za-z_][A-Za-z0-9_]*)")
_OPERATOR = re.compile(r":\+|\+|:-|-")
_EXPANSIONS_MAX = 1000
_LENGTH_MAX = 1 << 20
_PATTERN = re.compile(r"\$([$&`'])")


def local_secrets(
    folder: Path,
    environment: str | None,
    given: list[str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The secrets of the Worker in ``folder``.

    ``.dev.vars.<env>`` replaces ``.dev.vars``, and either replaces all ``.env`` files.  Of those, a
    later one overrides: ``.env``, ``.env.local``, ``.env.<env>``, ``.env.<env>.local``.  ``given``
    restricts the result to these names (``secrets.required`` and ``vars``); then ``variables`` (the
    process environment) are used too, unless there is a ``.dev.vars``.  ConfigError for a file that
    cannot be read or a reference without an end.
    """
    found = _dev_vars(folder, environment)
    if found is None:
        process = dict(variables or {}) if given is not None else {}
        try:
            found = process | expand(_env_files(folder, environment), process)
        except ValueError as error:
            raise ConfigError(folder / ".env", None, str(error)) from error
    return found if given is None else {name: found[name] for name in given if name in found}


def _dev_vars(folder: Path, environment: str | None) -> dict[str, str] | None:
    suffixes = [f".{environment}", ""] if environment else [""]
    for suffix in suffixes:
        if is_file(file := folder / f".dev.vars{suffix}"):
            return _read(file)
    return None


def _env_files(folder: Path, environment: str | None) -> dict[str, str]:
    names = [".env", ".env.local"]
    if environment:
        names += [f".env.{environment}", f".env.{environment}.local"]
    found: dict[str, str] = {}
    for name in names:
        if is_file(file := folder / name):
            found |= _read(file)
    return found


def _read(file: Path) -> dict[str, str]:
    text = read_text(file)
    if "\0" in text:
        raise ConfigError(file, None, "has a zero byte; save it as UTF-8 text")
    return parse(text)


def parse(text: str) -> dict[str, str]:
    """The assignments of a file; other lines are skipped, as in dotenv."""
    found = {}
    for match in _LINE.finditer(re.sub(r"\r\n?", "\n", text)):
        value = _TRIM.sub("", match[2] or "")
        quote = value[:1]
        value = _QUOTED.sub(r"\2", value)
        if quote == '"':
            value = value.replace("\\n", "\n").replace("\\r", "\r")
        found[match[1]] = value
    return found


def expand(parsed: Mapping[str, str], process: Mapping[str, str]) -> dict[str, str]:
    """The values with their references (``$A``, ``${A:-default}``, ``${A:+other}``) replaced.

    A process variable overrides a value of a file.  ValueError for a value whose expansion does not
    terminate; wrangler runs out of memory there.
    """
    running: dict[str, str] = {}
    for name, value in parsed.items():
        ours = process.get(name)
        if ours and ours != value:
            text = ours
        else:
            text = _expanded(name, value, {**running, **process}, running)
        running[name] = text.replace("\\$", "$")
    return running


def _expanded(key: str, value: str, known: Mapping[str, str], running: Mapping[str, str]) -> str:
    seen: set[str] = set()
    for _ in range(_EXPANSIONS_MAX):
        match = _REFERENCE.search(value)
        if match is None:
            return value
        if len(value) > _LENGTH_MAX:
            break
        seen.add(value)
        expression = match[1] or match[2]
        operator = _OPERATOR.search(expression)
        name, _, rest = expression.partition(operator[0]) if operator else (expression, "", "")
        found = known.get(name, "")
        if operator and operator[0] in {":+", "+"}:
            found, rest = "", rest if found else ""
        text = rest if not found or found in seen else found
        value = value.replace(match[0], _literal(text, match, value), 1)
        if value == running.get(name):
            return value
    raise ValueError(f"the references in {key} have no end; write its value out")


def _literal(text: str, match: re.Match[str], value: str) -> str:
    """The text that JavaScript's ``replace`` would insert; it expands patterns such as ``$&``."""
    at = value.index(match[0])
    patterns = {
        "$": "$",
        "&": match[0],
        "`": value[:at],
        "'": value[at + len(match[0]) :],
    }
    return _PATTERN.sub(lambda found: patterns[found[1]], text)
