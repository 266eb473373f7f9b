"""Typed arrays and DataView: views of an ArrayBuffer, as Pyodide shows them to Python.

Views of one buffer share its memory.  Numbers are converted as in JavaScript: integers wrap around,
``Uint8ClampedArray`` clamps and rounds half to even, what is not a number is 0 or NaN.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from pyodide._proxies import JsBuffer, JsException, jsnull, to_proxy


class JsTypedArray(JsBuffer):
    """Base of the typed arrays: length, index, iteration, and JavaScript's methods."""

    BYTES_PER_ELEMENT = 1
    _format: Any = "B"

    def __init__(self, source: Any = 0, byteOffset: int = 0, length: int | None = None) -> None:
        """Make an array of a length, of the numbers of an iterable, or a view of a buffer."""
        if type(source) is JsBuffer:
            self._buffer = source
        else:
            self._buffer = JsBuffer(self._packed(source))
            byteOffset, length = 0, None
        self.byteOffset = byteOffset
        self._view = self._view_of(byteOffset, length)

    def _packed(self, source: Any) -> bytes:
        """Return the bytes of a new array; JsException (a RangeError) for a negative length."""
        if source is None or source is jsnull or isinstance(source, str | int | float):
            length = _length_of(source)
            if length < 0:
                raise JsException("RangeError", f"Invalid typed array length: {length}")
            return bytes(length * self.BYTES_PER_ELEMENT)
        if isinstance(source, bytes | bytearray) and self._format == "B":
            return bytes(source)
        numbers = [self._number(each) for each in source]
        return struct.pack(f"<{len(numbers)}{self._format}", *numbers)

    def _view_of(self, offset: int, length: int | None) -> memoryview:
        size, name = self.BYTES_PER_ELEMENT, type(self).__name__
        memory = self._buffer._shared()
        if offset % size:
            message = f"start offset of {name} should be a multiple of {size}"
            raise JsException("RangeError", message)
        if length is None:
            if (len(memory) - offset) % size:
                message = f"byte length of {name} should be a multiple of {size}"
                raise JsException("RangeError", message)
            length = (len(memory) - offset) // size
        if offset < 0 or offset > len(memory):
            message = f"Start offset {offset} is outside the bounds of the buffer"
            raise JsException("RangeError", message)
        if length < 0 or offset + length * size > len(memory):
            raise JsException("RangeError", f"Invalid typed array length: {length}")
        return memoryview(memory)[offset : offset + length * size].cast(self._format)

    def _number(self, value: Any) -> Any:
        """Convert a value to an element, as JavaScript does."""
        bits = 8 * self.BYTES_PER_ELEMENT
        number = _as_number(value)
        found = 0 if not math.isfinite(number) else math.trunc(number)
        found &= (1 << bits) - 1
        signed = self._format.islower() and found >> (bits - 1)
        return found - (1 << bits) if signed else found

    @property
    def _value(self) -> bytes:
        return self._view.tobytes()

    def _shared(self) -> bytearray:
        return self._buffer._shared()

    @property
    def buffer(self) -> JsBuffer:
        """The ArrayBuffer that it is a view of."""
        return self._buffer

    @property
    def byteLength(self) -> int:
        """Number of bytes."""
        return self._view.nbytes

    @property
    def length(self) -> int:
        """Number of elements."""
        return len(self._view)

    @classmethod
    def from_(cls, values: Iterable[Any]) -> Any:
        """Make an array of the values (``from`` in JavaScript)."""
        return cls(list(values))

    @classmethod
    def of(cls, *values: Any) -> Any:
        """Make an array of the arguments."""
        return cls(list(values))

    def subarray(self, begin: int = 0, end: int | None = None) -> Any:
        """Return a view of a part that shares the memory."""
        start, stop, _ = slice(begin, end).indices(len(self._view))
        offset = self.byteOffset + start * self.BYTES_PER_ELEMENT
        return type(self)(self._buffer, offset, max(stop - start, 0))

    def slice(self, begin: int = 0, end: int | None = None) -> Any:
        """Return a copy of a part; negative numbers count from the end."""
        return type(self)(JsBuffer(self._view[begin:end].tobytes()))

    def set(self, values: Iterable[Any], offset: int = 0) -> None:
        """Copy the values to the array, from element ``offset`` on."""
        numbers = [self._number(each) for each in values]
        if offset < 0 or offset + len(numbers) > len(self._view):
            raise JsException("RangeError", "offset is out of bounds")
        for index, number in enumerate(numbers, offset):
            self._view[index] = number

    def fill(self, value: Any, start: int = 0, end: int | None = None) -> JsTypedArray:
        """Set the elements from ``start`` to ``end`` to one value."""
        number = self._number(value)
        for index in range(*slice(start, end).indices(len(self._view))):
            self._view[index] = number
        return self

    def assign(self, data: Any) -> None:
        """Copy a Python buffer of the same size into the array, as Pyodide does."""
        # The two lengths in Pyodide's message are interchanged.
        given = memoryview(data).cast("B")
        if given.nbytes != self._view.nbytes:
            raise ValueError(
                f"cannot assign to TypedArray of length {given.nbytes} "
                f"from buffer of length {self._view.nbytes}"
            )
        self._view.cast("B")[:] = given

    def assign_to(self, target: Any) -> None:
        """Copy the array into a Python buffer of the same size, as Pyodide does."""
        memoryview(target).cast("B")[:] = self._view.cast("B")

    def at(self, index: int) -> Any:
        """Return an element; negative indexes count from the end, None if it does not exist."""
        inside = -len(self._view) <= index < len(self._view)
        return self[index] if inside else None

    def includes(self, value: Any) -> bool:
        """Return True if an element has the value."""
        return any(each == value for each in self)

    def indexOf(self, value: Any) -> int:
        """Return the first index of the value, or -1."""
        return next((index for index, each in enumerate(self) if each == value), -1)

    def join(self, separator: str = ",") -> str:
        """Return the elements as text."""
        return separator.join(str(each) for each in self)

    def toString(self) -> str:
        """Return the elements with commas between them."""
        return self.join()

    def to_memoryview(self) -> memoryview:
        """Return a copy of the elements as a memoryview of their format."""
        return memoryview(self._value).cast(self._format)

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> memoryview:
        """Return a copy of the elements as a memoryview of their format, as Pyodide does."""
        return self.to_memoryview()

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[Any]:
        return map(to_proxy, self._view.tolist())

    def __contains__(self, value: Any) -> bool:
        return self.includes(value)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, slice):
            raise NotImplementedError("Slice subscripting isn't implemented for typed arrays")
        try:
            return to_proxy(self._view[index])
        except IndexError:
            raise IndexError(index) from None

    def __setitem__(self, index: int, value: Any) -> None:
        self._view[index] = self._number(value)

    def __repr__(self) -> str:
        return self.join()


def _length_of(source: Any) -> int:
    number = 0.0 if source is None or source is jsnull else _as_number(source)
    return math.trunc(number) if math.isfinite(number) else 0


def _as_number(value: Any) -> float:
    """Return JavaScript's ``Number(value)``, for the values that Python code passes."""
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if str(value).strip() else 0.0
    except (TypeError, ValueError):
        return 0.0 if value is jsnull else math.nan


class Uint8Array(JsTypedArray):
    """Bytes."""


class Uint8ClampedArray(JsTypedArray):
    """Bytes; other numbers become 0 or 255."""

    def _number(self, value: Any) -> int:
        number = _as_number(value)
        return 0 if math.isnan(number) else round(min(max(number, 0), 255))


class Int8Array(JsTypedArray):
    """Integers of 8 bits with a sign."""

    _format = "b"


class Uint16Array(JsTypedArray):
    """Integers of 16 bits."""

    BYTES_PER_ELEMENT = 2
    _format = "H"


class Int16Array(JsTypedArray):
    """Integers of 16 bits with a sign."""

    BYTES_PER_ELEMENT = 2
    _format = "h"


class Uint32Array(JsTypedArray):
    """Integers of 32 bits."""

    BYTES_PER_ELEMENT = 4
    _format = "I"


class Int32Array(JsTypedArray):
    """Integers of 32 bits with a sign."""

    BYTES_PER_ELEMENT = 4
    _format = "i"


class BigUint64Array(JsTypedArray):
    """Integers of 64 bits."""

    BYTES_PER_ELEMENT = 8
    _format = "Q"


class BigInt64Array(JsTypedArray):
    """Integers of 64 bits with a sign."""

    BYTES_PER_ELEMENT = 8
    _format = "q"


class Float32Array(JsTypedArray):
    """Numbers of 32 bits."""

    BYTES_PER_ELEMENT = 4
    _format = "f"

    def _number(self, value: Any) -> float:
        number = _as_number(value)
        try:
            rounded: float = struct.unpack("f", struct.pack("f", number))[0]
        except OverflowError:
            rounded = math.copysign(math.inf, number)
        return rounded


class Float64Array(JsTypedArray):
    """Numbers of 64 bits."""

    BYTES_PER_ELEMENT = 8
    _format = "d"

    def _number(self, value: Any) -> float:
        return float(_as_number(value))


class DataView(JsTypedArray):
    """Reads and writes numbers at any offset of a buffer, big-endian unless ``little`` is true."""

    def __init__(self, source: Any, byteOffset: int = 0, length: int | None = None) -> None:
        if type(source) is not JsBuffer:
            message = "First argument to DataView constructor must be an ArrayBuffer"
            raise JsException("TypeError", message)
        super().__init__(source, byteOffset, length)

    def __getattr__(self, name: str) -> Any:
        kind = _KINDS.get(name[3:])
        if kind is not None and name.startswith("get"):
            return lambda offset, little=False: to_proxy(self._unpacked(kind, offset, little))
        if kind is not None and name.startswith("set"):
            return lambda offset, value, little=False: self._store(kind, offset, value, little)
        raise AttributeError(name)

    def _at(self, kind: type[JsTypedArray], offset: int) -> memoryview:
        end = offset + kind.BYTES_PER_ELEMENT
        if offset < 0 or end > len(self._view):
            raise JsException("RangeError", "Offset is outside the bounds of the DataView")
        return self._view[offset:end]

    def _unpacked(self, kind: type[JsTypedArray], offset: int, little: bool) -> Any:
        return struct.unpack(_order(little) + kind._format, self._at(kind, offset))[0]

    def _store(self, kind: type[JsTypedArray], offset: int, value: Any, little: bool) -> None:
        target = self._at(kind, offset)
        target[:] = struct.pack(_order(little) + kind._format, kind._number(kind(), value))

    def __repr__(self) -> str:
        return "[object DataView]"


def _order(little: bool) -> str:
    return "<" if little else ">"


KINDS: tuple[type[JsTypedArray], ...] = (
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
)
"""The typed arrays of JavaScript that edgesim has."""
_KINDS = {
    kind.__name__.removesuffix("Array"): kind for kind in KINDS if kind is not Uint8ClampedArray
}
_OF_FORMATS = {kind._format: kind for kind in KINDS if kind is not Uint8ClampedArray}


def copy_of(data: Any) -> JsTypedArray:
    """Return a typed array of a Python buffer's format and content; bytes for other formats."""
    view = memoryview(data)
    return _OF_FORMATS.get(view.format, Uint8Array)(JsBuffer(view.tobytes()))
