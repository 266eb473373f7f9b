"""Streaming gzip: several members are read as one, and truncated data is an error."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

from edgesim.clickhouse.exceptions import ZLIB_INFLATE_FAILED
from edgesim.errors import ClickHouseError

_GZIP = 31  # zlib's wbits for a gzip header and trailer
_PACKED_BYTES = 1 << 12  # deflate expands a byte to at most 1032 bytes


class Gunzip:
    """Decompresses gzip chunk by chunk; ClickHouseError for invalid data."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._inside = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the decompressed chunk."""
        unpacked = []
        while chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            try:
                unpacked.append(self._member.decompress(chunk))
            except zlib.error as error:
                raise ClickHouseError(
                    ZLIB_INFLATE_FAILED, f"inflate failed: {error}. (ZLIB_INFLATE_FAILED)"
                ) from error
            self._inside = not self._member.eof
            chunk = self._member.unused_data
        return b"".join(unpacked)

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the decompressed chunk in pieces of at most about 4 MB, whatever its ratio."""
        for at in range(0, len(chunk), _PACKED_BYTES):
            if unpacked := self.feed(chunk[at : at + _PACKED_BYTES]):
                yield unpacked

    def finish(self) -> None:
        """End the data; ClickHouseError if the last member is truncated."""
        if self._inside:
            raise ClickHouseError(
                ZLIB_INFLATE_FAILED, "inflate failed: the data ends early. (ZLIB_INFLATE_FAILED)"
            )


async def gunzip(packed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the decompressed data; ClickHouseError if it is invalid or truncated."""
    member = Gunzip()
    async for chunk in packed:
        for unpacked in member.pieces(chunk):
            yield unpacked
    member.finish()


async def gzip(plain: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the compressed data; the trailer follows only if ``plain`` ends without an error."""
    member = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    async for chunk in plain:
        if packed := member.compress(chunk):
            yield packed
    yield member.flush()
