"""Platform side of one invocation: receives its frames and replies to its calls until it is done.

An invocation can be run again in another isolate as long as nothing of it has left the first one.
So its log lines are held back until its first call, response or Done.
"""

from __future__ import annotations

import asyncio
from math import isfinite

from edgesim.clock import Clock
from edgesim.isolates.host.driver import Host, answer
from edgesim.isolates.host.held_body import HELD_BYTES_MIN
from edgesim.isolates.host.intake import ReceivedBatch
from edgesim.isolates.host.link import Link, TooMuchError
from edgesim.isolates.protocol.limits import LOG_BYTES_MAX, MEMORY_EXCEEDED, log_bytes
from edgesim.isolates.protocol.wire import (
    LOST,
    NOT_RUN,
    Call,
    Done,
    Failure,
    Frame,
    Invoke,
    Log,
    Reply,
    Respond,
)

TRIES_MAX = 16
"""Maximum runs of one invocation whose isolate ended through no fault of its own."""
CLOCK_SECONDS = 1e-6
"""Times this close (seconds) count as equal: event loops run timers this close together, and a
float of Unix time has hardly more precision."""
UNANSWERED_MAX = 16_384
"""Maximum unanswered calls of one invocation; above the limit of its subrequests."""
UNANSWERED_BYTES_MAX = 128 << 20
"""Maximum memory of the messages that hold unanswered calls of one invocation."""


class Conversation:
    """One invocation: replies to its calls and keeps its outcome.

    The future ``over`` is done if the invocation has ``ended`` with ``done``, or if its isolate has
    exited.  In the second case the caller begins it again or ends it with ``verdict``.  ``suspect``
    is True if the invocation may have caused the exit.
    """

    def __init__(
        self, number: int, invoke: Invoke, host: Host, tasks: asyncio.TaskGroup, clock: Clock
    ) -> None:
        self.number = number
        self.invoke = invoke
        self.done = Done("canceled")
        self.over = _new_future()
        self.ended = False
        self.verdict: Done | None = None
        self.fallback: Done | None = None
        """Done if the isolate has exited and the invocation cannot be run again."""
        self.suspect = False
        self._host = host
        self._tasks = tasks
        self._clock = clock
        self._has_left = False
        self._tries = 0
        self._link: Link | None = None
        self._logs: list[Log] = []
        self._log_bytes = 0
        self._answering: dict[asyncio.Task[None], ReceivedBatch] = {}
        self._kept: dict[ReceivedBatch, int] = {}
        """Number of unanswered calls by message."""
        self._kept_bytes = 0

    def begin(self, link: Link) -> None:
        """Start the invocation in the isolate behind ``link``, from the beginning."""
        self._link = link
        self._host.paced_by(link.drained)
        self._logs.clear()
        self._log_bytes = 0
        self._tries += 1
        self.fallback = None
        self.invoke.now, self.invoke.steady = self._clock.now(), self._clock.steady()
        link.send(self.number, self.invoke)

    def take(self, frame: Frame) -> None:
        """Receive a frame of the isolate; ValueError if an isolate may not send it."""
        if self.ended:
            return
        match frame:
            case Log():
                self._hold(frame)
            case Respond():
                self._leave()
                assert self._link is not None
                if type(frame.body) is bytes and len(frame.body) > HELD_BYTES_MIN:
                    frame.body = self._link.held(frame.body)
                self._host.respond(frame)
            case Call():
                self._leave()
                assert self._link is not None
                self._admit(self._link.arrival)
                task = self._tasks.create_task(self._answer(frame, self._link))
                self._answering[task] = self._link.arrival
                task.add_done_callback(self._answered)
            case Done():
                self.end(frame)
            case _:
                raise ValueError(f"unexpected {type(frame).__name__} from an isolate")

    def not_run(self, message: str) -> Done:
        """Return the Done for a lack of isolates."""
        fault = LOST if self._has_left else NOT_RUN
        return Done("internalError", [Failure("Error", message)], fault=fault)

    def end(self, done: Done) -> None:
        """End the invocation with ``done`` and cancel its unanswered calls."""
        if self.ended:
            return
        self.ended = True
        if done.blameless and not self._has_left:
            done.fault = NOT_RUN
            self._logs.clear()  # the next run sends them again
        self._leave()
        self.done = done
        self.interrupt()
        self._link = None
        for task in list(self._answering):
            task.cancel()

    def spent(self, cpu_ms: float) -> None:
        """Report the CPU time of the invocation, which is being cancelled."""
        self._host.spent(cpu_ms)

    def interrupt(self) -> None:
        """Complete ``over``: the isolate has exited or is retired."""
        if not self.over.done():
            self.over.set_result(None)

    @property
    def movable(self) -> bool:
        """True if it can be run again without a trace of this run."""
        return not self._has_left and self._tries < TRIES_MAX

    def begin_again(self) -> bool:
        """Prepare another run in another isolate; return False if it is not possible."""
        if self.verdict is not None or not self.movable:
            return False
        self.over = _new_future()
        return True

    def _hold(self, log: Log) -> None:
        if (
            self._log_bytes <= LOG_BYTES_MAX
        ):  # one line beyond the limit is kept, so that the trace shows the truncation
            self._log_bytes += log_bytes(log.message)
            self._logs.append(log)
            if self._has_left:
                self._leave()

    def _leave(self) -> None:
        self._has_left = True
        for log in self._logs:
            self._host.log(log)
        self._logs.clear()

    def _admit(self, arrival: ReceivedBatch) -> None:
        """Count one more call; TooMuchError if too many calls or bytes are unanswered."""
        calls = self._kept.get(arrival, 0)
        arrival.keep()
        self._kept[arrival] = calls + 1
        if not calls:
            self._kept_bytes += arrival.bytes
        if len(self._answering) >= UNANSWERED_MAX or self._kept_bytes > UNANSWERED_BYTES_MAX:
            self.verdict = Done("exceededMemory", [Failure("Error", MEMORY_EXCEEDED)])
            raise TooMuchError(f"{len(self._answering)} calls, {self._kept_bytes} bytes unanswered")

    def _answered(self, task: asyncio.Task[None]) -> None:
        arrival = self._answering.pop(task)
        arrival.release()
        self._kept[arrival] -= 1
        if not self._kept[arrival]:
            del self._kept[arrival]
            self._kept_bytes -= arrival.bytes

    async def _answer(self, call: Call, link: Link) -> None:
        link.send(self.number, await answer(call, self._host, self._clock))


def _new_future() -> asyncio.Future[None]:
    """Return a future, one for every invocation: anyio's Event costs ten times as much."""
    return asyncio.get_running_loop().create_future()


class Alarm:
    """Timer of an isolate, which has one for all its invocations.

    It uses the steady clock and never fires early.  An event loop's timer may fire early (uvloop
    counts whole milliseconds); it is then set again for the remaining time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set: asyncio.TimerHandle | None = None

    def take(self, frame: Frame, link: Link) -> None:
        """Set the timer, replacing its previous time.  ValueError for other frames."""
        match frame:
            case Call(method="sleepUntil", args=[int() | float() as when]) if isfinite(when):
                self.cancel()
                self._wait(when, link, frame.id)
            case _:
                raise ValueError(f"unexpected {type(frame).__name__} from an isolate")

    def cancel(self) -> None:
        """Stop the timer, if it is set."""
        if self._set is not None:
            self._set.cancel()

    def _wait(self, when: float, link: Link, number: int) -> None:
        delay = max(0.0, when - self._clock.steady())
        loop = asyncio.get_running_loop()
        self._set = loop.call_later(delay, self._fire, when, link, number)

    def _fire(self, when: float, link: Link, number: int) -> None:
        if when - self._clock.steady() > CLOCK_SECONDS:
            self._wait(when, link, number)
        else:
            link.send(0, Reply(number, self._clock.now(), steady=self._clock.steady()))
