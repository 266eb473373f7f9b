"""The interface of an R2 store."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from edgesim.model import R2Object


class OutboxEntry(msgspec.Struct, frozen=True):
    """A notification in the outbox: the message for one queue."""

    id: str
    queue: str
    body: bytes


class Finished(msgspec.Struct, frozen=True):
    """An object's complete metadata and its notifications, known after its last byte was read."""

    object: R2Object
    outbox: Sequence[OutboxEntry] = ()


class Anything(enum.Enum):
    """A put without a precondition."""

    ANYTHING = enum.auto()


ANYTHING = Anything.ANYTHING
Expected = R2Object | Anything | None
"""Precondition of a put: this version of the object, anything, or no object (None)."""


class Part(msgspec.Struct, frozen=True):
    """An uploaded part; ``etag`` is assigned by the store, normally the MD5 in hex."""

    number: int
    size: int
    etag: str


class Assembled(msgspec.Struct, frozen=True):
    """Size, ETag and upload time (Unix milliseconds) of an object assembled from its parts."""

    size: int
    etag: str
    uploaded: float


class UploadInProgress(msgspec.Struct, frozen=True):
    """A multipart upload: its id, and the metadata that ``create`` was given."""

    upload: str
    planned: R2Object


class Uploads(Protocol):
    """The multipart uploads of a store.  ``upload`` is the id returned by ``create``."""

    async def create(self, bucket: str, planned: R2Object) -> str:
        """Begin an upload; ``planned`` is the metadata known before the bytes.

        Its ``uploaded`` is the time at which the upload begins.
        """

    async def in_progress(self, bucket: str, prefix: str) -> Sequence[UploadInProgress]:
        """The uploads to keys with ``prefix``, in no order.

        A store that does not keep their metadata returns those that this process has begun.
        """

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Part],
    ) -> Part | None:
        """Read ``body`` to its end, call ``finish()``, store the part durably; replaces one.

        None if no upload with that id and key is in progress.  If the body or ``finish`` raises,
        nothing has changed.
        """

    async def parts(self, bucket: str, key: str, upload: str) -> Sequence[Part] | None:
        """The uploaded parts by number; None if no such upload is in progress.

        Some S3 servers include replaced parts.
        """

    async def complete(
        self,
        bucket: str,
        key: str,
        upload: str,
        parts: Sequence[Part],
        assembled: Assembled,
        outbox: Callable[[R2Object], Sequence[OutboxEntry]],
    ) -> R2Object | None:
        """Join the parts into the object, atomically with the notifications from ``outbox``.

        Other parts are dropped.  A store may assign the object's etag and time itself.  None if no
        such upload is in progress.  If it raises, the upload stays in progress.
        """

    async def abort(self, bucket: str, key: str, upload: str) -> None:
        """Drop an upload and its parts; no effect if none is in progress."""

    async def drop(self, bucket: str, before_ms: float) -> None:
        """Drop the bucket's uploads begun before that time (Unix milliseconds)."""


class R2Driver(Protocol):
    """A store of objects with an outbox.

    A module exports ``open_r2(url, clock, state)``, an async context manager that yields a driver
    (``state``: the driver's own directory for local state), and declares the Properties of
    edgesim.drivers.  Keys are any legal UTF-8; no key may reach anything outside the store.
    Failures of the store are raised as RunError with the cause kept.
    """

    @property
    def uploads(self) -> Uploads:
        """Multipart uploads."""

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        """Read ``body`` to its end, call ``finish()`` once, commit object and outbox as one.

        No reader ever sees a partial object.  If the body or ``finish`` raises, nothing changes.
        False, without any change, if the stored object is not ``expected`` (any more).
        """

    async def head(self, bucket: str, key: str) -> R2Object | None:
        """The object's metadata, or None if there is no such object."""

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        """Metadata and the bytes from ``offset`` on, both of the same version of the object.

        Overwriting or deleting the object during a read does not affect the reader.
        """

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[OutboxEntry]]
    ) -> None:
        """Remove the objects, each atomically with its notifications from ``outbox``.

        Missing objects are skipped.  After a failure some objects may be removed.
        """

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        """Up to ``limit`` objects with ``prefix``, keys after ``after``, in UTF-8 byte order."""

    async def usage(self, bucket: str) -> tuple[int, int]:
        """Number of objects and their total bytes."""

    async def buckets(self) -> Sequence[str]:
        """Names of the buckets that hold an object."""

    async def has(self, bucket: str) -> bool:
        """True if the bucket exists; always True where a bucket is only a name."""

    async def drop(self, bucket: str) -> None:
        """Remove an empty bucket; no other process may be using it."""

    @property
    def in_doubt(self) -> bool:
        """True while a failed change may still turn out to have been made (an in-doubt write).

        Its notifications may then join the outbox without another local change.
        """

    async def outbox(self, limit: int) -> Sequence[OutboxEntry]:
        """The oldest unsettled notifications; RunError if the store cannot know them yet."""

    async def settle(self, ids: Sequence[str]) -> None:
        """Remove notifications that their queues have accepted."""
