"""The protocol between platform and isolate: small, turn-based, the same at every level.

The platform sends Invoke, Reply and Cancel; the isolate sends Call, Log, Respond and Done.  Frames
travel in batches: a Message is a 4-byte big-endian length and that many bytes of msgpack, and holds
frames each with the number of the invocation it belongs to.  Bodies too large to copy cross as
StreamRef, a handle that the invocation's platform side can open.

This module is loaded into isolates, so it imports nothing of the platform but msgspec.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any

import msgspec

MESSAGE_BYTES_MAX = 144 << 20
"""Maximum message size; a longer one is an error, since no isolate has that much memory."""
_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size
"""Bytes of the length before each message."""
_STREAM_EXT = 1

# Values are validated when a frame is decoded: its sender may be hostile.
Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
Status = Annotated[int, msgspec.Meta(ge=200, le=599)]
Level = Annotated[str, msgspec.Meta(pattern=r"^(debug|info|log|warn|error)\Z")]
Outcome = Annotated[str, msgspec.Meta(pattern=r"^(ok|exception|exceededCpu|exceededMemory)\Z")]
"""Outcomes that an isolate may report; the platform adds others (canceled, internalError, ...)."""
Fault = Annotated[str, msgspec.Meta(pattern=r"^worker\Z")]
"""Fault that an isolate may report; only the platform sets LOST and NOT_RUN."""
LOST, NOT_RUN = "lost", "not run"
DEFAULT = "Default"
"""Entrypoint of events, and of requests that name no other."""


class StreamRef:
    """Handle of a body that stays with the platform; ``length`` in bytes if it is known.

    Not a Struct: msgspec packs those by itself and would never ask for the extension type.
    """

    __slots__ = ("id", "length")

    def __init__(self, id: int, length: int | None = None) -> None:  # noqa: A002 (name on the wire)
        self.id = id
        self.length = length


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An exception on the wire: JavaScript class name, text, Python traceback if there is one.

    The stack of a JavaScript exception is its frames, without its text.
    """

    name: str
    message: str
    stack: str | None = None

    def shown(self) -> str:
        """Return text and stack in a readable form."""
        if self.stack is None or self.message in self.stack:
            return self.stack or self.message
        return f"{self.name}: {self.message}\n{self.stack}"


class Invoke(msgspec.Struct, tag="invoke", array_like=True):
    """Run a handler once; the shape of ``event`` depends on the handler (see guest/serve.py).

    ``now`` and ``steady`` (Unix seconds), here and in every Reply, are the platform's time, the
    only time that an isolate has.  ``now`` is the wall clock, which may be set; ``steady`` never
    jumps, and timers use it.  ``seed`` makes the randomness repeatable.  ``entrypoint`` is the name
    of the handler's class in the main module.
    """

    handler: str
    event: Any
    now: float
    seed: int | None = None
    steady: float = 0.0
    entrypoint: str = DEFAULT


class Cancel(msgspec.Struct, tag="cancel", array_like=True):
    """Cancel the invocation: its caller has gone."""


class Reply(msgspec.Struct, tag="reply", array_like=True):
    """The outcome of the Call with that id.

    The Reply to ``sleepUntil`` means that the time has come, whatever its ``steady`` says: the
    platform's timers and its clock count differently, and may be a millisecond apart.
    """

    id: int
    now: float
    value: Any = None
    error: Failure | None = None
    steady: float = 0.0


class Call(msgspec.Struct, tag="call", array_like=True):
    """Call of a binding's method; ``binding`` "" is the platform itself (PLATFORM_METHODS)."""

    id: int
    binding: str
    method: str
    args: list[Any]
    options: dict[str, Any] = {}


class Log(msgspec.Struct, tag="log", array_like=True):
    """One console call, at the isolate's time (Unix seconds)."""

    level: Level
    message: list[Any]
    now: Time = 0.0


class Respond(msgspec.Struct, tag="respond", array_like=True):
    """The fetch handler's response; waitUntil work may continue after it.

    ``encoded``: the body is already in the form that ``content-encoding`` names.
    """

    status: Status
    headers: list[tuple[str, str]]
    body: Any
    status_text: str = ""
    encoded: bool = False


class Done(msgspec.Struct, tag="done", array_like=True):
    """The invocation is over.  ``result`` is the handler's own (acks of a batch, an RPC value).

    ``fault`` is the cause of the outcome.  ``worker``: the Worker itself, also by a crash of its
    process.  LOST: the platform, which ended a running invocation.  NOT_RUN: the platform, which
    could not run it; nothing of it has left an isolate, and it may be retried.  ``diagnostics``:
    channel, message and time of what it published on node:diagnostics_channel.
    """

    outcome: Outcome = "ok"
    exceptions: list[Failure] = []
    result: Any = None
    cpu_ms: Milliseconds = 0.0
    fault: Fault = "worker"
    diagnostics: list[tuple[str, Any, Time]] = []

    @property
    def blameless(self) -> bool:
        """True if the platform and not the Worker caused the outcome."""
        return self.fault != "worker"


class Boot(msgspec.Struct, tag="boot", array_like=True):
    """The platform's first frame to a zygote: import this Worker.

    ``guard``: "kernel" is the best sandbox that the system has, "audit" only Python's audit hook.
    ``legacy``: module-level handlers are called.
    """

    name: str
    main: str
    bindings: list[Any]
    cpu_ms: int
    memory_bytes: int
    guard: str
    hidden: list[str]
    legacy: bool = False


class Booted(msgspec.Struct, tag="booted", array_like=True):
    """The zygote's reply to Boot: the Worker's handlers, or the error of its import.

    ``guards`` are the active parts of the sandbox, ``entrypoints`` the names of the classes that
    service bindings may name.
    """

    handlers: list[str] = []
    error: str | None = None
    guards: list[str] = []
    entrypoints: list[str] = []


FORK_REQUEST_BYTES = 5
"""A fork request: its number (4 bytes, big-endian), then ONE or MANY invocations to serve."""
ONE, MANY = b"1", b"m"
OUT_OF_MEMORY_STATUS = 12
"""Exit status of a zygote or an isolate that ran out of memory outside worker code."""


class Forked(msgspec.Struct, tag="forked", array_like=True):
    """Fork number ``number`` was started with process id ``pid``."""

    number: int
    pid: int


class Exited(msgspec.Struct, tag="exited", array_like=True):
    """A fork has exited: its ``status`` as from waitpid, its CPU time and peak memory."""

    number: int
    status: int
    cpu_ms: float
    memory_bytes: int


class Tainted(msgspec.Struct, tag="tainted", array_like=True):
    """An invocation has changed shared state, named ``what``: the isolate must be retired."""

    what: str


PLATFORM_METHODS = ("fetch", "read", "sleepUntil")
"""fetch(request); read(stream id): next chunk of a body; sleepUntil(steady time in seconds)."""

Frame = (
    Invoke
    | Cancel
    | Reply
    | Call
    | Log
    | Respond
    | Done
    | Boot
    | Booted
    | Exited
    | Forked
    | Tainted
)


class FrameBatch(msgspec.Struct, array_like=True):
    """One message: frames with their invocations' numbers.

    ``waiting`` ends an isolate's turn: it is idle until the platform's next message.
    """

    frames: list[tuple[int, Frame]]
    waiting: bool = False


def _enc_hook(value: Any) -> Any:
    if isinstance(value, StreamRef):
        return msgspec.msgpack.Ext(_STREAM_EXT, msgspec.msgpack.encode((value.id, value.length)))
    for kind in (str, int, float):  # a value of a subclass is sent as the plain value
        if issubclass(type(value), kind):  # not isinstance, which calls the value's __class__
            return getattr(kind, f"__{kind.__name__}__")(value)
    raise TypeError(f"{type(value).__name__} cannot be sent over RPC.")


def _ext_hook(code: int, data: memoryview) -> Any:
    if code == _STREAM_EXT:
        return StreamRef(*msgspec.msgpack.decode(data, type=tuple[int, int | None]))
    raise ValueError(f"unknown extension {code} on the wire")


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_decoder = msgspec.msgpack.Decoder(FrameBatch, ext_hook=_ext_hook)
_skipper = msgspec.msgpack.Decoder(msgspec.Raw)
_frame_decoder = msgspec.msgpack.Decoder(Frame, ext_hook=_ext_hook)


def encode(message: FrameBatch) -> bytearray:
    """Return the encoded message, after its length.

    TypeError, ValueError, OverflowError or RecursionError for a value that cannot be encoded.
    """
    buffer = bytearray(_LENGTH.size)
    try:
        _encoder.encode_into(message, buffer, _LENGTH.size)
    except UnicodeEncodeError:
        _encoder.encode_into(_well_formed(message), buffer, _LENGTH.size)
    _LENGTH.pack_into(buffer, 0, len(buffer) - _LENGTH.size)
    return buffer


def one(frame: Frame, invocation: int = 0) -> bytearray:
    """Return an encoded message with a single frame; raises as ``encode``."""
    return encode(FrameBatch([(invocation, frame)]))


def encoded(frame: Frame) -> bytes:
    """Return one frame in its encoding inside a message; raises as ``encode``."""
    try:
        return _encoder.encode(frame)
    except UnicodeEncodeError:
        return _encoder.encode(_well_formed(frame))


def ready_made(data: bytes) -> msgspec.Raw:
    """Wrap an encoded frame for use in a message; ValueError if it is not exactly one value."""
    return _skipper.decode(data)


def _well_formed(value: Any) -> Any:
    """Return a copy with lone surrogates replaced by U+FFFD, as in JavaScript's UTF-8 output."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_well_formed(each) for each in value]
    if isinstance(value, msgspec.Struct):
        fields = {name: _well_formed(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    return value


class MessageReader:
    """Decoder of a byte stream into messages; its peer is trusted, see ``host/intake.py``."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[FrameBatch]:
        """Add received bytes; return the messages that they complete.  ValueError for others."""
        self._buffer += data
        messages: list[FrameBatch] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            length = length_of(self._buffer, start)
            if length > MESSAGE_BYTES_MAX:
                raise ValueError(f"a message of {length} bytes")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            with memoryview(self._buffer)[start + _LENGTH.size : end] as payload:
                messages.append(decoded_batch(payload))
            start = end
        del self._buffer[:start]
        return messages


def length_of(data: bytes | bytearray, start: int = 0) -> int:
    """Return the length of the message that begins at ``start``."""
    length: int = _LENGTH.unpack_from(data, start)[0]
    return length


def decoded_batch(payload: memoryview) -> FrameBatch:
    """Return the message without its length; ValueError if the bytes are not one."""
    found: FrameBatch = _decode(_decoder, payload)
    return found


def copied(frame: Frame) -> Frame:
    """Return the frame as the other side would receive it; raises as ``encode``."""
    return decoded(encoded(frame))


def decoded(data: bytes) -> Frame:
    """Return the decoded frame; ValueError if the bytes are not one."""
    found: Frame = _decode(_frame_decoder, data)
    return found


def _decode(decoder: msgspec.msgpack.Decoder[Any], payload: bytes | memoryview) -> Any:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error
