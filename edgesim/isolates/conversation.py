"""One invocation as the platform sees it: frames in, answers out, until it is done.

As long as nothing of an invocation has left its isolate, no one can tell that it ran: then it can
be run again elsewhere.  So its log lines are held back until the first thing that counts.
"""

from __future__ import annotations

import asyncio
from math import isfinite

from edgesim.clock import Clock
from edgesim.isolates.driver import Host, answer
from edgesim.isolates.limits import LOG_BYTES_MAX, MEMORY_EXCEEDED, log_bytes
from edgesim.isolates.link import Arrival, Link, TooMuchError
from edgesim.isolates.wire import (
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

TRIES_MAX = 8
"""Each time it was another's fault; who never shows its own would go on for ever."""
CLOCK_SECONDS = 1e-6
"""Times this close are the same: it is what event loops run together, and a float of Unix time
holds little less."""
UNANSWERED_MAX = 16_384
"""Calls of one invocation under way at a time; more than it may make subrequests."""
UNANSWERED_BYTES_MAX = 128 << 20
"""Of the messages that those calls came in: an isolate would have to keep them, if not we."""


class Conversation:
    """Answers an isolate's calls.

    When ``over`` is done it is either ``ended``, with ``done``, or its isolate is gone and whoever
    waits for it begins it again or ends it with a ``verdict``.  A ``suspect`` may be what ended it.
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
        self.otherwise: Done | None = None
        """The Done where its isolate is gone and it cannot be begun again."""
        self.suspect = False
        self._host = host
        self._tasks = tasks
        self._clock = clock
        self._has_left = False
        self._tries = 0
        self._link: Link | None = None
        self._logs: list[Log] = []
        self._log_bytes = 0
        self._answering: dict[asyncio.Task[None], Arrival] = {}
        self._kept: dict[Arrival, int] = {}
        """Messages of which calls are unanswered: how many."""
        self._kept_bytes = 0

    def begin(self, link: Link) -> None:
        """Run it in the isolate behind ``link``, from the start."""
        self._link = link
        self._logs.clear()
        self._log_bytes = 0
        self._tries += 1
        self.otherwise = None
        self.invoke.now, self.invoke.steady = self._clock.now(), self._clock.steady()
        link.send(self.number, self.invoke)

    def take(self, frame: Frame) -> None:
        """Something that the isolate says; ValueError if an isolate cannot say it."""
        if self.ended:
            return
        match frame:
            case Log():
                self._hold(frame)
            case Respond():
                self._leave()
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
        """The Done where the platform has no isolate for it."""
        fault = LOST if self._has_left else NOT_RUN
        return Done("internalError", [Failure("Error", message)], fault=fault)

    def end(self, done: Done) -> None:
        """It is over; calls that are still being answered are given up."""
        if self.ended:
            return
        self.ended = True
        if done.blameless and not self._has_left:
            done.fault = NOT_RUN
            self._logs.clear()  # whoever runs it again hears them then
        self._leave()
        self.done = done
        self.interrupt()
        self._link = None
        for task in list(self._answering):
            task.cancel()

    def interrupt(self) -> None:
        """Its isolate is gone, or no place for it any more."""
        if not self.over.done():
            self.over.set_result(None)

    @property
    def movable(self) -> bool:
        """Whether it can be run again as if it never had been."""
        return not self._has_left and self._tries < TRIES_MAX

    def begin_again(self) -> bool:
        """Make ready to be begun elsewhere; False if it cannot be."""
        if self.verdict is not None or not self.movable:
            return False
        self.over = _new_future()
        return True

    def _hold(self, log: Log) -> None:
        if (
            self._log_bytes <= LOG_BYTES_MAX
        ):  # with one line beyond it, which says that there is more
            self._log_bytes += log_bytes(log.message)
            self._logs.append(log)
            if self._has_left:
                self._leave()

    def _leave(self) -> None:
        self._has_left = True
        for log in self._logs:
            self._host.log(log)
        self._logs.clear()

    def _admit(self, arrival: Arrival) -> None:
        """One more call; TooMuchError where too much of them is kept here unanswered."""
        calls = self._kept.get(arrival, 0)
        self._kept[arrival] = calls + 1
        if not calls:
            self._kept_bytes += arrival.bytes
        if len(self._answering) >= UNANSWERED_MAX or self._kept_bytes > UNANSWERED_BYTES_MAX:
            self.verdict = Done("exceededMemory", [Failure("Error", MEMORY_EXCEEDED)])
            raise TooMuchError(f"{len(self._answering)} calls, {self._kept_bytes} bytes unanswered")

    def _answered(self, task: asyncio.Task[None]) -> None:
        arrival = self._answering.pop(task)
        self._kept[arrival] -= 1
        if not self._kept[arrival]:
            del self._kept[arrival]
            self._kept_bytes -= arrival.bytes

    async def _answer(self, call: Call, link: Link) -> None:
        link.send(self.number, await answer(call, self._host, self._clock))


def _new_future() -> asyncio.Future[None]:
    """One is made for every invocation: anyio's Event costs ten times as much."""
    return asyncio.get_running_loop().create_future()


class Alarm:
    """An isolate's one timer, which it sets under no invocation's number.

    It goes by the steady clock, and never rings before its time: an event loop's timer may (uvloop
    counts whole milliseconds), and is then set again for the rest.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set: asyncio.TimerHandle | None = None

    def take(self, frame: Frame, link: Link) -> None:
        """Set it anew; what it was set to before is forgotten.  ValueError for other frames."""
        match frame:
            case Call(method="sleepUntil", args=[int() | float() as when]) if isfinite(when):
                self.cancel()
                self._wait(when, link, frame.id)
            case _:
                raise ValueError(f"unexpected {type(frame).__name__} from an isolate")

    def cancel(self) -> None:
        """Nobody is there to be woken."""
        if self._set is not None:
            self._set.cancel()

    def _wait(self, when: float, link: Link, number: int) -> None:
        delay = max(0.0, when - self._clock.steady())
        loop = asyncio.get_running_loop()
        self._set = loop.call_later(delay, self._ring, when, link, number)

    def _ring(self, when: float, link: Link, number: int) -> None:
        if when - self._clock.steady() > CLOCK_SECONDS:
            self._wait(when, link, number)
        else:
            link.send(0, Reply(number, self._clock.now(), steady=self._clock.steady()))
