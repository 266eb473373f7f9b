"""``TransformStream`` and ``WritableStream``: a body that the Worker writes while it is read."""

from __future__ import annotations

import asyncio
from typing import Any

from pyodide.ffi import JsException, JsProxy, jsnull

from js._pipe import Pipe
from js._stream import ReadableStream, functions_of


class WritableStream(JsProxy):
    """The end of a TransformStream that is written."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, pipe: Any = None) -> None:
        if not isinstance(pipe, Pipe):
            raise NotImplementedError(
                "js.WritableStream.new is not in edgesim; use js.TransformStream"
            )
        self._value = {}
        self._pipe = pipe
        self._locked = False

    @property
    def locked(self) -> bool:
        """True while there is a writer."""
        return self._locked

    def getWriter(self) -> _Writer:
        """Return the writer; JsException (a TypeError) if there is one."""
        if self._locked:
            message = "This WritableStream is currently locked to a writer."
            raise JsException("TypeError", message)
        self._locked = True
        return _Writer(self)

    def close(self) -> asyncio.Future[None]:
        """End the stream."""
        return self._pipe.close()

    def abort(self, reason: Any = None) -> asyncio.Future[None]:
        """Fail the stream: its reader gets the reason."""
        return _aborted(self._pipe, reason)

    def __repr__(self) -> str:
        return "[object WritableStream]"


class _Writer(JsProxy):
    """Writer of a WritableStream."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, stream: WritableStream) -> None:
        self._value = {}
        self._stream: WritableStream | None = stream
        self._last: asyncio.Future[None] | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def _pipe(self) -> Pipe:
        if self._stream is None:
            message = "This WritableStream writer has been released."
            raise JsException("TypeError", message)
        return self._stream._pipe

    def write(self, chunk: Any = None) -> asyncio.Future[None]:
        """Write a chunk: a typed array or an ArrayBuffer; done when it has been read."""
        self._last = self._pipe.write(chunk)
        return self._last

    def close(self) -> asyncio.Future[None]:
        """End the stream; done when all chunks have been read."""
        done = self._pipe.close()
        done.add_done_callback(self._ended)
        return done

    def _ended(self, done: asyncio.Future[None]) -> None:
        if not self._end.done() and not done.cancelled() and done.exception() is None:
            self._end.set_result(None)

    def abort(self, reason: Any = None) -> asyncio.Future[None]:
        """Fail the stream: its reader gets the reason."""
        return _aborted(self._pipe, reason)

    def releaseLock(self) -> None:
        """Let the stream have another writer."""
        if self._stream is not None:
            self._stream._locked = False
        self._stream = None

    @property
    def desiredSize(self) -> Any:
        """Number of chunks that can be written at once; null after an error."""
        free = self._pipe.free
        return jsnull if free is None else free

    @property
    def ready(self) -> asyncio.Future[None]:
        """Done when the chunks that were written have been read."""
        if self._last is not None and not self._last.done():
            return self._last
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the stream has been closed."""
        return self._end

    def __repr__(self) -> str:
        return "[object WritableStreamDefaultWriter]"


class TransformStream(JsProxy):
    """``readable`` gives what is written to ``writable``, changed by the transformer's functions.

    The transformer is an object with ``transform(chunk, controller)``, ``flush(controller)`` and
    ``start(controller)``; without it the chunks stay as they are.
    """

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, transformer: Any = None, *strategies: Any, **functions: Any) -> None:
        given = functions_of(transformer) | functions
        pipe = Pipe(given.get("transform"), given.get("flush"))
        self._value = {}
        self.readable = ReadableStream(pipe)
        self.writable = WritableStream(pipe)
        if "start" in given:
            given["start"](pipe.controller)

    def __repr__(self) -> str:
        return "[object TransformStream]"


class IdentityTransformStream(TransformStream):
    """A TransformStream of bytes that stay as they are."""

    def __init__(self) -> None:
        super().__init__()

    def __repr__(self) -> str:
        return "[object IdentityTransformStream]"


def _aborted(pipe: Pipe, reason: Any) -> asyncio.Future[None]:
    pipe.fail(reason)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
