"""Taps: bounded samples that cost nothing while nobody watches."""

import json
from collections.abc import Iterator

import anyio
import pytest

from edgesim import taps
from edgesim.clock import Clock
from edgesim.taps import Taps

pytestmark = pytest.mark.anyio


class StoppedClock(Clock):
    """Time that passes only when it is told to."""

    seconds = 100.0

    def elapsed(self) -> float:
        return self.seconds


def records(lines: list[bytes]) -> list[object]:
    return [json.loads(line)["record"] for line in lines]


def unread(reader: taps.TapReader) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(reader.records.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            return found


async def test_nothing_is_read_while_nobody_watches():
    """Without a reader the records are not even computed."""

    def never() -> Iterator[object]:
        raise AssertionError("computed")
        yield

    found = Taps(Clock())
    found.at("queues.a").offer(3, never())
    with found.reading("queues.b"):
        found.at("queues.a").offer(3, never())


async def test_a_reader_gets_records_of_its_place():
    """A record comes with its place and time; other places are not seen."""
    found = Taps(Clock())
    with found.reading("queues.a") as reader:
        found.at("queues.a").offer(1, [{"n": 1}])
        found.at("queues.b").offer(1, [{"n": 2}])
        (line,) = unread(reader)
        shown = json.loads(line)
        assert (shown["place"], shown["record"]) == ("queues.a", {"n": 1})
        assert shown["at"].endswith("Z")


async def test_the_rate_bounds_what_is_read():
    """Beyond its rate a reader's records are skipped, uncomputed; a second later it has room."""
    clock, computed = StoppedClock(), []
    found = Taps(clock)

    def numbers(count: int) -> Iterator[int]:
        for number in range(count):
            computed.append(number)
            yield number

    with found.reading("r2.a", 10) as reader:
        found.at("r2.a").offer(1000, numbers(1000))
        assert (records(unread(reader)), reader.skipped) == (list(range(10)), 990)
        found.at("r2.a").offer(5, numbers(5))
        assert reader.skipped == 995
        assert len(computed) == 10
        clock.seconds += 0.5
        found.at("r2.a").offer(7, numbers(7))
        assert (records(unread(reader)), reader.skipped) == ([0, 1, 2, 3, 4], 997)


async def test_a_reader_that_does_not_read_is_bounded():
    """At most UNREAD_MAX records wait for one reader, and another one is not affected."""
    clock = StoppedClock()
    found = Taps(clock)
    with found.reading("r2.a", taps.RATE_MAX) as slow, found.reading("r2.a", 1) as other:
        for _ in range(3):
            found.at("r2.a").offer(800, range(800))
            clock.seconds += 1
        assert slow.skipped == 3 * 800 - taps.UNREAD_MAX
        assert (len(unread(slow)), records(unread(other))) == (taps.UNREAD_MAX, [0, 0, 0])
        found.at("r2.a").offer(1, ["again"])
        assert records(unread(slow)) == ["again"]


@pytest.mark.parametrize("record", ["x" * 50_000, {"n": 1 << 200}, {"s": {1, 2}}, {"t": "\ud800"}])
async def test_odd_records_are_shown_in_one_short_line(record):
    """Long records are cut, and what is not JSON is shown as text: a reader harms no sender."""
    found = Taps(Clock())
    with found.reading("a") as reader:
        found.at("a").offer(1, [record])
        (line,) = unread(reader)
        assert len(line) < 3 * taps.RECORD_BYTES_MAX
        assert b"\n" not in line
        assert json.loads(line)["record"]


async def test_streams_end_with_the_platform():
    """A reader gets what was offered before the end, then the end; so does one that comes later."""
    found = Taps(Clock())
    with found.reading("a") as reader:
        found.at("a").offer(1, ["last"])
        found.end()
        assert json.loads(await reader.records.receive())["record"] == "last"
        with pytest.raises(anyio.EndOfStream):
            await reader.records.receive()
    with found.reading("a") as late, pytest.raises(anyio.EndOfStream):
        await late.records.receive()
    assert found.reader_count == 0
