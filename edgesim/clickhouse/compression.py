"""gzip in pieces: several members are one text, and a text cut short is an error."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

from edgesim.clickhouse.exceptions import ZLIB_INFLATE_FAILED
from edgesim.errors import ClickHouseError

_GZIP = 31  # zlib's wbits for a gzip header and trailer
_PACKED_BYTES = 1 << 12  # no byte of deflate's stands for more than 1032


class Gunzip:
    """Unpacks chunk by chunk; ClickHouseError for what is no gzip."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._inside = False

    def feed(self, chunk: bytes) -> bytes:
        """What the chunk holds."""
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
        """The same in pieces of 4 MB or so at most, however well it was packed."""
        for at in range(0, len(chunk), _PACKED_BYTES):
            if unpacked := self.feed(chunk[at : at + _PACKED_BYTES]):
                yield unpacked

    def finish(self) -> None:
        """Say that there is no more: a member that has not ended is an error."""
        if self._inside:
            raise ClickHouseError(
                ZLIB_INFLATE_FAILED, "inflate failed: the data ends early. (ZLIB_INFLATE_FAILED)"
            )


async def gunzip(packed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The unpacked text, in chunks."""
    member = Gunzip()
    async for chunk in packed:
        for unpacked in member.pieces(chunk):
            yield unpacked
    member.finish()


async def gzip(plain: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The packed text; its trailer comes only if ``plain`` came to its end."""
    member = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    async for chunk in plain:
        if packed := member.compress(chunk):
            yield packed
    yield member.flush()
