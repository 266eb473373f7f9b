"""Python replacements for Pyodide's proxies of JavaScript values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pyodide._dates import EPOCH, DateMethods, clipped
from pyodide._errors import ConversionError as ConversionError  # noqa: PLC0414 (re-exported)
from pyodide._errors import JsException as JsException  # noqa: PLC0414

SAFE_INTEGER_MAX = 2**53 - 1
IN_BROWSER = True
"""True as on the platform, whose Pyodide detects a browser."""


class JsNull:
    """JavaScript's null: falsy, but not None."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "jsnull"


class _Undefined:
    def __repr__(self) -> str:
        return "undefined"


jsnull = JsNull()
UNDEFINED = _Undefined()
_hold = object.__setattr__  # bypasses the proxy's __setattr__, which is for worker code
_AS_IT_IS = frozenset((str, bool, int))


class JsProxy:
    """A JavaScript object: ``x.name``, not ``x["name"]``; ``to_py()`` returns a Python copy."""

    _value: Any = ()

    def __init__(self, value: dict[str, Any]) -> None:
        _hold(self, "_value", value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return to_proxy(self._value[name])
        except (KeyError, TypeError):
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or type(self) is not JsProxy:
            object.__setattr__(self, name, value)
        else:
            self._value[name] = to_raw(value, None, None)

    def __eq__(self, other: object) -> bool:
        if type(self) in {JsProxy, JsArray}:  # two views of one object
            return type(self) is type(other) and self._value is other._value
        return self is other

    def __hash__(self) -> int:
        return id(self._value if type(self) in {JsProxy, JsArray} else self)

    @classmethod
    def new(cls, *args: Any, **options: Any) -> Any:
        """Construct an instance like ``new X(...)``; keywords are the trailing object."""
        return cls(*args, **options)

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> Any:
        """Return a Python copy: dicts and lists, null as ``jsnull``."""
        return _python(self._value)

    def object_keys(self) -> JsArray:
        """Return the keys, like ``Object.keys``."""
        return JsArray(list(self._value))

    def object_values(self) -> JsArray:
        """Return the values, like ``Object.values``."""
        return JsArray(list(self._value.values()))

    def object_entries(self) -> JsArray:
        """Return [key, value] pairs, like ``Object.entries``."""
        return JsArray([[key, value] for key, value in self._value.items()])

    def _to_wire(self) -> Any:
        return _without_undefined(self._value)

    def __repr__(self) -> str:
        return "[object Object]"


class JsArray(JsProxy):
    """A JavaScript array: length, index, slice, iteration."""

    _value: list[Any]

    def __init__(self, value: list[Any]) -> None:
        _hold(self, "_value", value)

    @property
    def length(self) -> int:
        """Number of elements."""
        return len(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return map(to_proxy, self._value)

    def __getitem__(self, index: int | slice) -> Any:
        return to_proxy(self._value[index])

    def __repr__(self) -> str:
        return ",".join("" if each is None else str(to_proxy(each)) for each in self._value)


class JsBuffer(JsProxy):
    """An ArrayBuffer; base of its views, which share its memory."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, value: int | bytes | memoryview | bytearray = b"") -> None:
        """Hold a copy of ``value``, or ``value`` zero bytes."""
        self._memory = bytes(value) if not isinstance(value, int) else bytearray(value)

    @property
    def _value(self) -> bytes:
        return bytes(self._memory)

    def _shared(self) -> bytearray:
        """Return the memory for a view of it, which may write there."""
        if isinstance(self._memory, bytes):
            self._memory = bytearray(self._memory)
        return self._memory

    @staticmethod
    def isView(value: Any) -> bool:
        """Return True if the value is a view of a buffer (a typed array or a DataView)."""
        return isinstance(value, JsBuffer) and type(value) is not JsBuffer

    @property
    def byteLength(self) -> int:
        """Number of bytes."""
        return len(self._value)

    def slice(self, begin: int = 0, end: int | None = None) -> Any:
        """Return a copy of a part; negative numbers count from the end."""
        return JsBuffer(self._value[begin:end])

    def to_bytes(self) -> bytes:
        """Return the bytes."""
        return self._value

    def to_memoryview(self) -> memoryview:
        """Return the bytes as a memoryview."""
        return memoryview(self._value)

    def to_string(self, encoding: str = "utf-8") -> str:
        """Decode the bytes; invalid ones are replaced."""
        return self._value.decode(encoding, "replace")

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> memoryview:
        """Return the bytes as a memoryview, as Pyodide does."""
        return memoryview(self._value)

    def _to_wire(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "[object ArrayBuffer]"


class JsDate(DateMethods, JsProxy):
    """A JavaScript Date, in UTC."""

    def __init__(self, value: datetime | float) -> None:
        if isinstance(value, datetime):
            at = value if value.tzinfo else value.replace(tzinfo=UTC)
            value = round((at - EPOCH) / timedelta(milliseconds=1))
        self._ms = clipped(value)

    @property
    def _value(self) -> datetime:
        return self._datetime()

    def toJSON(self, key: Any = None) -> Any:
        """Return ISO 8601 in UTC; null for an invalid date."""
        return jsnull if self._ms != self._ms else self.toISOString()

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> JsDate:
        """Return the date itself: Pyodide has no conversion for dates."""
        return self

    def _to_wire(self) -> datetime:
        return self._datetime()


def to_proxy(value: Any) -> Any:
    """Wrap a wire value as Pyodide presents it: primitives as Python values, others as proxies."""
    kind = type(value)  # exact types first: isinstance checks cost more
    if kind in _AS_IT_IS:
        return value
    if kind is dict:
        return JsProxy(value)
    if kind is list:
        return JsArray(value)
    if value is None:
        return jsnull
    if isinstance(value, list):
        return JsArray(value)
    if isinstance(value, dict):
        return JsProxy(value)
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return whole(value)
    if isinstance(value, bytes):
        return JsBuffer(value)
    if isinstance(value, datetime):
        return JsDate(value)
    return None if value is UNDEFINED else value


def whole(number: float) -> float:
    """Convert a whole float up to 2**53 - 1 to int: JavaScript has only one kind of number."""
    return int(number) if number.is_integer() and abs(number) <= SAFE_INTEGER_MAX else number


def to_raw(value: Any, dict_converter: Any, default_converter: Any) -> Any:
    """Return the wire form of the result of ``to_js``."""
    if value is None:
        return UNDEFINED
    if value is jsnull:
        return None
    if isinstance(value, str | bool | int | bytes):
        return value
    if isinstance(value, float):
        return whole(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [to_raw(each, dict_converter, default_converter) for each in value]
    if isinstance(value, dict):
        pairs = [
            (key, to_raw(item, dict_converter, default_converter)) for key, item in value.items()
        ]
        if dict_converter is None:
            return {str(key): item for key, item in pairs}
        made = dict_converter([(key, shown(item)) for key, item in pairs])
        return made._value if type(made) is JsProxy else made
    if isinstance(value, JsBuffer) or type(value) in {JsProxy, JsArray, JsDate}:
        return value._value
    if default_converter is not None and not isinstance(value, JsProxy):
        return default_converter(value, lambda inner: inner, lambda *_: None)
    return value


def shown(raw: Any) -> Any:
    """Return the proxy or primitive of a wire form."""
    return raw if isinstance(raw, JsProxy) else to_proxy(raw)


def _python(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _python(item) for key, item in raw.items()}
    if isinstance(raw, list):
        return [_python(item) for item in raw]
    if isinstance(raw, bytes):
        return memoryview(raw)
    return to_proxy(raw)


def _without_undefined(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _without_undefined(item) for key, item in raw.items() if item is not UNDEFINED}
    if isinstance(raw, list):
        return [None if item is UNDEFINED else _without_undefined(item) for item in raw]
    return raw._to_wire() if hasattr(raw, "_to_wire") else raw
