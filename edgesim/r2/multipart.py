"""Multipart uploads: parts of one object may arrive in any order and concurrently.

An upload's id contains its start time: it expires after seven days whatever the store keeps, and an
id that no bucket issued is distinguishable from that of a finished upload.  A step of the system's
clock does not count as elapsed time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from edgesim.clock import Clock
from edgesim.config.notifications import Action
from edgesim.errors import PlatformError
from edgesim.model import Body, R2Object
from edgesim.r2 import limits
from edgesim.r2.driver import Assembled, OutboxEntry, Part, Uploads
from edgesim.r2.limits import refusal
from edgesim.r2.locks import KeyLocks
from edgesim.r2.notifications import Notifications
from edgesim.r2.upload import Upload, written
from edgesim.taps import Tap
from edgesim.timeline import Ages
from edgesim.tracing import TraceContext, current

LIFETIME_MS = 7 * 24 * 3600 * 1000


class OpenUpload(msgspec.Struct, frozen=True):
    """An upload in progress, as a list shows it; its start is in Unix milliseconds."""

    key: str
    upload_id: str
    begun_ms: float
    storage_class: str


class MultipartUpload:
    """A multipart upload by its id; the id is not checked before the upload is used.

    Every method raises PlatformError with R2's message for a call that R2 refuses, RunError if the
    store fails.
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        uploads: Uploads,
        locks: KeyLocks,
        clock: Clock,
        ages: Ages,
        notifications: Notifications,
        tap: Tap,
    ) -> None:
        self.key = key
        self.upload_id = upload_id
        self._begun = _read_id(upload_id)
        self._bucket = bucket
        self._uploads = uploads
        self._locks = locks
        self._clock = clock
        self._ages = ages
        self._notifications = notifications
        self._tap = tap

    async def upload_part(self, number: int, body: Body) -> Part:
        """Store a part, durable on return; replaces an earlier part of that number."""
        upload = Upload("uploadPart", body)

        def finish() -> Part:
            upload.check_length()
            return Part(number, upload.size, upload.md5)

        async with aclosing(upload):
            _check_number(number)
            limits.check_key("uploadPart", self.key)
            store_id = self._store_id()
            part: Part | None = None
            if store_id is not None:
                part = await self._uploads.put_part(
                    self._bucket, self.key, store_id, upload.chunks(), finish
                )
            if part is None:
                raise refusal("uploadPart", limits.NO_SUCH_UPLOAD)
            return part

    async def parts(self) -> Sequence[Part]:
        """The uploaded parts, by number."""
        limits.check_key("listParts", self.key)
        store_id = self._store_id()
        found: Sequence[Part] | None = None
        if store_id is not None:
            found = await self._uploads.parts(self._bucket, self.key, store_id)
        if found is None:
            raise refusal("listParts", limits.NO_SUCH_UPLOAD)
        latest = {part.number: part for part in found}  # some servers list replaced parts too
        return [latest[number] for number in sorted(latest)]

    async def complete(self, parts: Sequence[tuple[int, str]]) -> R2Object:
        """Join the parts, passed as (number, etag) in any order, into the object.

        All but the last by number must have one size, at least 5 MiB, and the last none larger.
        """
        action = "completeMultipartUpload"
        for number, _ in parts:
            _check_number(number)
        limits.check_key(action, self.key)
        if self._begun is None or len(dict(parts)) < len(parts):
            raise refusal(action, limits.INTERNAL_ERROR)
        store_id = self._store_id()
        stored: R2Object | None = None
        if store_id is not None:
            async with self._locks.of([self.key]):
                there = await self._uploads.parts(self._bucket, self.key, store_id)
                if there is not None:
                    chosen = _chosen(action, there, parts)
                    assembled = self._assembled(chosen)
                    outbox = partial(self._outbox, current.get())
                    stored = await self._uploads.complete(
                        self._bucket, self.key, store_id, chosen, assembled, outbox
                    )
        if stored is None:
            raise refusal(action, limits.NO_SUCH_UPLOAD)
        self._tap.offer(1, [written("CompleteMultipartUpload", stored)])
        return stored

    async def abort(self) -> None:
        """Drop the parts; no effect if the upload is already completed or aborted."""
        limits.check_key("abortMultipartUpload", self.key)
        if self._begun is None:
            raise refusal("abortMultipartUpload", limits.INTERNAL_ERROR)
        store_id = self._store_id()
        if store_id is not None:
            await self._uploads.abort(self._bucket, self.key, store_id)

    def _assembled(self, parts: Sequence[Part]) -> Assembled:
        size = sum(part.size for part in parts)
        return Assembled(size, _joined_etag(parts), self._clock.now_ms())

    def _outbox(self, trace: TraceContext | None, stored: R2Object) -> Sequence[OutboxEntry]:
        action: Action = "CompleteMultipartUpload"
        return self._notifications.messages_for(self._bucket, action, stored, trace=trace)

    def _store_id(self) -> str | None:
        """The store's id of the upload; None if it has expired or this id is invalid."""
        if self._begun is None:
            return None
        begun_ms, store_id = self._begun
        return store_id if begun_ms > self._ages.begun_by_ms(LIFETIME_MS) else None


def upload_id(begun_ms: int, store_id: str) -> str:
    """The id that a Worker receives, opaque to it: start time and the store's id."""
    return base64.urlsafe_b64encode(f"{begun_ms:x}.{store_id}".encode()).decode().rstrip("=")


def _read_id(text: str) -> tuple[int, str] | None:
    """Start time (Unix milliseconds) and the store's id; None for an invalid id."""
    try:
        padded = text + "=" * (-len(text) % 4)
        begun, dot, store_id = (
            base64.b64decode(padded, b"-_", validate=True).decode().partition(".")
        )
        return (int(begun, 16), store_id) if dot and store_id else None
    except (binascii.Error, ValueError):
        return None


def _joined_etag(parts: Sequence[Part]) -> str:
    """The ETag that S3 computes from the parts' MD5s; from their etags if these are not MD5s."""
    try:
        named = b"".join(bytes.fromhex(part.etag) for part in parts)
    except ValueError:
        named = "".join(part.etag for part in parts).encode()
    return f"{hashlib.md5(named, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _check_number(number: int) -> None:
    if not 1 <= number <= limits.PARTS_MAX:
        raise PlatformError(
            f"Part number must be between 1 and {limits.PARTS_MAX} (inclusive). "
            f"Actual value was: {number}",
            "TypeError",
        )


def _chosen(action: str, there: Sequence[Part], wanted: Sequence[tuple[int, str]]) -> list[Part]:
    """The requested parts, by number; refused if missing, too small or of uneven size."""
    by_name = {(part.number, part.etag): part for part in there}
    parts = []
    for name in wanted:
        part = by_name.get(name)
        if part is None:
            raise refusal(action, limits.INVALID_PART)
        parts.append(part)
    if not parts:
        raise refusal(action, limits.INVALID_PART)
    if any(part.size < limits.PART_BYTES_MIN for part in parts[:-1]):
        raise refusal(action, limits.ENTITY_TOO_SMALL)
    parts.sort(key=lambda part: part.number)
    *first, last = parts
    sizes = {part.size for part in first}
    if len(sizes) > 1 or any(size < max(limits.PART_BYTES_MIN, last.size) for size in sizes):
        raise refusal(action, limits.BAD_UPLOAD)
    return parts
