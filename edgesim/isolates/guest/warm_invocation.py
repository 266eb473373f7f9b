"""One invocation of a ``warm`` isolate: the objects that its worker code can reach.

Each invocation has an event loop and a mailbox.  Its outgoing frames stay in the mailbox until its
turn ends; then the scheduler (shared_loop.py) adds the invocation's number and sends them.  So
nothing here refers to a number, the channel or another invocation.

Worker code can change every object that it reaches, and can run at unexpected times: when a
property is read, a destructor runs or an exception is formatted.  So all code that handles objects
of worker code is in this module.  It is called from C, so that no caller's frame is visible, and
returns only bytes and numbers to the scheduler.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import heapq
import sys
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from ctypes import py_object, pythonapi
from functools import partial
from types import CodeType, FrameType, NoneType
from typing import Any, NamedTuple

from edgesim.isolates.guest.entrypoints import Entrypoints
from edgesim.isolates.guest.event_loop import IsolateLoop, drop_unawaited, sleep_seconds
from edgesim.isolates.guest.jailed_loop import WHOLE
from edgesim.isolates.guest.sealed import sealed
from edgesim.isolates.guest.serve import (
    Channel,
    CpuLimitExceeded,
    Serving,
    failed,
    serve,
)
from edgesim.isolates.protocol.limits import CPU_EXCEEDED
from edgesim.isolates.protocol.unsendable import UNSENDABLE, sendable
from edgesim.isolates.protocol.wire import Call, Done, Frame, Invoke, Reply, encoded

Sleep = Callable[[float, list[bytes]], tuple[float, float] | BaseException]
"""Send the frames, wait until the steady time, return both clocks."""


class TurnReport(NamedTuple):
    """The state of an invocation after its turn."""

    frames: list[bytes]
    done: bytes | None
    ready: bool
    """True if callbacks are ready to run."""
    wake_at: float | None
    """Steady time of the next timer; None without one."""
    awaits_message: bool
    """True if a reply is awaited."""


class GuestLoop(IsolateLoop):
    """The event loop of one invocation, which the scheduler runs turn by turn."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int
    _asyncgens: Any

    def __init__(self, mailbox: Mailbox) -> None:
        # asyncio's __init__ takes 15 us; most attributes are the same for every loop, so they are
        # copied, and only those that differ are created here.
        vars(self).update(_SETTINGS)
        self._ready = deque()
        self._scheduled = []
        self.mailbox = mailbox
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.classes: dict[int, type] = {}

    def __del__(self) -> None:
        """Do nothing: asyncio's warns about an unclosed loop, but there is nothing to close."""

    def run_ready(self) -> None:
        """Run one turn of asyncio: due timers, then all callbacks that are ready."""
        timers, ready = self._scheduled, self._ready
        due = self.steady + self._clock_resolution
        while timers and (timers[0]._cancelled or timers[0]._when < due):
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def next_timer(self) -> float | None:
        """Return the steady time of the next timer; None without one."""
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False
        return float(timers[0]._when) if timers else None


def _settings() -> dict[str, Any]:
    loop = IsolateLoop()
    found = vars(loop) | {"_asyncgens": (), "_thread_id": threading.get_ident()}
    loop.close()
    return found  # with a thread id: the loop is running whenever worker code can see it


_SETTINGS = _settings()
"""Attributes that are the same for every event loop."""


class Mailbox(Channel):
    """Channel of one invocation: frames to send, and futures of the awaited replies."""

    def __init__(self, now: float, steady: float, sleep: Sleep) -> None:
        self.loop = GuestLoop(self)
        self.loop.set_time(now, steady)
        self.out: list[Frame] = []
        self.done: Done | None = None
        self.replies: dict[int, asyncio.Future[Reply]] = {}
        self._sleep = sleep

    def now(self) -> float:
        return self.loop.now

    def steady(self) -> float:
        return self.loop.steady

    def sleep(self, seconds: float) -> None:
        seconds = sleep_seconds(seconds)
        now, until = self.loop.now + seconds, self.loop.steady + seconds
        clocks = self._sleep(until, self.take_frames())
        if isinstance(clocks, BaseException):
            raise clocks
        self.loop.set_time(*clocks)
        self.loop.set_time(now, until)

    def send(self, frame: Frame) -> None:
        self.out.append(frame)

    def ask(self, call: Call) -> Awaitable[Reply]:
        self.out.append(call)
        reply: asyncio.Future[Reply] = self.loop.create_future()
        self.replies[call.id] = reply
        return reply

    def take(self, reply: Reply) -> None:
        """Pass a received reply to the call that awaits it."""
        waiting = self.replies.pop(reply.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def finish(self, done: Done) -> None:
        """Set the invocation's Done, unless it has one."""
        if self.done is None:
            self.done = done

    def take_frames(self) -> list[bytes]:
        """Remove and encode the frames to send; replace those that cannot be encoded."""
        out, self.out = self.out, []
        return [data for frame in out for data in self._encoded(frame)]

    def _encoded(self, frame: Frame) -> list[bytes]:
        try:
            return [encoded(frame)]
        except UNSENDABLE:
            said, answers = sendable([(0, frame)])
            for _, reply in answers:
                assert isinstance(reply, Reply)
                self.take(reply)
            return [encoded(each) for _, each in said]

    def report(self) -> TurnReport:
        """Return the state of this invocation for the scheduler."""
        frames = self.take_frames()
        done = None
        if self.done is not None:
            (done,) = self._encoded(self.done)
        loop = self.loop
        return TurnReport(frames, done, len(loop._ready) > 0, loop.next_timer(), bool(self.replies))


def begin(
    mailbox: Mailbox,
    invoke: Invoke,
    load: Callable[[], Entrypoints],
    new_env: Callable[[], Any],
) -> TurnReport:
    """Create the invocation's task and run its first turn."""
    asyncio._set_running_loop(mailbox.loop)
    mailbox.loop.create_task(_serve(mailbox, invoke, load, new_env), name=invoke.handler)
    return turn(mailbox, invoke.now, invoke.steady, ())


async def _serve(
    mailbox: Mailbox,
    invoke: Invoke,
    load: Callable[[], Entrypoints],
    new_env: Callable[[], Any],
) -> None:
    try:
        done = await serve(invoke, load, new_env, Serving(mailbox, invoke.seed))
    except GeneratorExit as error:
        if asyncio._get_running_loop() is not mailbox.loop:
            raise  # garbage collection closes this coroutine
        done = failed(error)
    mailbox.finish(done)


def turn(mailbox: Mailbox, now: float, steady: float, replies: tuple[Reply, ...]) -> TurnReport:
    """Deliver replies and run one turn of the invocation's event loop."""
    try:
        loop = mailbox.loop
        loop.set_time(now, steady)
        loop.lost_error = None
        asyncio._set_running_loop(loop)
        for reply in replies:
            mailbox.take(reply)
        loop.run_ready()
        if loop.lost_error is not None:
            mailbox.finish(failed(loop.lost_error))
    except BaseException as error:  # noqa: BLE001 (SystemExit in a task of the invocation's)
        return _ended(mailbox, failed(error))
    finally:
        asyncio._set_running_loop(None)
    try:
        return _plain(mailbox.report())
    except BaseException as error:  # noqa: BLE001 (worker code has changed its own loop)
        return _ended(mailbox, failed(error))


def _ended(mailbox: Mailbox, done: Done) -> TurnReport:
    mailbox.finish(done)
    return _plain(
        TurnReport(
            mailbox.take_frames(), encoded(done), ready=False, wake_at=None, awaits_message=False
        )
    )


def _plain(report: TurnReport) -> TurnReport:
    """Return the report if all parts are of exactly the expected types; else TypeError."""
    right = type(report) is TurnReport and type(report.frames) is list
    if right:
        for each in report.frames:
            right = right and type(each) is bytes
    if (
        not right
        or type(report.done) not in _BYTES
        or type(report.wake_at) not in _FLOAT
        or type(report.ready) is not bool
        or type(report.awaits_message) is not bool
    ):
        raise TypeError("the event loop of the invocation has been changed")
    return report


_BYTES, _FLOAT = (bytes, NoneType), (float, NoneType)


def leave(mailbox: Mailbox, changed: Callable[[], str | None]) -> str | None:
    """Run the last step of an invocation: return the name of shared state that it changed.

    Afterwards nothing refers to the mailbox, so pending tasks of the invocation never run again.
    """
    try:
        del mailbox.loop.mailbox  # a reference cycle, which would wait for garbage collection
        return changed()
    except BaseException as error:  # noqa: BLE001 (comparing may run worker code)
        return f"state that cannot be compared: {type(error).__name__}"


def collect() -> None:
    """Collect garbage of the generations that automatic collection would collect now."""
    counts, thresholds = gc.get_count(), gc.get_threshold()
    gc.collect(2 if counts[2] > thresholds[2] > 0 else int(counts[1] > thresholds[1] > 0))


def garbage_is_due() -> bool:
    """Return True if automatic garbage collection would start now."""
    return gc.get_count()[0] > gc.get_threshold()[0] > 0


# --- process-wide state of asyncio ---


def separate_tasks() -> dict[str, Any]:
    """Register tasks and asynchronous generators with their own loop, not process-wide.

    Returns the patched registry's attributes; the caller must check that they stay unchanged.
    """
    found = vars(asyncio.tasks)
    registry: dict[str, Any] = vars(found.get("_scheduled_tasks", found.get("_all_tasks")))
    registry["add"] = _register_task
    sys.set_asyncgen_hooks(_first_iteration, _finalize)
    return registry


def _register_task(task: asyncio.Task[Any]) -> None:
    task.get_loop().tasks.add(task)


def _first_iteration(generator: Any) -> None:
    loop = asyncio._get_running_loop()
    if type(loop) is GuestLoop:
        loop._asyncgens = weakref.WeakSet(loop._asyncgens)
        loop._asyncgens.add(generator)


def _finalize(generator: Any) -> None:
    loop = asyncio._get_running_loop()
    if loop is not None and not loop.is_closed():
        loop.create_task(generator.aclose())


# --- process-wide state of the interpreter ---


def separate_classes(is_library: Callable[[type], bool]) -> None:
    """Limit ``__subclasses__`` to classes of the library and of the calling invocation."""
    (members,) = gc.get_referents(vars(type))
    members["__subclasses__"] = sealed(partial(_subclasses, members["__subclasses__"], is_library))
    pythonapi.PyType_Modified(py_object(type))


def build_class(*args: Any, **keywords: Any) -> Any:
    """Replace ``__build_class__`` in worker code: record the class for the running invocation."""
    kind = builtins.__build_class__(*args, **keywords)
    loop = asyncio._get_running_loop()
    if type(loop) is GuestLoop and isinstance(kind, type):
        loop.classes[id(kind)] = kind
    return kind


def _subclasses(
    real: Callable[[type], list[type]], is_library: Callable[[type], bool], kind: type
) -> list[type]:
    loop = asyncio._get_running_loop()
    own = loop.classes if type(loop) is GuestLoop else {}
    return [each for each in real(kind) if is_library(each) or id(each) in own]


# --- the CPU timer ---


def timer_handler(
    check: Callable[[list[bytes]], bool],
    shut_frames: Callable[[bool], bool],
    whole: set[CodeType],
    end_if_tampered: Callable[[], None],
) -> Callable[[int, FrameType | None], None]:
    """Return the handler of SIGPROF.

    ``check`` receives the running invocation's frames, sends all pending frames, and returns True
    if the invocation's CPU time is used up.  It is not called while code of ``whole`` runs.
    """
    fixed = frozenset(whole | WHOLE | _WHOLE)
    return sealed(partial(_on_tick, end_if_tampered, check, shut_frames, fixed, copy_context()))


def _on_tick(
    end_if_tampered: Callable[[], None],
    check: Callable[[list[bytes]], bool],
    shut_frames: Callable[[bool], bool],
    whole: frozenset[CodeType],
    no_invocation: Context,
    number: int,
    frame: FrameType | None,
) -> None:
    """Handle SIGPROF during a long callback: send frames, collect garbage, check CPU time."""
    end_if_tampered()
    if not _is_interruptible(frame, whole):
        return
    loop = asyncio._get_running_loop()
    frames: list[bytes] = []
    mailbox = getattr(loop, "mailbox", None)
    if type(loop) is GuestLoop and type(mailbox) is Mailbox:
        frames = mailbox.take_frames()
    exceeded = check(frames)
    if garbage_is_due():
        # Destructors of other invocations run here, and must not inspect the stack.
        before = shut_frames(True)
        try:
            no_invocation.copy().run(collect)  # a copy: it may itself be interrupted
        finally:
            shut_frames(before)
    del end_if_tampered, check, shut_frames, no_invocation  # a traceback shows them
    if exceeded:
        raise CpuLimitExceeded(CPU_EXCEEDED)


_CALLBACK = asyncio.Handle._run.__code__
_RUN = GuestLoop.run_ready.__code__
_WHOLE: set[CodeType] = {
    each.__code__
    for each in (
        *(drop_unawaited, IsolateLoop.call_at, _register_task),
        *(Mailbox.sleep, Mailbox.ask, Mailbox.take_frames),
    )
}
"""Code that a signal must not interrupt: a message would be sent in part, a timer set in part."""


def _is_interruptible(frame: FrameType | None, whole: frozenset[CodeType]) -> bool:
    """Return True if a callback runs, and no code of ``whole`` on top of it.

    Signals arrive between any two instructions, also before a ``try`` and after it.
    """
    code: CodeType | None = None
    while frame is not None and code not in whole:
        inner, code = code, frame.f_code
        if code is _RUN:
            return inner is _CALLBACK
        frame = frame.f_back
    return False
