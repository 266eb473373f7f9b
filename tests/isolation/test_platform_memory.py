"""Hostile isolates can make the platform hold little memory, and not for long."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim.isolates.host import conversation, link
from edgesim.isolates.protocol import wire
from edgesim.isolates.protocol.wire import Call, FrameBatch, MessageReader, StreamRef, encode
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


@pytest.fixture
async def peak() -> AsyncIterator[Any]:
    """Function that returns the peak growth of the platform's memory in MB."""
    started, highest = _resident(), 0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, _resident())
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield lambda: (highest - started) // MB
        tasks.cancel_scope.cancel()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


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
    """Too many unread replies end the isolate with internalError; the next one works."""
    monkeypatch.setattr(link, "UNREAD_BYTES_MAX", 2 * MB)
    async with open_world(level) as world:
        answer = await world.attack("asks-and-never-reads")
        assert answer.outcome == "internalError", answer.done
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


VALUES = [
    *([each] for each in (None, True, -1, 127, 255, 65_535, 1 << 31, 1 << 40, -100, -(1 << 40))),
    *([each] for each in (1.5, "a", "b" * 40, "c" * 300, "d" * 70_000, b"e", b"f" * 300)),
    [b"g" * 70_000],
    [list(range(20))],
    [[None] * 70_000],
    [{str(number): number for number in range(20)}],
    [dict.fromkeys(range(70000))],
    [StreamRef(1, 2), StreamRef(1 << 40)],
]


@pytest.mark.parametrize("args", VALUES, ids=range(len(VALUES)))
def test_values_are_counted(args):
    """Values of every type are counted exactly; one more than the limit is refused."""
    data = bytes(encode(FrameBatch([(1, Call(1, "b", "m", args))])))
    payload = memoryview(data)[4:]
    count = 9 + 3 + sum(map(_values, args))
    wire._count_values(payload, count)
    with pytest.raises(ValueError, match="values"):
        wire._count_values(payload, count - 1)


def test_few_values_are_not_counted():
    """A message too short to exceed the limit is decoded without counting."""
    data = bytes(encode(FrameBatch([(1, Call(1, "b", "m", [[None] * 1000]))])))
    assert MessageReader(2000).feed(data)
    with pytest.raises(ValueError, match="values"):
        MessageReader(500).feed(data)


def _values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_values(key) + _values(item) for key, item in value.items())
    return 1 + sum(map(_values, value)) if isinstance(value, list) else 1
