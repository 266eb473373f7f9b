"""Operator actions on queues, buckets and KV namespaces, for the admin endpoints and the commands.

An operation takes a Simulator (its Workers need not run) and plain arguments, and returns plain
values, so that it can be requested over HTTP from a running project or applied to the state of a
stopped one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_type_hints

import anyio.lowlevel
import msgspec

from edgesim.errors import UsageError, hint
from edgesim.model import Message, R2Object
from edgesim.operations import kv
from edgesim.operations.paging import LIST_PAGE, iso
from edgesim.operations.paging import PagedRows as PagedRows
from edgesim.queues.encoding import decode
from edgesim.r2.bucket import Bucket
from edgesim.simulator import Simulator
from edgesim.writer_thread import WriterThread

FOLDER_PAGE = 200
"""Folders and objects of one page of a bucket."""
PEEK_BYTES = 256_000
"""Size of the bodies in one page of messages; decoding one may take 40 ms, hence a thread."""
Operation = Callable[..., Awaitable[Any]]
REQUEUE_PAGE = 500
"""Objects of one page: a reply within about a second, so that a client can show progress."""


async def perform(simulator: Simulator, name: str, arguments: dict[str, Any]) -> Any:
    """Run one operation; UsageError if it does not exist or is called wrongly."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise UsageError(f"there is no operation {name!r}; known: {', '.join(OPERATIONS)}")
    types = get_type_hints(operation)
    try:
        checked = {key: msgspec.convert(arguments[key], types.get(key, Any)) for key in arguments}
        pending = operation(simulator, **checked)
    except (TypeError, msgspec.ValidationError) as error:
        raise UsageError(f"{name}: {error}") from error
    return await pending


async def _queue_ls(simulator: Simulator) -> list[dict[str, Any]]:
    queues = (await simulator.stats())["queues"]
    return [{"queue": name, **counts} for name, counts in queues.items()]


async def _queue_peek(simulator: Simulator, queue: str, limit: int = 10) -> PagedRows:
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


async def _queue_send(simulator: Simulator, queue: str, body: Any) -> dict[str, Any]:
    known_queue(simulator, queue)
    metrics = await simulator.primitives.queue(queue).send(json.dumps(body).encode())
    return {"backlog": metrics.backlog_count}


async def _queue_purge(simulator: Simulator, queue: str) -> dict[str, Any]:
    known_queue(simulator, queue)
    return {"purged": await simulator.primitives.queue(queue).purge()}


async def _queue_redrive(simulator: Simulator, queue: str, to: str) -> dict[str, Any]:
    known_queue(simulator, queue)
    known_queue(simulator, to)
    return {
        "moved": await simulator.primitives.queue(queue).redrive(simulator.primitives.queue(to))
    }


async def _r2_ls(simulator: Simulator, bucket: str, prefix: str = "") -> PagedRows:
    known_bucket(simulator, bucket)
    pages = _pages(simulator.primitives.bucket(bucket), prefix)
    return PagedRows([_described(found) for found in page] async for page in pages)


async def _r2_buckets(simulator: Simulator) -> list[dict[str, str]]:
    return [{"bucket": name} for name in sorted(simulator.primitives.bucket_names())]


async def _r2_page(
    simulator: Simulator, bucket: str, prefix: str = "", cursor: str | None = None
) -> dict[str, Any]:
    """One page of a bucket, as folders: ``cursor`` is the argument of the next, None at the end."""
    known_bucket(simulator, bucket)
    page = await simulator.primitives.bucket(bucket).list(
        prefix=prefix, delimiter="/", cursor=cursor, limit=FOLDER_PAGE
    )
    return {
        "prefixes": page.delimited_prefixes,
        "objects": [_described(found) for found in page.objects],
        "cursor": page.cursor,
    }


async def _r2_notify(simulator: Simulator, bucket: str, key: str) -> dict[str, int]:
    known_bucket(simulator, bucket)
    found = await simulator.primitives.bucket(bucket).head(key)
    if found is None:
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    return {"messages": await simulator.primitives.notify_again(bucket, found)}


async def _pipeline_roll(simulator: Simulator, pipeline: str) -> dict[str, str]:
    if pipeline not in simulator.primitives.pipelines:
        known = ", ".join(sorted(simulator.primitives.pipelines))
        raise UsageError(f"the project has no pipeline {pipeline!r}; known: {known}")
    await simulator.primitives.pipelines[pipeline].roll()
    return {"rolled": pipeline}


async def _r2_count(simulator: Simulator, bucket: str, prefix: str = "") -> dict[str, int]:
    known_bucket(simulator, bucket)
    pages = _pages(simulator.primitives.bucket(bucket), prefix)
    return {"objects": sum([len(page) async for page in pages])}


async def _pages(bucket: Bucket, prefix: str) -> AsyncIterator[list[R2Object]]:
    cursor: str | None = None
    while True:
        page = await bucket.list(prefix=prefix, cursor=cursor, limit=LIST_PAGE)
        yield page.objects
        cursor = page.cursor
        if cursor is None:
            return


async def _r2_rm(simulator: Simulator, bucket: str, key: str) -> dict[str, Any]:
    known_bucket(simulator, bucket)
    if await simulator.primitives.bucket(bucket).head(key) is None:
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    await simulator.primitives.bucket(bucket).delete(key)
    return {"removed": key}


async def _r2_cp(
    simulator: Simulator, bucket: str, key: str, to_bucket: str, to_key: str
) -> dict[str, Any]:
    known_bucket(simulator, bucket)
    known_bucket(simulator, to_bucket)
    copied = await simulator.primitives.bucket(to_bucket).copy(
        simulator.primitives.bucket(bucket), key, to_key
    )
    if copied is None:
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    return {"copied": copied.key}


async def _r2_requeue(
    simulator: Simulator,
    bucket: str,
    prefix: str = "",
    since: str | None = None,
    until: str | None = None,
    after: str = "",
) -> dict[str, Any]:
    """Requeue one page: ``next`` is the ``after`` argument of the next page, None at the end.

    ``seen`` counts the objects read, ``objects`` those selected.
    """
    known_bucket(simulator, bucket)
    first = _time_ms("since", since) if since else float("-inf")
    last = _time_ms("until", until) if until else float("inf")
    stored = simulator.primitives.bucket(bucket)
    page = await stored.list(prefix=prefix, start_after=after, limit=REQUEUE_PAGE)
    chosen = [found for found in page.objects if first <= found.uploaded < last]
    messages = 0
    for found in chosen:
        messages += await simulator.primitives.notify_again(bucket, found)
        await anyio.lowlevel.checkpoint()  # local queues never yield by themselves
    return {
        "objects": len(chosen),
        "messages": messages,
        "seen": len(page.objects),
        "next": page.objects[-1].key if page.truncated else None,
    }


OPERATIONS: dict[str, Operation] = {
    "queue.ls": _queue_ls,
    "queue.peek": _queue_peek,
    "queue.send": _queue_send,
    "queue.purge": _queue_purge,
    "queue.redrive": _queue_redrive,
    "kv.ls": kv.ls,
    "kv.get": kv.get,
    "kv.put": kv.put,
    "kv.rm": kv.rm,
    "pipeline.roll": _pipeline_roll,
    "r2.buckets": _r2_buckets,
    "r2.count": _r2_count,
    "r2.notify": _r2_notify,
    "r2.page": _r2_page,
    "r2.ls": _r2_ls,
    "r2.cp": _r2_cp,
    "r2.rm": _r2_rm,
    "r2.requeue": _r2_requeue,
}


def known_queue(simulator: Simulator, name: str) -> None:
    """UsageError if the project does not have that queue."""
    if name not in simulator.primitives.queue_names():
        raise UsageError(
            f"the project has no queue {name!r}", hint(name, simulator.primitives.queue_names())
        )


def known_bucket(simulator: Simulator, name: str) -> None:
    """UsageError if the project does not have that bucket."""
    if name not in simulator.primitives.bucket_names():
        known = simulator.primitives.bucket_names()
        raise UsageError(f"the project has no bucket {name!r}", hint(name, known))


def _time_ms(name: str, text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        problem = f"{name}: {text!r} is not an ISO date or time, like 2026-01-31T12:00"
        raise UsageError(problem) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000


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


def _described(found: R2Object) -> dict[str, Any]:
    return {
        "key": found.key,
        "size": found.size,
        "etag": found.etag,
        "uploaded": iso(found.uploaded),
    }
