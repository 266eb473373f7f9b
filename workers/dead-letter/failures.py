"""Rows of insert_failures, how they are written, and how long a dead letter waits."""

KEEP_SECONDS = 86_400
"""The longest delay that the platform knows."""
COLUMNS = ("queue", "message_id", "bucket", "object", "attempts", "error")


def statement(row, delivery):
    """The INSERT of a row; from the second delivery on, only if the message has no row yet.

    The values are literals, because no other form of a conditional insert is known to all servers.
    """
    values = ", ".join(_literal(row[column]) for column in COLUMNS)
    sql = f"INSERT INTO insert_failures ({', '.join(COLUMNS)}) SELECT {values}"
    if delivery == 1:
        return sql
    known = "SELECT message_id FROM insert_failures"
    return f"{sql} WHERE {_literal(row['message_id'])} NOT IN ({known})"


def failure(queue, message):
    """The row of a message: what the insert Worker said of it, or what can be said without that.

    ``attempts`` 0: the platform moved the message here itself, which counts them from the start.
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
    """Seconds until the next try to record a failure: doubling from ``base`` to a day.

    A message has 101 deliveries and is deleted after the last.  A minute apart they would be used
    up by two hours without a database; doubling from a minute they outlast the longest retention
    there is (14 days).
    """
    return min(base * 2 ** min(attempts - 1, 32), KEEP_SECONDS)


def _literal(value):
    if isinstance(value, int):
        return str(value)
    # Half a character has no UTF-8, and a NUL ends a literal for some.
    text = value.encode("utf-8", "replace").decode().replace("\0", "")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
