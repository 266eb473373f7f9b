"""Stand-ins for Pyodide's view of JavaScript values: attributes only, as on the platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any


class JsException(Exception):
    """What a binding threw; ``str()`` is "Error: message"."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


class JsNull:
    """JavaScript's null: falsy, but not None."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "jsnull"


jsnull = JsNull()


class JsProxy:
    """A JavaScript object: ``x.name``, never ``x["name"]``; ``to_py()`` for a Python copy."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        try:
            return to_proxy(self._value[name])
        except KeyError:
            raise AttributeError(name) from None

    def to_py(self) -> Any:
        """The object as a dict."""
        return self._value

    def __repr__(self) -> str:
        return "[object Object]"


class JsArray(JsProxy):
    """A JavaScript array: length, index, slice, iteration."""

    _value: list[Any]  # type: ignore[assignment]

    def __init__(self, value: list[Any]) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        if name == "length":
            return len(self._value)
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return (to_proxy(each) for each in self._value)

    def __getitem__(self, index: int | slice) -> Any:
        return to_proxy(self._value[index])


class JsBuffer(JsProxy):
    """An ArrayBuffer: bytes that JavaScript holds."""

    _value: bytes  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        self._value = value

    @property
    def byteLength(self) -> int:
        """Number of bytes."""
        return len(self._value)

    def to_bytes(self) -> bytes:
        """A copy."""
        return self._value

    def to_py(self) -> memoryview:
        """The bytes as a memoryview."""
        return memoryview(self._value)


class JsDate(JsProxy):
    """A Date."""

    _value: datetime  # type: ignore[assignment]

    def __init__(self, value: datetime) -> None:
        self._value = value

    def getTime(self) -> int:
        """Milliseconds since 1970."""
        return round(self._value.timestamp() * 1000)

    def toISOString(self) -> str:
        """``2026-01-31T12:00:00.000Z``."""
        shown = self._value.astimezone(UTC).isoformat(timespec="milliseconds")
        return shown.replace("+00:00", "Z")

    def to_py(self) -> JsDate:
        """Itself: Pyodide has no conversion for dates."""
        return self


def to_proxy(value: Any) -> Any:
    """A value of the wire as Pyodide would show it, unconverted."""
    if value is None:
        return jsnull
    if isinstance(value, dict):
        return JsProxy(value)
    if isinstance(value, list):
        return JsArray(value)
    if isinstance(value, bytes):
        return JsBuffer(value)
    if isinstance(value, datetime):
        return JsDate(value)
    return value


def to_js(obj: Any, *, dict_converter: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """The value itself: there is no JavaScript side here, and bindings copy what they are given."""
    return obj


def create_proxy(obj: Any, **options: Any) -> Any:
    """The value itself."""
    return obj
