"""KV binding of worker code.  Names are JavaScript's, results the SDK's Python values."""

from __future__ import annotations

from typing import Any

from pyodide.ffi import JsException

from workers._binding import Binding
from workers._convert import JsDict, from_wire, to_wire
from workers._http import BodyReader
from workers._json import parse_json


class KvNamespace(Binding):
    """Binding to a KV namespace."""

    async def get(self, *arguments: Any, **keywords: Any) -> Any:
        """Return the value of a key, None if there is none; with a list of keys a dict of values.

        ``type`` (option, or second argument): text, json, arrayBuffer or stream; of several keys
        text or json.  Option cacheTtl.
        """
        options = _options(arguments, keywords, 1)
        if _has_many(arguments):
            return await self._get_many(arguments[0], options, with_metadata=False)
        found = await self._ask("get", *arguments[:1], **options)
        return None if found is None else await _read(found["body"], options)

    async def getWithMetadata(self, *arguments: Any, **keywords: Any) -> Any:
        """Like ``get``, with {"value", "metadata", "cacheStatus"} in place of each value."""
        options = _options(arguments, keywords, 1)
        if _has_many(arguments):
            return await self._get_many(arguments[0], options, with_metadata=True)
        found = await self._ask("get", *arguments[:1], **options)
        if found is None:
            return JsDict(value=None, metadata=None, cacheStatus=None)
        value = await _read(found["body"], options)
        return JsDict(value=value, metadata=_metadata(found["metadata"]), cacheStatus=None)

    async def _get_many(self, keys: Any, options: dict[str, Any], *, with_metadata: bool) -> Any:
        reply = await self._ask("getBulk", keys, **options)
        rows = parse_json(await BodyReader(reply["body"]).text())
        found = JsDict()
        for key, text, metadata in rows:
            is_json = text is not None and options.get("type") == "json"
            value = from_wire(parse_json(text)) if is_json else text
            if with_metadata and value is not None:
                value = JsDict(value=value, metadata=_metadata(metadata))
            found[key] = value
        return found

    async def put(self, *arguments: Any, **keywords: Any) -> None:
        """Store a str, bytes or a stream; options expiration, expirationTtl and metadata."""
        await self._ask("put", *arguments[:2], **_options(arguments, keywords, 2))

    async def delete(self, *arguments: Any) -> None:
        """Remove a key, if it is there."""
        await self._ask("delete", *arguments[:1])

    async def list(self, *arguments: Any, **keywords: Any) -> Any:
        """Return a page of keys, sorted; options prefix, limit and cursor."""
        found = await self._ask("list", **_options(arguments, keywords, 0))
        for key in found["keys"]:
            if "metadata" in key:
                key["metadata"] = parse_json(key["metadata"])
        return from_wire(found | {"cacheStatus": None})


def _has_many(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and isinstance(to_wire(arguments[0]), list)


def _options(arguments: tuple[Any, ...], keywords: dict[str, Any], after: int) -> dict[str, Any]:
    """Merge options that follow the first arguments, a type or a dict, with keywords."""
    merged: dict[str, Any] = {}
    for value in map(to_wire, arguments[after:]):
        if isinstance(value, str):
            merged["type"] = value
        elif isinstance(value, dict):
            merged |= value
    return merged | keywords


async def _read(body: Any, options: dict[str, Any]) -> Any:
    reader = BodyReader(body)
    match options.get("type", "text"):
        case "text":
            return await reader.text()
        case "json":
            return from_wire(parse_json(await reader.text()))
        case "arrayBuffer":
            return await reader.buffer()
        case "stream":
            return reader.body
    raise JsException(
        "TypeError",
        'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".',
    )


def _metadata(text: str | None) -> Any:
    return None if text is None else from_wire(parse_json(text))
