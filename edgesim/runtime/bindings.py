"""Bindings other than R2: each translates a Call to its primitive's method, and the result back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from edgesim.errors import PlatformError
from edgesim.isolates.protocol.limits import DEPTH_MARGIN, with_depth_margin
from edgesim.model import HttpRequest, HttpResponse
from edgesim.pipelines.pipeline import Pipeline
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.queues.encoding import content_type_of, encode
from edgesim.queues.producer import MessageSendRequest, Metrics, Queue
from edgesim.runtime.arguments import argument
from edgesim.runtime.invocation import Fetch, Invocation
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.redirects import follow

RPC_BYTES_MAX = 32 << 20


class QueueBinding:
    """Producer of one queue.

    ``delivery_delay`` (seconds) applies to messages without a delay; None: the queue's default.
    """

    counts_as_connection = True
    counts_as_subrequest = True

    def __init__(self, queue: Queue, delivery_delay: float | None) -> None:
        self._queue = queue
        self._delay = delivery_delay

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Run send, sendBatch or metrics."""
        match method:
            case "send":
                message = _message(options | ({"body": args[0]} if args else {}))
                delay = self._delay if message.delay_seconds is None else message.delay_seconds
                metrics = await self._queue.send(message.body, message.content_type, delay)
            case "sendBatch":
                messages = [_batch_message(index, each) for index, each in enumerate(_batch(args))]
                given = _delay_seconds(options)
                metrics = await self._queue.send_batch(
                    messages, self._delay if given is None else given
                )
            case "metrics":
                return shown_metrics(await self._queue.metrics())
            case _:
                raise no_method("Queue", method)
        return {"metadata": {"metrics": shown_metrics(metrics)}}


def _batch(args: list[Any]) -> list[Any]:
    batch = argument(args, 0, "sendBatch")
    if isinstance(batch, list):
        return batch
    raise PlatformError(
        "Failed to execute 'sendBatch' on 'Queue': parameter 1 is not of type 'Array'.", "TypeError"
    )


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
    """Return the option; PlatformError if not a number, even if JavaScript would coerce it."""
    delay = options.get("delaySeconds")
    if delay is None or (isinstance(delay, int | float) and not isinstance(delay, bool)):
        return delay
    raise PlatformError(f"delaySeconds must be a number, not {delay!r:.100}", "TypeError")


def shown_metrics(metrics: Metrics) -> dict[str, Any]:
    """Return a queue's backlog with the platform's field names; the timestamp is a Date there."""
    shown: dict[str, Any] = {
        "backlogCount": metrics.backlog_count,
        "backlogBytes": metrics.backlog_bytes,
    }
    if metrics.oldest_message_timestamp_ms is not None:
        oldest = datetime.fromtimestamp(metrics.oldest_message_timestamp_ms / 1000, UTC)
        shown["oldestMessageTimestamp"] = oldest
    return shown


class PipelineBinding:
    """Binding to one stream, or one Pipeline of the legacy form, with the method ``send``."""

    counts_as_connection = False
    counts_as_subrequest = True

    def __init__(self, pipeline: Pipeline | RecordStream) -> None:
        self._pipeline = pipeline

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Send the records of the first argument."""
        if method != "send":
            raise no_method("Pipeline", method)
        await self._pipeline.send(args[0] if args else None)


class ServiceBinding:
    """Binding to an HTTP service: another Worker (with ``rpc``), or the ClickHouse gateway."""

    counts_as_connection = False
    counts_as_subrequest = True

    def __init__(self, fetch: Fetch, rpc: Any = None, scheduled: Any = None) -> None:
        """``scheduled`` is there for callers with the flag for extra handlers."""
        self._fetch = fetch
        self._rpc = rpc
        self._scheduled = scheduled

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Run fetch, or any RPC method of the target."""
        if method == "fetch":
            return await invocation.fetch_through(self._followed, args)
        if method == "scheduled" and self._scheduled is not None:
            given = args[0] if args and isinstance(args[0], dict) else {}
            return await self._scheduled(*_scheduled_options(given), invocation.lineage.next())
        if self._rpc is None:
            raise no_method("RPC receiver", method)
        _check_rpc_size(args)
        result = await self._rpc(method, args, invocation.lineage.next())
        _check_rpc_size(result)
        return result

    async def _followed(self, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        return await follow(request, lambda hop: self._fetch(hop, lineage))


def _scheduled_options(options: dict[str, Any]) -> tuple[str, int | None]:
    time, cron = options.get("scheduledTime"), options.get("cron")
    if isinstance(time, datetime):
        aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        time = aware.timestamp() * 1000
    if time is not None and (isinstance(time, bool) or not isinstance(time, int | float)):
        message = "Failed to execute 'scheduled' on 'Fetcher': scheduledTime is not a Date."
        raise PlatformError(message, "TypeError")
    return "" if cron is None else str(cron), None if time is None else int(time)


def _check_rpc_size(value: Any) -> None:
    try:
        encoded = msgspec.msgpack.encode(
            with_depth_margin(value), enc_hook=repr
        )  # a stream is a StreamRef
    except RecursionError as error:
        raise PlatformError("Maximum call stack size exceeded", "RangeError") from error
    size = len(encoded) - DEPTH_MARGIN
    if size > RPC_BYTES_MAX:
        raise PlatformError(
            "Serialized RPC arguments or return values are limited to 32MiB, but the size of this "
            f"value was: {size} bytes."
        )


def no_method(kind: str, method: str) -> PlatformError:
    """Return the error for a method that a kind of binding does not have."""
    return PlatformError(f'The {kind} does not implement the method "{method}".', "TypeError")
