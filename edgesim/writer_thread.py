"""A thread for the blocking steps of one store: a slow disk must not block the event loop.

Steps run one after another, in the order of the calls.  Steps that arrive during a batch form the
next batch, which a store may commit as one: one sync for many callers.

Without an ordinary event loop (a virtual one, or none) a step runs at once on the calling thread,
so that a replay has no threads and stays deterministic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Generic, TypeVar

import anyio

from edgesim.foreign import stops_the_world

BATCH_STEPS_MAX = 500
T = TypeVar("T")


class Job(Generic[T]):
    """A step that a caller awaits; ``is_alone``: it runs in its own batch.

    ``then`` is called with the result once the step has taken effect, before a later step begins.
    """

    def __init__(
        self,
        step: Callable[[], T],
        then: Callable[[T], None] | None = None,
        *,
        is_alone: bool = False,
    ) -> None:
        self.step = step
        self.is_alone = is_alone
        self._then = then
        self._result: T | None = None
        self._error: BaseException | None = None

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Store an error of the block for the waiting caller."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 (raised by ``result``)
            self._error = error

    def finish(self, result: T) -> None:
        """Store the result: the step has taken effect."""
        self._result = result
        if self._then is not None:
            self._then(result)

    def result(self) -> T:
        """The step's result; raises its error."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # the step has taken effect


def run_each(jobs: Sequence[Job[Any]]) -> None:
    """Run the steps of a batch one by one, without a shared commit."""
    for job in jobs:
        with job.keeping_errors():
            job.finish(job.step())


class WriterThread:
    """The thread of one store; it starts with the first step.

    ``run_batch`` runs all steps of a batch and must not raise.
    """

    def __init__(
        self, name: str, run_batch: Callable[[Sequence[Job[Any]]], None] = run_each
    ) -> None:
        self._run_batch = run_batch
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Job[Any], asyncio.Future[None]]] = []
        self._is_busy = False
        self._is_closed = False

    async def run(self, step: Callable[[], T]) -> T:
        """Run a step and return its result; see ``do``."""
        return await self.do(Job(step))

    async def do(self, job: Job[T]) -> T:
        """Run a job's step and return its result.

        A started step always completes: a cancellation takes effect at the next ``await``.
        """
        if self._is_closed or not has_ordinary_loop():
            self._run_batch([job])
            return job.result()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append((job, done))
        if not self._is_busy:
            self._is_busy = True
            # Run after the other callers of this turn, and outside any Worker's context.
            loop.call_soon(self._begin, loop, context=Context())
        await _until_done(done)
        return job.result()

    def close(self) -> None:
        """Wait for the running steps, and stop the thread; later steps run in place."""
        self._is_closed = True
        self._executor.shutdown()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting
        alone = next((at for at, (job, _) in enumerate(waiting) if job.is_alone), len(waiting))
        count = min(max(alone, 1), BATCH_STEPS_MAX)
        batch, self._waiting = waiting[:count], waiting[count:]
        if self._is_closed:
            self._work(loop, batch)
        else:
            self._executor.submit(self._work, loop, batch)

    def _work(
        self, loop: asyncio.AbstractEventLoop, batch: list[tuple[Job[Any], asyncio.Future[None]]]
    ) -> None:
        self._run_batch([job for job, _ in batch])
        loop.call_soon_threadsafe(self._end, loop, batch)

    def _end(
        self, loop: asyncio.AbstractEventLoop, batch: list[tuple[Job[Any], asyncio.Future[None]]]
    ) -> None:
        for _, done in batch:
            done.set_result(None)
        if self._waiting:
            self._begin(loop)
        else:
            self._is_busy = False


def has_ordinary_loop() -> bool:
    """True if a step can run in a thread here."""
    # Unlike get_running_loop, this does not raise if there is no loop.
    return asyncio._get_running_loop() is not None and not stops_the_world()  # noqa: SLF001


async def _until_done(future: asyncio.Future[None]) -> None:
    cancellation: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # otherwise anyio would cancel again at every turn
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancellation = error
    task = asyncio.current_task()
    if cancellation is not None and task is not None:
        task.uncancel()
        task.cancel(*cancellation.args)
