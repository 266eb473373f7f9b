"""Bucket: R2 as a Worker's binding shows it, over any driver.

All of the platform's behaviour is here: limits and their errors, conditions, ranges, checksums,
listing with cursors and delimiters, and the notifications that go with a change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from weakref import WeakValueDictionary

import anyio
import msgspec

from edgesim.clock import Clock
from edgesim.model import Body, HttpMetadata, R2Object, Stream
from edgesim.r2 import limits
from edgesim.r2.driver import Finished, Outgoing, R2Driver
from edgesim.r2.listing import Listing, Page, position, read_page
from edgesim.r2.notifications import Notifications
from edgesim.r2.options import Conditional, Range, read_checksum
from edgesim.r2.upload import Upload


class R2ObjectBody(msgspec.Struct, frozen=True):
    """An object with its bytes; ``range`` says which of them ``body`` holds.

    The body holds resources of the store until it is read to its end or closed with ``aclose``.
    """

    object: R2Object
    body: Stream
    range: Range


class Bucket:
    """One R2 bucket.

    Every method raises PlatformError in R2's words for what R2 refuses, and RunError where the
    store fails.  Conditions hold against all writers that share this object: make one of it for
    each bucket.
    """

    def __init__(
        self, name: str, driver: R2Driver, clock: Clock, notifications: Notifications
    ) -> None:
        self.name = name
        self._driver = driver
        self._clock = clock
        self._notifications = notifications
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def head(self, key: str) -> R2Object | None:
        """The object's metadata, or None."""
        limits.check_key("head", key)
        return await self._driver.head(self.name, key)

    async def get(
        self,
        key: str,
        *,
        range: Range | None = None,  # noqa: A002 - R2's word
        only_if: Conditional | None = None,
    ) -> R2ObjectBody | R2Object | None:
        """The object; None if there is none; without its body if ``only_if`` does not hold."""
        limits.check_key("get", key)
        if range is None and only_if is None:
            found = await self._driver.get(self.name, key, 0, None)
            return None if found is None else _whole(*found)
        while True:
            seen = await self._driver.head(self.name, key)
            if seen is None:
                return None
            if only_if is not None and not only_if.holds(seen):
                return seen
            served = Range(0, seen.size) if range is None else Range(*range.resolve(seen.size))
            found = await self._driver.get(self.name, key, served.offset or 0, served.length)
            if found is None:
                return None
            body = Stream(found[1], served.length)
            if found[0].version == seen.version:
                return R2ObjectBody(seen, body, served)
            await body.aclose()  # overwritten in between: decide again on what is there now

    async def put(
        self,
        key: str,
        body: Body,
        *,
        http_metadata: HttpMetadata | None = None,
        custom_metadata: Mapping[str, str] | None = None,
        checksums: Mapping[str, str | bytes] | None = None,
        only_if: Conditional | None = None,
        storage_class: str = "Standard",
    ) -> R2Object | None:
        """Store an object, durable when it returns; None, and nothing done, if ``only_if`` fails.

        ``checksums`` holds at most one of md5, sha1, sha256, sha384 and sha512, in hex or bytes; a
        body that does not have it is refused.  A stream is read to its end, or closed.
        """
        http_metadata = http_metadata or HttpMetadata()
        upload = Upload(body, read_checksum(checksums or {}))
        stored: R2Object | None = None

        def finish() -> Finished:
            nonlocal stored
            stored = R2Object(
                key=key,
                version=self._clock.hex_id(),
                size=upload.size,
                checksums=upload.checksums(),
                etag=upload.md5,
                uploaded=self._clock.now_ms(),
                http_metadata=http_metadata,
                custom_metadata=dict(custom_metadata or {}),
                storage_class=storage_class,
            )
            told = self._notifications.messages_for(self.name, "PutObject", stored)
            return Finished(stored, told)

        async with aclosing(upload):
            limits.check_key("put", key)
            limits.check_metadata("put", http_metadata, custom_metadata or {})
            limits.check_storage_class("put", storage_class)
            async with self._locked([key]):
                if only_if is None or only_if.holds(await self._driver.head(self.name, key)):
                    await self._driver.put(self.name, key, upload.chunks(), finish)
        return stored

    async def delete(self, keys: str | Sequence[str]) -> None:
        """Remove up to 1,000 objects; those that are not there are nothing to do."""
        keys = [keys] if isinstance(keys, str) else list(dict.fromkeys(keys))
        limits.check_keys("delete", keys)

        def outbox(gone: R2Object) -> Sequence[Outgoing]:
            return self._notifications.messages_for(self.name, "DeleteObject", gone)

        async with self._locked(keys):
            await self._driver.delete(self.name, keys, outbox)

    async def list(
        self,
        *,
        prefix: str = "",
        limit: int = limits.KEYS_MAX,
        cursor: str | None = None,
        delimiter: str | None = None,
        start_after: str | None = None,
        include: Sequence[str] = (),
    ) -> Listing:
        """Up to ``limit`` objects and delimited prefixes with ``prefix``, after ``start_after``.

        Keys that have ``delimiter`` after the prefix are folded into one delimited prefix.
        ``include`` names the metadata that objects shall carry: httpMetadata, customMetadata.
        """
        limits.check_limit("list", limit)
        for text in (prefix, delimiter, start_after):
            limits.check_text("list", text or "")
        page = Page(prefix, max(start_after or "", position(cursor)), delimiter or "", limit)
        return await read_page(self._driver, self.name, page, include)

    @asynccontextmanager
    async def _locked(self, keys: Sequence[str]) -> AsyncIterator[None]:
        """Alone with these keys; then the relay looks, as even a failed call may have told."""
        async with AsyncExitStack() as stack:
            for key in sorted(keys):
                lock = self._locks.setdefault(key, anyio.Lock(fast_acquire=True))
                await stack.enter_async_context(lock)
            try:
                yield
            finally:
                self._notifications.wake()


def _whole(found: R2Object, chunks: AsyncIterator[bytes]) -> R2ObjectBody:
    return R2ObjectBody(found, Stream(chunks, found.size), Range(0, found.size))
