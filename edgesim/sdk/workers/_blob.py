"""The SDK's Blob and File, wrappers of ``js.Blob`` and ``js.File``."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import js
from pyodide.ffi import JsBuffer


class BlobEnding(StrEnum):
    """Conversion of line ends in strings: none (transparent), or to a line feed (native)."""

    TRANSPARENT = "transparent"
    NATIVE = "native"


class Blob:
    """Bytes with a content type, built from one part or several."""

    _js_blob: js.Blob

    def __init__(
        self,
        blob_parts: Any,
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
    ) -> None:
        parts, kind = _parts(blob_parts, content_type)
        self._js_blob = js.Blob(parts, type=kind, endings=_ending(endings))

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._js_blob.size

    @property
    def content_type(self) -> str:
        """The content type; "" if unknown."""
        return self._js_blob.type

    @property
    def js_object(self) -> js.Blob:
        """The raw ``js.Blob``."""
        return self._js_blob

    async def text(self) -> str:
        """Return the bytes decoded as UTF-8."""
        return await self._js_blob.text()

    async def bytes(self) -> bytes:
        """Return the bytes."""
        return (await self._js_blob.arrayBuffer()).to_bytes()

    def slice(
        self,
        start: int | None = None,
        end: int | None = None,
        content_type: str | None = None,
    ) -> Blob:
        """Return the bytes from ``start`` to ``end``; negative numbers count from the end."""
        return Blob([self._js_blob.slice(start, end, content_type)])


class File(Blob):
    """A blob with a name."""

    _js_blob: js.File

    def __init__(
        self,
        blob_parts: Any,
        filename: str,
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
        last_modified: int | None = None,
    ) -> None:
        if not last_modified and not _is_many(blob_parts):
            raw = getattr(blob_parts, "_js_blob", blob_parts)
            last_modified = raw.lastModified if isinstance(raw, js.File) else None
        parts, kind = _parts(blob_parts, content_type)
        self._js_blob = js.File(
            parts, filename, type=kind, endings=_ending(endings), lastModified=last_modified
        )

    @property
    def name(self) -> str:
        """The file name."""
        return self._js_blob.name

    @property
    def last_modified(self) -> int:
        """Unix milliseconds."""
        return self._js_blob.lastModified


def wrapped(raw: Any) -> Any:
    """Wrap a raw blob or file in the SDK's class; return anything else unchanged."""
    if isinstance(raw, js.File):
        return File(raw, raw.name)
    return Blob(raw) if isinstance(raw, js.Blob) else raw


def _parts(given: Any, content_type: str | None) -> tuple[list[Any], str | None]:
    """Return the parts and the content type, which a single blob passes on."""
    if _is_many(given):
        return [_part(each) for each in given], content_type
    part = _part(given)
    if not content_type and isinstance(part, js.Blob):
        content_type = part.type
    return [part], content_type


def _is_many(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | JsBuffer)


def _part(each: Any) -> Any:
    if isinstance(each, Blob):
        return each._js_blob
    if isinstance(each, str | js.Blob | JsBuffer):
        return each
    try:
        return JsBuffer(memoryview(each).tobytes())
    except TypeError:
        raise TypeError(f"Don't know how to handle {type(each)} for Blob()") from None


def _ending(endings: BlobEnding | str | None) -> str | None:
    return str(endings) if endings else None
