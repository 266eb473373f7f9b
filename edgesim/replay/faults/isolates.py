"""Isolates with injected faults and reproducible inputs.

An invocation receives a seed for its random numbers. Its CPU time, which cannot be reproduced, is
reported as 0.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import anyio

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.faults.injector import Injector, Life
from edgesim.isolates.host.driver import Host, Isolates, WrappedIsolates
from edgesim.isolates.protocol.wire import Call, Done, Failure, Invoke, Log, Respond
from edgesim.replay.virtual_clock import VirtualClock

CRASH_CALLS_MAX = 6
"""A crash occurs before, after or between the first calls to the platform, up to this many."""


class FaultyIsolates(WrappedIsolates):
    """Isolates of one Worker; ``pipelines`` maps its bindings to Pipeline names."""

    def __init__(
        self,
        worker: str,
        inner: Isolates,
        pipelines: Mapping[str, str],
        injector: Injector,
        life: Life,
        clock: Clock,
    ) -> None:
        super().__init__(inner)
        self._worker = worker
        self._pipelines = pipelines
        self._injector = injector
        self._life = life
        self._clock = clock

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """See Isolates."""
        invoke.seed = self._clock.random.getrandbits(64)
        try:
            done = await self._invoke(invoke, host)
        finally:
            if isinstance(self._clock, VirtualClock):
                host.spent(0.0)
        if isinstance(self._clock, VirtualClock):
            done.cpu_ms = 0.0  # not reproducible
        return done

    async def _invoke(self, invoke: Invoke, host: Host) -> Done:
        if not self._injector.rules:
            return await self._inner.invoke(invoke, host)
        targets, where = ("workers", self._worker), f"{self._worker}.{invoke.handler}"
        await self._injector.delay(targets, where)
        if (reason := self._injector.refusal(targets, where)) is not None:
            return Done("internalError", [Failure("Error", reason)])
        if self.zygote is not None and self._injector.strikes("zygote-death", targets, where):
            _kill(self.zygote)
        crash = self._injector.strikes("crash", targets, where)
        calls = crash[1].randrange(CRASH_CALLS_MAX) if crash else None
        faulty = _FaultyHost(host, self._pipelines, self._injector, self._life, calls)
        return await self._until_crash(invoke, faulty)

    async def _until_crash(self, invoke: Invoke, host: _FaultyHost) -> Done:
        if not host.will_crash:
            return await self._inner.invoke(invoke, host)

        async def run() -> None:
            await self._inner.invoke(invoke, host)
            host.crashed.set()  # at the latest at its end; the result is discarded

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await host.crashed.wait()
            tasks.cancel_scope.cancel()
        message = "The isolate ended before its invocation did: fault: crash."
        return Done("internalError", [Failure("Error", message)])


def _kill(pid: int) -> None:
    """Kill a child process and wait for its exit, without reaping it."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except (ProcessLookupError, ChildProcessError):
        pass  # an earlier fault killed it


class _FaultyHost(Host):
    """The host passed to an isolate; unusable after the isolate's crash or a kill."""

    def __init__(
        self,
        inner: Host,
        pipelines: Mapping[str, str],
        injector: Injector,
        life: Life,
        calls_until_crash: int | None,
    ) -> None:
        self.depth = inner.depth
        self.crashed = anyio.Event()
        self.will_crash = calls_until_crash is not None
        self._inner = inner
        self._pipelines = pipelines
        self._injector = injector
        self._life = life
        self._calls_left = calls_until_crash

    async def call(self, call: Call) -> Any:
        """See Host. Half of the crashes occur before the call's effect, half after it."""
        self._check()
        if self._crashes_now():
            return await self._die()
        pipeline = self._pipelines.get(call.binding)
        if pipeline is None:
            value = await self._inner.call(call)
        else:
            value = await self._send(pipeline, call)
        if self._crashes_now():
            return await self._die()
        self._check()
        return value

    def log(self, log: Log) -> None:
        """See Host."""
        if not self._over:
            self._inner.log(log)

    def respond(self, response: Respond) -> None:
        """See Host."""
        if not self._over:
            self._inner.respond(response)

    def spent(self, cpu_ms: float) -> None:
        """See Host."""
        self._inner.spent(cpu_ms)

    async def _send(self, pipeline: str, call: Call) -> Any:
        targets, where = ("pipelines", f"pipelines.{pipeline}"), f"pipelines.send {pipeline}"
        await self._injector.delay(targets, where)
        self._check()
        if (reason := self._injector.refusal(targets, where)) is not None:
            raise PlatformError(reason)
        value = await self._inner.call(call)
        if (reason := self._injector.lost(targets, where)) is not None:
            raise PlatformError(reason)
        return value

    @property
    def _over(self) -> bool:
        return self._life.killed or self.crashed.is_set()

    def _check(self) -> None:
        if self._over:
            raise PlatformError("this isolate is no more")

    def _crashes_now(self) -> bool:
        if self._calls_left is None:
            return False
        self._calls_left -= 1
        return self._calls_left < 0

    async def _die(self) -> Any:
        self.crashed.set()
        await anyio.sleep_forever()
