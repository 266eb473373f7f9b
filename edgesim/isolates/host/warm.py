"""The ``warm`` level: a few long-lived processes per Worker, many invocations in each.

A process is retired if it is tainted, if an invocation exceeds a limit, if the process exits, or if
one callback blocks it.  A retired process gets no further invocation, and another one is forked in
its place.  Its other invocations run again in other processes if nothing of theirs has left the
process; then the first run has no visible effect.  The invocation that caused the retirement ends
with its own outcome.  If the cause is not known (the invocation that finds the memory full may not
have filled it), each invocation is a suspect and runs again alone in a process.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import anyio
import structlog
from anyio.abc import TaskGroup

from edgesim.clock import Clock
from edgesim.foreign import stops_the_world
from edgesim.isolates.host.conversation import TRIES_MAX, Alarm, Conversation
from edgesim.isolates.host.cpu_clock import cpu_seconds
from edgesim.isolates.host.driver import Host, Isolates
from edgesim.isolates.host.link import Link, open_link
from edgesim.isolates.host.zygotes import Fork, Forks, open_forks
from edgesim.isolates.protocol.limits import CPU_EXCEEDED, WALL_EXCEEDED
from edgesim.isolates.protocol.wire import (
    LOST,
    Cancel,
    Done,
    Failure,
    Frame,
    FrameBatch,
    Invoke,
    Tainted,
)
from edgesim.model import WorkerSpec
from edgesim.system import LINUX

DETERMINISTIC = True  # a link takes turns where time is virtual
PROCESSES_MIN = 2
"""Minimum for the number of serving processes of one Worker: the machine's cores, at least this.

In virtual time it is exactly this, so that a replay is the same on every machine.
"""
BUSY = 4
"""Invocations in the least busy process from which another process is forked."""
IN_FLIGHT_MAX = 256
"""Maximum concurrent invocations of one process; if all are full, further ones wait."""
ALIVE_MAX = 64
"""Maximum processes of one Worker, retired ones included."""
STALL_SECONDS = 0.1
"""Interval between checks; a callback that runs at two checks in a row blocks its process."""
STARVED_SECONDS = 0.03
"""CPU time within ``STALL_SECONDS`` below which a runnable process is waiting for a core."""
STARVED_MAX = 20
"""Consecutive checks after which a process that waits for a core is retired nevertheless.

Without a clock of the process's CPU time, every callback may be waiting for a core.
"""
NOBODY_SECONDS = 5.0
"""Least CPU time of collecting garbage, or of loading modules, before the process is killed."""
SLOWED_MAX = 7
"""Most that a busy machine may slow a callback down whose CPU time is unknown."""
BLOCKED_SECONDS = 30.0
"""Maximum time that one callback may block without using CPU, such as in a deadlock."""
DRAIN_SECONDS = 30.0
EXIT_REPORT_SECONDS = 5.0
CPU_GRACE_SECONDS = 0.2
CANCEL_SECONDS = 0.1
"""Seconds that an isolate may take to confirm a cancellation, with the CPU time."""
PAGE = struct.Struct("<Qd")  # as in shared_loop.py
_TICKS = os.sysconf("SC_CLK_TCK")
_EVICTED = "The isolate was evicted because of what another invocation in it did."
_NONE_LIVES = f"{TRIES_MAX} isolates ended before they could run the invocation."

log = structlog.get_logger()


class _WarmIsolate:
    """One process and the invocations that run in it."""

    def __init__(self, fork: Fork, page: mmap.mmap, clock: Clock) -> None:
        self.fork = fork
        self.link: Link
        self.conversations: dict[int, Conversation] = {}
        self.retired = False
        """True if the isolate gets no further invocation."""
        self.out_of_time = False
        self.blocked = False
        """True if it was killed because one callback blocked it for too long."""
        self.error: Exception | None = None
        self.ended = anyio.Event()
        self.occupied = anyio.Event()
        self._page = page
        self._cancelled: dict[int, asyncio.Future[float]] = {}
        """Futures of the CPU times (ms) of cancelled invocations, which their Done reports."""
        self._state = ""
        self._cpu_before: float | None = None
        self._nobody_before: float | None = None
        self._nobody = 0.0
        self._has_sent = False
        self._alarm = Alarm(clock)

    @property
    def running(self) -> int:
        """Number of the invocation whose callback is running; 0 for none."""
        number: int = PAGE.unpack_from(self._page)[0]
        return number

    def running_cpu_ms(self) -> float:
        """Return the CPU time of the running invocation; 0 if it is unknown."""
        last = self.fork.exit
        total = cpu_seconds(self.fork.pid) if last is None else last.cpu_ms / 1000
        number: int
        ahead: float
        number, ahead = PAGE.unpack_from(self._page)
        if number == 0 or total is None or not -total <= ahead <= 0:  # worker code can write there
            return 0.0
        return (total + ahead) * 1000

    def close_page(self) -> None:
        """Close the shared page, whose descriptor would stay open until garbage collection."""
        self._page.close()

    def begin(self, conversation: Conversation) -> None:
        conversation.begin(self.link)
        if self.ended.is_set():  # it ended since it was chosen, and was already settled
            conversation.interrupt()
            return
        self.conversations[conversation.number] = conversation
        self.occupied.set()

    async def release(self, conversation: Conversation) -> None:
        """Forget an invocation that has ended, and cancel it if it still runs here."""
        if self.conversations.pop(conversation.number, None) is not None:
            await self._cancel(conversation)
        self.close_if_done()

    async def _cancel(self, conversation: Conversation) -> None:
        """Cancel the invocation in the process; report its CPU time if it is confirmed soon."""
        number = conversation.number
        self.link.send(number, Cancel())
        if self.running == number:  # no confirmation can come before its callback returns
            conversation.spent(self.running_cpu_ms())
        elif not stops_the_world():  # in virtual time no CPU time is reported
            cpu_ms = self._cancelled[number] = asyncio.get_running_loop().create_future()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_SECONDS):
                conversation.spent(await cpu_ms)
            del self._cancelled[number]

    def take(self, message: FrameBatch) -> None:
        """Process a received message; ValueError for frames that an isolate may not send."""
        self._has_sent = True
        for number, frame in message.frames:
            conversation = self.conversations.get(number)
            if conversation is not None:
                self._take(conversation, frame)
            elif number == 0 and isinstance(frame, Tainted):
                log.info("isolate retired", pid=self.fork.pid, changed=frame.what[:100])
                self.retire()
            elif number == 0:
                self._alarm.take(frame, self.link)
            elif isinstance(frame, Done):
                self._confirm(number, frame)
            # Other frames are ignored: their invocations were cancelled or moved elsewhere.
        self.close_if_done()

    def _confirm(self, number: int, frame: Done) -> None:
        cpu_ms = self._cancelled.get(number)
        if cpu_ms is not None and not cpu_ms.done():
            cpu_ms.set_result(frame.cpu_ms)

    def _take(self, conversation: Conversation, frame: Frame) -> None:
        if not isinstance(frame, Done):
            conversation.take(frame)
            return
        del self.conversations[conversation.number]
        breach = frame.outcome in {"exceededCpu", "exceededMemory"}
        if breach:
            self.retired = True
        # Memory is shared: the invocation that finds it full may not have filled it.
        if frame.outcome == "exceededMemory" and conversation.movable and self.conversations:
            conversation.suspect = True
            conversation.interrupt()
        else:
            conversation.end(frame)

    def retire(self, *, but: int = 0) -> None:
        """Accept no further invocation; move invocations that can begin again, except ``but``."""
        self.retired = True
        for number, conversation in list(self.conversations.items()):
            if number != but and conversation.movable:
                del self.conversations[number]
                conversation.interrupt()
        self.close_if_done()

    def close_if_done(self) -> None:
        """Close a retired process once its last invocation has ended."""
        if self.conversations or self._cancelled:
            return
        if self.retired and not self.ended.is_set():
            self.link.close()
            self._alarm.cancel()
            self.ended.set()

    def end(self, error: Exception | None) -> None:
        self.retired = True
        self.error = error
        if error is None:
            self.fork.kill_unless_exiting()
        else:
            self.fork.kill()
        self._alarm.cancel()
        self.ended.set()

    def waits_for_a_core(self, now: float | None) -> bool:
        """Return True if the process was runnable but had hardly any CPU time since the last call.

        Then the load of the machine delays the callback, not the callback's own work.  True also if
        the CPU time is unknown.  ``now``: its CPU time.
        """
        if not LINUX:
            return True
        before, self._cpu_before = self._cpu_before, now
        if before is None or self._cpu_before is None:
            return False
        return self._state == "R" and self._cpu_before - before < STARVED_SECONDS

    def seconds_for_nobody(self, now: float | None) -> float:
        """Return the CPU time since an invocation ran, a message came or the process was idle.

        Garbage is collected then: a destructor that an invocation has left may never end.  ``now``:
        the CPU time of the process.
        """
        before = self._nobody_before
        if now is None or before is None:
            self._nobody_before, self._nobody = now, 0.0
        else:
            self._nobody_before = now
            self._nobody += now - before
            if self.running or self._has_sent or (now == before and self._state != "R"):
                self._nobody = 0.0
        self._has_sent = False
        return self._nobody

    def computes_for_nobody(self) -> bool:
        """True if the process has used CPU time since the last look, for no invocation."""
        return self._nobody > 0.0

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of the process in seconds; None if it is unknown."""
        if not LINUX:
            return None
        try:
            with open(f"/proc/{self.fork.pid}/stat", "rb") as stat:  # noqa: PTH123 (a /proc file)
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return None
        self._state = fields[0].decode()
        return (int(fields[11]) + int(fields[12])) / _TICKS


class WarmIsolates(Isolates):
    """The long-lived forks of one zygote."""

    def __init__(
        self, forks: Forks, tasks: TaskGroup, answers: asyncio.TaskGroup, clock: Clock
    ) -> None:
        self.handlers = frozenset(forks.booted.handlers)
        self.entrypoints = frozenset(forks.booted.entrypoints)
        self.guards = forks.booted.guards
        self.lost = forks.lost
        self.zygote = forks.zygote
        self._forks = forks
        self._tasks = tasks
        self._answers = answers
        self._clock = clock
        cores = 1 if stops_the_world() else os.cpu_count() or 1
        self._processes_max = max(PROCESSES_MIN, cores)
        self._alive: list[_WarmIsolate] = []
        self._forking = anyio.Lock()
        self._in_flight = 0
        self._settled = anyio.Event()

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """Run it in the least busy process."""
        number = self._clock.random.getrandbits(62) + 1  # unguessable for other invocations
        conversation = Conversation(number, invoke, host, self._answers, self._clock)
        self._in_flight += 1
        isolate: _WarmIsolate | None = None
        try:
            while not conversation.ended:
                isolate = await self._place_for(conversation, host.depth)
                isolate.begin(conversation)
                await conversation.over
                if not conversation.ended and not conversation.begin_again():
                    done = conversation.verdict or conversation.fallback
                    conversation.end(done or conversation.not_run(_NONE_LIVES))
        except OSError as error:
            message = f"No isolate for Worker {self._forks.spec.name}: {error}"
            conversation.end(conversation.not_run(message))
        finally:
            conversation.end(Done("canceled"))
            if isolate is not None:
                await isolate.release(conversation)
            self._in_flight -= 1
            self._settled.set()
        return conversation.done

    # --- choice of a process ---

    async def _place_for(self, conversation: Conversation, depth: int) -> _WarmIsolate:
        """Return a process for the invocation; OSError if none can be forked."""
        if not conversation.suspect:
            return self._least_busy(depth) or await self._wait_for_one(depth)
        while self._is_full(depth):
            await self._wait_for_change()
        isolate = await self._fork()
        isolate.retired = True  # no other invocation may join the suspect
        return isolate

    def _serving(self) -> list[_WarmIsolate]:
        return [isolate for isolate in self._alive if not isolate.retired]

    def _least_busy(self, depth: int) -> _WarmIsolate | None:
        serving = self._serving()
        if not serving:
            return None
        best = min(serving, key=lambda isolate: len(isolate.conversations))
        load = len(best.conversations)
        # A Worker that calls itself would wait for itself, so only calls from outside wait.
        if load >= IN_FLIGHT_MAX and depth == 0:
            return None
        if load >= BUSY and len(serving) < self._processes_max and not self._forking.locked():
            self._tasks.start_soon(self._add)
        return best

    async def _wait_for_one(self, depth: int) -> _WarmIsolate:
        """Wait for a process that is not full, or fork one; OSError if that fails."""
        while True:
            async with self._forking:
                isolate = self._least_busy(depth)
                if isolate is not None:
                    return isolate
                if len(self._serving()) < self._processes_max and not self._is_full(depth):
                    return await self._fork()
            await self._wait_for_change()

    def _is_full(self, depth: int) -> bool:
        return len(self._alive) >= ALIVE_MAX and depth == 0

    async def _wait_for_change(self) -> None:
        if self._settled.is_set():
            self._settled = anyio.Event()
        await self._settled.wait()

    async def _add(self) -> None:
        async with self._forking:
            if len(self._serving()) < self._processes_max and not self._is_full(depth=0):
                try:
                    await self._fork()
                except OSError as error:
                    log.error("isolate not forked", worker=self._forks.spec.name, error=str(error))

    async def _fork(self) -> _WarmIsolate:
        ours, theirs = socket.socketpair()
        try:
            with theirs, _shared_page() as file:
                page = mmap.mmap(file.fileno(), PAGE.size)
                isolate = _WarmIsolate(self._forks.many(theirs, file.fileno()), page, self._clock)
        except OSError:
            ours.close()
            raise
        isolate.link = await open_link(
            ours, self._forks.spec.name, isolate.take, isolate.end, sends_first=True
        )
        self._alive.append(isolate)
        self._tasks.start_soon(self._follow, isolate)
        return isolate

    # --- end of a process ---

    async def _follow(self, isolate: _WarmIsolate) -> None:
        """Watch a process until it ends, then settle its remaining invocations."""
        try:
            async with anyio.create_task_group() as watching:
                watching.start_soon(self._watch, isolate)
                await isolate.ended.wait()
                watching.cancel_scope.cancel()
            self._alive.remove(isolate)
            self._settled.set()
            if isolate.conversations:
                await self._settle(isolate)
        finally:
            isolate.close_page()

    async def _settle(self, isolate: _WarmIsolate) -> None:
        """Settle the invocations of a process that exited.

        The running one caused the exit and gets the outcome; the others begin again or are evicted.
        """
        guilty = 0 if isolate.error else isolate.running  # invalid bytes can be from any of them
        with anyio.move_on_after(EXIT_REPORT_SECONDS):
            await self._forks.wait_for_exit(isolate.fork)
        conversations = list(isolate.conversations.values())
        isolate.conversations.clear()
        done = isolate.fork.verdict(
            self._forks.spec.limits, isolate.error, out_of_time=isolate.out_of_time
        )
        cpu_ms = isolate.running_cpu_ms()
        if isolate.blocked and cpu_ms > self._forks.spec.limits.cpu_ms:  # known only now
            done = Done("exceededCpu", [Failure("Error", CPU_EXCEEDED)])
        elif isolate.blocked and not isolate.out_of_time:
            done = Done("exceededWallTime", [Failure("Error", WALL_EXCEEDED)])
        known = any(conversation.number == guilty for conversation in conversations)
        for conversation in conversations:
            if done.blameless:
                conversation.fallback = done
            elif conversation.number == guilty or len(conversations) == 1:
                conversation.verdict = conversation.verdict or done
                conversation.verdict.cpu_ms = cpu_ms
            else:
                conversation.fallback = _evicted(known)
                conversation.suspect |= not known
            conversation.interrupt()

    async def _watch(self, isolate: _WarmIsolate) -> None:
        """Retire the process if one callback blocks it."""
        before = starved = 0
        while True:
            if not isolate.conversations and not isolate.computes_for_nobody():
                isolate.occupied = anyio.Event()
                await isolate.occupied.wait()
            await anyio.sleep(STALL_SECONDS)
            running = isolate.running
            limit = max(self._forks.spec.limits.cpu_ms / 1000, NOBODY_SECONDS)
            now = isolate.cpu_seconds()
            if isolate.seconds_for_nobody(now) > limit:
                isolate.retired = isolate.out_of_time = True
                isolate.fork.kill()
                return
            waits, same = isolate.waits_for_a_core(now), running != 0 and running == before
            starved = starved + 1 if waits and same else 0
            if same and not 0 < starved < STARVED_MAX:
                isolate.retire(but=running)
                self._settled.set()
                await self._limit_cpu(isolate, running)
            before = running

    async def _limit_cpu(self, isolate: _WarmIsolate, running: int) -> None:
        """Kill the process if the blocking callback exceeds its CPU time or BLOCKED_SECONDS.

        If the CPU time is unknown, a timer of the process's own ends it (shared_loop.py), unless
        worker code has disarmed that; so a multiple of the limit is the most it may take.
        """
        limit = self._forks.spec.limits.cpu_ms / 1000 + CPU_GRACE_SECONDS
        blocked = min(SLOWED_MAX * limit, limit + BLOCKED_SECONDS) - STARVED_MAX * STALL_SECONDS
        began, clock = isolate.cpu_seconds(), self._clock.elapsed()
        while True:
            await anyio.sleep(STALL_SECONDS)
            if isolate.running != running:
                return  # the callback returned; the remaining invocations may finish
            now = isolate.cpu_seconds()
            used, passed = 0.0, self._clock.elapsed() - clock
            if began is None or now is None:
                isolate.blocked = passed > blocked
            else:
                used = now - began
                isolate.blocked = passed - used > BLOCKED_SECONDS
            isolate.out_of_time = used > limit
            if not isolate.out_of_time and not isolate.blocked:
                continue
            isolate.fork.kill()
            return

    # --- start and end ---

    async def drain(self) -> None:
        """Wait until no invocation is in flight."""
        while self._in_flight:
            await self._wait_for_change()

    def close_links(self) -> None:
        """Close the connection of every process, which makes it exit."""
        for isolate in self._alive:
            isolate.link.close()

    async def begin(self) -> None:
        """Fork the first process, before the first request."""
        await self._add()


def _shared_page() -> BinaryIO:
    """Return a file in memory that holds PAGE, whose size the isolate cannot change."""
    if not LINUX:
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        file.truncate(PAGE.size)
        return file
    fd = os.memfd_create("edgesim-isolate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE.size)
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return os.fdopen(fd, "r+b")


def _evicted(known: bool) -> Done:
    """Return the Done of an evicted invocation; unless the cause is ``known``, it may be this."""
    fault = LOST if known else "worker"
    return Done("internalError", [Failure("Error", _EVICTED)], fault=fault)


@asynccontextmanager
async def open_isolates(spec: WorkerSpec, clock: Clock) -> AsyncIterator[WarmIsolates]:
    """Start the Worker's zygote, load the module, fork the first process."""
    async with (
        open_forks(spec) as forks,
        anyio.create_task_group() as tasks,
        asyncio.TaskGroup() as answers,
    ):
        isolates = WarmIsolates(forks, tasks, answers, clock)
        await isolates.begin()
        try:
            yield isolates
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(DRAIN_SECONDS):
                await isolates.drain()
            isolates.close_links()
            tasks.cancel_scope.cancel()
