"""Where the bytes of a store on this machine are: blobs, called by ids, never by keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol


class Blobs(Protocol):
    """Bytes by name; failures are raised as RunError."""

    async def write(self, name: str, body: AsyncIterator[bytes]) -> None:
        """Under a name that is new; durable and whole when it returns, nothing after a failure."""

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """Opened at once, so that dropping the blob does not disturb the reader."""

    def drop(self, name: str) -> None:
        """Remove, if it is there; never raises."""

    def names(self) -> Sequence[str]:
        """All blobs."""
