"""CRC-32 checksums of an object's bytes, one for each block, so that any range can be checked.

A read checks a whole block before it returns any byte of it.  A range is therefore extended to the
bounds of its first and last block.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import structlog

from edgesim.errors import RunError
from edgesim.model import Stream
from edgesim.r2.local.blobs import Blobs

BLOCK_BYTES = 1 << 18
_SUM_BYTES = 4

log = structlog.get_logger("edgesim.r2")


class BlockSums:
    """Computes block checksums while bytes stream through."""

    def __init__(self) -> None:
        self._sums = bytearray()
        self._current = 0
        self._filled = 0

    async def passing(self, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of ``body`` unchanged and add them to the checksums."""
        async for chunk in body:
            self._add(chunk)
            yield chunk

    def _add(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            piece = rest[: BLOCK_BYTES - self._filled]
            self._current = zlib.crc32(piece, self._current)
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == BLOCK_BYTES:
                self._end_block()

    def _end_block(self) -> None:
        self._sums += self._current.to_bytes(_SUM_BYTES)
        self._current = self._filled = 0

    def value(self) -> bytes:
        """The checksums of all bytes so far, four bytes for each block."""
        if self._filled:
            self._end_block()
        return bytes(self._sums)


class CheckedBlob:
    """A range of a blob in chunks, each checked before it is returned; RunError if damaged.

    The blob is opened at once.  ``size`` is the size of the whole blob.
    """

    def __init__(
        self, blobs: Blobs, name: str, sums: bytes, size: int, offset: int, length: int
    ) -> None:
        self._name = name
        self._sums = sums
        self._size = size
        self._at = offset // BLOCK_BYTES * BLOCK_BYTES if length else offset
        self._skip = offset - self._at
        self._left = length
        end = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, size)
        self._source = Stream(blobs.read(name, self._at, max(0, end - self._at) if length else 0))

    def __aiter__(self) -> CheckedBlob:
        return self

    async def __anext__(self) -> bytes:
        if self._left <= 0:
            await self.aclose()
            raise StopAsyncIteration
        try:
            block = await self._block()
        except BaseException:
            await self.aclose()
            raise
        shown = block[self._skip : self._skip + self._left]
        self._skip = 0
        self._left -= len(shown)
        return shown

    async def _block(self) -> bytes:
        """The next whole block, after its checksum was compared."""
        wanted = min(BLOCK_BYTES, self._size - self._at)
        block = b""
        while len(block) < wanted and (chunk := await self._source.read()):
            block += chunk
        number = self._at // BLOCK_BYTES
        expected = self._sums[number * _SUM_BYTES : (number + 1) * _SUM_BYTES]
        if zlib.crc32(block).to_bytes(_SUM_BYTES) != expected:
            place = {"blob": self._name, "offset": self._at, "bytes": wanted}
            log.error("r2 object damaged", **place)
            raise RunError(
                f"r2 store: blob {self._name} is damaged: bytes {self._at} to "
                f"{self._at + wanted - 1} do not match their checksum",
                "restore the object, or remove it",
            )
        self._at += wanted
        return block

    async def aclose(self) -> None:
        """Close the blob, whether it was read to its end or not."""
        await self._source.aclose()


def read_blob(
    blobs: Blobs, name: str, sums: bytes | None, size: int, offset: int, length: int
) -> AsyncIterator[bytes]:
    """Open a range of a blob, checked if it has checksums for that size.

    Blobs written by an earlier version have none.
    """
    if sums is None or len(sums) != -(-size // BLOCK_BYTES) * _SUM_BYTES:
        return blobs.read(name, offset, length)
    return CheckedBlob(blobs, name, sums, size, offset, length)
