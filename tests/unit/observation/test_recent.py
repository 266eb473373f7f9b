"""Recent traces: bounded by number and bytes, streamed to readers that cannot slow anything."""

import anyio
import pytest

from edgesim.errors import UsageError
from edgesim.isolates.protocol.wire import Done
from edgesim.model import HttpRequest, Stream, TraceItem, TraceLog
from edgesim.observation import recent
from edgesim.observation.recent import RecentTraces
from edgesim.runtime.finished import FinishedInvocation
from edgesim.runtime.trace import shown


def item(name: str = "w", text: str = "") -> FinishedInvocation:
    event = {"cron": "* * * * *"}
    trace = TraceItem(name, event, 1000.0, "ok", logs=[TraceLog(1.0, "log", [text])])
    return FinishedInvocation("scheduled", trace, Done(), event)


def request(name: str, body: bytes) -> FinishedInvocation:
    wanted = HttpRequest("POST", "http://x/", [], body)
    event = {"request": {"url": "http://x/", "method": "POST", "headers": {}}}
    return FinishedInvocation("fetch", TraceItem(name, event, 1000.0, "ok"), Done(), wanted)


def test_the_oldest_traces_leave_first(monkeypatch):
    """At most TRACES_MAX traces are kept."""
    monkeypatch.setattr(recent, "TRACES_MAX", 3)
    kept = RecentTraces()
    for number in range(5):
        kept.finished(item(str(number)))
    assert [each.script_name for each in kept.oldest_first()] == ["2", "3", "4"]


def test_large_traces_push_out_more(monkeypatch):
    """At most about BYTES_MAX bytes of traces are kept, whatever their number."""
    monkeypatch.setattr(recent, "BYTES_MAX", 100_000)
    kept = RecentTraces()
    for number in range(50):
        kept.finished(item(str(number), "x" * 30_000))
    assert [each.script_name for each in kept.oldest_first()] == ["47", "48", "49"]


@pytest.mark.anyio
async def test_a_slow_reader_misses_traces():
    """A reader that does not read gets the first UNREAD_MAX traces; the others are counted."""
    kept = RecentTraces()
    with kept.subscribe() as slow, kept.subscribe() as quick:
        for number in range(recent.UNREAD_MAX + 7):
            kept.finished(item(str(number)))
            assert (await quick.receive()).item.script_name == str(number)
        assert (slow.dropped, quick.dropped) == (7, 0)
        assert (await slow.receive()).item.script_name == "0"


@pytest.mark.anyio
async def test_a_slow_reader_holds_little_memory(monkeypatch):
    """Unread traces of one reader are bounded by bytes too; what it reads makes room again."""
    monkeypatch.setattr(recent, "UNREAD_BYTES_MAX", 100_000)
    kept = RecentTraces()
    with kept.subscribe() as slow:
        for number in range(6):
            kept.finished(item(str(number), "x" * 30_000))
        assert slow.dropped == 3
        assert (await slow.receive()).item.script_name == "0"
        kept.finished(item("later", "x" * 30_000))
        assert [(await slow.receive()).item.script_name for _ in range(3)] == ["1", "2", "later"]
        assert slow.dropped == 3
        kept.finished(item("huge", "x" * 200_000))
        assert (await slow.receive()).item.script_name == "huge"


@pytest.mark.anyio
async def test_streams_end_with_the_platform():
    """A reader gets what was added before the end, then the end; so does one that comes later."""
    kept = RecentTraces()
    with kept.subscribe() as reader:
        kept.finished(item("last"))
        kept.end()
        assert (await reader.receive()).item.script_name == "last"
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
    with kept.subscribe() as late, pytest.raises(anyio.EndOfStream):
        await late.receive()


def test_events_have_a_budget_of_their_own(monkeypatch):
    """At most about EVENTS_BYTES_MAX bytes of events are kept, the newest; their traces stay."""
    monkeypatch.setattr(recent, "EVENTS_BYTES_MAX", 100_000)
    kept = RecentTraces(run="r", with_events=True)
    for number in range(9):
        kept.finished(request(str(number), b"x" * 30_000))
    with_event = [each.item.script_name for each in kept.newest_first() if each.again]
    assert with_event == ["8", "7", "6"]
    assert len(kept.oldest_first()) == 9
    assert "not kept" in kept.problem_of(kept.known("r-1"))
    assert kept.problem_of(kept.known("r-9")) == ""


def test_events_that_cannot_be_sent_again_are_not_kept():
    """Streams, large bodies, traces and RPC calls leave their trace only."""
    kept = RecentTraces(run="r", with_events=True)
    streamed = HttpRequest("POST", "http://x/", [], Stream(aiter(_nothing())))
    for each in (
        FinishedInvocation("fetch", item().item, Done(), streamed),
        request("large", b"x" * (recent.EVENT_BYTES_MAX + 1)),
        FinishedInvocation("tail", item().item, Done(), []),
        FinishedInvocation("rpc", item().item, Done(), {}),
    ):
        kept.finished(each)
    assert [each.again for each in kept.newest_first()] == [None] * 4
    none = RecentTraces(run="r")
    none.finished(request("w", b"x"))
    assert "`edgesim dev`" in none.problem_of(none.known("r-1"))


async def _nothing():
    yield b""


def test_an_id_names_one_invocation(monkeypatch):
    """An id that is dropped, of another run, or none at all is refused with what is kept."""
    monkeypatch.setattr(recent, "TRACES_MAX", 3)
    kept = RecentTraces(run="new")
    for number in range(5):
        kept.finished(item(str(number)))
    assert [kept.id_of(each) for each in kept.newest_first()] == ["new-5", "new-4", "new-3"]
    assert kept.known("new-4").item.script_name == "3"
    for wrong in (
        "new-2",
        "new-6",
        "old-4",
        "4",
        "new-",
        "new--4",
        "new-x",
        "new-٤",
        "new-004",
        "new-" + "4" * 5000,
        "",
    ):
        with pytest.raises(UsageError, match="the last 3 of 5 are"):
            kept.known(wrong)


def test_secrets_are_not_shown():
    """Secret headers are redacted, and the unredacted request is left out."""
    request = {"url": "http://x/", "method": "GET", "headers": {"authorization": "s3cret"}}
    event = {"request": request | {"cf": None}, "response": {"status": 200}}
    safe = shown(TraceItem("w", event, 1000.0, "ok")).event
    assert safe is not None
    assert safe["request"]["headers"] == {"authorization": "REDACTED"}
    assert "s3cret" not in str(safe)
    assert safe["response"] == {"status": 200}
