"""Compress and decompress bodies with ``content-encoding: gzip`` or ``br``, as workerd does.

A Worker's body is plain bytes; the header makes the platform compress it. A body that a Worker in
Python has compressed itself is compressed twice, as on the platform: Python's Response has no
``encodeBody``.  The caller of a Worker reads the plain body, beside the header.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import anyio.lowlevel
import brotli

from edgesim.errors import PlatformError
from edgesim.model import Body, Stream, iterate

SLICE_BYTES = 65_536
"""Bytes compressed at a time: the event loop runs other tasks between two slices."""
PIECE_BYTES = 262_144
"""Approximate bytes decompressed at a time: 2 KB of Brotli can be 1 GB."""
_GZIP_WINDOW = 31
_BROTLI_QUALITY = 5


class _Packer(Protocol):
    def pack(self, data: bytes) -> bytes:
        """Compress data; return the output available so far."""

    def finish(self) -> bytes:
        """Return the remaining output."""


class _Gzip:
    def __init__(self) -> None:
        packer = zlib.compressobj(wbits=_GZIP_WINDOW)
        self.pack, self.finish = packer.compress, packer.flush


class _Brotli:
    def __init__(self) -> None:
        packer = brotli.Compressor(quality=_BROTLI_QUALITY)
        self.pack, self.finish = packer.process, packer.finish


class _Unpacker(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield decompressed data in pieces of bounded size; an Exception if it is invalid."""

    def is_finished(self) -> bool:
        """True once the compressed data is complete."""


class _Gunzip:
    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        while (data or len(piece) == PIECE_BYTES) and not self._unpacker.eof:
            piece = self._unpacker.decompress(data, PIECE_BYTES)
            data = self._unpacker.unconsumed_tail
            yield piece

    def is_finished(self) -> bool:
        return self._unpacker.eof


class _Unbrotli:
    def __init__(self) -> None:
        self._unpacker = brotli.Decompressor()
        self.is_finished = self._unpacker.is_finished

    def pieces(self, data: bytes) -> Iterator[bytes]:
        piece = self._unpacker.process(data, output_buffer_limit=PIECE_BYTES)
        while piece:
            yield piece
            piece = self._unpacker.process(b"", output_buffer_limit=PIECE_BYTES)


_UNPACKERS: dict[str, tuple[str, type[_Unpacker]]] = {
    "gzip": ("Gzip", _Gunzip),
    "br": ("Brotli", _Unbrotli),
}
_PACKERS: dict[str, type[_Packer]] = {"gzip": _Gzip, "br": _Brotli}


def packed(body: Body, encoding: str | None, *, even_empty: bool = False) -> Body:
    """Compress the body; return it unchanged if the platform does not support the encoding.

    An empty body stays empty, unless ``even_empty``.
    """
    packer = _PACKERS.get(encoding or "")
    return body if packer is None else Stream(_chunks(body, packer(), even_empty))


def unpacked(body: Body, encoding: str | None) -> Body:
    """Decompress the body; return it unchanged if the platform does not support the encoding.

    Reading it raises PlatformError if it is not in that form.
    """
    if not body or encoding not in _UNPACKERS:
        return body
    name, unpacker = _UNPACKERS[encoding]
    return Stream(_plain_chunks(body, name, unpacker()))


async def _plain_chunks(body: Body, name: str, unpacker: _Unpacker) -> AsyncIterator[bytes]:
    failed = PlatformError(f"{name} decompression failed.", "TypeError")
    try:
        async for chunk in iterate(body):
            for begin in range(0, len(chunk), SLICE_BYTES):
                pieces = unpacker.pieces(chunk[begin : begin + SLICE_BYTES])
                try:
                    while (plain := next(pieces, None)) is not None:
                        await anyio.lowlevel.checkpoint()
                        if plain:
                            yield plain
                except (zlib.error, brotli.error) as error:
                    raise failed from error
        if not unpacker.is_finished():
            raise failed
    finally:
        if isinstance(body, Stream):
            await body.aclose()


async def _chunks(body: Body, packer: _Packer, even_empty: bool) -> AsyncIterator[bytes]:
    empty = not even_empty
    try:
        async for chunk in iterate(body):
            empty = empty and not chunk
            for begin in range(0, len(chunk), SLICE_BYTES):
                await anyio.lowlevel.checkpoint()  # neither side need wait: the output is small
                yield packer.pack(chunk[begin : begin + SLICE_BYTES])
        if not empty:
            yield packer.finish()
    finally:
        if isinstance(body, Stream):
            await body.aclose()
