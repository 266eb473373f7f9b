"""Structs shared by all layers.

Wire names are Cloudflare's camelCase and are spelled here only (``rename="camel"``); Python names
are snake_case.  Sizes are bytes, times are Unix milliseconds unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec

Headers = list[tuple[str, str]]


class Stream:
    """A stream of bytes: read once, in chunks, never completely in memory.

    ``length`` is the total in bytes if it is known before reading.
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
        """Close the source without reading the rest."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


Body = bytes | Stream


async def read_all(body: Body) -> bytes:
    """Read the whole body into memory."""
    if isinstance(body, bytes):
        return body
    return b"".join([chunk async for chunk in body])


async def iterate(body: Body) -> AsyncIterator[bytes]:
    """Yield the body chunk by chunk, for both forms."""
    if isinstance(body, bytes):
        if body:
            yield body
        return
    async for chunk in body:
        yield chunk


class HttpRequest(msgspec.Struct):
    """A request to a Worker or to a service; ``url`` is absolute.

    ``redirect``: a ``fetch`` follows redirects or returns them.
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

    ``status_text`` None means the standard phrase of the status.  ``url`` is the last one of a
    ``fetch`` that followed redirects; empty if that is the request's own.  ``encoded`` True: the
    body is already in the form that ``content-encoding`` names, as a server sends it; otherwise it
    is plain, as a Worker gives it.
    """

    status: int
    headers: Headers = []
    body: Body = b""
    status_text: str | None = None
    url: str = ""
    encoded: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        return _header(self.headers, name)


def _header(headers: Headers, name: str) -> str | None:
    wanted = name.lower()
    for key, value in headers:
        if key.lower() == wanted:
            return value
    return None


# --- Queues -------------------------------------------------------------------------------------

ContentType = Literal["json", "text", "bytes", "v8"]


class Message(msgspec.Struct, frozen=True):
    """A message as a consumer receives it; ``body`` is encoded as ``content_type``.

    ``lease_id`` identifies this delivery; empty if the message was only peeked at.
    """

    id: str
    body: bytes
    content_type: ContentType
    timestamp_ms: int
    attempts: int
    lease_id: str = ""
    trace: str = ""
    """Trace context of its producer (``traceparent``); empty without one."""


class Retry(msgspec.Struct, frozen=True):
    """A message to be redelivered; ``delay_seconds`` None means the consumer's own delay."""

    id: str
    delay_seconds: float | None = None


class ScheduledResult(msgspec.Struct, frozen=True, rename="camel"):
    """Outcome of a scheduled handler; ``no_retry``: it called ``controller.noRetry()``."""

    outcome: str
    no_retry: bool = False


class BatchResult(msgspec.Struct, frozen=True):
    """A consumer's decision about a batch: each message id is in exactly one of the two lists.

    ``failed``: the handler did not return; unlike retries, that reduces automatic concurrency.
    ``not_delivered``: the reason why the platform, not the handler, failed: all messages are
    retried, and the delivery does not count as an attempt.
    """

    acks: list[str] = []
    retries: list[Retry] = []
    failed: bool = False
    not_delivered: str | None = None


# --- R2 -----------------------------------------------------------------------------------------


class HttpMetadata(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """The HTTP headers that R2 stores with an object; ``cache_expiry`` in Unix milliseconds."""

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
    """A Tail Worker's record of one finished invocation; CPU and wall time in milliseconds."""

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

BindingKind = Literal["text", "json", "r2", "kv", "queue", "analytics", "pipeline", "service"]


class BindingSpec(msgspec.Struct, frozen=True):
    """One name in ``env``: its kind, and for text and json its value."""

    name: str
    kind: BindingKind
    value: Any = None


class Limits(msgspec.Struct, frozen=True):
    """Resource limits of one invocation."""

    cpu_ms: int = 30_000
    memory_bytes: int = 128 << 20


class ModuleRule(msgspec.Struct, frozen=True):
    """An entry of ``rules`` in a wrangler file: files that are modules of a type."""

    type: Literal["ESModule", "CommonJS", "Text", "Data", "CompiledWasm"]
    globs: list[str]
    fallthrough: bool = False


class JavaScript(msgspec.Struct, frozen=True):
    """Settings that a JavaScript Worker is built and run with: keys of its wrangler file.

    ``file`` is that file, ``folder`` its folder; ``workerd`` and ``esbuild`` are programs that the
    user has named.  ``inspected``: workerd serves a debugger.
    """

    file: str
    folder: str
    compatibility_date: str = ""
    compatibility_flags: list[str] = []
    rules: list[ModuleRule] = []
    define: dict[str, str] = {}
    alias: dict[str, str] = {}
    tsconfig: str | None = None
    jsx_factory: str | None = None
    jsx_fragment: str | None = None
    minify: bool = False
    keep_names: bool = True
    workerd: str | None = None
    esbuild: str | None = None
    inspected: bool = False


class WorkerSpec(msgspec.Struct, frozen=True):
    """The definition of a Worker for an isolate: its module, its env, its limits.

    ``guard`` "kernel" is the strictest sandbox available here, "audit" only Python's audit hooks.
    """

    name: str
    main: str
    bindings: list[BindingSpec] = []
    limits: Limits = Limits()
    guard: Literal["kernel", "audit"] = "kernel"
    javascript: JavaScript | None = None
    """Settings of a JavaScript or TypeScript Worker; None for a Python Worker."""
    hidden: list[str] = []
    """Paths that its code may not read, even below its module's folder."""
    legacy_handlers: bool = False
    """True if a Python Worker's module-level handlers (``on_fetch``) are called."""


# --- Doctor -------------------------------------------------------------------------------------


class Diagnosis(msgspec.Struct, frozen=True, omit_defaults=True):
    """Result of one doctor check: subject, status, and the suggested fix."""

    check: str
    status: Literal["ok", "warning", "problem"]
    said: str
    cure: str = ""
