"""Counting of invocations that the platform could not run."""

from typing import Any

import anyio
import pytest

from edgesim.clock import Clock
from edgesim.faults.injector import Life
from edgesim.isolates.host.driver import Host, Isolates
from edgesim.isolates.protocol.wire import NOT_RUN, Call, Done, Invoke, Log, Respond
from edgesim.replay.history import History
from edgesim.replay.observers import ObservedIsolates

pytestmark = pytest.mark.anyio


class Deaf(Host):
    """A host that must not be called."""

    depth = 0

    async def call(self, call: Call) -> Any:
        raise AssertionError(call)

    def log(self, log: Log) -> None:
        raise AssertionError(log)

    def respond(self, response: Respond) -> None:
        raise AssertionError(response)

    def spent(self, cpu_ms: float) -> None:
        raise AssertionError(cpu_ms)


class DeadIsolates(Isolates):
    """Isolates that cannot be forked; with ``lost`` the platform retries on the next zygote's."""

    def __init__(self, *, lost: bool) -> None:
        self.handlers, self.guards, self.zygote = frozenset({"tail"}), [], None
        self.entrypoints = frozenset({"Default"})
        self.lost = anyio.Event()
        if lost:
            self.lost.set()

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        return Done("internalError", fault=NOT_RUN)


@pytest.mark.parametrize(("lost", "invocations"), [(True, 0), (False, 1)])
async def test_what_is_tried_again_counts_once(lost, invocations):
    """An invocation that will be retried is not counted; undelivered traces are not recorded."""
    clock = Clock(0)
    history = History(clock, detail=True)
    isolates = ObservedIsolates("tail", DeadIsolates(lost=lost), {}, history, clock, Life())
    assert (await isolates.invoke(Invoke("tail", [], 0.0), Deaf())).fault == NOT_RUN
    assert sum(outcomes.total() for outcomes in history.invocations.values()) == invocations
    assert not history.tails
