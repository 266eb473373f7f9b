"""``ReadableStream``: a body that is read once or passed on.

Its content is bytes in memory, a handle of a stream that stays with the platform, a ``Pipe`` that
the Worker writes, or a ``_Shared`` that a clone reads too.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

from pyodide._typed_arrays import Uint8Array
from pyodide.ffi import UNDEFINED, JsBuffer, JsException, JsProxy
from workers._runtime import invocation

from js._pipe import Pipe

USED = "Body has already been used. It can only be used once. Use tee() first if you need to read it twice."  # noqa: E501 (the platform's text)


class _Shared:
    """Source of two streams: read whole at the first read, then kept in memory."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._reading: asyncio.Future[bytes] | None = None

    async def read(self) -> bytes:
        if self._reading is None:
            self._reading = asyncio.ensure_future(_read_handle(self._handle))
        return await self._reading


class ReadableStream(JsProxy):
    """A body stream that can be read or passed on once."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, content: Any) -> None:
        self._content = content
        self._value = {}
        self._used = False

    @classmethod
    def new(cls, source: Any = None, *_: Any, **functions: Any) -> ReadableStream:
        """Return a stream of what the functions of a source enqueue: start, pull and cancel."""
        return cls(_pipe_of(functions_of(source) | functions))

    @property
    def locked(self) -> bool:
        """True if reading has begun or the stream was passed on."""
        return self._used

    def getReader(self) -> _Reader:
        """Return a reader of the chunks; JsException if the stream is used."""
        self._take()
        if isinstance(self._content, Pipe):
            return _Reader(self._content.chunks(), self._content)
        return _Reader(_buffers(self._content))

    def tee(self) -> list[ReadableStream]:
        """Replace this stream by two streams of the same bytes."""
        content = _shareable(self._take())
        return [ReadableStream(content), ReadableStream(content)]

    def cancel(self, reason: Any = None) -> Any:
        """Discard the rest of the stream."""
        self._used = True
        return _discarded(self._content, reason)

    def pipeTo(self, target: Any, options: Any = None) -> asyncio.Future[None]:
        """Write all chunks to a WritableStream, and close it; done at the end."""
        writer = target.getWriter()
        return asyncio.ensure_future(_copy(self.getReader(), writer))

    def pipeThrough(self, transform: Any, options: Any = None) -> ReadableStream:
        """Write all chunks to ``transform.writable``; return ``transform.readable``."""
        copying = self.pipeTo(transform.writable)
        copying.add_done_callback(lambda done: done.cancelled() or done.exception())
        readable: ReadableStream = transform.readable
        return readable

    def __aiter__(self) -> AsyncIterator[Any]:
        self._take()
        if isinstance(self._content, Pipe):
            return self._content.chunks()
        return _buffers(self._content)

    def _clone(self) -> ReadableStream:
        """Return another stream of the same bytes; this one stays readable."""
        if self._used:
            raise JsException("TypeError", USED)
        self._content = _shareable(self._content)
        return ReadableStream(self._content)

    def _take(self) -> Any:
        if self._used:
            raise JsException("TypeError", USED)
        self._used = True
        return self._content

    async def _settle(self) -> None:
        """Read a body of this isolate into memory, so that ``_to_wire`` can send it."""
        if isinstance(self._content, _Shared):
            self._content = await self._content.read()
        elif isinstance(self._content, Pipe):
            self._content = await _read_handle(self._content)

    def _to_wire(self) -> Any:
        content = self._take()
        if isinstance(content, _Shared):
            raise JsException("TypeError", "edgesim cannot pass on half of a teed stream unread")
        if isinstance(content, Pipe):
            message = (
                "A stream that the Worker writes has no known length; read it into memory first"
            )
            raise JsException("TypeError", message)
        return content

    async def _read_all(self) -> bytes:
        content = self._take()
        if isinstance(content, _Shared):
            return await content.read()
        return content if isinstance(content, bytes) else await _read_handle(content)

    def __repr__(self) -> str:
        return "[object ReadableStream]"


class _Reader:
    """Reader returned by ``getReader()``."""

    def __init__(self, chunks: AsyncIterator[Any], content: Any = b"") -> None:
        self._chunks = chunks
        self._content = content

    async def read(self) -> JsProxy:
        """Return the next chunk as ``.value``, or ``.done`` at the end."""
        async for chunk in self._chunks:
            return JsProxy({"done": False, "value": UNDEFINED if chunk is None else chunk})
        return JsProxy({"done": True, "value": UNDEFINED})

    def releaseLock(self) -> None:
        """Do nothing: no other reader can wait for the lock."""

    def cancel(self, reason: Any = None) -> Any:
        """Discard the rest of the stream."""
        return _discarded(self._content, reason)


def _shareable(content: Any) -> Any:
    return content if isinstance(content, bytes | _Shared) else _Shared(content)


async def _discarded(content: Any, reason: Any) -> None:
    if isinstance(content, Pipe):
        await content.cancel(reason)


def functions_of(source: Any) -> dict[str, Any]:
    """Return the functions of the object that a stream of JavaScript is made of."""
    if source is None:
        return {}
    names = ("start", "pull", "cancel", "transform", "flush")
    if isinstance(source, dict):
        found = {name: source.get(name) for name in names}
    else:
        found = {name: getattr(source, name, None) for name in names}
    return {name: function for name, function in found.items() if callable(function)}


def _pipe_of(functions: dict[str, Any]) -> Pipe:
    pipe = Pipe(pull=functions.get("pull"), cancelled=functions.get("cancel"))
    if "start" in functions:
        pipe.begin(functions["start"])
    return pipe


async def _copy(reader: _Reader, writer: Any) -> None:
    try:
        while not (found := await reader.read()).done:
            await writer.write(found.value)
        await writer.close()
    except Exception as error:
        await writer.abort(error)
        raise
    finally:
        writer.releaseLock()


async def _chunks(content: Any) -> AsyncIterator[bytes]:
    if isinstance(content, Pipe):
        async for chunk in content.chunks():
            yield _bytes_of(chunk)
        return
    if isinstance(content, _Shared):
        content = await content.read()
    if isinstance(content, bytes):
        if content:
            yield content
        return
    while chunk := await invocation().call("", "read", [content.id]):
        yield chunk


async def _buffers(content: Any) -> AsyncIterator[Uint8Array]:
    async for chunk in _chunks(content):
        yield Uint8Array(chunk)


async def _read_handle(handle: Any) -> bytes:
    whole = io.BytesIO()  # getvalue() does not copy; joining chunks takes twice the memory
    async for chunk in _chunks(handle):
        whole.write(chunk)
    return whole.getvalue()


def _bytes_of(chunk: Any) -> bytes:
    if not isinstance(chunk, JsBuffer):
        kind = type(chunk).__name__
        message = f"A body is made of typed arrays and ArrayBuffers, not of {kind}; use to_js"
        raise JsException("TypeError", message)
    return chunk.to_bytes()
