"""KV binding: translates a Call to the namespace's method, and the result back.

Metadata crosses as JSON text, which the isolate parses with JavaScript's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from edgesim.errors import PlatformError, RunError
from edgesim.isolates.protocol.wire import StreamRef
from edgesim.kv.driver import KvEntry, KvKey
from edgesim.kv.namespace import COUNTED_BYTES_MAX, VALUE_BYTES_MAX, KvNamespace, failed
from edgesim.model import Body, Stream
from edgesim.queues.encoding import encode
from edgesim.runtime.bindings import no_method
from edgesim.runtime.invocation import Invocation
from edgesim.runtime.r2_values import text

_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_CALLS = {"put": "PUT", "delete": "DELETE", "getBulk": "GET_BULK"}
"""The platform's words for calls, in errors; GET for the others."""

log = structlog.get_logger()


class KvBinding:
    """Binding to one namespace."""

    counts_as_connection = True
    counts_as_subrequest = True

    def __init__(self, namespace: KvNamespace) -> None:
        self._namespace = namespace

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Run get, getBulk (several keys), put, delete or list."""
        try:
            return await self._call(method, args, options, invocation)
        except RunError as error:
            log.error(
                "kv store failed", namespace=self._namespace.id, call=method, error=str(error)
            )
            raise failed(_CALLS.get(method, "GET"), 500, "Internal Server Error") from error

    async def _call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        match method:
            case "get":
                return await self._get(_key(args, method), options, invocation)
            case "getBulk":
                return await self._get_many(args, options, invocation)
            case "put":
                body = _value(args, invocation)
                try:
                    async with invocation.collecting(body, VALUE_BYTES_MAX) as collected:
                        return await self._put(_key(args, method), collected, options)
                except PlatformError:
                    await _discard(body)
                    raise
            case "delete":
                return await self._namespace.delete(_key(args, method))
            case "list":
                return await self._list(options)
        raise no_method("KvNamespace", method)

    async def _get(self, key: str, options: Mapping[str, Any], invocation: Invocation) -> Any:
        found = await self._namespace.get(key, _int32(options.get("cacheTtl")))
        if found is None:
            return None
        return {"body": await invocation.give_body(found.value), "metadata": found.metadata}

    async def _get_many(
        self, args: Sequence[Any], options: Mapping[str, Any], invocation: Invocation
    ) -> Any:
        if not args or not isinstance(args[0], list):
            raise _wrong_argument("get", 1, "string or Array")
        kind = options.get("type")
        found = await self._namespace.get_many(
            list(map(_as_key, args[0])),
            "text" if kind is None else text(kind),
            _int32(options.get("cacheTtl")),
        )
        rows = [_row(key, entry) for key, entry in found.items()]
        return {"body": await invocation.give_body(msgspec.json.encode(rows))}

    async def _put(self, key: str, body: Body, options: Mapping[str, Any]) -> None:
        metadata = options.get("metadata")
        await self._namespace.put(
            key,
            body,
            expiration=_int32(options.get("expiration")),
            expiration_ttl=_int32(options.get("expirationTtl")),
            metadata=None if metadata is None else encode(metadata, "json").decode(),
        )

    async def _list(self, options: Mapping[str, Any]) -> dict[str, Any]:
        prefix, cursor = options.get("prefix"), options.get("cursor")
        listing = await self._namespace.list(
            "" if prefix is None else text(prefix),
            _int32(options.get("limit")),
            None if cursor is None else text(cursor),
        )
        shown = {
            "keys": [_shown(each) for each in listing.keys],
            "list_complete": listing.cursor is None,
        }
        return shown | ({} if listing.cursor is None else {"cursor": listing.cursor})


def _row(key: str, entry: KvEntry | None) -> tuple[str, str | None, str | None]:
    if entry is None:
        return key, None, None
    return key, entry.value.decode("utf-8", "replace"), entry.metadata


def _shown(key: KvKey) -> dict[str, Any]:
    wire: dict[str, Any] = msgspec.to_builtins(key)
    return {name: value for name, value in wire.items() if value is not None}


def _key(args: Sequence[Any], method: str) -> str:
    if not args:
        raise _wrong_argument(method, 1, "string or Array" if method == "get" else "string")
    return _as_key(args[0])


def _as_key(value: Any) -> str:
    return ",".join(map(_as_key, value)) if isinstance(value, list) else text(value)


def _value(args: Sequence[Any], invocation: Invocation) -> Body:
    """The second argument as bytes; text and other plain values as UTF-8."""
    if len(args) < 2:
        raise _wrong_argument("put", 2, "string or Object")
    value = args[1]
    if isinstance(value, StreamRef):
        return invocation.take_body(value)
    if isinstance(value, bytes | Stream):
        return value
    if value is None or isinstance(value, str | bool | int | float):
        return text(value).encode()
    raise PlatformError(
        "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as "
        "values.",
        "TypeError",
    )


async def _discard(body: Body) -> None:
    """Read the rest of a refused value: a sender that is cut off would not get the error."""
    if isinstance(body, bytes):
        return
    left = COUNTED_BYTES_MAX
    async for chunk in body:
        left -= len(chunk)
        if left < 0:
            break
    await body.aclose()


def _int32(value: Any) -> int | None:
    """Convert an option to a 32-bit integer as workerd does; None if it is not given."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value.strip() or 0)
        except ValueError:
            value = 0
    if not isinstance(value, int | float) or value != value:  # noqa: PLR0124 (NaN)
        return 0
    if not _INT32_MIN <= value <= _INT32_MAX:
        raise PlatformError(
            f"Value out of range. Must be between {_INT32_MIN} and {_INT32_MAX} (inclusive).",
            "TypeError",
        )
    return int(value)


def _wrong_argument(method: str, number: int, kind: str) -> PlatformError:
    return PlatformError(
        f"Failed to execute '{method}' on 'KvNamespace': parameter {number} is not of type "
        f"'{kind}'.",
        "TypeError",
    )
