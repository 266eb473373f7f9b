"""The platform's HTTP API of queues for clients: pull, ack and push messages.

The path is ``/client/v4/accounts/{account}/queues/{queue}/messages...``: any account is accepted,
and the queue is its name or the id in the list of queues. Sources:
https://developers.cloudflare.com/queues/configuration/pull-consumers/ and the API reference;
replies have their envelope (success, errors, messages, result). Bodies of json and bytes are
base64-encoded, text is not; v8 is base64 of edgesim's own encoding, as opaque to clients as the
platform's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from edgesim.dev.api_guard import ACCOUNT, Guard, RefusedError, body_of, failure
from edgesim.dev.front import Front
from edgesim.errors import EdgesimError, PlatformError
from edgesim.model import Message, Retry
from edgesim.queues.encoding import content_type_of, encode
from edgesim.queues.producer import MessageSendRequest, Metrics, Queue
from edgesim.queues.pull import PullConsumer
from edgesim.simulator import Simulator

PREFIX = f"{ACCOUNT}/queues"
BODY_BYTES_MAX = 2_000_000
"""More than a batch of 256 KB with the least efficient JSON escaping."""

log = structlog.get_logger()


PAUSED = 10252
"""Code of the error for a paused queue; the platform documents the text only, this is its code for
a disabled queue."""


class _Pull(msgspec.Struct):
    batch_size: int | None = None
    visibility_timeout_ms: int | None = None
    visibility_timeout: int | None = None  # name in older documentation


class _Ack(msgspec.Struct):
    lease_id: str


class _Retry(msgspec.Struct):
    lease_id: str
    delay_seconds: float | None = None


class _Settle(msgspec.Struct):
    acks: list[_Ack] = []
    retries: list[_Retry] = []


class _Push(msgspec.Struct):
    body: Any
    content_type: str = "json"
    delay_seconds: float | None = None


class _PushBatch(msgspec.Struct):
    messages: list[_Push]
    delay_seconds: float | None = None


Endpoint = Callable[[Simulator, Request], Awaitable[Any]]


def queues_routes(front: Front, guard: Guard) -> list[Route]:
    """The routes of the endpoints."""

    def guarded(endpoint: Endpoint) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def serve(request: Request) -> JSONResponse:
            try:
                guard.check(request)
                result = await endpoint(await front.simulator(), request)
            except RefusedError as refused:
                return failure(refused.status, refused.code, str(refused))
            except PlatformError as error:
                return failure(*_status_and_code(error.message), error.message)
            except EdgesimError as error:
                log.error("queues API request failed", error=str(error))
                return failure(500, 15000, str(error))
            return JSONResponse({"success": True, "errors": [], "messages": [], "result": result})

        return serve

    queue = PREFIX + "/{queue}"
    return [
        Route(PREFIX, guarded(_list), methods=["GET"]),
        Route(f"{queue}/messages", guarded(_push), methods=["POST"]),
        Route(f"{queue}/messages/batch", guarded(_push_batch), methods=["POST"]),
        Route(f"{queue}/messages/pull", guarded(_pull), methods=["POST"]),
        Route(f"{queue}/messages/ack", guarded(_settle), methods=["POST"]),
    ]


def queue_id(name: str) -> str:
    """Id of a queue in this API: 32 hex digits, as on the platform."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


# --- endpoints ---


async def _list(simulator: Simulator, request: Request) -> Any:
    return [
        {"queue_id": queue_id(name), "queue_name": name}
        for name in sorted(
            simulator.primitives.queue_names() | simulator.primitives.pull_consumers.keys()
        )
    ]


async def _push(simulator: Simulator, request: Request) -> Any:
    queue = _queue(simulator, request)
    sent = _encoded(await _body(request, _Push))
    return _metadata(await queue.send(sent.body, sent.content_type, sent.delay_seconds))


async def _push_batch(simulator: Simulator, request: Request) -> Any:
    queue = _queue(simulator, request)
    batch = await _body(request, _PushBatch)
    messages = [_encoded(each) for each in batch.messages]
    return _metadata(await queue.send_batch(messages, batch.delay_seconds))


async def _pull(simulator: Simulator, request: Request) -> Any:
    consumer = _consumer(simulator, request)
    wanted = await _body(request, _Pull)
    if consumer.queue.paused:
        raise RefusedError(409, PAUSED, "queue_delivery_paused")
    visibility_ms = wanted.visibility_timeout_ms
    if visibility_ms is None:
        visibility_ms = wanted.visibility_timeout
    messages = await consumer.pull(wanted.batch_size, visibility_ms)
    metrics = await consumer.queue.metrics()
    return {
        "message_backlog_count": metrics.backlog_count,
        "messages": [_shown(message) for message in messages],
        **_metadata(metrics),
    }


async def _settle(simulator: Simulator, request: Request) -> Any:
    consumer = _consumer(simulator, request)
    wanted = await _body(request, _Settle)
    settled = await consumer.settle(
        [each.lease_id for each in wanted.acks],
        [Retry(each.lease_id, each.delay_seconds) for each in wanted.retries],
    )
    return {
        "ackCount": settled.acks,
        "retryCount": settled.retries,
        "warnings": settled.warnings,
    }


# --- shared by the endpoints ---


def _queue(simulator: Simulator, request: Request) -> Queue:
    asked = request.path_params["queue"]
    for name in simulator.primitives.queue_names() | simulator.primitives.pull_consumers.keys():
        if asked in {name, queue_id(name)}:
            return simulator.primitives.queue(name)
    raise RefusedError(404, 10104, f"there is no queue {asked!r} (10104)")


def _consumer(simulator: Simulator, request: Request) -> PullConsumer:
    name = _queue(simulator, request).name
    consumer = simulator.primitives.pull_consumers.get(name)
    if consumer is None:
        raise RefusedError(
            400, 15000, f"queue {name!r} has no pull consumer: [queues.{name}.pull] in edgesim.toml"
        )
    return consumer


async def _body(request: Request, kind: type[Any]) -> Any:
    content = await body_of(request, BODY_BYTES_MAX, 10205)
    try:
        return msgspec.json.decode(content or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, 10207, f"bad JSON: {error} (10207)") from error


def _encoded(message: _Push) -> MessageSendRequest:
    content_type = content_type_of(message.content_type)
    if content_type not in {"json", "text"}:
        raise PlatformError(
            f"content_type must be json or text, not {message.content_type} (10207)"
        )
    return MessageSendRequest(
        encode(message.body, content_type), content_type, message.delay_seconds
    )


def _shown(message: Message) -> dict[str, Any]:
    plain = message.content_type == "text"
    return {
        "id": message.id,
        "body": message.body.decode() if plain else base64.b64encode(message.body).decode(),
        "timestamp_ms": message.timestamp_ms,
        "attempts": message.attempts,
        "metadata": {"CF-Content-Type": message.content_type},
        "lease_id": message.lease_id,
    }


def _metadata(metrics: Metrics) -> dict[str, Any]:
    shown = {
        "backlog_count": metrics.backlog_count,
        "backlog_bytes": metrics.backlog_bytes,
        "oldest_message_timestamp_ms": metrics.oldest_message_timestamp_ms or 0,
    }
    return {"metadata": {"metrics": shown}}


def _status_and_code(message: str) -> tuple[int, int]:
    """HTTP status and code of a queue's error.

    The code is at the end of the message; the default is 10207 (bad body).
    """
    digits = message[message.rfind("(") + 1 :].rstrip(")")
    code = int(digits) if digits.isdigit() else 10207
    if code in {10204, 10205, 10206}:
        return 413, code
    return (429 if code // 10 == 1025 else 400), code
