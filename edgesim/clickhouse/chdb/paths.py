"""Check of the paths that a statement to the embedded engine reads: no device or pipe."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgesim.clickhouse import statements
from edgesim.errors import ClickHouseError

ACCESS_DENIED = 497
_DEVICE = "the embedded engine reads files, no devices, pipes or processes: {} is refused"
_COMPUTED = "the embedded engine reads files by a path in quotes, without escapes: {} is refused"
_READING = {"FILE", "FILECLUSTER", "SQLITE", "URL", "URLCLUSTER"}
"""Functions that open a path; those of data lakes open folders."""
_SOURCE_TOKENS = 16
"""Tokens of SOURCE(FILE(...)), of which one is the path."""
_DEVICES = re.compile(r"/(dev|proc|sys)(/|\Z)")
_GLOB = re.compile(r"[*?{\[]")
_DEFINING = {"ATTACH", "CREATE", "REPLACE"}


def check_paths(sql: str) -> None:
    """Refuse to read devices, pipes and /proc, by which a statement would never end.

    A pipe of the engine's own, ``/dev/fd/N``, has no end, and KILL QUERY does not stop its reader.
    """
    found = list(statements.tokens(sql))
    texts = [token.text for token in found]
    ends = [texts.index(word) for word in ("SELECT", "WITH") if word in texts]
    head = min(ends, default=len(texts)) if texts[:1] and texts[0] in _DEFINING else 0
    for at, token in enumerate(found):
        name = _name(token).upper()
        arguments = found[at + 2 : at + 4]
        if name == "INFILE" and token.kind == "word":
            _check_path("INFILE", found[at + 1 : at + 2])
        elif name not in _READING or texts[at + 1 : at + 2] != ["("]:
            continue
        elif texts[max(at - 2, 0) : at] == ["SOURCE", "("]:  # of a dictionary
            inside = texts[at : at + _SOURCE_TOKENS]
            path = at + inside.index("PATH") + 1 if "PATH" in inside else at
            _check_path(token.text, found[path : path + 1])
        elif arguments and _is_name(arguments[0]) and (at < head or texts[at - 1] == "INTO"):
            continue  # a table with that name and its columns, or ENGINE = File(CSV)
        elif name.endswith("CLUSTER"):
            _check_path(token.text, found[at + 4 : at + 6])
        else:
            _check_path(token.text, arguments)


def _is_name(token: statements.Token) -> bool:
    return token.kind == "word" or token.text[0] in '`"'


def _check_path(function: str, arguments: list[statements.Token]) -> None:
    """``arguments`` are a path and the token after it, if the path must end there."""
    function = function.lower()
    ends = len(arguments) < 2 or arguments[1].text in {",", ")"}
    if not arguments or not ends or arguments[0].text[0] != "'" or "\\" in arguments[0].text:
        raise ClickHouseError(ACCESS_DENIED, _COMPUTED.format(function))
    path = arguments[0].text[1:-1].replace("''", "'")
    if path.lower().startswith("file:"):
        path = "/" + path[5:].lstrip("/")
    elif "://" in path:
        return  # a connection, which the kernel refuses
    known, *pattern = _GLOB.split(path, maxsplit=1)
    if pattern:
        known = known.rpartition("/")[0] or ("/" if "/" in path else ".")
    plain = Path(os.path.normpath(Path.cwd() / known))  # /dev/fd/N may lead to an ordinary file
    places = (str(plain), str(Path(known).resolve()))
    if "/" in places or any(map(_DEVICES.match, places)) or (pattern and ".." in path):
        raise ClickHouseError(ACCESS_DENIED, _DEVICE.format(path))


def _name(token: statements.Token) -> str:
    if token.text[0] in '`"':
        return statements.unquoted(token.text)
    return token.text[1:-1] if token.text[0] == "\u201c" else token.text
