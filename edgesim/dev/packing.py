"""Compress bodies whose Worker sets ``content-encoding: gzip`` or ``br``, as workerd does.

A Worker's body is plain bytes; the header makes the platform compress it. A body that the Worker
has compressed itself is compressed twice, as on the platform: Python's Response has no
``encodeBody``.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Protocol

import brotli

from edgesim.model import Body, Stream, iterate

SLICE_BYTES = 65_536
"""Bytes compressed at a time: the event loop runs other tasks between two slices."""
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


_PACKERS: dict[str, type[_Packer]] = {"gzip": _Gzip, "br": _Brotli}


def packed(body: Body, encoding: str | None) -> Body:
    """Compress the body; return it unchanged if the platform does not support the encoding."""
    packer = _PACKERS.get(encoding or "")
    return body if packer is None else Stream(_chunks(body, packer()))


async def _chunks(body: Body, packer: _Packer) -> AsyncIterator[bytes]:
    empty = True
    try:
        async for chunk in iterate(body):
            empty = empty and not chunk
            for begin in range(0, len(chunk), SLICE_BYTES):
                yield packer.pack(chunk[begin : begin + SLICE_BYTES])
        if not empty:
            yield packer.finish()
    finally:
        if isinstance(body, Stream):
            await body.aclose()
