"""Traces: the shared budget, redaction, what a Tail Worker is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.isolates.wire import Done, Failure
from edgesim.model import HttpRequest
from edgesim.runtime.trace import BUDGET_BYTES, Trace, fetch_event, redact_url

REQUEST = HttpRequest("GET", "http://x/")


def trace() -> Trace:
    return Trace("w", fetch_event(REQUEST), 1.0)


def test_a_finished_trace_has_everything():
    """Logs, exceptions, outcome, CPU and wall time, in the platform's names."""
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
    """Over 256 KB the overflowing log goes, one warning comes, later logs go, even small ones."""
    written = trace()
    written.log("log", ["x" * (BUDGET_BYTES - 1_000)], 1.0)
    written.log("log", ["y" * 2_000], 1.0)
    written.log("log", ["z"], 1.0)
    assert written.truncated
    assert [entry.level for entry in written.logs] == ["log", "warn"]
    assert written.logs[1].message[0].startswith("Log size limit exceeded: More than 256KB")


def test_url_and_headers_share_the_budget():
    """A long URL leaves less room for logs."""
    request = HttpRequest("GET", "http://x/" + "a/" * 100_000)
    written = Trace("w", fetch_event(request), 1.0)
    written.log("log", ["x" * 100_000], 1.0)
    assert written.truncated


@given(st.lists(st.integers(1, 60_000), max_size=20))
def test_logs_never_exceed_the_budget(sizes):
    """Whatever is logged, what is kept besides the warning fits the budget, and is a prefix."""
    written = trace()
    for size in sizes:
        written.log("log", ["x" * size], 1.0)
    kept = [len(entry.message[0]) for entry in written.logs if entry.level == "log"]
    assert sum(kept) <= BUDGET_BYTES
    assert kept == sizes[: len(kept)]
    assert written.truncated == (len(kept) < len(sizes))


@pytest.mark.parametrize(
    "name", ["Cookie", "set-cookie", "Authorization", "X-Api-Key", "x-keyboard"]
)
def test_secret_headers_are_redacted(name):
    """Cookies, and names that contain auth, jwt, key, secret or token, are hidden."""
    event = fetch_event(HttpRequest("GET", "http://x/", [(name, "v"), ("Accept", "a")]))
    headers = event["request"]["headers"]
    assert headers == {name.lower(): "REDACTED", "accept": "a"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("0123456789abcdef0123456789abcdef/x", "REDACTED/x"),
        ("550e8400-e29b-41d4-a716-446655440000", "REDACTED"),
        ("AbcDefGhi123456789012", "REDACTED"),
        ("4111-1111-1111-1111", "REDACTED"),
        ("4111-1111-1111-1112", "4111-1111-1111-1112"),
        ("events/2026?player=alice", "events/2026?player=alice"),
    ],
)
def test_ids_in_urls_are_redacted(path, expected):
    """Long hex runs, mixed runs of 21 and more, and card numbers are hidden."""
    assert redact_url(f"http://x/{path}") == f"http://x/{expected}"
