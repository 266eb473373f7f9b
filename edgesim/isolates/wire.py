"""The protocol between platform and isolate: small, turn-based, the same at every level.

The platform sends Invoke and Reply; the isolate sends Call, Log, Respond and Done.  A frame is a
4-byte big-endian length and that many bytes of msgpack.  Bodies too large to copy cross as
StreamRef, a handle that the invocation's platform side can open.

This module is loaded into isolates, so it imports nothing of the platform but msgspec.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

FRAME_BYTES_MAX = 256 << 20
"""A longer frame is a broken peer, not a message."""

_LENGTH = struct.Struct(">I")
_STREAM_EXT = 1


class StreamRef:
    """A body that stays with the platform; ``length`` in bytes where it is known.

    Not a Struct: msgspec packs those by itself and would never ask for the extension type.
    """

    __slots__ = ("id", "length")

    def __init__(self, id: int, length: int | None = None) -> None:  # noqa: A002 (the wire's word)
        self.id = id
        self.length = length


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An exception as it crosses: JavaScript class name, text, Python traceback if there is one."""

    name: str
    message: str
    stack: str | None = None


class Invoke(msgspec.Struct, tag="invoke", array_like=True):
    """Run a handler once; ``event`` has the shape that the handler kind wants (see inside.py).

    ``now`` (Unix seconds) is the platform's time, here and in every Reply: the isolate has no
    other.
    """

    handler: str
    event: Any
    now: float


class Reply(msgspec.Struct, tag="reply", array_like=True):
    """The outcome of the Call with that id."""

    id: int
    now: float
    value: Any = None
    error: Failure | None = None


class Call(msgspec.Struct, tag="call", array_like=True):
    """The isolate asks a binding; ``binding`` "" is the platform itself (PLATFORM_METHODS)."""

    id: int
    binding: str
    method: str
    args: list[Any]
    options: dict[str, Any] = {}


class Log(msgspec.Struct, tag="log", array_like=True):
    """One console call."""

    level: str
    message: list[Any]


class Respond(msgspec.Struct, tag="respond", array_like=True):
    """The fetch handler's response; waitUntil work may go on after it."""

    status: int
    headers: list[tuple[str, str]]
    body: Any


class Done(msgspec.Struct, tag="done", array_like=True):
    """The invocation is over.  ``result`` is the handler's own (acks of a batch, an RPC value)."""

    outcome: str = "ok"
    exceptions: list[Failure] = []
    result: Any = None
    cpu_ms: float = 0.0


class Boot(msgspec.Struct, tag="boot", array_like=True):
    """The platform's first frame to a zygote: import this Worker."""

    name: str
    main: str
    bindings: list[Any]


class Booted(msgspec.Struct, tag="booted", array_like=True):
    """The zygote's answer: the handlers that the Worker has, or why it failed to load."""

    handlers: list[str] = []
    error: str | None = None


class Exited(msgspec.Struct, tag="exited", array_like=True):
    """A fork has ended; ``status`` as waitpid gives it."""

    number: int
    status: int


class Forked(msgspec.Struct, tag="forked", array_like=True):
    """Fork number ``number`` lives as process ``pid``."""

    number: int
    pid: int


PLATFORM_METHODS = ("fetch", "read", "sleepUntil")
"""fetch(request): outbound; read(stream id): the next chunk; sleepUntil(Unix seconds)."""

Frame = Invoke | Reply | Call | Log | Respond | Done | Boot | Booted | Exited | Forked


def _enc_hook(value: Any) -> Any:
    if isinstance(value, StreamRef):
        return msgspec.msgpack.Ext(_STREAM_EXT, msgspec.msgpack.encode((value.id, value.length)))
    raise TypeError(f"{type(value).__name__} cannot be sent over RPC.")


def _ext_hook(code: int, data: memoryview) -> Any:
    if code == _STREAM_EXT:
        return StreamRef(*msgspec.msgpack.decode(data, type=tuple[int, int | None]))
    raise ValueError(f"unknown extension {code} on the wire")


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_decoder = msgspec.msgpack.Decoder(Frame, ext_hook=_ext_hook)


def encode(frame: Frame) -> bytes:
    """The frame with its length in front.  TypeError for a value that cannot cross."""
    payload = _encoder.encode(frame)
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Frames out of a byte stream: feed what arrived, take the frames that are whole.

    Raises ValueError for bytes that are no frame (a broken or hostile peer).
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes."""
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(_decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return frames


def copied(frame: Frame) -> Frame:
    """The frame as the other side would get it: what a channel within one process does."""
    return _decode(_encoder.encode(frame))


def _decode(payload: bytes) -> Frame:
    try:
        frame: Frame = _decoder.decode(payload)
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValueError(f"not a frame: {error}") from error
    return frame
