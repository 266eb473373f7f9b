"""Chunks on their way from a writer to a reader, inside of the isolate.

As in JavaScript, a write is complete when its chunk has been read, so a writer that waits for it
before anything reads waits for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from pyodide.ffi import JsException, JsProxy

ENDED = object()
"""Read in place of a chunk at the end."""
Transform = Callable[..., Any]


class Pipe:
    """A queue of chunks; ``transform`` and ``flush`` get the controller as their last argument.

    ``pull`` is called, with the controller, when a reader waits and nothing is written.
    """

    def __init__(
        self,
        transform: Transform | None = None,
        flush: Transform | None = None,
        pull: Transform | None = None,
        cancelled: Transform | None = None,
    ) -> None:
        self.controller = Controller(self)
        self._transform, self._flush = transform, flush
        self._pull, self._cancelled = pull, cancelled
        self._written: deque[tuple[Any, asyncio.Future[None]]] = deque()
        self._ready: deque[Any] = deque()
        self._error: BaseException | None = None
        self._ends = False
        self._starting: asyncio.Future[Any] | None = None
        self._readers: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int | None:
        """Number of chunks that can be written at once; None after an error."""
        if self._error is not None:
            return None
        return 0 if self._ends else 1 - len(self._written)

    def write(self, chunk: Any) -> asyncio.Future[None]:
        """Add a chunk; the future is done when it has been read."""
        done = _future()
        if self._error is not None:
            done.set_exception(self._error)
        elif self._ends or self._is_closing():
            done.set_exception(JsException("TypeError", "This WritableStream has been closed."))
        else:
            self._written.append((chunk, done))
            self._wake()
        return done

    def close(self) -> asyncio.Future[None]:
        """End the chunks; the future is done when those before have been read."""
        done = self.write(ENDED)
        if not done.done() and len(self._written) == 1 and self._flush is None:
            self._written.clear()
            self.end()
            done.set_result(None)
        return done

    def _is_closing(self) -> bool:
        return bool(self._written) and self._written[-1][0] is ENDED

    def put(self, chunk: Any) -> None:
        """Add a chunk for the reader without a writer."""
        if self._ends:
            raise JsException("TypeError", "Unable to enqueue: the stream has ended.")
        self._ready.append(chunk)
        self._wake()

    def end(self) -> None:
        """End after the chunks that are ready."""
        self._ends = True
        self._wake()

    def fail(self, reason: Any) -> None:
        """Fail the reads and the writes with this reason, unless the stream has ended."""
        if self._ends or self._error is not None:
            return
        self._error = error_of(reason)
        self._ready.clear()
        for _, done in self._written:
            done.set_exception(self._error)
        self._written.clear()
        self._wake()

    def begin(self, start: Transform) -> None:
        """Call the function ``start`` of a source; it ends before ``pull`` is called."""
        result = start(self.controller)
        if inspect.isawaitable(result):
            self._starting = asyncio.ensure_future(result)

    async def cancel(self, reason: Any = None) -> None:
        """Discard the chunks, for a reader that wants no more."""
        self.fail(JsException("TypeError", "This ReadableStream was canceled."))
        if self._cancelled is not None:
            await settled(self._cancelled(reason))

    async def read(self) -> Any:
        """Return the next chunk, or ENDED; raises the error of the stream."""
        while True:
            if self._ready:
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
            if self._ends:
                return ENDED
            if self._written:
                await self._take(*self._written.popleft())
            elif self._starting is not None:
                await self._call(self._end_of_start)
            elif self._pull is not None:
                await self._call(self._pull)
                if not (self._ready or self._ends or self._error):
                    await asyncio.sleep(0)
            else:
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._readers.append(waiting)
                await waiting

    async def chunks(self) -> AsyncIterator[Any]:
        """Iterate over the chunks."""
        while (chunk := await self.read()) is not ENDED:
            yield chunk

    async def _end_of_start(self, _: Controller) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            await starting

    async def _take(self, chunk: Any, done: asyncio.Future[None]) -> None:
        if chunk is ENDED:
            if self._flush is not None:
                await self._call(self._flush)
            if self._error is None:
                self.end()
        elif self._transform is None:
            self._ready.append(chunk)
        else:
            await self._call(self._transform, chunk)
        if not done.done():
            if self._error is None:
                done.set_result(None)
            else:
                done.set_exception(self._error)

    async def _call(self, function: Transform, *args: Any) -> None:
        try:
            await settled(function(*args, self.controller))
        except Exception as error:  # noqa: BLE001 (worker code's, for the readers and the writers)
            self.fail(thrown(error))

    def _wake(self) -> None:
        while self._readers:
            waiting = self._readers.popleft()
            if not waiting.done():
                waiting.set_result(None)


class Controller(JsProxy):
    """Controller that JavaScript passes to the functions of a stream."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, pipe: Pipe) -> None:
        self._value = {}
        self._pipe = pipe

    def enqueue(self, chunk: Any = None) -> None:
        """Add a chunk for the reader."""
        self._pipe.put(chunk)

    def close(self) -> None:
        """End the stream after the chunks that were added."""
        self._pipe.end()

    def terminate(self) -> None:
        """End the stream, also for the writer."""
        self._pipe.end()

    def error(self, reason: Any = None) -> None:
        """Fail the stream with this reason."""
        self._pipe.fail(reason)

    @property
    def desiredSize(self) -> int | None:
        """Number of chunks that the reader waits for; null after an error."""
        return self._pipe.free

    def __repr__(self) -> str:
        return "[object TransformStreamDefaultController]"


def _future() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    # A write that nobody awaits may fail; the reader or a later write shows the error.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def settled(result: Any) -> Any:
    """Return the result of a function of worker code, awaited if it is awaitable."""
    return await result if inspect.isawaitable(result) else result


def thrown(error: Exception) -> JsException:
    """Return the exception of a Python function as JavaScript passes it on."""
    if isinstance(error, JsException):
        return error
    return JsException("PythonError", "".join(traceback.format_exception(error)))


def error_of(reason: Any) -> BaseException:
    """Return the exception that Python sees for a reason of JavaScript."""
    if isinstance(reason, BaseException):
        return reason
    return JsException("Error", "undefined" if reason is None else str(reason))
