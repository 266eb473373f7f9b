"""``URLSearchParams``: the names and values of a query, which may be that of a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pyodide.ffi import JsArray, JsException, JsProxy, jsnull

from js._text import text_of, utf8

_PLAIN = frozenset(b"*-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_ESCAPE = rb"%([0-9A-Fa-f]{2})"


class URLSearchParams(JsProxy):
    """Names and values, in order.  Python sees a mapping of the first value of each name."""

    _value: list[tuple[str, str]]
    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, init: Any = None, **options: Any) -> None:
        self._changed: Callable[[], None] = _nothing
        # Keywords are the trailing object of the call.
        self._value = list(_pairs(JsProxy(options) if init is None and options else init))

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self._value)

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the first value of that name; null if there is none."""
        return next((value for each, value in self._value if each == to_text(name)), jsnull)

    def getAll(self, name: Any) -> JsArray:
        """Return all values of that name."""
        return JsArray([value for each, value in self._value if each == to_text(name)])

    def has(self, name: Any, value: Any = None) -> bool:
        """Return True if there is a pair of that name, and of that value if one is given."""
        return any(
            each == to_text(name) and (value is None or found == to_text(value))
            for each, found in self._value
        )

    def append(self, name: Any, value: Any) -> None:
        """Add a pair."""
        self._replace([*self._value, (to_text(name), to_text(value))])

    def set(self, name: Any, value: Any) -> None:
        """Replace all values of that name by this one, at the position of the first."""
        pair = (to_text(name), to_text(value))
        at = next((i for i, (each, _) in enumerate(self._value) if each == pair[0]), None)
        if at is None:
            self._replace([*self._value, pair])
        else:
            rest = [each for each in self._value[at + 1 :] if each[0] != pair[0]]
            self._replace([*self._value[:at], pair, *rest])

    def delete(self, name: Any, value: Any = None) -> None:
        """Remove the pairs of that name, or of that name and value."""
        self._replace(
            [
                (each, found)
                for each, found in self._value
                if each != to_text(name) or (value is not None and found != to_text(value))
            ]
        )

    def sort(self) -> None:
        """Sort the pairs by name, in UTF-16 order; equal names keep their order."""
        self._replace(
            sorted(self._value, key=lambda pair: pair[0].encode("utf-16-be", "surrogatepass"))
        )

    def forEach(self, callback: Callable[..., Any], this: Any = None) -> None:
        """Call the function with value, name and this object, for each pair."""
        for name, value in list(self._value):
            callback(value, name, self)

    def keys(self) -> Iterator[str]:
        """Iterate over the names, including repeated ones."""
        return (name for name, _ in self._value)

    def entries(self) -> Iterator[JsArray]:
        """Iterate over [name, value]."""
        return (JsArray([name, value]) for name, value in self._value)

    # Pyodide takes an object with get, has and size for a mapping: it iterates over the names,
    # takes null for a value, and a ``delete`` without a result for a missing key.
    def values(self) -> Iterator[str]:
        """Iterate over the first value of each name."""
        return (self.get(name) for name, _ in self._value)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over (name, first value of that name)."""
        return zip(self.keys(), self.values(), strict=True)

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        return len(self._value)

    def __contains__(self, name: object) -> bool:
        return self.has(name)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        self.delete(name)
        raise KeyError(name)

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> URLSearchParams:
        """Return the object itself: there is no matching Python type."""
        return self

    def toString(self) -> str:
        """Return the query, without a question mark."""
        return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in self._value)

    __repr__ = toString

    def _replace(self, pairs: list[tuple[str, str]]) -> None:
        self._value = pairs
        self._changed()

    def _to_wire(self) -> Any:
        raise TypeError("URLSearchParams cannot be sent over RPC; send its text.")


def _nothing() -> None:
    pass


def decoded(query: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a query."""
    for part in filter(None, utf8(query).split(b"&")):
        name, _, value = part.partition(b"=")
        yield _decoded(name), _decoded(value)


def _decoded(text: bytes) -> str:
    plain = re.sub(_ESCAPE, lambda each: bytes([int(each[1], 16)]), text.replace(b"+", b" "))
    return plain.decode("utf-8", "replace")


def _encoded(text: str) -> str:
    shown = (chr(each) if each in _PLAIN else f"%{each:02X}" for each in utf8(text))
    return "".join(shown).replace("%20", "+")


def _pairs(init: Any) -> Iterable[tuple[str, str]]:
    if init is None:
        return []
    if isinstance(init, URLSearchParams):
        return list(init._value)
    if type(init) is JsProxy:
        return [(name, to_text(value)) for name, value in init._value.items()]
    if isinstance(init, str | bool | int | float) or init is jsnull:
        return decoded(to_text(init).removeprefix("?"))
    return [_pair(each) for each in init]


def _pair(each: Any) -> tuple[str, str]:
    if isinstance(each, str):
        each = ()
    try:
        name, value = each
    except (TypeError, ValueError):
        message = "Each query pair must be an iterable [name, value] tuple"
        raise JsException("TypeError", message) from None
    return to_text(name), to_text(value)


def to_text(value: Any) -> str:
    """Convert a value to text as JavaScript does; a lone surrogate becomes U+FFFD."""
    if isinstance(value, str):
        return text_of(utf8(value)) if not value.isascii() else value
    if value is None:
        return "undefined"
    if value is jsnull:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)
