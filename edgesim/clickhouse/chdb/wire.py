"""Protocol between the platform and the chdb process: frames of a length and a msgpack value.

Data is framed as well and ends with End, so a closed socket is a lost peer and not the end of data.
Otherwise the received part of an interrupted upload would be inserted under the token of the whole,
and an interrupted response would be taken as complete.
"""

from __future__ import annotations

from typing import BinaryIO

import msgspec
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead
from anyio.streams.buffered import BufferedByteReceiveStream

from edgesim.foreign import Stream

SCRATCH = "scratch"
"""Name of the engine's TMPDIR in the database's folder; the engine keeps a folder there."""
CHUNK_BYTES = 1 << 18
GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)


class Run(msgspec.Struct, tag=True, array_like=True):
    """Frame to the process: a statement; its data follows as Chunks and an End."""

    sql: str
    default_format: str
    encoding: str | None
    database: str | None
    settings: dict[str, str]


class Chunk(msgspec.Struct, tag=True, array_like=True):
    """Frame in both directions: bytes of data."""

    data: bytes


class End(msgspec.Struct, tag=True, array_like=True):
    """Frame in both directions: the data is complete; as a process's first frame: it is ready."""


class Started(msgspec.Struct, tag=True, array_like=True):
    """Frame from the process: the statement runs; its response follows as Chunks and an End."""

    format: str
    written_rows: int | None


class StatementFailed(msgspec.Struct, tag=True, array_like=True):
    """Frame from the process, at any time: ClickHouse's exception."""

    code: int
    message: str


Frame = Run | Chunk | End | Started | StatementFailed
_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Encode a frame with its 4-byte length."""
    body = msgspec.msgpack.encode(frame)
    return len(body).to_bytes(4, "big") + body


def read(pipe: BinaryIO) -> Frame:
    """Read the next frame in the process; EOFError if the platform has closed the socket."""
    head = pipe.read(4)
    body = pipe.read(int.from_bytes(head, "big"))
    if len(head) < 4 or not body:
        raise EOFError
    return _DECODER.decode(body)


class EngineChannel:
    """The platform's end of a statement's socket; raises one of GONE if the peer has closed it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = BufferedByteReceiveStream(stream)

    async def send(self, frame: Frame) -> None:
        """Send one frame."""
        await self._stream.send(encode(frame))

    async def receive(self) -> Frame:
        """Receive the next frame."""
        head = await self._reader.receive_exactly(4)
        return _DECODER.decode(await self._reader.receive_exactly(int.from_bytes(head, "big")))

    async def aclose(self) -> None:
        """Close the socket; the process abandons the statement."""
        await self._stream.aclose()
