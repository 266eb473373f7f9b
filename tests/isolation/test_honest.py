"""Guards and limits leave honest work alone; a time limit ends the rest."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from edgesim.clock import Clock
from edgesim.isolates.host import conversation
from edgesim.model import Limits, Stream
from tests.isolation.world import World, open_world

pytestmark = pytest.mark.anyio

FASTER = 40
BODY_BYTES = 60 << 20


@pytest.fixture(scope="module", params=["process", "warm"])
async def patient(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[World]:
    """World of a Worker with the platform's own limits."""
    async with open_world(request.param, limits=Limits()) as world:
        yield world


async def large() -> AsyncIterator[bytes]:
    for _ in range(BODY_BYTES >> 20):
        yield bytes(1 << 20)


async def test_half_the_memory_can_be_used(patient):
    """A body of 60 MB can be read whole within 128 MB."""
    answer = await patient.fetch("count", Stream(large(), BODY_BYTES))
    assert (answer.outcome, answer.body) == ("ok", str(BODY_BYTES).encode()), answer.done


async def test_the_library_can_be_imported(patient):
    """The heaviest modules of the standard library import within the limits, in a handler too."""
    answer = await patient.fetch("imports")
    assert answer.outcome == "ok", answer.done
    assert (await patient.fetch("imports")).outcome == "ok"


async def test_a_response_stands_whatever_comes_after(patient):
    """A response stands although its isolate is ended or exits after it."""
    async with open_world(patient.level) as world:
        answer = await world.attack("busy-after-response")
        assert (answer.outcome, answer.body) == ("exceededCpu", b"answered")
        assert (await world.attack("death-after-response")).body == b"answered"


async def test_work_that_swallows_its_cancellation_ends_all_the_same(patient, monkeypatch):
    """waitUntil work ends 30 s after the response, with the platform's warning."""
    clock = patient._clock
    began: float = clock.now()
    start: float = clock.elapsed()

    def faster(self: Clock) -> float:
        return float(began + (self.elapsed() - start) * FASTER)

    monkeypatch.setattr(Clock, "now", faster)
    monkeypatch.setattr(Clock, "steady", faster)
    loop = _faster_loop(monkeypatch)
    answer = await patient.fetch("attack/cancellation-swallowed")
    assert loop.calls
    assert answer.outcome == "ok", answer.done
    assert answer.logs[-1].message[0].startswith("waitUntil() tasks did not complete")
    assert clock.now() - began >= 30
    assert clock.elapsed() - start < 30


def _faster_loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the timers of a conversation fire sooner, to match the faster clock."""
    seen = SimpleNamespace(calls=0)

    def get_running_loop() -> Any:
        seen.calls += 1
        loop = asyncio.get_running_loop()
        return SimpleNamespace(
            call_later=lambda delay, *rest: loop.call_later(delay / FASTER, *rest),
            create_future=loop.create_future,
        )

    monkeypatch.setattr(conversation, "asyncio", SimpleNamespace(get_running_loop=get_running_loop))
    return seen
