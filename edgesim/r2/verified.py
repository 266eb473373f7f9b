"""Whole reads of objects, compared with the stored MD5."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import md5

from edgesim.errors import RunError
from edgesim.model import R2Object, Stream


class Verified:
    """The chunks of a whole object; RunError in place of the last one on a mismatch."""

    def __init__(self, found: R2Object, chunks: AsyncIterator[bytes]) -> None:
        self._found = found
        self._source = Stream(chunks)
        self._left = found.size
        self._md5 = md5(usedforsecurity=False)

    def __aiter__(self) -> Verified:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._source.read()
        self._md5.update(chunk)
        self._left -= len(chunk)
        if self._left <= 0 or not chunk:
            await self._check()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _check(self) -> None:
        if self._left or self._md5.hexdigest() != self._found.checksums["md5"]:
            await self.aclose()
            raise RunError(
                f"r2 object {self._found.key!r} is damaged: its bytes do not match its checksum",
                "restore the object, or remove it",
            )

    async def aclose(self) -> None:
        """Close the source, whether it was read or not."""
        await self._source.aclose()


def verified(found: R2Object, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Check the chunks against the MD5 if it is known; multipart objects have none."""
    return Verified(found, chunks) if "md5" in found.checksums else chunks
