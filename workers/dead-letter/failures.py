"""Rows of insert_failures, how they are written, and how long a dead letter waits."""

from urllib.parse import urlencode

KEEP_SECONDS = 86_400
RETRY_SECONDS = 60

_INSERT = """
INSERT INTO insert_failures (queue, message_id, bucket, object, attempts, error)
SELECT queue, message_id, bucket, object, attempts, error
FROM input('queue String, message_id String, bucket String, object String, attempts UInt16,
            error String')
WHERE attempts = 1 OR message_id NOT IN (SELECT message_id FROM insert_failures)
FORMAT JSONEachRow
"""


def insert_url():
    """Where to POST rows: a first delivery is always written, a later one if it has no row yet."""
    return "http://clickhouse/?" + urlencode({"query": " ".join(_INSERT.split())})


def failure(queue, message):
    """The row of a message; one that is no notification is recorded by its body."""
    body = message.body if isinstance(message.body, dict) else {}
    found = body.get("object")
    return {
        "queue": queue,
        "message_id": message.id,
        "bucket": str(body.get("bucket", "")),
        "object": str(found.get("key", "")) if isinstance(found, dict) else "",
        "attempts": message.attempts,
        "error": "retries exhausted" if body else f"not a notification: {message.body!r:.500}",
    }


def again_in(attempts):
    """Seconds until the next try to record a failure: doubling from a minute to a day.

    A message has 101 deliveries and is deleted after the last.  A minute apart they would be used
    up by two hours without a database; so they outlast the longest retention there is (14 days).
    """
    return min(RETRY_SECONDS * 2 ** min(attempts - 1, 16), KEEP_SECONDS)
