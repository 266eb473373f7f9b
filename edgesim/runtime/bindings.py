"""Behind each kind of binding: from a Call to the primitive's own method, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from edgesim.errors import PlatformError
from edgesim.isolates.wire import StreamRef
from edgesim.model import R2Object
from edgesim.pipelines.pipeline import Pipeline
from edgesim.queues.encoding import content_type_of, encode
from edgesim.queues.producer import MessageSendRequest, Metrics, Queue
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.worker_options import get_arguments, list_arguments, put_arguments, put_body
from edgesim.runtime.invocation import Fetch, Invocation

RPC_BYTES_MAX = 32 << 20


class QueueBinding:
    """A producer of one queue; its delay (seconds) is for messages that name none.

    None leaves those to the queue's own.
    """

    counts_as_connection = True

    def __init__(self, queue: Queue, delivery_delay: float | None) -> None:
        self._queue = queue
        self._delay = delivery_delay

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """send, sendBatch and metrics."""
        match method:
            case "send":
                message = _message(options | ({"body": args[0]} if args else {}))
                delay = self._delay if message.delay_seconds is None else message.delay_seconds
                metrics = await self._queue.send(message.body, message.content_type, delay)
            case "sendBatch":
                messages = [_batch_message(index, each) for index, each in enumerate(args[0])]
                given = _delay_seconds(options)
                metrics = await self._queue.send_batch(
                    messages, self._delay if given is None else given
                )
            case "metrics":
                return shown_metrics(await self._queue.metrics())
            case _:
                raise _no_method("Queue", method)
        return {"metadata": {"metrics": shown_metrics(metrics)}}


def _batch_message(index: int, wire: Any) -> MessageSendRequest:
    if not isinstance(wire, dict):
        raise PlatformError(
            f"Incorrect type for array element {index} of sendBatch(): it is not of type "
            "'MessageSendRequest'.",
            "TypeError",
        )
    return _message(wire)


def _message(wire: dict[str, Any]) -> MessageSendRequest:
    if "body" not in wire:
        raise PlatformError("Message body cannot be undefined", "TypeError")
    named = wire.get("contentType")
    content_type = content_type_of("json" if named is None else str(named))
    body = encode(wire["body"], content_type)
    return MessageSendRequest(body, content_type, _delay_seconds(wire))


def _delay_seconds(options: dict[str, Any]) -> float | None:
    """The option as a number; text and the like, which JavaScript would turn into one, is not."""
    delay = options.get("delaySeconds")
    if delay is None or (isinstance(delay, int | float) and not isinstance(delay, bool)):
        return delay
    raise PlatformError(f"delaySeconds must be a number, not {delay!r:.100}", "TypeError")


def shown_metrics(metrics: Metrics) -> dict[str, Any]:
    """A queue's backlog in the platform's names, its time as the Date it is there."""
    shown: dict[str, Any] = {
        "backlogCount": metrics.backlog_count,
        "backlogBytes": metrics.backlog_bytes,
    }
    if metrics.oldest_message_timestamp_ms is not None:
        oldest = datetime.fromtimestamp(metrics.oldest_message_timestamp_ms / 1000, UTC)
        shown["oldestMessageTimestamp"] = oldest
    return shown


class PipelineBinding:
    """One Pipeline's ``send``."""

    counts_as_connection = False

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Send."""
        if method != "send":
            raise _no_method("Pipeline", method)
        await self._pipeline.send(args[0] if args else None)


class ServiceBinding:
    """Something that speaks HTTP: another Worker, or the ClickHouse gateway."""

    counts_as_connection = False

    def __init__(self, fetch: Fetch, rpc: Any = None) -> None:
        self._fetch = fetch
        self._rpc = rpc

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """fetch, or any RPC method of the target."""
        if method == "fetch":
            return await invocation.fetch_through(self._fetch, args[0])
        if self._rpc is None:
            raise _no_method("RPC receiver", method)
        _check_rpc_size(args)
        result = await self._rpc(method, args, invocation.depth + 1)
        _check_rpc_size(result)
        return result


def _check_rpc_size(value: Any) -> None:
    size = len(msgspec.msgpack.encode(value, enc_hook=repr))  # a stream crosses as its handle
    if size > RPC_BYTES_MAX:
        raise PlatformError(
            "Serialized RPC arguments or return values are limited to 32MiB, but the size of this "
            f"value was: {size} bytes."
        )


class R2Binding:
    """One bucket."""

    counts_as_connection = True

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """head, get, put, delete and list."""
        match method:
            case "head":
                found = await self._bucket.head(args[0])
                return None if found is None else _shown(found)
            case "get":
                return await self._get(args[0], options, invocation)
            case "put":
                body = put_body(self._content(args[1], invocation))
                stored = await self._bucket.put(args[0], body, **put_arguments(options))
                return None if stored is None else _shown(stored)
            case "delete":
                return await self._bucket.delete(args[0])
            case "list":
                listing = await self._bucket.list(**list_arguments(options))
                shown = {
                    "objects": [_shown(each) for each in listing.objects],
                    "truncated": listing.truncated,
                    "delimitedPrefixes": listing.delimited_prefixes,
                }
                return shown | ({"cursor": listing.cursor} if listing.truncated else {})
        raise _no_method("R2Bucket", method)

    async def _get(self, key: str, options: dict[str, Any], invocation: Invocation) -> Any:
        found = await self._bucket.get(key, **get_arguments(options))
        if not isinstance(found, R2ObjectBody):
            return None if found is None else _shown(found)
        shown = _shown(found.object)
        shown["range"] = msgspec.to_builtins(found.range)
        shown["body"] = await invocation.give_body(found.body)
        return shown

    @staticmethod
    def _content(value: Any, invocation: Invocation) -> Any:
        return invocation.take_body(value) if isinstance(value, StreamRef) else value


def _shown(found: R2Object) -> dict[str, Any]:
    """An object's metadata in the platform's names."""
    wire: dict[str, Any] = msgspec.to_builtins(found)
    return wire | {"httpEtag": f'"{found.etag}"'}


def _no_method(kind: str, method: str) -> PlatformError:
    return PlatformError(f'The {kind} does not implement the method "{method}".', "TypeError")
