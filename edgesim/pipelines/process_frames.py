"""Frames between the platform and the processes of pipelines: a length and a msgpack value."""

from __future__ import annotations

from typing import Any, BinaryIO, Generic, TypeVar

import msgspec

LENGTH_BYTES = 4
F = TypeVar("F")


class FrameCodec(Generic[F]):
    """Encodes and decodes the frames of one protocol; ``frames`` is the union of their types."""

    def __init__(self, frames: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[F] = msgspec.msgpack.Decoder(frames)

    def encode(self, frame: F) -> bytes:
        """Encode a frame with its length."""
        body = msgspec.msgpack.encode(frame)
        return len(body).to_bytes(LENGTH_BYTES, "big") + body

    def decode(self, body: bytes) -> F:
        """Decode a frame without its length."""
        return self._decoder.decode(body)

    def read(self, pipe: BinaryIO) -> F:
        """Read the next frame in the process; EOFError if the platform has closed the socket."""
        head = pipe.read(LENGTH_BYTES)
        body = pipe.read(int.from_bytes(head, "big"))
        if len(head) < LENGTH_BYTES or not body:
            raise EOFError
        return self.decode(body)
