"""The memory that isolates occupy: who gets room, who waits, who is evicted."""

import anyio
import anyio.lowlevel
import pytest

from edgesim.errors import PlatformError
from edgesim.isolates.host.budget import Budget, MemoryHolder
from edgesim.isolates.host.held_body import HeldBody

pytestmark = pytest.mark.anyio

SOON = 0.05
"""Seconds of waiting after which a holder is evicted in these tests."""
NEVER = 60.0


class Holders:
    """Holders of one budget, and the names of those that were evicted."""

    def __init__(self, budget: Budget) -> None:
        self.evicted: list[str] = []
        self._budget = budget

    def new(self, worker: str, size: int = 0, name: str = "") -> MemoryHolder:
        holder = self._budget.holder(worker, lambda: self.evicted.append(name or worker))
        holder.add(size)
        return holder


class Wait:
    """The ``act`` of a wait, and the results that it was called with."""

    def __init__(self) -> None:
        self.results: list[bool] = []
        self._called = anyio.Event()

    def __call__(self, has_room: bool) -> None:
        self.results.append(has_room)
        self._called.set()

    async def over(self) -> list[bool]:
        """Return the results, once there are some."""
        with anyio.fail_after(10):
            await self._called.wait()
        return self.results


async def settled() -> None:
    """Let the event loop's callbacks run, and those that they start."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def test_room_is_taken_and_given_back():
    """Bytes are refused beyond the limit, and there again once others are released."""
    budget = Budget(100, 0, NEVER)
    one = Holders(budget).new("a", 60)
    other = Holders(budget).new("b")
    assert not other.add_if_room(41)
    assert other.add_if_room(40)
    one.drop(20)
    assert other.add_if_room(20)
    assert (budget.bytes, one.size, other.size) == (100, 40, 60)


async def test_waits_end_in_order():
    """A small wait does not overtake a large one, nor does who comes later."""
    budget = Budget(100, 0, NEVER)
    holders = Holders(budget)
    full = holders.new("a", 100)
    large, small = Wait(), Wait()
    holders.new("b").wait(50, large)
    holders.new("c").wait(10, small)
    full.drop(20)
    await settled()
    assert (large.results, small.results) == ([], [])
    assert not holders.new("d").add_if_room(1)
    full.drop(30)
    await settled()
    assert (large.results, small.results) == ([True], [])
    full.drop(10)
    await settled()
    assert small.results == [True]
    assert budget.bytes == 100


async def test_each_worker_has_a_share_of_its_own():
    """A Worker that occupies all bytes for everybody does not hold up another."""
    budget = Budget(100, 60, NEVER)
    holders = Holders(budget)
    holders.new("a", 100)
    blocked = Wait()
    holders.new("a").wait(1, blocked)
    neighbour = holders.new("b")
    assert neighbour.add_if_room(30)  # half of what two Workers share
    assert not neighbour.add_if_room(1)
    await settled()
    assert blocked.results == []


async def test_the_largest_holder_of_the_largest_worker_is_evicted():
    """After a while that holder has to go, whoever waits, and the wait ends."""
    budget = Budget(100, 0, SOON)
    holders = Holders(budget)
    holders.new("a", 30, "a small")
    holders.new("a", 35, "a large")
    holders.new("b", 34, "b")
    wait = Wait()
    holders.new("c", name="c").wait(20, wait)
    assert (await wait.over(), holders.evicted) == ([True], ["a large"])
    assert budget.bytes == 30 + 34 + 20


async def test_one_eviction_at_a_time():
    """Others that wait have their whole time again after an eviction for the first of them."""
    budget = Budget(100, 0, SOON)
    holders = Holders(budget)
    holders.new("a", 90, "first")
    second, third = Wait(), Wait()
    holders.new("a", name="second").wait(90, second)
    holders.new("a", name="third").wait(90, third)
    await second.over()
    assert holders.evicted == ["first"]
    await third.over()
    assert holders.evicted == ["first", "second"]


async def test_who_wants_most_is_evicted_while_it_waits():
    """A wait for more than anybody occupies ends without room, and costs nobody else anything."""
    budget = Budget(100, 0, SOON)
    holders = Holders(budget)
    holders.new("a", 60, "a")
    greedy = holders.new("b", name="greedy")
    with pytest.raises(PlatformError, match="memory"), anyio.fail_after(10):
        await greedy.room(90)
    assert holders.evicted == ["greedy"]
    assert (budget.bytes, greedy.closed) == (60, True)


async def test_a_cancelled_wait_keeps_nothing():
    """Room that comes after the end of a wait is given to the next one."""
    budget = Budget(100, 0, NEVER)
    holders = Holders(budget)
    full = holders.new("a", 100)
    leaving, staying = holders.new("b"), holders.new("c")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leaving.room, 70)
        await settled()
        tasks.cancel_scope.cancel()
    wait = Wait()
    staying.wait(80, wait)
    full.close()
    assert await wait.over() == [True]
    assert (leaving.size, staying.size, budget.bytes) == (0, 80, 80)


async def test_a_closed_holder_occupies_nothing():
    """Its waits end, and what its owner still adds or drops is not counted."""
    budget = Budget(100, 0, NEVER)
    holders = Holders(budget)
    holders.new("a", 100)
    closed = holders.new("b", 5)
    wait = Wait()
    closed.wait(10, wait)
    closed.close()
    closed.drop(5)
    closed.add(7)
    await settled()
    assert (wait.results, closed.size, budget.bytes) == ([False], 0, 100)


async def test_bodies_are_counted_until_they_are_read(monkeypatch):
    """A body counts until its last part is read, until it is closed, taken or forgotten."""
    budget = Budget(1 << 30, 0, NEVER)
    monkeypatch.setattr("edgesim.isolates.host.held_body.budget_here", lambda: budget)
    data = bytes(range(256)) * 5000
    body = HeldBody("a", data)
    assert budget.bytes == body.length == len(data)
    assert b"".join([part async for part in body]) == data
    assert budget.bytes == 0
    body = HeldBody("a", data)
    await body.read()
    await body.aclose()
    assert budget.bytes == 0
    assert HeldBody("a", data).take() == data
    assert budget.bytes == 0
    body = HeldBody("a", data)
    del body
    assert budget.bytes == 0


async def test_an_evicted_body_is_not_read(monkeypatch):
    """Its reader gets an exception, and never a part for the whole."""
    budget = Budget(100, 0, SOON)
    monkeypatch.setattr("edgesim.isolates.host.held_body.budget_here", lambda: budget)
    body = HeldBody("a", b"x" * 3_000_000)
    await body.read()
    with anyio.fail_after(10):
        await Holders(budget).new("b").room(50)
    with pytest.raises(PlatformError, match="memory"):
        await body.read()
    assert budget.bytes == 50
