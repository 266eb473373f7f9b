"""The dead-letter Worker's rows and retry delays."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.test_event import load

failures = load("dead-letter", "failures")

DELIVERIES = 101  # max_retries 100, the platform's maximum
RETENTION_SECONDS = 14 * 86_400  # the platform's maximum
NOTIFICATION = {"bucket": "events", "object": {"key": "a/b.json.gz", "eTag": "e"}}


def message(body, attempts=1):
    return SimpleNamespace(id="m1", body=body, attempts=attempts)


def test_a_notification_is_a_row_with_its_object():
    """Queue, bucket and key are columns, so that error analysis is a query."""
    told = {"failure": {"queue": "ingest", "attempts": 9, "error": "no"}}
    row = failures.failure("ingest-dlq", message(NOTIFICATION | told, 3))
    assert (row["queue"], row["message_id"], row["attempts"]) == ("ingest", "m1", 9)
    assert (row["bucket"], row["object"], row["error"]) == ("events", "a/b.json.gz", "no")


def test_a_message_that_the_platform_moved_itself():
    """A message that the platform dead-lettered has a default error and no attempts."""
    row = failures.failure("ingest-dlq", message(NOTIFICATION, 3))
    assert (row["queue"], row["attempts"]) == ("ingest-dlq", 0)
    assert row["error"] == "retries exhausted"


@pytest.mark.parametrize(
    "body",
    [
        *("text", None, 5, [1], {}, {"object": "key"}, memoryview(b"x")),
        {"failure": 1},
        {"failure": {"attempts": -1, "error": None}},
    ],
)
def test_any_other_message_is_a_row_too(body):
    """A body that is no notification is recorded without an object, never refused."""
    row = failures.failure("ingest-dlq", message(body))
    assert row["object"] == ""
    assert row["error"]
    assert 0 <= row["attempts"] < 2**16


def skeleton(sql):
    """The statement without its literals."""
    return re.sub(r"'(?:[^'\\]|\\.)*'", "?", sql, flags=re.DOTALL)


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_ends_its_literal(text):
    """Quotes, backslashes, lone surrogates and NULs stay inside the literal, which encodes."""
    plain = failures.failure("q", message(NOTIFICATION))
    row = failures.failure("q", message({"bucket": text, "object": {"key": text}}))
    sql = failures.statement(row, 2)
    sql.encode()
    assert skeleton(sql) == skeleton(failures.statement(plain, 2))


def test_an_outage_outlives_no_message():
    """The retries take longer than any retention, so an outage exhausts no dead letter."""
    assert (
        sum(failures.again_in(attempt, 60) for attempt in range(1, DELIVERIES)) > RETENTION_SECONDS
    )
    assert failures.KEEP_SECONDS * (DELIVERIES - 1) > RETENTION_SECONDS


@given(st.integers(1, 10_000))
def test_waiting_grows_within_the_platforms_delay(attempts):
    """The delay grows from a minute to a day, the platform's maximum."""
    assert 60 <= failures.again_in(attempts, 60) <= failures.again_in(attempts + 1, 60) <= 86_400
