"""The inside of a ``warm`` isolate: many invocations in one process, each as if it were alone.

Each invocation gets fresh modules (namespace.py), its own time, randomness and log lines, and its
CPU time is counted callback by callback.  What an invocation leaves running when it is done never
runs again.  What it has changed for others makes the isolate say Tainted, after which the platform
sends nothing more here.

What it has left behind in memory may have destructors, and the interpreter's collector would run
them in the midst of another's callback, in its name.  So the collector is off, and its work is done
between callbacks, and in long ones, in nobody's name.

A callback that does not come back cannot be ended from here.  So the number of the invocation that
has the process is written into a page that the platform shares, and the platform, seeing that
nothing is heard, knows whom to hold responsible.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import mmap
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from types import FrameType
from typing import Any

from edgesim.isolates import guard
from edgesim.isolates.inside import CpuLimitExceeded, Serving, failed, serve
from edgesim.isolates.limits import CPU_EXCEEDED, HUNG
from edgesim.isolates.namespace import Watch
from edgesim.isolates.shared_state import SharedState
from edgesim.isolates.turns import PLATFORM, WHOLE, Line, TurnLoop, Wire
from edgesim.isolates.wire import Cancel, Done, Failure, Frame, Invoke, Tainted
from workers import WorkerEntrypoint

TICK_SECONDS = 0.02
"""After this much CPU time in one callback the others' answers are sent, and again and again."""
TIMERS_MAX = 256
"""More timers than this are searched for those of invocations that are done."""
PAGE = struct.Struct("<Q")

owner: ContextVar[Resident | None] = ContextVar("owner", default=None)


class Resident(Serving):
    """An invocation among others: its number, and the CPU time it has had."""

    def __init__(self, number: int, line: Line, seed: int | None) -> None:
        super().__init__(line, seed)
        self.number = number
        self.closed = False
        self.cpu_seconds = 0.0


class SharedLoop(TurnLoop):
    """A TurnLoop that runs several invocations and knows which of them each callback is of."""

    def __init__(
        self,
        wire: Wire,
        load: Callable[[Watch], type[WorkerEntrypoint]],
        env: Callable[[], Any],
        cpu_ms: int,
        page: Any,
    ) -> None:
        super().__init__()
        self.wire = wire
        self._load = load
        self._env = env
        self._cpu_seconds = cpu_ms / 1000
        self._page = page
        self._live: dict[int, Resident] = {}
        self._running: Resident | None = None
        self._began = 0.0
        self._nobody = copy_context()
        self._state = SharedState(self)

    def listens(self) -> bool:
        return True

    # --- what the platform says ---

    def _process_events(self, event_list: Sequence[tuple[int, Frame]]) -> None:
        replies = []
        for number, frame in event_list:
            if isinstance(frame, Invoke):
                self._begin(number, frame)
            elif isinstance(frame, Cancel):
                if number in self._live:
                    self._end(self._live[number], Done("exception"))
            else:
                replies.append((number, frame))
        super()._process_events(replies)

    def _begin(self, number: int, invoke: Invoke) -> None:
        self.tell_time(invoke)
        resident = Resident(number, Line(self, number, eager=False), invoke.seed)
        self._live[number] = resident
        token = owner.set(resident)  # so that every callback of the invocation's tasks is its own
        try:
            self.create_task(self._serve(invoke, resident))
        finally:
            owner.reset(token)

    async def _serve(self, invoke: Invoke, resident: Resident) -> None:
        try:
            done = await serve(invoke, self._load_afresh, self._env, resident)
        except GeneratorExit as error:
            if self._running is not resident:
                raise  # garbage collection closes this coroutine
            done = failed(error)
        self._end(resident, done)

    def load_once(self) -> None:
        """Load the modules before there is an invocation, which would pay for the first imports."""
        with suppress(Exception):  # an invocation that loads them will say what is wrong
            copy_context().run(self._load_afresh)

    def _load_afresh(self) -> type[WorkerEntrypoint]:
        return self._load(self._state)

    def _end(self, resident: Resident, done: Done) -> None:
        """The invocation's last word; what it has left behind is never run again."""
        if resident.closed:
            return
        resident.closed = True
        del self._live[resident.number], self.lines[resident.number]
        used = resident.cpu_seconds
        if resident is self._running:
            used += time.thread_time() - self._began
        done.cpu_ms = used * 1000
        self.wire.put(resident.number, done)
        if (change := self._state.changed()) is not None:
            self.wire.put(PLATFORM, Tainted(change))
        if len(self._scheduled) > TIMERS_MAX + len(self._live):
            self._forget_timers()

    def _forget_timers(self) -> None:
        """Timers of invocations that are done would stay until they are due."""
        kept = []
        for handle in self._scheduled:
            resident = handle._context.get(owner)
            if handle._cancelled or (resident is not None and resident.closed):
                handle._scheduled = False
            else:
                kept.append(handle)
        heapq.heapify(kept)
        self._scheduled = kept
        self._timer_cancelled_count = 0

    # --- one turn ---

    def _run_once(self) -> None:
        """Asyncio's own turn, with each callback under the name of its invocation."""
        _collect()
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False
        if not self._ready:
            self._end_the_hung()
        timeout = None
        if self._ready or self._stopping:
            timeout = 0.0
        elif timers:
            timeout = max(0.0, timers[0]._when - self.time())
        self._process_events(self._selector.select(timeout))
        due = self.time() + self._clock_resolution
        while timers and timers[0]._when < due:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            self._ready.append(handle)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:
                self._run(handle)

    def _run(self, handle: asyncio.Handle) -> None:
        resident = handle._context.get(owner)
        if resident is None:
            handle._run()
            return
        if resident.closed:
            return
        self.unheard = None
        self._began = time.thread_time()
        self._running = resident
        PAGE.pack_into(self._page, 0, resident.number)
        try:
            handle._run()
        except BaseException as error:  # noqa: BLE001 (SystemExit in a task of the invocation's)
            self._end(resident, failed(error))
        resident.cpu_seconds += time.thread_time() - self._began
        self._running = None
        PAGE.pack_into(self._page, 0, PLATFORM)
        if resident.cpu_seconds > self._cpu_seconds:
            self._end(resident, failed(CpuLimitExceeded(CPU_EXCEEDED)))
        if self.unheard is not None:
            self._end(resident, failed(self.unheard))

    def tick(self, number: int, frame: FrameType | None) -> None:
        """A callback has had the process for a while: let others' answers out, and count."""
        resident = self._running
        if resident is None or resident.closed or not _is_interruptible(frame):
            return
        self.wire.hurry()
        self._nobody.copy().run(_collect)  # a copy: it may itself be interrupted
        if resident.cpu_seconds + time.thread_time() - self._began > self._cpu_seconds:
            raise CpuLimitExceeded(CPU_EXCEEDED)

    def _end_the_hung(self) -> None:
        """End invocations that await nothing which could ever come."""
        idle = [each for each in self._live.values() if not self.lines[each.number].replies]
        if not idle:
            return
        timed = {each._context.get(owner) for each in self._scheduled if not each._cancelled}
        for resident in idle:
            if resident not in timed:
                self._end(resident, Done("exception", [Failure("Error", HUNG)]))


_CALLBACK = asyncio.Handle._run.__code__
_RUN = SharedLoop._run.__code__
_WHOLE = WHOLE | {SharedLoop._end.__code__}


def _is_interruptible(frame: FrameType | None) -> bool:
    """Whether the process is in a callback, and in nothing that others would suffer from.

    Signals come between any two instructions, also before a ``try`` and after it.
    """
    code = None
    while frame is not None and code not in _WHOLE:
        inner, code = code, frame.f_code
        if code is _RUN:
            return inner is _CALLBACK
        frame = frame.f_back
    return False


def _collect() -> None:
    """What the interpreter does at any moment where the collector is on."""
    counts, thresholds = gc.get_count(), gc.get_threshold()
    if counts[0] > thresholds[0] > 0:
        gc.collect(2 if counts[2] > thresholds[2] > 0 else int(counts[1] > thresholds[1] > 0))


def run_many(
    sock: socket.socket,
    page: int,
    load: Callable[[Watch], type[WorkerEntrypoint]],
    env: Callable[[], Any],
    cpu_ms: int,
) -> None:
    """The life of a fork for many invocations: it ends when the platform hangs up."""
    gc.disable()
    loop = SharedLoop(Wire(sock), load, env, cpu_ms, mmap.mmap(page, PAGE.size))
    asyncio.set_event_loop(loop)
    signal.signal(signal.SIGPROF, loop.tick)
    signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)
    guard.seal(None)
    loop.load_once()
    loop.run_forever()
