"""The memory that all isolates make the platform hold is bounded, at nobody else's cost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from edgesim.isolates.host import budget
from edgesim.isolates.host.budget import Budget
from edgesim.model import Limits
from edgesim.runtime.invocation import Binding, Invocation
from tests.isolation.test_platform_memory import MB, Never
from tests.isolation.world import ATTACKER, World, open_world

pytestmark = pytest.mark.anyio

COMMON, OWN, SECONDS = 96 * MB, 32 * MB, 0.5
MANY = 12
LIMITS = Limits(cpu_ms=5000)
PEAK_MB = 450
"""Well above the budget, for copies and the allocator, and well below what the attacks send."""
PROMPT_SECONDS = 30.0
"""A neighbour's longest request, on a busy machine; without a share of its own it never ends."""
HELPERS = ATTACKER.read_text()
WORKER = f"""
import os, select, stat, struct, time, asyncio
from workers import Response, WorkerEntrypoint
{HELPERS[HELPERS.index("def channel():") :]}
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(await getattr(self, request.url.rsplit("/", 1)[1])())

    async def fine(self):
        return "fine"

    async def echoes(self):
        body = b"x" * 2_000_000
        answer = await self.env.ECHO.fetch("http://echo/", method="POST", body=body)
        return str(len(await answer.bytes()))

    async def hoards(self):
        body = b"x" * 4_000_000
        calls = []
        for _ in range(25):
            calls.append(asyncio.create_task(self.env.NEVER.put("key", body)))
            await asyncio.sleep(0)
        await asyncio.wait(calls)

    async def values(self):
        calls = []
        for _ in range(25):
            calls.append(asyncio.create_task(self.env.NEVER.put("key", [[]] * 50_000)))
            await asyncio.sleep(0)
        await asyncio.wait(calls)

    async def half(self):
        write(struct.pack(">I", 80 << 20) + b"\\xc6" + struct.pack(">I", 80 << 20))
        for _ in range(79):
            write(b"x" * (1 << 20))
        while True:
            time.sleep(1)

    async def keeps(self):
        kept = [await self.env.LARGE.get("key") for _ in range(20)]
        return str(len(kept))

    async def unread(self):
        Call, one = of_the_wire("Call", "one")
        for _ in range(100):
            write(one(Call(1, "SMALLER", "get", ["key"]), number()))
        select.select([], [], [], 2)  # reads nothing meanwhile, as time.sleep does
        os._exit(0)
"""


class Gives(Binding):
    """A bucket whose objects have that many bytes; ``given`` counts them."""

    counts_as_subrequest = True
    counts_as_connection = True

    def __init__(self, size: int) -> None:
        self.given = 0
        self._size = size

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        self.given += 1
        return {"key": "key", "body": await invocation.give_body(bytes(self._size))}


@pytest.fixture
async def small_budget() -> AsyncIterator[Budget]:
    """A budget for this event loop that is full after a few attacks."""
    loop = asyncio.get_running_loop()
    budget._budgets[loop] = Budget(COMMON, OWN, SECONDS)
    yield budget._budgets[loop]
    del budget._budgets[loop]


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "entry.py"
    path.write_text(WORKER)
    return path


async def attacked(
    main: Path, name: str, bindings: dict[str, Binding], ends: int = MANY
) -> list[str]:
    """Run many invocations of an attack beside a neighbour; return how they ended.

    ``ends``: as many as end of themselves; then the others are cancelled.
    """
    outcomes: list[str] = []
    slowest = 0.0
    ended = anyio.Event()

    async def attack(world: World) -> None:
        outcomes.append((await world.fetch(name)).outcome)
        if len(outcomes) >= ends:
            ended.set()

    async def ask(world: World, cancel: anyio.CancelScope) -> None:
        nonlocal slowest
        while not cancel.cancel_called:
            began = anyio.current_time()
            assert (await world.fetch("fine")).body == b"fine"
            assert (await world.fetch("echoes")).body == b"2000000"
            slowest = max(slowest, anyio.current_time() - began)
            await anyio.lowlevel.checkpoint()

    async with (
        open_world("process", main, bindings, limits=LIMITS) as world,
        open_world("process", main, name="neighbour", limits=LIMITS) as neighbour,
        anyio.create_task_group() as asking,
    ):
        asking.start_soon(ask, neighbour, asking.cancel_scope)
        async with anyio.create_task_group() as attacks:
            for _ in range(MANY):
                attacks.start_soon(attack, world)
            await ended.wait()
            attacks.cancel_scope.cancel()
        asking.cancel_scope.cancel()
    assert slowest < PROMPT_SECONDS
    return outcomes


@pytest.mark.parametrize("name", ["hoards", "values", "half"])
async def test_many_that_hoard(name, main, peak, small_budget):
    """A dozen invocations that each make the platform hold 80 MB or more wait, and end in turn."""
    outcomes = await attacked(main, name, {"NEVER": Never()}, MANY - 1)  # the last one fits
    assert outcomes == ["exceededMemory"] * (MANY - 1)
    assert peak() < PEAK_MB
    assert small_budget.bytes == 0


async def test_many_that_keep_responses(main, peak, small_budget):
    """Bodies that are fetched and never read are evicted before they fill the platform."""
    large = Gives(10 * MB)
    outcomes = await attacked(main, "keeps", {"LARGE": large})
    assert set(outcomes) <= {"ok", "exception", "exceededMemory"}
    assert large.given >= MANY
    assert peak() < PEAK_MB
    assert small_budget.bytes == 0


async def test_many_that_read_no_replies(main, peak, small_budget):
    """Calls wait while replies are unread, so that a dozen invocations cost a few megabytes."""
    smaller = Gives(900_000)
    outcomes = await attacked(main, "unread", {"SMALLER": smaller})
    assert set(outcomes) == {"internalError"}
    assert 2 * MANY < smaller.given < 20 * MANY
    assert peak() < PEAK_MB
