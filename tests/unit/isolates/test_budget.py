"""The memory that isolates occupy: who gets room, who waits, who is evicted."""

from collections.abc import Callable

import anyio
import pytest

from edgesim.errors import PlatformError
from edgesim.isolates.host.budget import Budget, Holder
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

    def new(self, worker: str, size: int = 0, name: str = "") -> Holder:
        holder = self._budget.holder(worker, lambda: self.evicted.append(name or worker))
        holder.add(size)
        return holder


def waits() -> tuple[list[bool], Callable[[bool], None]]:
    """Return a list of the results of a wait, and the function that is called with them."""
    results: list[bool] = []
    return results, results.append


async def settled() -> None:
    """Let the event loop's callbacks run, and those that they start."""
    for _ in range(5):
        await anyio.sleep(0)


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
    (large, on_large), (small, on_small) = waits(), waits()
    holders.new("b").wait(50, on_large)
    holders.new("c").wait(10, on_small)
    full.drop(20)
    await settled()
    assert (large, small) == ([], [])
    assert not holders.new("d").add_if_room(1)
    full.drop(30)
    await settled()
    assert (large, small) == ([True], [])
    full.drop(10)
    await settled()
    assert small == [True]
    assert budget.bytes == 100


async def test_each_worker_has_a_share_of_its_own():
    """A Worker that occupies all bytes for everybody does not hold up another."""
    budget = Budget(100, 60, NEVER)
    holders = Holders(budget)
    holders.new("a", 100)
    blocked, on_blocked = waits()
    holders.new("a").wait(1, on_blocked)
    neighbour = holders.new("b")
    assert neighbour.add_if_room(30)  # half of what two Workers share
    assert not neighbour.add_if_room(1)
    await settled()
    assert blocked == []


async def test_the_largest_holder_of_the_largest_worker_is_evicted():
    """After a while that holder has to go, whoever waits, and the wait ends."""
    budget = Budget(100, 0, SOON)
    holders = Holders(budget)
    holders.new("a", 30, "a small")
    holders.new("a", 35, "a large")
    holders.new("b", 34, "b")
    results, on_result = waits()
    holders.new("c", name="c").wait(20, on_result)
    with anyio.fail_after(10):
        while not results:
            await anyio.sleep(0.01)
    assert (results, holders.evicted) == ([True], ["a large"])
    assert budget.bytes == 30 + 34 + 20


async def test_one_eviction_at_a_time():
    """Others that wait have their whole time again after an eviction for the first of them."""
    budget = Budget(100, 0, SOON)
    holders = Holders(budget)
    holders.new("a", 90, "first")
    (second, on_second), (third, on_third) = waits(), waits()
    holders.new("a", name="second").wait(90, on_second)
    holders.new("a", name="third").wait(90, on_third)
    with anyio.fail_after(10):
        while not second:
            await anyio.sleep(0)
    assert holders.evicted == ["first"]
    with anyio.fail_after(10):
        while not third:
            await anyio.sleep(0.01)
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
    results, on_result = waits()
    staying.wait(80, on_result)
    full.close()
    with anyio.fail_after(10):
        while not results:
            await anyio.sleep(0)
    assert (leaving.size, staying.size, budget.bytes) == (0, 80, 80)


async def test_a_closed_holder_occupies_nothing():
    """Its waits end, and what its owner still adds or drops is not counted."""
    budget = Budget(100, 0, NEVER)
    holders = Holders(budget)
    holders.new("a", 100)
    closed = holders.new("b", 5)
    results, on_result = waits()
    closed.wait(10, on_result)
    closed.close()
    closed.drop(5)
    closed.add(7)
    await settled()
    assert (results, closed.size, budget.bytes) == ([False], 0, 100)


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
