"""What the platform and the chdb process say to each other: frames, a length and a msgpack value.

Data is framed as well, and ends with End: a closed socket is not an end of data but somebody gone.
Without that, an upload that broke off would be inserted as far as it came, under the token of the
whole, and an answer that broke off would pass for all of it.
"""

from __future__ import annotations

from typing import BinaryIO

import msgspec
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead
from anyio.streams.buffered import BufferedByteReceiveStream

from edgesim.foreign import Stream

SCRATCH = "scratch"
"""Beneath the database's folder: the engine's TMPDIR, where it keeps a folder while it runs."""
CHUNK_BYTES = 1 << 18
GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)


class Run(msgspec.Struct, tag=True, array_like=True):
    """To the process: a statement; its data follows as Chunks and an End."""

    sql: str
    default_format: str
    encoding: str | None
    database: str | None
    settings: dict[str, str]


class Chunk(msgspec.Struct, tag=True, array_like=True):
    """Bytes of data, either way."""

    data: bytes


class End(msgspec.Struct, tag=True, array_like=True):
    """The data is complete; as the first frame of a process: it is ready."""


class Started(msgspec.Struct, tag=True, array_like=True):
    """From the process: the statement runs; its answer follows as Chunks and an End."""

    format: str
    written_rows: int | None


class Failed(msgspec.Struct, tag=True, array_like=True):
    """From the process, at any time: ClickHouse's exception."""

    code: int
    message: str


Frame = Run | Chunk | End | Started | Failed
_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The frame as it goes over the socket."""
    body = msgspec.msgpack.encode(frame)
    return len(body).to_bytes(4, "big") + body


def read(pipe: BinaryIO) -> Frame:
    """The next frame, in the process; EOFError where the platform has let go."""
    head = pipe.read(4)
    body = pipe.read(int.from_bytes(head, "big"))
    if len(head) < 4 or not body:
        raise EOFError
    return _DECODER.decode(body)


class Channel:
    """The platform's end of a statement's socket; whoever is gone shows as one of GONE."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = BufferedByteReceiveStream(stream)

    async def send(self, frame: Frame) -> None:
        """One frame."""
        await self._stream.send(encode(frame))

    async def receive(self) -> Frame:
        """The next frame."""
        head = await self._reader.receive_exactly(4)
        return _DECODER.decode(await self._reader.receive_exactly(int.from_bytes(head, "big")))

    async def aclose(self) -> None:
        """Let go; the process gives up what it was doing for this statement."""
        await self._stream.aclose()
