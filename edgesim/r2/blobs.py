"""Where the bytes of a store on this machine are: blobs, called by ids, never by keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

import anyio.lowlevel

_DROPS = 50  # removed without letting others run
_NAMES = 200  # read likewise


class Blobs(Protocol):
    """Bytes by name; failures are raised as RunError."""

    async def write(
        self, name: str, body: AsyncIterator[bytes], label: Callable[[], bytes]
    ) -> None:
        """Under a name that is new; durable and whole when it returns, nothing after a failure.

        ``label`` is called once, after the body's end.  A store that outlives its process keeps it
        with the bytes: it says whose they are, should the index be lost.
        """

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """Opened at once, so that dropping the blob does not disturb the reader."""

    def drop(self, name: str) -> None:
        """Remove, if it is there; never raises."""

    def names(self) -> Iterator[str]:
        """All blobs, in no order; none may be written or dropped meanwhile."""

    def keep(self, name: str) -> None:
        """Put a blob that nothing is known of where no one removes it."""

    def label(self, name: str) -> bytes | None:
        """The blob's label; None if it has none or is not whole."""


async def drop_all(blobs: Blobs, names: Sequence[str]) -> None:
    """Remove blobs; others run in between if there are many."""
    for number, name in enumerate(names, 1):
        blobs.drop(name)
        if number % _DROPS == 0:
            await anyio.lowlevel.cancel_shielded_checkpoint()


async def all_names(blobs: Blobs) -> set[str]:
    """The names of all blobs; others run in between."""
    names: set[str] = set()
    for number, name in enumerate(blobs.names()):
        names.add(name)
        if number % _NAMES == 0:
            await anyio.lowlevel.checkpoint()
    return names
