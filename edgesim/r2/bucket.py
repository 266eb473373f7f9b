"""Bucket: R2's binding API, over any driver.

Implements the platform's behaviour: limits and their errors, conditions, ranges, checksums, listing
with cursors and delimiters, and the notifications for each change.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing

import msgspec

from edgesim.clock import Clock
from edgesim.config.notifications import Action
from edgesim.model import Body, HttpMetadata, R2Object, Stream
from edgesim.r2 import limits
from edgesim.r2.driver import Finished, OutboxEntry, R2Driver
from edgesim.r2.limits import refusal
from edgesim.r2.listing import Listing, Page, position, read_page
from edgesim.r2.locks import KeyLocks
from edgesim.r2.multipart import LIFETIME_MS, MultipartUpload, OpenUpload, upload_id
from edgesim.r2.notifications import CopySource, Notifications
from edgesim.r2.options import Conditional, Range, read_checksum
from edgesim.r2.upload import Upload, written
from edgesim.r2.verified import verified
from edgesim.taps import Tap
from edgesim.timeline import Ages
from edgesim.tracing import current


class R2ObjectBody(msgspec.Struct, frozen=True):
    """An object with its bytes; ``range`` is the range that ``body`` holds.

    The body holds resources of the store until it is read to its end or closed with ``aclose``.
    """

    object: R2Object
    body: Stream
    range: Range


class Bucket:
    """One R2 bucket.

    Every method raises PlatformError with R2's message for a call that R2 refuses, and RunError if
    the store fails.  Use a single instance for each bucket: conditions are atomic among the callers
    of one instance, and against other writers as far as the store supports compare-and-swap.
    """

    def __init__(
        self,
        name: str,
        driver: R2Driver,
        clock: Clock,
        notifications: Notifications,
        tap: Tap | None = None,
    ) -> None:
        self.name = name
        self._driver = driver
        self._clock = clock
        self._notifications = notifications
        self._tap = tap or Tap(f"r2.{name}", clock)
        self._ages = Ages(clock, f"r2 bucket {name}")
        # Wake the relay after every change: a failed call may have committed its notifications.
        self._locks = KeyLocks(notifications.wake)

    async def head(self, key: str) -> R2Object | None:
        """The object's metadata, or None if there is no such object."""
        limits.check_key("head", key)
        return await self._driver.head(self.name, key)

    async def get(
        self,
        key: str,
        *,
        range: Range | None = None,  # noqa: A002 - R2's word
        only_if: Conditional | None = None,
    ) -> R2ObjectBody | R2Object | None:
        """The object; None if there is none; only its metadata if ``only_if`` does not hold.

        Reading the body raises RunError before the last bytes if they do not match the checksum.
        """
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
            is_whole = served.length == seen.size
            chunks = verified(found[0], found[1]) if is_whole else found[1]
            body = Stream(chunks, served.length)
            if found[0].version == seen.version:
                return R2ObjectBody(seen, body, served)
            await body.aclose()  # overwritten meanwhile: evaluate the new version

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
        """Store an object, durable on return; None, without any change, if ``only_if`` fails.

        ``checksums`` holds at most one of md5, sha1, sha256, sha384 and sha512, as hex or bytes; a
        body that does not match is refused.  A stream is read to its end, or closed.
        """
        planned = self._planned(key, http_metadata, custom_metadata, storage_class)
        async with aclosing(Upload("put", body)) as upload:
            expected = read_checksum(checksums or {})
            if expected is not None:
                upload.expect(*expected)
            _check("put", planned)
            return await self._put(planned, upload, only_if, "PutObject")

    async def copy(
        self,
        source: Bucket,
        source_key: str,
        key: str,
        *,
        source_only_if: Conditional | None = None,
        only_if: Conditional | None = None,
        changed: Callable[[R2Object], R2Object] | None = None,
    ) -> R2Object | None:
        """Copy another object's bytes and metadata to ``key``; None if there is no such object.

        ``changed`` returns the copy's metadata.  PlatformError (10031), without any change, if a
        condition on the source or on the object at ``key`` does not hold.
        """
        limits.check_key("copy", key)
        found = await source.get(source_key, only_if=source_only_if)
        if found is None:
            return None
        if not isinstance(found, R2ObjectBody):
            raise refusal("copy", limits.PRECONDITION_FAILED)
        async with aclosing(Upload("copy", found.body)) as upload:
            planned = found.object if changed is None else changed(found.object)
            planned = msgspec.structs.replace(planned, key=key, version=self._clock.hex_id())
            _check("copy", planned)
            copied_from = CopySource(source.name, source_key)
            stored = await self._put(planned, upload, only_if, "CopyObject", copied_from)
        if stored is None:
            raise refusal("copy", limits.PRECONDITION_FAILED)
        return stored

    async def create_multipart_upload(
        self,
        key: str,
        *,
        http_metadata: HttpMetadata | None = None,
        custom_metadata: Mapping[str, str] | None = None,
        storage_class: str = "Standard",
    ) -> MultipartUpload:
        """Begin a multipart upload; it is dropped if not completed within seven days."""
        planned = self._planned(key, http_metadata, custom_metadata, storage_class)
        _check("createMultipartUpload", planned)
        begun_ms = self._ages.now_ms()
        await self._driver.uploads.drop(self.name, self._ages.begun_by_ms(LIFETIME_MS))
        planned = msgspec.structs.replace(planned, uploaded=begun_ms)
        store_id = await self._driver.uploads.create(self.name, planned)
        return self.resume_multipart_upload(key, upload_id(begun_ms, store_id))

    def resume_multipart_upload(self, key: str, upload_id: str) -> MultipartUpload:
        """The upload with that id; the id is not checked until it is used."""
        return MultipartUpload(
            self.name,
            key,
            upload_id,
            self._driver.uploads,
            self._locks,
            self._clock,
            self._ages,
            self._notifications,
            self._tap,
        )

    async def uploads(self, prefix: str = "") -> Sequence[OpenUpload]:
        """The multipart uploads in progress to keys with ``prefix``, by key and start."""
        limits.check_text("listMultipartUploads", prefix)
        found = [
            OpenUpload(
                each.planned.key,
                upload_id(int(each.planned.uploaded), each.upload),
                each.planned.uploaded,
                each.planned.storage_class,
            )
            for each in await self._driver.uploads.in_progress(self.name, prefix)
        ]
        expired_ms = self._ages.begun_by_ms(LIFETIME_MS)
        found.sort(key=lambda each: (each.key.encode(), each.begun_ms, each.upload_id))
        return [each for each in found if each.begun_ms > expired_ms]

    async def _put(
        self,
        planned: R2Object,
        upload: Upload,
        only_if: Conditional | None,
        action: Action,
        copied_from: CopySource | None = None,
    ) -> R2Object | None:
        stored, trace = planned, current.get()

        def finish() -> Finished:
            nonlocal stored
            stored = msgspec.structs.replace(
                planned,
                size=upload.size,
                checksums=upload.checksums(),
                etag=upload.md5,
                uploaded=self._clock.now_ms(),
            )
            messages = self._notifications.messages_for(
                self.name, action, stored, copied_from, trace
            )
            return Finished(stored, messages)

        if only_if is None:
            async with AsyncExitStack() as lock:
                # Locked at the body's end: a slow sender must not delay other writers of the key.
                body = _then(upload.chunks(), lambda: self._lock(lock, planned.key))
                async with aclosing(body):
                    await self._driver.put(self.name, planned.key, body, finish)
                self._tap.offer(1, [written(action, stored)])
            return stored
        async with self._locks.of([planned.key]):
            seen = await self._driver.head(self.name, planned.key)
            if not only_if.holds(seen):
                return None
            done = await self._driver.put(self.name, planned.key, upload.chunks(), finish, seen)
            if not done:
                return None
            self._tap.offer(1, [written(action, stored)])
            return stored

    async def _lock(self, stack: AsyncExitStack, key: str) -> None:
        await stack.enter_async_context(self._locks.of([key]))

    def _planned(
        self,
        key: str,
        http_metadata: HttpMetadata | None,
        custom_metadata: Mapping[str, str] | None,
        storage_class: str,
    ) -> R2Object:
        """The object's metadata as far as it is known before its bytes."""
        return R2Object(
            key=key,
            version=self._clock.hex_id(),
            size=0,
            etag="",
            uploaded=0,
            http_metadata=http_metadata or HttpMetadata(),
            custom_metadata=dict(custom_metadata or {}),
            storage_class=storage_class,
        )

    async def delete(self, keys: str | Sequence[str]) -> None:
        """Remove up to 1,000 objects; missing ones are ignored."""
        keys = [keys] if isinstance(keys, str) else list(dict.fromkeys(keys))
        limits.check_keys("delete", keys)
        async with self._locks.of(keys):
            await self._delete(keys, "DeleteObject")

    async def expire(self, keys: Sequence[str], is_due: Callable[[R2Object], bool]) -> int:
        """Remove those of the objects that are still due, as a lifecycle rule does; count them."""
        async with self._locks.of(keys):
            found = [await self._driver.head(self.name, key) for key in keys]
            due = [each.key for each in found if each is not None and is_due(each)]
            await self._delete(due, "LifecycleDeletion")
        return len(due)

    async def change_class(
        self, key: str, storage_class: str, is_due: Callable[[R2Object], bool]
    ) -> bool:
        """Move an object to another storage class if it is still due; notifies no queue."""
        async with self._locks.of([key]):
            seen = await self._driver.head(self.name, key)
            if seen is None or not is_due(seen):
                return False
            found = await self._driver.get(self.name, key, 0, None)
            if found is None:
                return False
            moved = msgspec.structs.replace(seen, storage_class=storage_class)
            async with aclosing(Stream(verified(*found), seen.size)) as body:
                put = self._driver.put
                return await put(self.name, key, aiter(body), lambda: Finished(moved), seen)

    async def _delete(self, keys: Sequence[str], action: Action) -> None:
        trace = current.get()

        def outbox(gone: R2Object) -> Sequence[OutboxEntry]:
            return self._notifications.messages_for(self.name, action, gone, trace=trace)

        if keys:
            await self._driver.delete(self.name, keys, outbox)
            self._tap.offer(len(keys), ({"action": action, "key": key} for key in keys))

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
        ``include`` names the metadata to return: httpMetadata, customMetadata.
        """
        limits.check_limit("list", limit)
        for text in (prefix, delimiter, start_after):
            limits.check_text("list", text or "")
        page = Page(prefix, max(start_after or "", position(cursor)), delimiter or "", limit)
        return await read_page(self._driver, self.name, page, include)


def _check(action: str, planned: R2Object) -> None:
    limits.check_key(action, planned.key)
    limits.check_metadata(action, planned.http_metadata, planned.custom_metadata)
    limits.check_storage_class(action, planned.storage_class)


async def _then(
    chunks: AsyncIterator[bytes], action: Callable[[], Awaitable[None]]
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks, and await the action before the end."""
    async for chunk in chunks:
        yield chunk
    await action()


def _whole(found: R2Object, chunks: AsyncIterator[bytes]) -> R2ObjectBody:
    return R2ObjectBody(found, Stream(verified(found, chunks), found.size), Range(0, found.size))
