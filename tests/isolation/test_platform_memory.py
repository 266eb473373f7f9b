"""Hostile isolates can make the platform hold little memory, and not for long."""

from typing import Any

import anyio
import pytest

from edgesim.isolates.host import conversation, link
from edgesim.runtime.invocation import Binding, Invocation
from tests.isolation.world import open_world

pytestmark = pytest.mark.anyio

LEVELS = ["process"]  # at warm worker code cannot write to the channel
MB = 1 << 20
WORKER = """
import asyncio
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path == "hoard":
            body = b"x" * 4_000_000
            calls = []
            for _ in range(45):
                calls.append(asyncio.create_task(self.env.NEVER.put("key", body)))
                await asyncio.sleep(0)
            await asyncio.wait(calls)
        if path == "crowd":
            found = await asyncio.gather(*(self.env.SLOW.head(str(n)) for n in range(40)))
            return Response(str(len(found)))
        if path == "whole":
            return Response(b"x" * 40_000_000)
        return Response("fine")
"""


class Never(Binding):
    """A bucket that never replies."""

    counts_as_connection = True
    counts_as_subrequest = True

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        await anyio.sleep_forever()


class Slow(Binding):
    """A bucket that replies after 50 ms."""

    counts_as_connection = False
    counts_as_subrequest = True

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        await anyio.sleep(0.05)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_frame_that_expands(level, peak):
    """A message of a hundred million empty objects is received, but not decoded."""
    async with open_world(level) as world:
        answer = await world.attack("expanding-frame")
        assert answer.outcome == "internalError", answer.done
        assert "values" in answer.failure
        await world.honest()
    assert peak() < 400


async def test_an_isolate_that_never_reads(level, peak):
    """A hundred thousand calls whose replies are not read grow the platform by less than 150 MB."""
    async with open_world(level) as world:
        answer = await world.attack("asks-and-never-reads")
        assert answer.outcome == "ok", answer.done
        await world.honest()
    assert peak() < 150


async def test_unread_answers_end_the_isolate(level, monkeypatch):
    """Too many unread replies end the isolate as exceededMemory; the next one works."""
    monkeypatch.setattr(link, "UNREAD_BYTES_MAX", 2 * MB)
    async with open_world(level) as world:
        answer = await world.attack("asks-and-never-reads")
        assert answer.outcome == "exceededMemory", answer.done
        await world.honest()


async def test_bodies_that_nobody_takes(level, peak, tmp_path):
    """An invocation that has the platform hold 180 MB of bodies ends as exceededMemory."""
    main = tmp_path / "entry.py"
    main.write_text(WORKER)
    async with open_world(level, main, {"NEVER": Never(), "SLOW": Slow()}) as world:
        answer = await world.fetch("hoard")
        assert answer.outcome == "exceededMemory", answer.done
        assert (await world.fetch("")).body == b"fine"
    assert peak() < 400


async def test_what_is_honest_is_let_in(level, tmp_path, monkeypatch):
    """Large bodies and many concurrent calls stay within the limits."""
    monkeypatch.setattr(conversation, "UNANSWERED_MAX", 41)
    main = tmp_path / "entry.py"
    main.write_text(WORKER)
    async with open_world(level, main, {"NEVER": Never(), "SLOW": Slow()}) as world:
        answer = await world.fetch("whole")
        assert len(answer.body) == 40_000_000
        for _ in range(3):
            assert (await world.fetch("crowd")).body == b"40"
