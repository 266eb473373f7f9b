"""Interface for the bytes of a local store: blobs, named by ids, never by object keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

import anyio.lowlevel

_DROPS = 50  # blobs removed between two checkpoints
_NAMES = 200  # names read between two checkpoints


class Blobs(Protocol):
    """Bytes by name.  Failures are raised as RunError."""

    async def write(
        self, name: str, body: AsyncIterator[bytes], label: Callable[[], bytes]
    ) -> None:
        """Write a new blob; it is complete and durable on return, and absent after a failure.

        ``label`` is called once, after the end of the body.  A persistent store keeps it with the
        bytes: the index can be rebuilt from it.
        """

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """Return a range of bytes; the blob is opened at once, so dropping it is safe."""

    def drop(self, name: str) -> None:
        """Remove the blob if it exists; never raises."""

    def names(self) -> Iterator[str]:
        """All blobs, in no order; no blob may be written or dropped during the iteration."""

    def keep(self, name: str) -> None:
        """Move an unlabelled blob to a folder from which nothing removes it."""

    def label(self, name: str) -> bytes | None:
        """The blob's label; None if it has none or is incomplete."""


async def drop_all(blobs: Blobs, names: Sequence[str]) -> None:
    """Remove blobs; yields to the event loop if there are many."""
    for number, name in enumerate(names, 1):
        blobs.drop(name)
        if number % _DROPS == 0:
            await anyio.lowlevel.cancel_shielded_checkpoint()


async def all_names(blobs: Blobs) -> set[str]:
    """The names of all blobs; yields to the event loop."""
    names: set[str] = set()
    for number, name in enumerate(blobs.names()):
        names.add(name)
        if number % _NAMES == 0:
            await anyio.lowlevel.checkpoint()
    return names
