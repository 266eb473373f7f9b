"""Recent traces: bounded by number and bytes, streamed to readers that cannot slow anything."""

import anyio
import pytest

from edgesim.model import TraceItem, TraceLog
from edgesim.observation import recent
from edgesim.observation.recent import RecentTraces
from edgesim.runtime.trace import shown


def item(name: str = "w", text: str = "") -> TraceItem:
    return TraceItem(name, {"cron": "* * * * *"}, 1000.0, "ok", logs=[TraceLog(1.0, "log", [text])])


def test_the_oldest_traces_leave_first(monkeypatch):
    """At most TRACES_MAX traces are kept."""
    monkeypatch.setattr(recent, "TRACES_MAX", 3)
    kept = RecentTraces()
    for number in range(5):
        kept.add(item(str(number)))
    assert [each.script_name for each in kept.oldest_first()] == ["2", "3", "4"]


def test_large_traces_push_out_more(monkeypatch):
    """At most about BYTES_MAX bytes of traces are kept, whatever their number."""
    monkeypatch.setattr(recent, "BYTES_MAX", 100_000)
    kept = RecentTraces()
    for number in range(50):
        kept.add(item(str(number), "x" * 30_000))
    assert [each.script_name for each in kept.oldest_first()] == ["47", "48", "49"]


@pytest.mark.anyio
async def test_a_slow_reader_misses_traces():
    """A reader that does not read gets the first UNREAD_MAX traces; the others are counted."""
    kept = RecentTraces()
    with kept.subscribe() as slow, kept.subscribe() as quick:
        for number in range(recent.UNREAD_MAX + 7):
            kept.add(item(str(number)))
            assert (await quick.receive()).script_name == str(number)
        assert (slow.dropped, quick.dropped) == (7, 0)
        assert (await slow.receive()).script_name == "0"


@pytest.mark.anyio
async def test_a_slow_reader_holds_little_memory(monkeypatch):
    """Unread traces of one reader are bounded by bytes too; what it reads makes room again."""
    monkeypatch.setattr(recent, "UNREAD_BYTES_MAX", 100_000)
    kept = RecentTraces()
    with kept.subscribe() as slow:
        for number in range(6):
            kept.add(item(str(number), "x" * 30_000))
        assert slow.dropped == 3
        assert (await slow.receive()).script_name == "0"
        kept.add(item("later", "x" * 30_000))
        assert [(await slow.receive()).script_name for _ in range(3)] == ["1", "2", "later"]
        assert slow.dropped == 3
        kept.add(item("huge", "x" * 200_000))
        assert (await slow.receive()).script_name == "huge"


@pytest.mark.anyio
async def test_streams_end_with_the_platform():
    """A reader gets what was added before the end, then the end; so does one that comes later."""
    kept = RecentTraces()
    with kept.subscribe() as reader:
        kept.add(item("last"))
        kept.end()
        assert (await reader.receive()).script_name == "last"
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
    with kept.subscribe() as late, pytest.raises(anyio.EndOfStream):
        await late.receive()


def test_secrets_are_not_shown():
    """Secret headers are redacted, and the unredacted request is left out."""
    request = {"url": "http://x/", "method": "GET", "headers": {"authorization": "s3cret"}}
    event = {"request": request | {"cf": None}, "response": {"status": 200}}
    safe = shown(TraceItem("w", event, 1000.0, "ok")).event
    assert safe is not None
    assert safe["request"]["headers"] == {"authorization": "REDACTED"}
    assert "s3cret" not in str(safe)
    assert safe["response"] == {"status": 200}
