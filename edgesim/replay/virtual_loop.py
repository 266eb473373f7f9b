"""The event loop of a replay, with virtual time and an execution order drawn from a seed.

It is asyncio's own loop with three replacements. Instead of waiting in a selector, time jumps to
the next timer; external events cannot be awaited. Task steps that are ready in the same turn run in
an order drawn from the seed, plain callbacks in order of arrival. Tasks hash by number, not by
address, because asyncio and anyio iterate over sets of tasks when they cancel.

Alternatives that were rejected: time-machine (the loop ignores it), looptime and async-solipsism
(the order still depends on addresses), trio's MockClock (the client libraries use asyncio).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import anyio

from edgesim.errors import RunError
from edgesim.foreign import StoppingLoop

_Result = TypeVar("_Result")
_RESOLUTION = 1e-6
"""Timers this close are due together; a Unix time as a float is precise to a quarter of it."""


class StuckError(RunError):
    """Deadlock: no task is ready to run, and no timer is set."""


class NumberedTask(asyncio.Task[Any]):
    """A task with a serial number in order of creation."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Jump:
    """Replaces asyncio's selector: waiting makes virtual time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout != 0:
            heard = [listen() for listen in self._loop.listeners]
            if any(heard):
                return []
        if timeout is None:
            error = StuckError("stuck: nothing can run, and nothing is timed to happen")
            for task in sorted(asyncio.all_tasks(self._loop), key=hash):
                error.add_note(f"task {_where(task)}")
            raise error
        if timeout > 0:
            self._loop.jump()
        return []

    def close(self) -> None:
        """Nothing to close."""


class VirtualLoop(StoppingLoop, asyncio.BaseEventLoop):
    """A loop that begins at ``start`` (Unix seconds) and orders task steps by ``seed``.

    ``journal`` receives a line per turn: the time, and the tasks in their order. Two runs that
    should be equal diverge where their journals do.
    """

    # Attributes of BaseEventLoop that the type stubs omit.
    _scheduled: list[asyncio.TimerHandle]
    _ready: Any

    def __init__(self, seed: int, start: float, journal: TextIO | None = None) -> None:
        super().__init__()
        self._now = start
        self._chance = random.Random(seed)
        self._journal = journal
        self._numbers = itertools.count(1)
        self._selector = _Jump(self)
        self._clock_resolution = _RESOLUTION
        self._home = threading.get_ident()
        self.set_task_factory(self._number)

    def time(self) -> float:
        """Virtual Unix seconds."""
        return self._now

    def jump(self) -> None:
        """Advance the time to the next timer."""
        self._now = max(self._now, self._scheduled[0].when())

    def _number(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        return NumberedTask(coro, number=next(self._numbers), loop=loop, **options)

    def _run_once(self) -> None:
        if len(self._ready) > 1 or self._journal is not None:
            self._draw_order()
        super()._run_once()  # type: ignore[misc]

    def _draw_order(self) -> None:
        ready = list(self._ready)
        places, steps = [], []
        for place, handle in enumerate(ready):
            task = getattr(handle._callback, "__self__", None)  # noqa: SLF001 (asyncio's loop reads it too)
            if isinstance(task, NumberedTask):
                places.append(place)
                steps.append((task.number, handle))
        if len(steps) > 1:
            steps.sort(key=lambda step: step[0])
            self._chance.shuffle(steps)
            for place, (_, handle) in zip(places, steps, strict=True):
                ready[place] = handle
            self._ready.clear()
            self._ready.extend(ready)
        if self._journal is not None and ready:
            tasks = ", ".join(_where(handle._callback.__self__) for _, handle in steps)  # noqa: SLF001
            callbacks = len(ready) - len(steps)
            self._journal.write(f"{self._now:.6f} {callbacks} callbacks, tasks: {tasks}\n")

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no external events."""

    def _write_to_self(self) -> None:
        # A signal handler runs in this loop's thread, and a loop that never sleeps needs no
        # wake-up.
        if threading.get_ident() != self._home:
            raise RunError(
                "a thread tried to enter a replay; threads have no place in virtual time"
            )

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """RunError: threads do not follow virtual time."""
        raise RunError("a replay cannot use threads; threads have no place in virtual time")


def run_virtual(
    main: Callable[[VirtualLoop], Awaitable[_Result]],
    seed: int = 0,
    start: float = 0.0,
    journal: TextIO | None = None,
) -> _Result:
    """Run ``main`` on a new VirtualLoop, which it receives; returns its result."""
    loops: list[VirtualLoop] = []

    def make_loop() -> VirtualLoop:
        loops.append(VirtualLoop(seed, start, journal))
        return loops[0]

    async def run() -> _Result:
        return await main(loops[0])

    return anyio.run(run, backend_options={"loop_factory": make_loop})


def _where(task: asyncio.Task[Any]) -> str:
    """The task's number and the lines at which it waits, outermost first."""
    waiting: Any = task.get_coro()
    lines = ""
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            lines += f" {Path(code.co_filename).name}:{frame.f_lineno}"
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return f"{hash(task)}{lines}"
