"""Raise the CPU timer's signal at every line of the loop's code; run by test_ticks.py.

One long-lived event loop serves two invocations a round.  In round N the signal comes at the Nth
line of the loop's own code while one of the two, which has no CPU time left, has a callback.
The output is JSON: the number of rounds, and the outcomes of both invocations.
"""

import asyncio
import gc
import json
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import edgesim

sys.path.insert(0, str(Path(edgesim.__file__).parent / "sdk"))

from edgesim.isolates.guest import (
    clock_and_random,
    event_loop,
    jailed_loop,
    platform_names,
    serve,
    shared_loop,
    warm_invocation,
)
from edgesim.isolates.protocol.wire import Call, Done, Invoke, MessageReader, Reply, one
from workers import Response, WorkerEntrypoint

FILES = {each.__file__ for each in (shared_loop, jailed_loop, warm_invocation, event_loop)}
CALLBACK = asyncio.Handle._run.__code__
SPENT_SECONDS = 1000.0


class Finished(BaseException):
    """Raised when every line has had its signal."""


class Worker(WorkerEntrypoint):
    async def fetch(self, request: Any) -> Any:
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        loop.call_later(3, called.set_result, None)
        await asyncio.gather(asyncio.sleep(2), asyncio.sleep(1), called)
        print("a line")
        time.sleep(0.5)  # noqa: ASYNC251 (the one under test)
        return Response("ok")


class Platform:
    """The platform's end of the socket: begins rounds, answers timers, counts outcomes."""

    def __init__(self) -> None:
        self.scheduler: Any = None
        self.handler: Any = None
        self.outcomes: dict[str, Counter[str]] = {"spent": Counter(), "neighbour": Counter()}
        self.rounds = 0
        self.line = 0
        self.delivered = True
        self._reader = MessageReader()
        self._timer: Call | None = None
        self._now = 1.0
        self._open: set[int] = set()

    def sendall(self, data: bytes) -> None:
        for message in self._reader.feed(bytes(data)):
            for number, frame in message.frames:
                if isinstance(frame, Call):
                    self._timer = frame
                elif isinstance(frame, Done):
                    self._open.remove(number)
                    name = "neighbour" if number % 2 else "spent"
                    self.outcomes[name][frame.outcome] += 1

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_DONTWAIT:
            raise BlockingIOError
        if not self._open:
            return self._begin()
        if self._timer is None:
            raise AssertionError(f"round {self.rounds}: {self._open} wait, and nothing will come")
        self._now = max(self._now, self._timer.args[0])
        timer, self._timer = self._timer, None
        return bytes(one(Reply(timer.id, self._now, steady=self._now)))

    def _begin(self) -> bytes:
        sys.settrace(None)
        if not self.delivered:  # the previous round had fewer lines
            raise Finished
        self.rounds += 1
        self.line, self.delivered, self._timer = 0, False, None
        spent, neighbour = 2 * self.rounds, 2 * self.rounds + 1
        self._open = {spent, neighbour}
        event = {"method": "GET", "url": "http://x/", "headers": [], "body": b"", "cf": {}}
        invoke = Invoke("fetch", event, self._now, steady=self._now)
        sys.settrace(self.trace)
        return bytes(one(invoke, neighbour) + one(invoke, spent))

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES and frame.f_code is not CALLBACK:
            return None
        if event == "line":
            self._step(frame)
        return self.trace

    def _step(self, frame: FrameType) -> None:
        running = self.scheduler._running
        if self.delivered or running is None or running.number % 2:
            return
        self.line += 1
        if self.line == self.rounds:
            self.delivered = True
            running.cpu_seconds = SPENT_SECONDS
            self.handler(signal.SIGPROF, frame)


def main() -> None:
    gc.disable()  # as in an isolate
    platform = Platform()
    sys.stdout = serve.ConsoleStream("log", sys.stdout)
    clock_and_random.install()
    wire = jailed_loop.Wire(platform)  # type: ignore[arg-type]
    page = bytearray(shared_loop.PAGE.size)
    warm_invocation.separate_tasks()
    end_if_tampered = shared_loop.ending(platform_names.names_check())
    scheduler = shared_loop.Scheduler(
        wire, lambda: {"Default": Worker}, lambda: None, lambda: None, end_if_tampered, 1000, page
    )
    platform.scheduler = scheduler
    platform.handler = scheduler.timer_handler(lambda _: False)
    try:
        scheduler.main()()
    except Finished:
        sys.settrace(None)
        outcomes = {name: dict(counts) for name, counts in platform.outcomes.items()}
        print(json.dumps({"rounds": platform.rounds, **outcomes}), file=sys.__stdout__)


if __name__ == "__main__":
    main()
