"""Stale reads of KV: what they may return, and what they never do."""

import random
from contextlib import asynccontextmanager
from functools import partial

import pytest

from edgesim import faults
from edgesim.faults.injector import Injector, Life
from edgesim.faults.stale import KEPT_BYTES_MAX, STALE_SECONDS, EarlierEntries, Key
from edgesim.faults.stores import FaultyKv
from edgesim.kv.driver import KvEntry
from edgesim.kv.memory import open_kv
from edgesim.replay.virtual_loop import VirtualLoop
from tests.queues_world import VirtualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """All tests here run in virtual time."""
    return "asyncio", {"loop_factory": partial(VirtualLoop, 0, 0.0)}


@asynccontextmanager
async def stale_kv(rule, seed=0):
    """A store in memory under one rule; yields it with its injector and clock."""
    clock = VirtualClock()
    rules = faults.read(rule, {"kv": ["kv", "kv.get", "kv.list"]})
    injector = Injector(rules, seed, clock)
    async with open_kv("memory:", clock) as inner:
        yield FaultyKv(inner, injector, Life(), clock), injector, clock


@pytest.mark.parametrize("seed", range(20))
async def test_reads_return_a_state_of_the_last_minute(seed):
    """A read returns what the key held at some moment of the last 60 s."""
    random_ = random.Random(seed)
    keys = ["a", "b", "c\u00e9"]
    held: dict[str, list[tuple[float, KvEntry | None]]] = {
        key: [(float("-inf"), None)] for key in keys
    }  # since when, what
    late = 0
    async with stale_kv("kv stale 60%", seed) as (kv, _, clock):
        for _ in range(150):
            key = random_.choice(keys)
            await clock.advance(random_.uniform(0, 20))
            if random_.random() < 0.5:
                entry = None if random_.random() < 0.3 else KvEntry(random_.randbytes(4))
                if entry is None:
                    await kv.delete("ns", key)
                else:
                    await kv.put("ns", key, entry, clock.now())
                held[key].append((clock.now(), entry))
            found = await kv.get("ns", key, clock.now())
            ends = [since for since, _ in held[key][1:]] + [float("inf")]
            oldest = clock.now() - STALE_SECONDS
            valid = [what for (_, what), end in zip(held[key], ends, strict=True) if end > oldest]
            assert found in valid
            late += found != held[key][-1][1]
    assert late > 0


async def test_a_listing_shows_one_earlier_moment():
    """Keys written or deleted a moment ago are absent or present as before, in order, in pages."""
    async with stale_kv("kv.list stale 100%") as (kv, injector, clock):
        with injector.calm():
            for key in ("a", "c", "e"):
                await kv.put("ns", key, KvEntry(b"", None, '"old"'), clock.now())
        await clock.advance(STALE_SECONDS + 1)
        for key in ("b", "c", "d"):
            await kv.put("ns", key, KvEntry(b"", None, '"new"'), clock.now())
        await kv.delete("ns", "e")
        await clock.advance(1e-3)
        page = await kv.list("ns", "", "", 2, clock.now())
        rest = await kv.list("ns", "", "c", 2, clock.now())
        assert [(k.name, k.metadata) for k in page] == [("a", '"old"'), ("c", '"old"')]
        assert [(k.name, k.metadata) for k in rest] == [("e", '"old"')]
        with injector.calm():
            now = await kv.list("ns", "", "", 9, clock.now())
        assert [(k.name, k.metadata) for k in now] == [
            ("a", '"old"'), ("b", '"new"'), ("c", '"new"'), ("d", '"new"')
        ]  # fmt: skip


async def test_an_expired_earlier_entry_is_not_returned():
    """A stale read returns nothing in place of an entry that has expired meanwhile."""
    async with stale_kv("kv.get stale 100%") as (kv, _, clock):
        await kv.put("ns", "k", KvEntry(b"1", int(clock.now()) + 5), clock.now())
        await clock.advance(10)
        await kv.put("ns", "k", KvEntry(b"2"), clock.now())
        for _ in range(20):
            assert await kv.get("ns", "k", clock.now()) in (None, KvEntry(b"2"))


async def test_without_the_rule_a_write_reads_nothing_more():
    """Under other rules nothing is kept of the entries that writes replace."""
    async with stale_kv("kv latency 1ms") as (kv, _, clock):
        await kv.put("ns", "k", KvEntry(b"1"), clock.now())
        await kv.put("ns", "k", KvEntry(b"2"), clock.now())
        assert await kv.get("ns", "k", clock.now()) == KvEntry(b"2")
        assert not list(kv._history.names("ns", "", ""))


def test_kept_entries_are_bounded():
    """Earlier entries together never take more than KEPT_BYTES_MAX; the oldest go first."""
    history, value = EarlierEntries(), b"x" * (KEPT_BYTES_MAX // 4)
    for number in range(9):
        history.record(Key("ns", f"k{number}"), KvEntry(value), float(number))
    kept = [key.name for key in history.names("ns", "", "")]
    assert kept == ["k5", "k6", "k7", "k8"]
