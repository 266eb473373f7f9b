"""The structs that everyone speaks: what crosses from one floor of the house to another.

Wire names are Cloudflare's camelCase and are spelled here only (``rename="camel"``); Python names
are snake_case.  Sizes are bytes, times are Unix milliseconds unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec

Headers = list[tuple[str, str]]


class Stream:
    """Bytes on their way: read once, in chunks, never held whole.

    ``length`` is the total in bytes where it is known before reading.
    """

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None = None) -> None:
        self._chunks = chunks
        self.length = length

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def read(self) -> bytes:
        """The next chunk; ``b""`` at the end."""
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    async def aclose(self) -> None:
        """Let go of the source without reading the rest."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


Body = bytes | Stream


async def read_all(body: Body) -> bytes:
    """The whole body in memory."""
    if isinstance(body, bytes):
        return body
    return b"".join([chunk async for chunk in body])


async def iterate(body: Body) -> AsyncIterator[bytes]:
    """The body chunk by chunk, whichever form it has."""
    if isinstance(body, bytes):
        if body:
            yield body
        return
    async for chunk in body:
        yield chunk


class HttpRequest(msgspec.Struct):
    """A request on its way to a Worker or to a service; ``url`` is absolute.

    ``redirect`` says whether a ``fetch`` follows redirects or returns them.
    """

    method: str
    url: str
    headers: Headers = []
    body: Body = b""
    cf: dict[str, Any] = {}
    redirect: Literal["follow", "manual"] = "follow"

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        return _header(self.headers, name)


class HttpResponse(msgspec.Struct):
    """The response to an HttpRequest.

    ``status_text`` None is the usual phrase of the status.  ``url`` is the last one of a ``fetch``
    that followed redirects; empty where the request's own was the last.
    """

    status: int
    headers: Headers = []
    body: Body = b""
    status_text: str | None = None
    url: str = ""

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        return _header(self.headers, name)


def _header(headers: Headers, name: str) -> str | None:
    wanted = name.lower()
    return next((value for key, value in headers if key.lower() == wanted), None)


# --- Queues -------------------------------------------------------------------------------------

ContentType = Literal["json", "text", "bytes", "v8"]


class Message(msgspec.Struct, frozen=True):
    """A message as a consumer holds it; ``body`` is encoded as ``content_type`` says.

    ``lease_id`` names this one delivery of it; empty where the message was only looked at.
    """

    id: str
    body: bytes
    content_type: ContentType
    timestamp_ms: int
    attempts: int
    lease_id: str = ""


class Retry(msgspec.Struct, frozen=True):
    """A message to be delivered again; ``delay_seconds`` None means the consumer's own delay."""

    id: str
    delay_seconds: float | None = None


class ScheduledResult(msgspec.Struct, frozen=True, rename="camel"):
    """How a scheduled handler ended, and whether it called ``controller.noRetry()``."""

    outcome: str
    no_retry: bool = False


class BatchResult(msgspec.Struct, frozen=True):
    """What a consumer decided about a batch: each message id is in exactly one of the two.

    ``failed``: the handler did not return; that, unlike retries, slows automatic scaling down.
    ``not_delivered``: the platform failed and not the handler, with the reason: all messages are
    retried, and the delivery is none of their attempts.
    """

    acks: list[str] = []
    retries: list[Retry] = []
    failed: bool = False
    not_delivered: str | None = None


# --- R2 -----------------------------------------------------------------------------------------


class HttpMetadata(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """The headers that R2 keeps with an object."""

    content_type: str | None = None
    content_language: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    cache_control: str | None = None
    cache_expiry: float | None = None


class R2Object(msgspec.Struct, rename="camel", frozen=True):
    """An object's metadata as the platform's R2Object shows it (``etag`` unquoted, MD5 in hex)."""

    key: str
    version: str
    size: int
    etag: str
    uploaded: float
    http_metadata: HttpMetadata = HttpMetadata()
    custom_metadata: dict[str, str] = {}
    checksums: dict[str, str] = {}
    storage_class: str = "Standard"


# --- Tail (platform: TraceItem) -----------------------------------------------------------------


class TraceLog(msgspec.Struct, rename="camel", frozen=True):
    """One console call."""

    timestamp: float
    level: str
    message: list[Any]


class TraceException(msgspec.Struct, rename="camel", frozen=True):
    """One uncaught exception."""

    timestamp: float
    name: str
    message: str
    stack: str | None = None


class TraceItem(msgspec.Struct, rename="camel"):
    """What a Tail Worker is told of one finished invocation; CPU and wall time in ms."""

    script_name: str
    event: dict[str, Any] | None
    event_timestamp: float
    outcome: str
    cpu_time: float = 0.0
    wall_time: float = 0.0
    logs: list[TraceLog] = []
    exceptions: list[TraceException] = []
    diagnostics_channel_events: list[Any] = []
    truncated: bool = False
    execution_model: str = "stateless"
    entrypoint: str | None = None
    script_version: dict[str, str] | None = None


# --- Isolates -----------------------------------------------------------------------------------

BindingKind = Literal["text", "json", "r2", "queue", "pipeline", "service"]


class BindingSpec(msgspec.Struct, frozen=True):
    """One name on ``env``: its kind, and for text and json its value."""

    name: str
    kind: BindingKind
    value: Any = None


class Limits(msgspec.Struct, frozen=True):
    """What one invocation may use."""

    cpu_ms: int = 30_000
    memory_bytes: int = 128 << 20


class WorkerSpec(msgspec.Struct, frozen=True):
    """What an isolate must know of a Worker: its module, its env, its limits.

    ``guard`` "kernel" is the best jail there is here, "audit" Python's audit hooks only.
    """

    name: str
    main: str
    bindings: list[BindingSpec] = []
    limits: Limits = Limits()
    guard: Literal["kernel", "audit"] = "kernel"


# --- Doctor -------------------------------------------------------------------------------------


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one check came to: of what, how it is, and what cures it where it is not well."""

    check: str
    status: Literal["ok", "warning", "problem"]
    said: str
    cure: str = ""
