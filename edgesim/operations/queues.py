"""Operator actions on queues."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import msgspec

from edgesim.errors import UsageError, hint
from edgesim.model import Message
from edgesim.operations.paging import PagedRows, iso
from edgesim.queues.encoding import decode
from edgesim.simulator import Simulator
from edgesim.writer_thread import WriterThread

PEEK_BYTES = 256_000
"""Size of the bodies in one page of messages; decoding one may take 40 ms, hence a thread."""


async def ls(simulator: Simulator) -> list[dict[str, Any]]:
    """List the queues: name, backlog, billed operations, delivered, retried, dead, paused."""
    queues = (await simulator.stats())["queues"]
    return [
        {"queue": name, **counts, "paused": simulator.primitives.queue(name).paused}
        for name, counts in queues.items()
    ]


async def peek(simulator: Simulator, queue: str, limit: int = 10) -> PagedRows:
    """Return the oldest messages without changing them."""
    known_queue(simulator, queue)
    return PagedRows(_shown_pages(await simulator.primitives.queue(queue).peek(limit)))


async def _shown_pages(messages: Sequence[Message]) -> AsyncIterator[list[dict[str, Any]]]:
    with closing(WriterThread("peek")) as thread:
        page: list[Message] = []
        size = 0
        for message in messages:
            page.append(message)
            size += len(message.body)
            if size >= PEEK_BYTES:
                yield await thread.run(partial(_all_shown, page))
                page, size = [], 0
        if page:
            yield await thread.run(partial(_all_shown, page))


async def send(simulator: Simulator, queue: str, body: Any) -> dict[str, Any]:
    """Send one message."""
    known_queue(simulator, queue)
    metrics = await simulator.primitives.queue(queue).send(json.dumps(body).encode())
    return {"backlog": metrics.backlog_count}


async def pause(simulator: Simulator, queue: str) -> dict[str, Any]:
    """Deliver no message of the queue until it is resumed; messages are still stored."""
    known_queue(simulator, queue)
    simulator.primitives.queue(queue).pause()
    return {"paused": queue}


async def resume(simulator: Simulator, queue: str) -> dict[str, Any]:
    """Deliver messages of a paused queue again."""
    known_queue(simulator, queue)
    simulator.primitives.queue(queue).resume()
    return {"resumed": queue}


async def purge(simulator: Simulator, queue: str) -> dict[str, Any]:
    """Delete all messages."""
    known_queue(simulator, queue)
    return {"purged": await simulator.primitives.queue(queue).purge()}


async def redrive(simulator: Simulator, queue: str, to: str) -> dict[str, Any]:
    """Move all messages to another queue."""
    known_queue(simulator, queue)
    known_queue(simulator, to)
    return {
        "moved": await simulator.primitives.queue(queue).redrive(simulator.primitives.queue(to))
    }


def known_queue(simulator: Simulator, name: str) -> None:
    """UsageError if the project does not have that queue."""
    if name not in simulator.primitives.queue_names():
        raise UsageError(
            f"the project has no queue {name!r}", hint(name, simulator.primitives.queue_names())
        )


def _all_shown(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_shown(message) for message in messages]


def _shown(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "attempts": message.attempts,
        "timestamp": iso(message.timestamp_ms),
        "contentType": message.content_type,
        # Bytes, also those in v8 bodies, as base64; times as ISO strings.
        "body": msgspec.to_builtins(decode(message.body, message.content_type)),
    }
