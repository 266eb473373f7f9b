"""Scheduler of a ``warm`` isolate: many invocations in one process, isolated from each other.

Each invocation has its own modules (module_namespace.py; reused after a proof that nothing in them
changed, namespace_pool.py), event loop and mailbox
(warm_invocation.py), time, randomness and log lines; its CPU time is measured per event loop turn.
Tasks that are still pending when an invocation ends never run again.  If an invocation has changed
shared state, the isolate sends Tainted, and the platform starts no further invocation in it.

The scheduler holds the channel and the invocations' numbers, so worker code must not reach it.  The
scheduler is a generator that yields steps, which C code calls.  While worker code runs, no
scheduler object is on the stack, in a module's names or in a reachable closure.  The scheduler
accesses no object that worker code can have changed, since that could run worker code on top of
the scheduler's frame.

Objects that an ended invocation left in memory may have destructors, which garbage collection
would run inside a callback of another invocation.  So automatic collection is disabled.  Garbage
is collected explicitly between callbacks and during long ones, outside any invocation's context.

The scheduler cannot interrupt a callback that does not return.  So it writes the number of the
running invocation to a page of memory shared with the platform.  If the isolate stops replying, the
platform reads there which invocation is responsible.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import mmap
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from math import inf, isnan
from operator import call
from typing import Any, NamedTuple

from edgesim.isolates.guest import clock_and_random, guard, stand_ins, warm_invocation
from edgesim.isolates.guest.entrypoints import Entrypoints, entrypoints
from edgesim.isolates.guest.jailed_loop import PLATFORM, Turn, Wire
from edgesim.isolates.guest.keyed_socket import KeyedSocket
from edgesim.isolates.guest.module_namespace import CodeCache, Namespace, Sources, sealed_sources
from edgesim.isolates.guest.namespace_pool import NamespacePool, NoPool, Reusable, load_modules
from edgesim.isolates.guest.platform_names import NEAR, keyword_defaults, names_check
from edgesim.isolates.guest.sealed import UNINTERRUPTED, opaque, sealed
from edgesim.isolates.guest.serve import CpuLimitExceeded, failed
from edgesim.isolates.guest.shared_state import SharedState, is_from, is_frozen
from edgesim.isolates.guest.warm_invocation import Mailbox, Sleep, TurnReport
from edgesim.isolates.protocol.limits import CPU_EXCEEDED, HUNG
from edgesim.isolates.protocol.wire import (
    Cancel,
    Done,
    Failure,
    Frame,
    Invoke,
    Reply,
    Tainted,
    decoded,
)
from edgesim.system import LINUX

TICK_SECONDS = 0.02
"""Interval, in CPU time of one callback, at which frames of all invocations are sent."""
PAGE = struct.Struct("<Qd")
"""Number of the running invocation, and its CPU time minus the process's CPU time (seconds)."""
TAMPERED_STATUS = 13
"""Exit status of a process in which an invocation has changed the platform's own names."""

Step = tuple[Any, ...]
"""A function and its arguments, for C code to call."""


class Resident:
    """State of one invocation in the scheduler."""

    def __init__(self, number: int, mailbox: Mailbox) -> None:
        self.number = number
        self.cpu_seconds = 0.0
        self.done: Done | None = None
        self.replies: list[Reply] = []
        self.wake_at = inf
        self._mailbox: Mailbox | None = mailbox
        self.modules: Reusable | None = None
        """The pool's modules in which the invocation runs, if it does."""

    def give_back_step(self, give_back: Callable[..., Any]) -> Step:
        """Return the step that gives the modules back; this object drops its reference to them."""
        modules, self.modules = self.modules, None
        return give_back, modules

    def step(self, function: Callable[..., Any], *args: Any) -> Step:
        """Return a step: a call of ``function`` with this invocation's mailbox first."""
        return function, self._mailbox, *args

    def last_step(self, function: Callable[..., Any], *args: Any) -> Step:
        """Like ``step``; also drops this object's reference to the mailbox."""
        mailbox, self._mailbox = self._mailbox, None
        return function, mailbox, *args


class Scheduler:
    """Runs the event loop turns of all invocations.  Worker code must never reach this object."""

    def __init__(
        self,
        wire: Wire,
        load: Callable[[], Entrypoints],
        new_env: Callable[[], Any],
        changed: Callable[[], str | None],
        end_if_tampered: Callable[[], None],
        cpu_ms: int,
        page: Any,
        pool: NamespacePool | None = None,
        *,
        end_by_timer: bool = False,
    ) -> None:
        """``end_by_timer``: let the kernel end the process if a callback exceeds its CPU time."""
        self.wire = wire
        self.results: deque[Any] = deque(maxlen=1)
        """Result of the last step."""
        self._load = load
        self._pool = NoPool() if pool is None else pool
        self._new_env = new_env
        self._changed = changed
        # Called before any name is looked up after worker code ran, which may have replaced it.
        self._end_if_tampered = end_if_tampered
        self._out_of_time = failed(CpuLimitExceeded(CPU_EXCEEDED))
        self._cpu_seconds = cpu_ms / 1000
        self._page = page
        self._turn = Turn(self)
        self._now = 0.0
        self._steady = 0.0
        self._live: dict[int, Resident] = {}
        self._ready: dict[int, Resident] = {}
        self._timers: list[tuple[float, int, Resident]] = []
        self._order = itertools.count()
        self._begun: list[tuple[Resident, Invoke]] = []
        self._running: Resident | None = None
        self._began = 0.0
        self._sleep: Sleep = opaque(end_if_tampered, self.sleep)
        self._set_timer_to = partial(signal.setitimer, signal.ITIMER_VIRTUAL)
        self._end_by_timer = end_by_timer

    def time(self) -> float:
        """Return the platform's steady clock (Unix seconds) as of its last message."""
        return self._steady

    def awaits_message(self) -> bool:
        """Return True: the platform can always send another invocation."""
        return True

    # --- one turn of all invocations ---

    def steps(self) -> Iterator[Step]:
        """Yield all steps of the isolate, without end."""
        self._end_if_tampered()
        yield from self._fill_pool()
        while True:
            for number, frame in self._turn.select(self._timeout()):
                self._take(number, frame)
            self._fire_timers()
            ready, self._ready = self._ready, {}
            yield from self._begin_all()
            for resident in ready.values():
                if resident.done is None:
                    replies, resident.replies = tuple(resident.replies), []
                    self._start(resident)
                    yield resident.step(warm_invocation.turn, self._now, self._steady, replies)
                    self._settle(resident)
                if resident.done is not None:
                    yield from self._leave(resident)
            if warm_invocation.garbage_is_due():
                yield (warm_invocation.collect,)
                self._end_if_tampered()

    def _leave(self, resident: Resident) -> Iterator[Step]:
        """Remove an ended invocation and send its Done."""
        self._ready.pop(resident.number, None)
        self._enter(resident)
        yield resident.last_step(warm_invocation.leave, self._changed)
        self._end_if_tampered()
        change = self.results.pop()
        if resident.modules is not None:
            yield resident.give_back_step(self._pool.give_back)
            self._end_if_tampered()
        if change is None and self._pool.wants_one:
            yield from self._fill_pool()
        self._finish(resident, change)

    def _fill_pool(self) -> Iterator[Step]:
        """Load modules for the pool, outside any invocation's context."""
        while self._pool.wants_one:
            yield self._pool.load_step()
            self._end_if_tampered()
            loaded = self.results.pop()
            yield (gc.collect,)  # garbage of the load would count as references
            self._end_if_tampered()
            step, loaded = (self._pool.add, loaded), None
            yield step
            del step
            self._end_if_tampered()

    def _timeout(self) -> float | None:
        if self._ready:
            return 0.0
        timers = self._timers
        while timers and timers[0][2].wake_at != timers[0][0]:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - self._steady) if timers else None

    def _fire_timers(self) -> None:
        """Mark the invocations whose timers are due as ready."""
        due = self._steady + 1e-6
        timers = self._timers
        while timers and timers[0][0] < due:
            when, _, resident = heapq.heappop(timers)
            if resident.wake_at == when:
                resident.wake_at = inf
                self._ready[resident.number] = resident

    # --- frames from the platform ---

    def _take(self, number: int, frame: Frame) -> None:
        match frame:
            case Invoke():
                self._set_time(frame.now, frame.steady)
                mailbox = Mailbox(self._now, self._steady, self._sleep)
                self._begun.append((Resident(number, mailbox), frame))
            case Cancel():
                if (resident := self._live.get(number)) is not None:
                    self._end(resident, Done("exception"))
            case Reply():
                self._set_time(frame.now, frame.steady)
                if number == PLATFORM:
                    self._steady = max(self._steady, self._turn.timer_fired(frame))
                elif (resident := self._live.get(number)) is not None:
                    resident.replies.append(frame)
                    self._ready[number] = resident
            case _:
                raise TypeError(f"unexpected {type(frame).__name__} from the platform")

    def _set_time(self, now: float, steady: float) -> None:
        self._now, self._steady = max(self._now, now), max(self._steady, steady)

    def _begin_all(self) -> Iterator[Step]:
        begun, self._begun = self._begun, []
        for resident, invoke in begun:
            self._live[resident.number] = resident
            modules = resident.modules = self._pool.take()
            load = self._load if modules is None else modules.entering
            del modules
            self._start(resident)
            yield resident.step(warm_invocation.begin, invoke, load, self._new_env)
            self._settle(resident)
            if resident.done is not None:
                yield from self._leave(resident)

    # --- one turn of one invocation ---

    def _start(self, resident: Resident) -> None:
        self._enter(resident)
        self._running = resident
        if self._end_by_timer:
            left = max(self._cpu_seconds - resident.cpu_seconds, 0.0)
            self._set_timer_to(left + guard.CPU_GRACE_SECONDS)

    def _enter(self, resident: Resident) -> None:
        self._began = time.thread_time()
        self._show(resident)

    def _show(self, resident: Resident) -> None:
        """Write the running invocation and its CPU time to the shared page."""
        PAGE.pack_into(self._page, 0, resident.number, resident.cpu_seconds - self._began)

    def _show_none(self) -> None:
        PAGE.pack_into(self._page, 0, PLATFORM, 0.0)

    def _stop(self, resident: Resident) -> None:
        now = time.thread_time()
        resident.cpu_seconds += now - self._began
        self._began = now
        self._running = None
        self._show_none()
        if self._end_by_timer:
            self._set_timer_to(0.0)

    def _settle(self, resident: Resident) -> None:
        """Process the report of a turn: send frames, measure CPU time, set the timer."""
        self._end_if_tampered()
        report: TurnReport = self.results.pop()
        self._stop(resident)
        self._put(resident, report.frames)
        if report.done is not None:
            self._end(resident, _done(report.done))
        elif resident.cpu_seconds > self._cpu_seconds:
            self._end(resident, Done("exceededCpu", self._out_of_time.exceptions))
        elif report.ready:
            self._ready[resident.number] = resident
        elif report.wake_at is None and not report.awaits_message and not resident.replies:
            self._end(resident, Done("exception", [Failure("Error", HUNG)]))
        if resident.done is None:
            self._set_timer(resident, report.wake_at)

    def _set_timer(self, resident: Resident, wake_at: float | None) -> None:
        when = inf if wake_at is None or isnan(wake_at) else wake_at
        if resident.wake_at != when:
            resident.wake_at = when
            if when != inf:
                heapq.heappush(self._timers, (when, next(self._order), resident))

    def _put(self, resident: Resident, frames: Iterable[bytes]) -> None:
        try:
            for frame in frames:
                self.wire.put_encoded(resident.number, frame)
        except ValueError as error:
            self._end(resident, Done("exception", [Failure("TypeError", str(error))]))

    def _end(self, resident: Resident, done: Done) -> None:
        """End the invocation: it has no further turn, and is removed in the next round."""
        if resident.done is None:
            resident.done = done
            self._set_timer(resident, None)
            self._ready[resident.number] = resident

    def _finish(self, resident: Resident, change: str | None) -> None:
        assert resident.done is not None
        self._show_none()
        del self._live[resident.number]
        resident.done.cpu_ms = resident.cpu_seconds * 1000
        self.wire.put(resident.number, resident.done)
        if change is not None:
            self.wire.put(PLATFORM, Tainted(change))

    def main(self) -> Callable[[], Any]:
        """Return a C function that runs all steps; its caller must hold no other reference."""
        return partial(self.results.extend, itertools.starmap(call, self.steps()))

    # --- called while worker code is on the stack, so sealed ---

    def timer_handler(self, shut_frames: Callable[[bool], bool]) -> Any:
        """Return the handler of SIGPROF."""
        whole = {each.__code__ for each in (Scheduler.check, Scheduler.sleep)}
        whole |= guard.UNINTERRUPTED | UNINTERRUPTED
        check = opaque(self._end_if_tampered, self.check)
        return warm_invocation.timer_handler(check, shut_frames, whole, self._end_if_tampered)

    def check(self, frames: list[bytes]) -> bool:
        """Send pending frames; return True if the running invocation has used up its CPU time."""
        resident = self._running
        if resident is None:
            return False
        with suppress(Exception):
            self._put_checked(resident, frames)
            self.wire.flush_now()
        used = resident.cpu_seconds + time.thread_time() - self._began
        return resident.done is None and used > self._cpu_seconds

    def sleep(self, until: float, frames: list[bytes]) -> tuple[float, float] | BaseException:
        """Block until the steady time ``until``.

        Returns both clocks, or the exception that the caller must raise.
        """
        resident = self._running
        if resident is None or type(until) is not float or not until < inf:
            return ValueError("no time to sleep until")
        try:
            self._put_checked(resident, frames)
            arrived = self._turn.sleep(until)
        except BaseException as error:  # noqa: BLE001 (its traceback would show this frame)
            return error.with_traceback(None)
        clocks = self._now, self._steady
        for _, frame in arrived:
            if isinstance(frame, Invoke | Reply):
                clocks = max(clocks[0], frame.now), max(clocks[1], frame.steady)
        self.wire.put_back(arrived)
        return clocks

    def _put_checked(self, resident: Resident, frames: list[bytes]) -> None:
        if type(frames) is list and all(type(each) is bytes for each in frames):
            self._put(resident, frames)


def ending(tampered: Callable[[], bool]) -> Callable[[], None]:
    """Return a function that exits the process if worker code has replaced a platform name.

    It looks up no name itself, so it exits before a replacement can take effect.  The shared page
    then tells the platform which invocation was running.
    """
    end = partial(os._exit, TAMPERED_STATUS)

    def end_if_tampered() -> None:
        if tampered():
            end()

    return end_if_tampered


def _done(data: bytes) -> Done:
    """Decode the Done that an invocation reports; an exception outcome if it is not a Done."""
    try:
        done = decoded(data)
    except ValueError as error:
        return Done("exception", [Failure("TypeError", str(error))])
    return done if isinstance(done, Done) else Done("exception")


class LoadedWorker(NamedTuple):
    """The Worker as loaded by its zygote."""

    codes: CodeCache
    name: str
    legacy: bool
    """True if module-level handlers are called."""
    new_env: Callable[[], Any]
    cpu_ms: int
    vendored: frozenset[str]
    """Names of vendored packages, which all invocations share, as on the platform."""
    loaded: list[str]
    """Names of the Worker's own modules in the zygote's ``sys.modules``."""


def shared_main(sock: socket.socket, page: int, worker: LoadedWorker) -> Callable[[], Any]:
    """Return the main function of a fork for many invocations.

    The caller must hold no reference to its parts: worker code can see the frames below it.  The
    process exits when the platform closes the connection.
    """
    gc.disable()
    registry = warm_invocation.separate_tasks()
    warm_invocation.separate_classes(partial(_is_library_class, worker.vendored))
    stand_ins.install()
    stand_ins.replace_loaded(worker.loaded)
    asyncio.set_event_loop(None)
    gates = guard.take_gates()
    with gates.suspended():
        state = SharedState(
            gates.suspended, gates.frames_shut, gates.objects, gates.referents, worker.vendored
        )
    end_if_tampered = ending(names_check([registry, *keyword_defaults()]))
    near = ending(names_check(modules=NEAR))
    sources = sealed_sources(
        worker.codes, state, warm_invocation.build_class, near, gates.frames_shut
    )
    load = partial(_load_afresh, sources, worker.name, worker.legacy)
    new_env = sealed(worker.new_env)
    load_reusable = partial(load_modules, sources, worker.name, worker.legacy, new_env)
    scheduler = Scheduler(
        *(Wire(sock), load, new_env, sealed(state.changed)),
        *(end_if_tampered, worker.cpu_ms, mmap.mmap(page, PAGE.size)),
        NamespacePool(gates.suspended, gates.frames_shut, gates.referents, sources, load_reusable),
        end_by_timer=not LINUX,  # elsewhere the platform cannot read this process's CPU time
    )
    signal.signal(signal.SIGPROF, scheduler.timer_handler(gates.shut_frames))
    signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)
    state.accept_settings()  # the timer and its handler are settings too, without seccomp
    if (key := gates.seal(sock.fileno(), end_if_tampered)) is not None:
        scheduler.wire = Wire(KeyedSocket(sock, key, gates.suspended))
    del key
    return scheduler.main()


def _load_afresh(sources: Sources, name: str, legacy: bool) -> Entrypoints:
    with clock_and_random.global_scope():
        namespace = Namespace(sources)
        stand_ins.running.set(namespace)
        return entrypoints(namespace.load(name), legacy)


def _is_library_class(vendored: frozenset[str], kind: type) -> bool:
    return is_frozen(kind) or is_from(vendored, kind)
