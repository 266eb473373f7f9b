"""The ``process`` level: every invocation in its own process, forked from its Worker's zygote.

The platform creates the channel and sends one end to the zygote, so it can write to an isolate
before that is forked.  A pool of standby forks keeps the time of a fork out of a request's latency.
Each fork is used once.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.isolates.host.conversation import Alarm, Conversation
from edgesim.isolates.host.cpu_clock import cpu_seconds
from edgesim.isolates.host.driver import Host, Isolates
from edgesim.isolates.host.link import Link, open_link
from edgesim.isolates.host.zygotes import Fork, Forks, open_forks
from edgesim.isolates.protocol.wire import Done, FrameBatch, Invoke
from edgesim.model import Limits, WorkerSpec

DETERMINISTIC = True  # a link takes turns where time is virtual
STANDBY_MIN = 2
STANDBY_MAX = 16
IDLE_SECONDS = 10.0
"""Time without demand after which half of the standbys are released."""
LATER_SECONDS = 0.004
"""Delay before a pool that still has a standby is refilled."""
ISOLATES_MAX = 64
"""Maximum running isolates of one Worker, per depth of calls; further invocations wait.

Without the depth, a Worker that calls itself could wait for itself.
"""
DRAIN_SECONDS = 30.0
"""Seconds that invocations in flight may run after their Worker closes (platform: about 30 s)."""
EXIT_REPORT_SECONDS = 5.0
"""Seconds that the report of an isolate's exit may take."""

log = structlog.get_logger()


class _ProcessIsolate:
    """One fork, and its only conversation."""

    def __init__(self, fork: Fork, clock: Clock) -> None:
        self.fork = fork
        self.link: Link
        self.gone = False
        self.error: Exception | None = None
        self._alarm = Alarm(clock)
        self._conversation: Conversation | None = None
        self._cpu_before = 0.0
        """CPU time of the fork before its invocation, in seconds."""

    def begin(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._cpu_before = cpu_seconds(self.fork.pid) or 0.0
        conversation.begin(self.link)
        if self.gone:  # it exited before this call, and ``end`` is not called again
            conversation.interrupt()

    def take(self, message: FrameBatch) -> None:
        """Process a received message; ValueError for frames that an isolate may not send."""
        for number, frame in message.frames:
            if number == 0:
                self._alarm.take(frame, self.link)
            elif self._conversation is None or number != self._conversation.number:
                raise ValueError(f"a frame for invocation {number}")
            else:
                self._conversation.take(frame)

    def end(self, error: Exception | None) -> None:
        self.gone = True
        self.error = error
        self._alarm.cancel()
        if error is None:
            self.fork.kill_unless_exiting()
        else:
            self.fork.kill()
        if self._conversation is not None:
            self._conversation.interrupt()

    def cpu_ms(self) -> float:
        """Return the CPU time of its invocation; 0 if the process has exited."""
        total = cpu_seconds(self.fork.pid) or 0.0
        return max(0.0, total - self._cpu_before) * 1000

    def verdict(self, limits: Limits) -> Done:
        """Return the Done of the invocation that ended with the process."""
        done = self.fork.verdict(limits, self.error)
        done.cpu_ms = max(0.0, done.cpu_ms - self._cpu_before * 1000)
        return done

    def dismiss(self) -> None:
        # A reference cycle through the link would keep bodies until garbage collection.
        self._conversation = None
        self._alarm.cancel()
        self.link.close()
        self.fork.kill()


class ProcessIsolates(Isolates):
    """The forks of one zygote, each used once."""

    def __init__(self, forks: Forks, answers: asyncio.TaskGroup, clock: Clock) -> None:
        self.handlers = frozenset(forks.booted.handlers)
        self.entrypoints = frozenset(forks.booted.entrypoints)
        self.guards = forks.booted.guards
        self.lost = forks.lost
        self.zygote = forks.zygote
        self._forks = forks
        self._answers = answers
        self._clock = clock
        self._count = 0
        self._standby: deque[_ProcessIsolate] = deque()
        self._standby_target = STANDBY_MIN
        self._wanted = anyio.Event()
        self._slots: dict[int, anyio.CapacityLimiter] = defaultdict(
            lambda: anyio.CapacityLimiter(ISOLATES_MAX)
        )
        self._settled = anyio.Event()

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """Run it in the next standby isolate."""
        async with self._slots[host.depth]:
            try:
                return await self._invoke(invoke, host)
            finally:
                self._settled.set()

    async def _invoke(self, invoke: Invoke, host: Host) -> Done:
        self._count += 1
        conversation = Conversation(self._count, invoke, host, self._answers, self._clock)
        try:
            while not conversation.ended:
                await self._run(conversation, await self._take())
        except OSError as error:
            message = f"No isolate for Worker {self._forks.spec.name}: {error}"
            conversation.end(conversation.not_run(message))
        finally:
            conversation.end(Done("canceled"))
        return conversation.done

    async def _run(self, conversation: Conversation, isolate: _ProcessIsolate) -> None:
        """Run the invocation in the isolate until it ends, or must begin again in another one."""
        try:
            isolate.begin(conversation)
            try:
                await conversation.over
            except asyncio.CancelledError:
                conversation.spent(isolate.cpu_ms())
                raise
            if not conversation.ended:
                done = conversation.verdict or await self._died(isolate)
                if not (done.blameless and conversation.begin_again()):
                    conversation.end(done)
        finally:
            isolate.dismiss()

    async def _take(self) -> _ProcessIsolate:
        if len(self._standby) <= 1:
            self._standby_target = min(self._standby_target * 2, STANDBY_MAX)
        self._wanted.set()
        while self._standby:
            isolate = self._standby.popleft()
            if not isolate.gone:
                return isolate
        return await self._fork()

    async def _fork(self) -> _ProcessIsolate:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                isolate = _ProcessIsolate(self._forks.one(theirs), self._clock)
            except OSError:
                ours.close()
                raise
        isolate.link = await open_link(ours, self._forks.spec.name, isolate.take, isolate.end)
        return isolate

    async def _died(self, isolate: _ProcessIsolate) -> Done:
        with anyio.move_on_after(EXIT_REPORT_SECONDS):
            await self._forks.wait_for_exit(isolate.fork)
        return isolate.verdict(self._forks.spec.limits)

    async def keep_standby(self) -> None:
        """Refill the pool after use, and shrink it without use."""
        while not self.lost.is_set():
            self._wanted = anyio.Event()
            try:
                while len(self._standby) < self._standby_target:
                    self._standby.append(await self._fork())
            except OSError as error:  # probably out of descriptors, which may be temporary
                log.error("isolate not forked", worker=self._forks.spec.name, error=str(error))
                await anyio.sleep(1)
            with anyio.move_on_after(IDLE_SECONDS) as idle:
                await self._wanted.wait()
            if self._standby:  # an immediate fork would slow down the invocation that just began
                await anyio.sleep(LATER_SECONDS)
            if idle.cancelled_caught:
                self._standby_target = max(STANDBY_MIN, self._standby_target // 2)
                while len(self._standby) > self._standby_target:
                    self._standby.pop().link.close()

    async def drain(self) -> None:
        """Wait until no invocation is in flight."""
        while any(slots.borrowed_tokens for slots in self._slots.values()):
            self._settled = anyio.Event()
            await self._settled.wait()

    def close_standbys(self) -> None:
        """Close the connections of unused standbys, which makes them exit."""
        while self._standby:
            self._standby.popleft().link.close()


@asynccontextmanager
async def open_isolates(spec: WorkerSpec, clock: Clock) -> AsyncIterator[ProcessIsolates]:
    """Start the Worker's zygote, load the module, fork the first standbys.

    At the end, invocations in flight may run for up to DRAIN_SECONDS.
    """
    async with (
        open_forks(spec) as forks,
        anyio.create_task_group() as tasks,
        asyncio.TaskGroup() as answers,
    ):
        isolates = ProcessIsolates(forks, answers, clock)
        tasks.start_soon(isolates.keep_standby)
        try:
            yield isolates
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(DRAIN_SECONDS):
                await isolates.drain()
            isolates.close_standbys()
            tasks.cancel_scope.cancel()
