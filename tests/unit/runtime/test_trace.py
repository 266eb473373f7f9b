"""Traces: the size budget and the content delivered to a Tail Worker."""

from hypothesis import given
from hypothesis import strategies as st

from edgesim.isolates.protocol.wire import Done, Failure
from edgesim.model import HttpRequest
from edgesim.runtime.trace import BUDGET_BYTES, Trace, delivered, fetch_event

REQUEST = HttpRequest("GET", "http://x/")


def trace() -> Trace:
    return Trace("w", fetch_event(REQUEST), 1.0)


def test_a_finished_trace_has_everything():
    """A finished trace has logs, exceptions, outcome, CPU and wall time."""
    written = trace()
    written.log("log", ["a", 1], 2.0)
    item = written.finish(Done("exception", [Failure("Error", "bad")], None, 1.5), 3.0, 20.0)
    assert item.script_name == "w"
    assert item.outcome == "exception"
    assert (item.cpu_time, item.wall_time) == (1.5, 20.0)
    assert item.logs[0].message == ["a", 1]
    assert item.exceptions[0].message == "bad"
    assert not item.truncated


def test_the_log_that_overflows_is_dropped_whole():
    """The log that exceeds 256 KB and all later logs are dropped; one warning is added."""
    written = trace()
    written.log("log", ["x" * (BUDGET_BYTES - 1_000)], 1.0)
    written.log("log", ["y" * 2_000], 1.0)
    written.log("log", ["z"], 1.0)
    assert written.truncated
    assert [entry.level for entry in written.logs] == ["log", "warn"]
    assert written.logs[1].message[0].startswith("Log size limit exceeded: More than 256KB")


def test_url_and_headers_share_the_budget():
    """URL and headers count against the budget for logs."""
    request = HttpRequest("GET", "http://x/" + "a/" * 100_000)
    written = Trace("w", fetch_event(request), 1.0)
    written.log("log", ["x" * 100_000], 1.0)
    assert written.truncated


@given(st.lists(st.integers(1, 60_000), max_size=20))
def test_logs_never_exceed_the_budget(sizes):
    """The kept logs are a prefix that fits the budget, not counting the warning."""
    written = trace()
    for size in sizes:
        written.log("log", ["x" * size], 1.0)
    kept = [len(entry.message[0]) for entry in written.logs if entry.level == "log"]
    assert sum(kept) <= BUDGET_BYTES
    assert kept == sizes[: len(kept)]
    assert written.truncated == (len(kept) < len(sizes))


def test_a_request_that_does_not_fit_is_not_captured():
    """An oversized request is reduced to its method with a warning; logs keep the full budget."""
    event = fetch_event(HttpRequest("PUT", "http://x/" + "a/" * 200_000, [("X-A", "1")]))
    written = Trace("w", event, 1.0)
    assert written.event == {"request": {"method": "PUT", "url": "", "headers": {}}}
    assert written.truncated
    [warning] = written.logs
    assert warning.level == "warn"
    assert "could not capture event info" in warning.message[0]
    written.log("log", ["still room"], 2.0)
    assert written.logs[-1].message == ["still room"]


def test_the_exception_that_overflows_is_replaced():
    """An exception over the budget, and all later ones, are replaced by one notice."""
    written = trace()
    written.log("log", ["x" * (BUDGET_BYTES - 1_000)], 1.0)
    for number in range(3):
        written.exception(Failure("Error", f"{number}" * 600), 2.0)
    assert [each.message[:10] for each in written.exceptions] == ["0" * 10, "Trace reso"]
    assert written.truncated


def test_logs_and_exceptions_overflow_each_for_itself():
    """An exception is still recorded after a log that exceeded the budget."""
    written = trace()
    written.log("log", ["x" * BUDGET_BYTES], 1.0)
    written.exception(Failure("Error", "small"), 2.0)
    assert written.exceptions[0].message == "small"


def test_a_message_counts_as_json():
    """A message is counted as JSON: a quotation mark takes two bytes."""
    written = trace()
    written.log("log", ['"' * (BUDGET_BYTES // 2)], 1.0)
    assert written.truncated


def test_headers_of_one_name_are_one():
    """Headers of the same name are joined under the lower-case name, as on the platform."""
    event = fetch_event(HttpRequest("GET", "http://x/", [("X-A", "1"), ("x-a", "2")]))
    assert event["request"]["headers"] == {"x-a": "1, 2"}


def test_what_is_delivered_is_redacted_and_the_whole_is_beside_it():
    """A delivered trace has a redacted request, the original beside it, and whole milliseconds."""
    request = HttpRequest("GET", "http://x/" + "a" * 32, [("Cookie", "c")])
    item = Trace("w", fetch_event(request), 1.0).finish(Done("ok", cpu_ms=2.9), 3.0, 20.7)
    [told] = delivered([item])
    assert told.event is not None
    shown = told.event["request"]
    assert (shown["url"], shown["headers"]) == ("http://x/REDACTED", {"cookie": "REDACTED"})
    assert shown["unredacted"]["url"] == request.url
    assert shown["unredacted"]["headers"] == {"cookie": "c"}
    assert (told.cpu_time, told.wall_time) == (2, 20)
    assert item.event == fetch_event(request)
