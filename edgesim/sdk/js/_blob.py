"""``Blob`` and ``File``: bytes with a type, in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from pyodide._typed_arrays import Uint8Array
from pyodide.ffi import JsBuffer, JsException, JsProxy

from js._stream import ReadableStream
from js._text import text_of, utf8

_LINE_ENDS = re.compile(r"\r\n|\r|\n")


class Blob(JsProxy):
    """Bytes with a type; ``parts`` are strings, bytes and blobs, ``type`` becomes lower case."""

    _value: bytes

    def __init__(
        self,
        parts: Iterable[Any] = (),
        *,
        type: str | None = None,
        endings: str | None = None,
    ) -> None:
        if endings not in {None, "transparent", "native"}:
            raise JsException("TypeError", f"endings cannot be {endings!r}")
        self._value = b"".join(_bytes(part, native=endings == "native") for part in parts)
        self._type = (type or "").lower()

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self._value)

    @property
    def type(self) -> str:
        """The content type; "" if unknown."""
        return self._type

    async def text(self) -> str:
        """Return the bytes decoded as UTF-8."""
        return text_of(self._value)

    async def arrayBuffer(self) -> JsBuffer:
        """Return the bytes."""
        return JsBuffer(self._value)

    async def bytes(self) -> Uint8Array:
        """Return the bytes."""
        return Uint8Array(self._value)

    def stream(self) -> ReadableStream:
        """Return the bytes as a stream."""
        return ReadableStream(self._value)

    def slice(
        self, start: int | None = None, end: int | None = None, contentType: str | None = None
    ) -> Blob:
        """Return the bytes from ``start`` to ``end``; negative numbers count from the end."""
        return Blob([JsBuffer(self._value[start:end])], type=contentType)

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> Blob:
        """Return the blob itself: there is no matching Python type."""
        return self

    def _to_wire(self) -> Any:
        return self._value

    def __repr__(self) -> str:
        return "[object Blob]"


class File(Blob):
    """A blob with a name; ``lastModified`` in Unix milliseconds."""

    def __init__(
        self,
        parts: Iterable[Any],
        name: str,
        *,
        type: str | None = None,
        endings: str | None = None,
        lastModified: int | None = None,
    ) -> None:
        super().__init__(parts, type=type, endings=endings)
        self._name = name
        self._last_modified = lastModified

    @property
    def name(self) -> str:
        """The file name."""
        return self._name

    @property
    def lastModified(self) -> int:
        """Unix milliseconds; the time of the first read if it was not set."""
        if self._last_modified is None:
            self._last_modified = int(time.time() * 1000)
        return self._last_modified

    def __repr__(self) -> str:
        return "[object File]"


def _bytes(part: Any, *, native: bool) -> bytes:
    if isinstance(part, str):
        return utf8(_LINE_ENDS.sub("\n", part) if native else part)
    if isinstance(part, Blob):
        return part._value
    if isinstance(part, JsBuffer):
        return part.to_bytes()
    return bytes(part)
