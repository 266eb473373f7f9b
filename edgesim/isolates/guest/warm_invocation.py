"""One invocation of a ``warm`` isolate, as far as worker code can see: all of it is its own.

Each invocation has an event loop and a mailbox.  The frames that it has for the platform lie in the
mailbox until its turn is over; the scheduler (shared_loop.py) puts the invocation's number on them
and sends them.  So nothing here knows a number, the channel, or another invocation.

Worker code may change whatever it reaches, and some of it runs where nobody expects it: a property
is read, a destructor is run, an exception is formatted.  So everything that touches an object of
worker code is a function of this module, called from C with no caller that holds more than it, and
gives the scheduler nothing but bytes and numbers.
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

from edgesim.isolates.guest.event_loop import IsolateLoop, sleep_seconds, unheard
from edgesim.isolates.guest.jailed_loop import WHOLE
from edgesim.isolates.guest.sealed import sealed
from edgesim.isolates.guest.serve import (
    Channel,
    CpuLimitExceeded,
    Entrypoints,
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
    """True if it has callbacks to run."""
    wake_at: float | None
    """The time of its next timer."""
    listens: bool
    """True if it awaits a reply."""


class GuestLoop(IsolateLoop):
    """The event loop of one invocation, which the scheduler runs turn by turn."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int
    _asyncgens: Any

    def __init__(self, mailbox: Mailbox) -> None:
        # asyncio's own takes 15 us; what it sets is the same for every loop but for this.
        for name, value in _SETTINGS.items():
            setattr(self, name, value)
        self._ready = deque()
        self._scheduled = []
        self.mailbox = mailbox
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.classes: dict[int, type] = {}

    def __del__(self) -> None:
        """There is nothing to close."""

    def run_ready(self) -> None:
        """One turn of asyncio: timers that are due, then all callbacks that are ready."""
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
        """The time of the next timer."""
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False
        return float(timers[0]._when) if timers else None


def _settings() -> dict[str, Any]:
    loop = IsolateLoop()
    found = vars(loop) | {"_asyncgens": (), "_thread_id": threading.get_ident()}
    loop.close()
    return found  # with a thread, as it is running whenever somebody can ask


_SETTINGS = _settings()
"""Attributes that every event loop has."""


class Mailbox(Channel):
    """The invocation's one way out."""

    def __init__(self, now: float, steady: float, sleep: Sleep) -> None:
        self.loop = GuestLoop(self)
        self.loop.tell_time(now, steady)
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
        self.loop.tell_time(*clocks)
        self.loop.tell_time(now, until)

    def send(self, frame: Frame) -> None:
        self.out.append(frame)

    def ask(self, call: Call) -> Awaitable[Reply]:
        self.out.append(call)
        reply: asyncio.Future[Reply] = self.loop.create_future()
        self.replies[call.id] = reply
        return reply

    def take(self, reply: Reply) -> None:
        """The reply to a call has arrived."""
        waiting = self.replies.pop(reply.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def finish(self, done: Done) -> None:
        """End the invocation, unless it has ended."""
        if self.done is None:
            self.done = done

    def take_frames(self) -> list[bytes]:
        """Encode what is to be sent; a frame that cannot be is replaced."""
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
        """Return the state of this invocation that the scheduler may see."""
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
    """Make the invocation's task and run it until it waits."""
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
    """Hand over replies and run what is ready."""
    try:
        loop = mailbox.loop
        loop.tell_time(now, steady)
        loop.unheard = None
        asyncio._set_running_loop(loop)
        for reply in replies:
            mailbox.take(reply)
        loop.run_ready()
        if loop.unheard is not None:
            mailbox.finish(failed(loop.unheard))
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
        TurnReport(mailbox.take_frames(), encoded(done), ready=False, wake_at=None, listens=False)
    )


def _plain(report: TurnReport) -> TurnReport:
    """The report, of which every part is exactly what it should be: TypeError if it is not."""
    right = type(report) is TurnReport and type(report.frames) is list
    if right:
        for each in report.frames:
            right = right and type(each) is bytes
    if (
        not right
        or type(report.done) not in _BYTES
        or type(report.wake_at) not in _FLOAT
        or type(report.ready) is not bool
        or type(report.listens) is not bool
    ):
        raise TypeError("the event loop of the invocation has been changed")
    return report


_BYTES, _FLOAT = (bytes, NoneType), (float, NoneType)


def leave(mailbox: Mailbox, changed: Callable[[], str | None]) -> str | None:
    """The last step of an invocation: what it has changed for others.

    After this nothing refers to the mailbox, so what the invocation has left is never run again.
    """
    try:
        del mailbox.loop.mailbox  # a cycle, which would wait for the collector
        return changed()
    except BaseException as error:  # noqa: BLE001 (worker code has left what compares itself)
        return f"what cannot be compared: {type(error).__name__}"


def collect() -> None:
    """Collect garbage, as the interpreter does where its collector is on."""
    counts, thresholds = gc.get_count(), gc.get_threshold()
    gc.collect(2 if counts[2] > thresholds[2] > 0 else int(counts[1] > thresholds[1] > 0))


def garbage_is_due() -> bool:
    """True where the interpreter would run its collector."""
    return gc.get_count()[0] > gc.get_threshold()[0] > 0


# --- what asyncio keeps for the whole process ---


def own_the_tasks() -> dict[str, Any]:
    """Keep each invocation's tasks and asynchronous generators with its own loop.

    Returns the dict that says so, which nobody may change.
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


# --- what the interpreter keeps for the whole process ---


def own_the_classes(is_library: Callable[[type], bool]) -> None:
    """Let ``__subclasses__`` give classes of the library and of the invocation that asks."""
    (members,) = gc.get_referents(vars(type))
    members["__subclasses__"] = sealed(partial(_subclasses, members["__subclasses__"], is_library))
    pythonapi.PyType_Modified(py_object(type))


def build_class(*args: Any, **keywords: Any) -> Any:
    """``__build_class__`` of worker code: the class is the running invocation's."""
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
    end_if_meddled: Callable[[], None],
) -> Callable[[int, FrameType | None], None]:
    """The handler of SIGPROF.

    ``check`` sends frames of the running invocation, and what others have to send, and returns True
    where its CPU time is used up.  It is not called while code of ``whole`` runs.
    """
    fixed = frozenset(whole | WHOLE | _WHOLE)
    return sealed(partial(_on_tick, end_if_meddled, check, shut_frames, fixed, copy_context()))


def _on_tick(
    end_if_meddled: Callable[[], None],
    check: Callable[[list[bytes]], bool],
    shut_frames: Callable[[bool], bool],
    whole: frozenset[CodeType],
    nobody: Context,
    number: int,
    frame: FrameType | None,
) -> None:
    """A callback has had the process for a while: let frames out, collect garbage, count."""
    end_if_meddled()
    if not _is_interruptible(frame, whole):
        return
    loop = asyncio._get_running_loop()
    frames: list[bytes] = []
    mailbox = getattr(loop, "mailbox", None)
    if type(loop) is GuestLoop and type(mailbox) is Mailbox:
        frames = mailbox.take_frames()
    exceeded = check(frames)
    if garbage_is_due():
        # Destructors of other invocations run here, and must not look down the stack.
        before = shut_frames(True)
        try:
            nobody.copy().run(collect)  # a copy: it may itself be interrupted
        finally:
            shut_frames(before)
    del end_if_meddled, check, shut_frames, nobody  # a traceback shows them
    if exceeded:
        raise CpuLimitExceeded(CPU_EXCEEDED)


_CALLBACK = asyncio.Handle._run.__code__
_RUN = GuestLoop.run_ready.__code__
_WHOLE: set[CodeType] = {
    each.__code__
    for each in (
        *(unheard, IsolateLoop.call_at, _register_task),
        *(Mailbox.sleep, Mailbox.ask, Mailbox.take_frames),
    )
}
"""Code that no signal may leave half done: half a message sent, a timer half in its place."""


def _is_interruptible(frame: FrameType | None, whole: frozenset[CodeType]) -> bool:
    """True if the process is in a callback, and in nothing that others would suffer from.

    Signals come between any two instructions, also before a ``try`` and after it.
    """
    code: CodeType | None = None
    while frame is not None and code not in whole:
        inner, code = code, frame.f_code
        if code is _RUN:
            return inner is _CALLBACK
        frame = frame.f_back
    return False
