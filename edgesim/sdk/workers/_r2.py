"""R2 binding of worker code: the bucket, its objects, multipart uploads.

``get``, ``head`` and ``put`` return wrapped objects with Python values; the objects in a listing
are raw JavaScript values, with attributes only.  Names are JavaScript's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from pyodide.ffi import JsException, JsProxy

from workers._binding import Binding, merged_options
from workers._convert import JsDict, from_wire
from workers._http import BodyReader
from workers._json import parse_json

_ALGORITHMS = ("md5", "sha1", "sha256", "sha384", "sha512")
_FIELDS = {
    "key",
    "version",
    "size",
    "etag",
    "httpEtag",
    "uploaded",
    "checksums",
    "httpMetadata",
    "customMetadata",
    "range",
    "storageClass",
    "ssecKeyMd5",
}
_HEADERS = {
    "contentType": "content-type",
    "contentLanguage": "content-language",
    "contentDisposition": "content-disposition",
    "contentEncoding": "content-encoding",
    "cacheControl": "cache-control",
    "cacheExpiry": "expires",
}


def _values(wire: dict[str, Any]) -> dict[str, Any]:
    """Convert the times in an object's metadata from Unix milliseconds to datetimes."""
    values = dict(wire)
    values["uploaded"] = datetime.fromtimestamp(wire["uploaded"] / 1000, UTC)
    expiry = wire.get("httpMetadata", {}).get("cacheExpiry")
    if expiry is not None:
        date = datetime.fromtimestamp(expiry / 1000, UTC)
        values["httpMetadata"] = wire["httpMetadata"] | {"cacheExpiry": date}
    return values


def _write_http_metadata(values: dict[str, Any], headers: Any) -> None:
    if "httpMetadata" not in values:
        raise JsException(
            "TypeError",
            f"HTTP metadata unknown for key `{values['key']}`. Did you forget to add "
            "'httpMetadata' to `include` when listing?",
        )
    write: Callable[[str, str], Any] | None = getattr(headers, "set", None)
    if write is None:
        raise JsException(
            "TypeError",
            "Failed to execute 'writeHttpMetadata' on 'R2Object': parameter 1 is not of type "
            "'Headers'.",
        )
    for field, value in values["httpMetadata"].items():
        text = format_datetime(value, usegmt=True) if isinstance(value, datetime) else value
        write(_HEADERS[field], text)


class R2Checksums:
    """Checksums of an object as buffers; None for algorithms that R2 has no checksum of."""

    def __init__(self, checksums: dict[str, str]) -> None:
        self._checksums = checksums

    def __getattr__(self, name: str) -> memoryview | None:
        if name not in _ALGORITHMS:
            raise AttributeError(name)
        text = self._checksums.get(name)
        return None if text is None else memoryview(bytes.fromhex(text))

    def toJSON(self) -> Any:
        """Return the checksums in hex."""
        return JsDict(self._checksums)


class R2Object:
    """Metadata of an object."""

    def __init__(self, wire: dict[str, Any]) -> None:
        self._values = _values(wire)

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(name)
        if name == "checksums":
            return R2Checksums(self._values[name])
        return from_wire(self._values.get(name))

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def writeHttpMetadata(self, headers: Any) -> None:
        """Set the object's HTTP metadata on a ``js.Headers``."""
        _write_http_metadata(self._values, headers)


class R2ObjectBody(R2Object):
    """An object with its bytes, which can be read once."""

    def __init__(self, wire: dict[str, Any], body: Any) -> None:
        super().__init__(wire)
        self._reader = BodyReader(body)

    @property
    def body(self) -> Any:
        """The bytes as a stream to pass on."""
        return self._reader.body

    @property
    def bodyUsed(self) -> bool:
        """True if the bytes have been read or passed on."""
        return self._reader.body_used

    async def arrayBuffer(self) -> memoryview:
        """Read all bytes; JsException (a TypeError) at the second read."""
        if self._reader.body_used:
            raise JsException(
                "TypeError",
                "Body has already been used. It can only be used once. Use tee() first if you "
                "need to read it twice.",
            )
        return memoryview(await self._reader.bytes())

    async def bytes(self) -> memoryview:
        """Read all bytes, like ``arrayBuffer``."""
        return await self.arrayBuffer()

    async def text(self) -> str:
        """Read all bytes as UTF-8; invalid bytes are replaced."""
        return bytes(await self.arrayBuffer()).decode("utf-8-sig", "replace")

    async def json(self) -> Any:
        """Read and parse all bytes as JSON with JavaScript's numbers; JsException if invalid."""
        return from_wire(parse_json(await self.text()))


class R2ChecksumsProxy(JsProxy):
    """Raw checksums of an object in a listing."""

    def __init__(self, checksums: dict[str, str]) -> None:
        super().__init__({name: bytes.fromhex(text) for name, text in checksums.items()})
        self._hex = checksums

    def __getattr__(self, name: str) -> Any:
        return None if _is_undefined(self, name, _ALGORITHMS) else super().__getattr__(name)

    def toJSON(self) -> JsProxy:
        """Return the checksums in hex."""
        return JsProxy(dict(self._hex))


class R2ObjectProxy(JsProxy):
    """Raw object in a listing."""

    def __init__(self, wire: dict[str, Any]) -> None:
        super().__init__(_values(wire) | {"checksums": R2ChecksumsProxy(wire["checksums"])})

    def __getattr__(self, name: str) -> Any:
        return None if _is_undefined(self, name, _FIELDS) else super().__getattr__(name)

    def writeHttpMetadata(self, headers: Any) -> None:
        """Set the object's HTTP metadata, if the listing included it, on a ``js.Headers``."""
        _write_http_metadata(self._value, headers)


def _is_undefined(proxy: JsProxy, name: str, fields: Any) -> bool:
    return name in fields and name not in proxy._value


class R2MultipartUpload:
    """A multipart upload; that it exists is not checked before the first call."""

    def __init__(self, bucket: R2Bucket, key: str, uploadId: str) -> None:
        self._bucket = bucket
        self.key = key
        self.uploadId = uploadId

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    async def uploadPart(self, partNumber: int, value: Any, *options: Any, **keywords: Any) -> Any:
        """Store a part (1 to 10,000) and return {"partNumber", "etag"} for ``complete``."""
        part = await self._ask("uploadPart", partNumber, value, **merged_options(options, keywords))
        return from_wire(part)

    async def complete(self, uploadedParts: Any) -> R2Object:
        """Assemble the object from the parts returned by ``uploadPart``."""
        return R2Object(await self._ask("completeMultipartUpload", uploadedParts))

    async def abort(self) -> None:
        """Delete the uploaded parts and the upload."""
        await self._ask("abortMultipartUpload")

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        return await self._bucket._ask(method, self.key, self.uploadId, *args, **options)


class R2Bucket(Binding):
    """Binding to a bucket."""

    async def head(self, key: str) -> R2Object | None:
        """Return the object's metadata; None if it does not exist."""
        found = await self._ask("head", key)
        return None if found is None else R2Object(found)

    async def get(self, key: str, *options: Any, **keywords: Any) -> R2Object | None:
        """Return the object; None if missing, no body if the ``onlyIf`` precondition fails."""
        found = await self._ask("get", key, **merged_options(options, keywords))
        if found is None:
            return None
        body = found.pop("body", None)
        return R2Object(found) if body is None else R2ObjectBody(found, body)

    async def put(self, key: str, value: Any, *options: Any, **keywords: Any) -> R2Object | None:
        """Store str, bytes, a stream or None; return None if the ``onlyIf`` precondition fails."""
        stored = await self._ask("put", key, value, **merged_options(options, keywords))
        return None if stored is None else R2Object(stored)

    async def delete(self, keys: Any) -> None:
        """Delete one key or a list of up to 1,000."""
        await self._ask("delete", keys)

    async def list(self, *options: Any, **keywords: Any) -> Any:
        """List objects by key; options prefix, limit, cursor, delimiter, startAfter, include."""
        found = await self._ask("list", **merged_options(options, keywords))
        objects = [R2ObjectProxy(each) for each in found.pop("objects")]
        listing = from_wire(found)
        listing["objects"] = objects
        return listing

    async def createMultipartUpload(
        self, key: str, *options: Any, **keywords: Any
    ) -> R2MultipartUpload:
        """Start a multipart upload; options httpMetadata, customMetadata, ..."""
        upload = await self._ask("createMultipartUpload", key, **merged_options(options, keywords))
        return R2MultipartUpload(self, upload["key"], upload["uploadId"])

    def resumeMultipartUpload(self, key: str, uploadId: str) -> R2MultipartUpload:
        """Return the upload of that id without checking it; not a coroutine."""
        return R2MultipartUpload(self, key, uploadId)
