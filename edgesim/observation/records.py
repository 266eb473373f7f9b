"""Search of records: in the logs of pipelines, and in the objects of buckets.

Objects are read newest first until a limit on objects, bytes or time is reached.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable

import anyio
import anyio.lowlevel

from edgesim.clickhouse.compression import gunzip
from edgesim.errors import ClickHouseError, EdgesimError
from edgesim.model import R2Object
from edgesim.observation.sighting import Needle, Sighting, cut, iso
from edgesim.pipelines.pipeline import Pipeline
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.r2.bucket import Bucket, R2ObjectBody

OBJECTS_MAX = 500
"""Objects of a bucket that are read, newest first."""
BYTES_MAX = 256 << 20
"""Unpacked bytes of a bucket's objects that are read."""
SECONDS_MAX = 10.0
"""Time for the objects of one bucket."""
LISTED = 500
FOUND_MAX = 20
"""Lines of one window or object that are shown."""
LINE_BYTES_MAX = 1 << 20
"""A longer line is searched in parts of about this size."""
_GZIP_MAGIC = b"\x1f\x8b"


async def in_pipelines(
    buffers: Iterable[Pipeline | RecordStream], needle: Needle
) -> AsyncIterator[Sighting]:
    """Records that are safe in the log of a pipeline or stream and not yet in an object."""
    for buffer in buffers:
        for window in buffer.windows:
            row = 0
            for chunk in window.chunks():
                await anyio.lowlevel.checkpoint()
                for number, line in _lines_with(chunk.lines, needle):
                    detail = {
                        "record": row + number,
                        "of": window.rows,
                        "key": window.key,
                        "text": cut(line),
                    }
                    yield Sighting("pipeline", buffer.name, iso(window.opened_at * 1000), detail)
                row += chunk.rows


async def in_bucket(bucket: Bucket, needle: Needle) -> AsyncIterator[Sighting]:
    """Lines of objects, newest objects first; objects whose key contains the text too."""
    objects, total = await _newest(bucket)
    read = size = 0
    with anyio.move_on_after(SECONDS_MAX):
        for found in objects:
            if size >= BYTES_MAX:
                break
            async for sighting, unpacked in _in_object(bucket, found, needle):
                size += unpacked
                if sighting is not None:
                    yield sighting
            read += 1
    if read < total:
        detail = {"objects": total - read, "reason": "older than those that a search reads"}
        yield Sighting("not searched", f"bucket {bucket.name}", detail=detail)


async def _newest(bucket: Bucket) -> tuple[list[R2Object], int]:
    """The latest objects of a bucket, newest first, and the number of all."""
    newest: list[tuple[float, str, R2Object]] = []
    total = 0
    cursor: str | None = None
    while True:
        page = await bucket.list(cursor=cursor, limit=LISTED)
        total += len(page.objects)
        described = [(each.uploaded, each.key, each) for each in page.objects]
        newest = heapq.nlargest(OBJECTS_MAX, newest + described, key=lambda each: each[:2])
        cursor = page.cursor
        if cursor is None:
            return [found for _, _, found in newest], total


async def _in_object(
    bucket: Bucket, found: R2Object, needle: Needle
) -> AsyncIterator[tuple[Sighting | None, int]]:
    """Sightings in one object, each with the bytes read since the one before."""
    place, at = f"{bucket.name}/{found.key}", iso(found.uploaded)
    if needle.is_in(found.key):
        yield Sighting("object", place, at, {"key": found.key, "bytes": found.size}), 0
    try:
        count = row = 0
        async for block in _blocks(bucket, found):
            for number, line in _lines_with(block, needle):
                count += 1
                if count <= FOUND_MAX:
                    detail = {"line": row + number, "text": cut(line)}
                    yield Sighting("object", place, at, detail), 0
            row += block.count(b"\n")
            yield None, len(block)
    except (EdgesimError, OSError) as error:
        yield Sighting("not searched", f"object {place}", at, {"reason": str(error)}), 0


async def _blocks(bucket: Bucket, found: R2Object) -> AsyncIterator[bytes]:
    """The object's content, unpacked, in blocks that end with a line unless it is very long."""
    got = await bucket.get(found.key)
    if not isinstance(got, R2ObjectBody):
        return  # deleted meanwhile
    chunks = aiter(got.body)
    first = await anext(chunks, b"")

    async def all_chunks() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    pieces = gunzip(all_chunks()) if first.startswith(_GZIP_MAGIC) else all_chunks()
    rest = b""
    try:
        async for piece in pieces:
            await anyio.lowlevel.checkpoint()
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                yield whole + newline
            if len(rest) > LINE_BYTES_MAX:
                yield rest
                rest = b""
    except ClickHouseError as error:
        raise EdgesimError(f"its gzip data is damaged: {error}") from error
    if rest:
        yield rest


def _lines_with(block: bytes, needle: Needle) -> list[tuple[int, str]]:
    """Lines that contain the text, with their numbers from 1."""
    if not needle.is_in_bytes(block):
        return []
    return [
        (number, line.decode("utf-8", "replace"))
        for number, line in enumerate(block.split(b"\n"), 1)
        if needle.is_in_bytes(line)
    ]
