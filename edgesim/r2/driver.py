"""What R2 needs of a store, and the stores there are."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from edgesim.model import R2Object

DRIVERS = {
    "memory": "edgesim.r2.memory:open_r2",
    "file": "edgesim.r2.file:open_r2",
    "s3": "edgesim.r2.s3.driver:open_r2",
}


class Outgoing(msgspec.Struct, frozen=True):
    """A notification that waits in the outbox: the message for one queue."""

    id: str
    queue: str
    body: bytes


class Finished(msgspec.Struct, frozen=True):
    """What is known of an object once its last byte has been read."""

    object: R2Object
    outbox: Sequence[Outgoing] = ()


class Anything(enum.Enum):
    """A put does not care what it replaces."""

    ANYTHING = enum.auto()


ANYTHING = Anything.ANYTHING
Expected = R2Object | Anything | None
"""What a put is to replace: this version of the object, anything, or nothing at all (None)."""


class Part(msgspec.Struct, frozen=True):
    """An uploaded part of an object; ``etag`` is the store's own, by rights the MD5 in hex."""

    number: int
    size: int
    etag: str


class Assembled(msgspec.Struct, frozen=True):
    """What an object is to be once its parts are joined."""

    size: int
    etag: str
    uploaded: float


class Uploads(Protocol):
    """The multipart uploads of a store.  ``upload`` is the id that ``create`` gave."""

    async def create(self, bucket: str, planned: R2Object) -> str:
        """Begin an upload; ``planned`` has all of the object that is known before its bytes."""

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Part],
    ) -> Part | None:
        """Read ``body`` to its end, call ``finish()``, make the part durable in place of another.

        None if no upload of that id and key is in progress.  If the body or ``finish`` raises,
        nothing has changed.
        """

    async def parts(self, bucket: str, key: str, upload: str) -> Sequence[Part] | None:
        """The parts that are there, by number; None if no such upload is in progress.

        Some S3 servers name replaced parts too.
        """

    async def complete(
        self,
        bucket: str,
        key: str,
        upload: str,
        parts: Sequence[Part],
        assembled: Assembled,
        outbox: Callable[[R2Object], Sequence[Outgoing]],
    ) -> R2Object | None:
        """Join the parts into the object, as one with what ``outbox`` says of it.

        Other parts are dropped.  A store may have an etag and a time of its own for the object.
        None if no such upload is in progress.  If it raises, the upload still is.
        """

    async def abort(self, bucket: str, key: str, upload: str) -> None:
        """Drop an upload and its parts; nothing to do if none is in progress."""

    async def drop(self, bucket: str, before_ms: float) -> None:
        """Drop the bucket's uploads that were begun before that time."""


class R2Driver(Protocol):
    """A store of objects with an outbox.

    A module exports ``open_r2(url, clock, state)``, an async context manager that yields a driver
    (``state``: a directory of the driver's own for what it must remember locally), and
    ``DETERMINISTIC``: True where it uses neither sockets nor threads.  Keys are any legal UTF-8;
    whatever they contain, nothing outside the store is touched.  Failures of the store are raised
    as RunError with the cause kept.
    """

    @property
    def uploads(self) -> Uploads:
        """Objects that arrive in parts."""

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        """Read ``body`` to its end, call ``finish()`` once, make object and outbox durable as one.

        No reader ever sees half an object.  If the body or ``finish`` raises, nothing has changed;
        nor has it if False comes back: what is there is not ``expected`` (any more).
        """

    async def head(self, bucket: str, key: str) -> R2Object | None:
        """The object's metadata, or None."""

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        """Metadata and the bytes from ``offset`` on; both are of the same version of the object.

        Overwriting or deleting the object while it is read does not disturb the reader.
        """

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[Outgoing]]
    ) -> None:
        """Remove the objects, each as one with what ``outbox`` says for it if it was there.

        After a failure some may be gone.
        """

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        """Up to ``limit`` objects with ``prefix``, keys past ``after``, in order of UTF-8 bytes."""

    async def usage(self, bucket: str) -> tuple[int, int]:
        """Number of objects and their bytes."""

    async def buckets(self) -> Sequence[str]:
        """Names of the buckets that hold an object."""

    async def has(self, bucket: str) -> bool:
        """Whether the bucket is there; where buckets are but names, it always is."""

    async def drop(self, bucket: str) -> None:
        """Remove an empty bucket; no other process may be using it."""

    @property
    def in_doubt(self) -> bool:
        """Whether a change that failed may still turn out to have been made.

        Its notifications join the outbox then, although nothing is changed here.
        """

    async def outbox(self, limit: int) -> Sequence[Outgoing]:
        """The oldest notifications not settled yet; RunError where that cannot be known now."""

    async def settle(self, ids: Sequence[str]) -> None:
        """Forget notifications that their queues have taken."""
