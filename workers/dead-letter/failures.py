"""Rows of insert_failures, their INSERT statement, and the delays of dead letters."""

KEEP_SECONDS = 86_400
"""The longest delay that the platform allows, in seconds."""
COLUMNS = ("queue", "message_id", "bucket", "object", "attempts", "error")


def statement(row, delivery):
    """The INSERT of a row; from the second delivery on, only if the message has no row yet.

    The values are literals: no other form of a conditional insert works on all server versions.
    """
    values = ", ".join(_literal(row[column]) for column in COLUMNS)
    sql = f"INSERT INTO insert_failures ({', '.join(COLUMNS)}) SELECT {values}"
    if delivery == 1:
        return sql
    known = "SELECT message_id FROM insert_failures"
    return f"{sql} WHERE {_literal(row['message_id'])} NOT IN ({known})"


def failure(queue, message):
    """The row of a message: the insert Worker's failure record, else defaults from the message.

    ``attempts`` is 0 if the platform moved the message itself: it restarts the count.
    """
    body = message.body if isinstance(message.body, dict) else {}
    found = body.get("object")
    told = body.get("failure")
    if not isinstance(told, dict):
        told = {}
    error = "retries exhausted" if body else f"not a notification: {message.body!r:.500}"
    attempts = told.get("attempts")
    return {
        "queue": str(told.get("queue", queue)),
        "message_id": message.id,
        "bucket": str(body.get("bucket", "")),
        "object": str(found.get("key", "")) if isinstance(found, dict) else "",
        "attempts": attempts if isinstance(attempts, int) and 0 <= attempts < 2**16 else 0,
        "error": str(told.get("error", error)),
    }


def again_in(attempts, base):
    """Backoff in seconds after a failure was not recorded: doubles from ``base`` up to a day.

    A message has 101 deliveries and is deleted after the last.  At one per minute, a two-hour
    outage of the database would use them up; doubling from a minute they last longer than the
    maximum retention (14 days).
    """
    return min(base * 2 ** min(attempts - 1, 32), KEEP_SECONDS)


def _literal(value):
    if isinstance(value, int):
        return str(value)
    # A lone surrogate has no UTF-8 encoding, and a NUL ends a literal on some servers.
    text = value.encode("utf-8", "replace").decode().replace("\0", "")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
