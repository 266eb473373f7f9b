"""Operator actions on buckets."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import anyio.lowlevel
import msgspec

from edgesim.errors import UsageError, hint
from edgesim.model import R2Object
from edgesim.operations.paging import LIST_PAGE, PagedRows, iso
from edgesim.pipelines.sql.engine import EngineEndedError, SqlEngineError
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.simulator import Simulator

FOLDER_PAGE = 200
"""Folders and objects of one page of a bucket."""
TABLE_ROWS = 50
ROWS_MAX = 1_000
PARQUET_BYTES_MAX = 64 << 20
REQUEUE_PAGE = 500
"""Objects of one page: a reply within about a second, so that a client can show progress."""


async def ls(simulator: Simulator, bucket: str, prefix: str = "") -> PagedRows:
    """List the objects of a bucket."""
    known_bucket(simulator, bucket)
    pages = _pages(simulator.primitives.bucket(bucket), prefix)
    return PagedRows([_described(found) for found in page] async for page in pages)


async def buckets(simulator: Simulator) -> list[dict[str, str]]:
    """List the buckets."""
    return [{"bucket": name} for name in sorted(simulator.primitives.bucket_names())]


async def page(
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


async def notify(simulator: Simulator, bucket: str, key: str) -> dict[str, int]:
    """Send the notifications of an object again."""
    known_bucket(simulator, bucket)
    found = await simulator.primitives.bucket(bucket).head(key)
    if found is None:
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    return {"messages": await simulator.primitives.notify_again(bucket, found)}


async def table(
    simulator: Simulator, bucket: str, key: str, limit: int = TABLE_ROWS
) -> dict[str, Any]:
    """Read the first rows of a Parquet object: its columns with their types, rows, and their count.

    Fewer rows than ``limit`` are returned if they are larger than 1 MiB together.
    """
    known_bucket(simulator, bucket)
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError("reading Parquet needs pyarrow", "pip install 'edgesim[sql]'")
    found = await simulator.primitives.bucket(bucket).get(key)
    if not isinstance(found, R2ObjectBody):
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    async with aclosing(found.body):
        if found.object.size > PARQUET_BYTES_MAX:
            megabytes = PARQUET_BYTES_MAX >> 20
            raise UsageError(f"{key}: is larger than the {megabytes} MiB that are read as a table")
        try:
            read = await simulator.primitives.sql.preview(aiter(found.body), min(limit, ROWS_MAX))
        except (SqlEngineError, EngineEndedError) as error:
            raise UsageError(f"{key}: cannot be read as Parquet: {error.problem}") from error
    return {
        "columns": [{"name": each.name, "type": each.type} for each in read.columns],
        "rows": msgspec.json.Decoder().decode_lines(read.lines),
        "total": read.rows,
    }


async def count(simulator: Simulator, bucket: str, prefix: str = "") -> dict[str, int]:
    """Count the objects of a bucket."""
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


async def rm(simulator: Simulator, bucket: str, key: str) -> dict[str, Any]:
    """Delete an object."""
    known_bucket(simulator, bucket)
    if await simulator.primitives.bucket(bucket).head(key) is None:
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    await simulator.primitives.bucket(bucket).delete(key)
    return {"removed": key}


async def cp(
    simulator: Simulator, bucket: str, key: str, to_bucket: str, to_key: str
) -> dict[str, Any]:
    """Copy an object on the server's side."""
    known_bucket(simulator, bucket)
    known_bucket(simulator, to_bucket)
    copied = await simulator.primitives.bucket(to_bucket).copy(
        simulator.primitives.bucket(bucket), key, to_key
    )
    if copied is None:
        raise UsageError(f"bucket {bucket!r} has no object {key!r}")
    return {"copied": copied.key}


async def requeue(
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


def _described(found: R2Object) -> dict[str, Any]:
    return {
        "key": found.key,
        "size": found.size,
        "etag": found.etag,
        "uploaded": iso(found.uploaded),
    }
