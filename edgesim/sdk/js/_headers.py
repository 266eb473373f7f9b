"""``Headers``: case-insensitive names, repeated values joined, iteration sorted by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyodide.ffi import JsException, JsProxy, jsnull

# The Fetch standard's rule, except that non-ASCII characters are allowed: the platform sends them
# as UTF-8.  A value has no line end and no NUL, so it cannot inject another header.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\r\n\0\ud800-\udfff]*")
_EDGES = " \t\r\n"


class Headers(JsProxy):
    """A list of headers.  A name keeps its case on the network; iteration shows lower case."""

    _value: list[tuple[str, str]]
    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, init: Any = None) -> None:
        self._value = []
        for name, value in _pairs(init):
            self.append(name, value)

    @classmethod
    def _of(cls, pairs: Iterable[tuple[str, str]]) -> Headers:
        """Return headers received over the wire, which are already validated."""
        headers = cls.__new__(cls)
        headers._value = [(name, value) for name, value in pairs]
        return headers

    def get(self, name: str) -> Any:
        """Return all values of that name joined by ", "; null if there is none."""
        values = self._all(name)
        return ", ".join(values) if values else jsnull

    def has(self, name: str) -> bool:
        """Return True if there is a header of that name."""
        return bool(self._all(name))

    # Pyodide gives item access to objects with get, set, has and delete.  It takes null for a
    # value, and a ``delete`` without a result for a missing key.
    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        self.delete(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return self.has(str(name))

    def append(self, name: str, value: str) -> None:
        """Add a value; JsException (a TypeError) if the name or value is invalid."""
        self._value.append(_checked(name, value))

    def set(self, name: str, value: str) -> None:
        """Replace all values of that name by this one."""
        pair = _checked(name, value)
        self.delete(name)
        self._value.append(pair)

    def delete(self, name: str) -> None:
        """Remove all values of that name."""
        lower = name.lower()
        self._value = [pair for pair in self._value if pair[0].lower() != lower]

    def getSetCookie(self) -> list[str]:
        """Return the Set-Cookie values, not joined."""
        return self._all("set-cookie")

    def entries(self) -> Iterator[tuple[str, str]]:
        """Iterate over (lower-case name, joined value), sorted; Set-Cookie is not joined."""
        joined: dict[str, list[str]] = {}
        for name, value in self._value:
            joined.setdefault(name.lower(), []).append(value)
        for name in sorted(joined):
            if name == "set-cookie":
                yield from ((name, value) for value in joined[name])
            else:
                yield name, ", ".join(joined[name])

    def keys(self) -> Iterator[str]:
        """Iterate over the names of ``entries``."""
        return (name for name, _ in self.entries())

    def values(self) -> Iterator[str]:
        """Iterate over the values of ``entries``."""
        return (value for _, value in self.entries())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self.entries()

    def _all(self, name: str) -> list[str]:
        lower = name.lower()
        return [value for each, value in self._value if each.lower() == lower]

    def _to_wire(self) -> list[tuple[str, str]]:
        return list(self._value)

    def __repr__(self) -> str:
        return "[object Headers]"


def _pairs(init: Any) -> Iterable[tuple[str, str]]:
    if init is None:
        return []
    if isinstance(init, Headers):
        return list(init._value)
    if isinstance(init, JsProxy):
        init = init._to_wire()
    if isinstance(init, dict | Mapping):  # dict first: the common case, cheap to test
        return list(init.items())
    return [_pair(each) for each in init]


def _pair(each: Any) -> tuple[str, str]:
    try:
        name, value = each
    except (TypeError, ValueError):
        raise JsException("TypeError", "Headers requires pairs of a name and a value.") from None
    return name, value


def _checked(name: Any, value: Any) -> tuple[str, str]:
    name, value = str(name), _text(value).strip(_EDGES)
    if not _NAME.fullmatch(name):
        raise JsException("TypeError", "Invalid header name.")
    if not _VALUE.fullmatch(value):
        raise JsException("TypeError", "Invalid header value.")
    return name, value


def _text(value: Any) -> str:
    """Convert a value to a string as JavaScript does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)
