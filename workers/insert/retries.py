"""Backoff of retries, and the records of a failure."""


def backoff(attempts, base, cap, chance):
    """Seconds until the next delivery: exponential with full jitter, ``chance`` in [0, 1)."""
    return max(1, round(chance * min(cap, base * 2 ** (min(attempts, 32) - 1))))


def failure(queue, message, bucket, key, error):
    """A row of insert_failures; the error is cut to 2,000 characters."""
    return {
        "queue": queue,
        "message_id": message.id,
        "bucket": bucket,
        "object": key,
        "attempts": message.attempts,
        "error": error[:2000],
    }


def dead_letter(queue, message, error):
    """The message's body with a ``failure`` for the dead-letter Worker; unused after a redrive."""
    body = message.body if isinstance(message.body, dict) else {"body": message.body}
    return {
        **body,
        "failure": {"queue": queue, "attempts": message.attempts, "error": error[:2000]},
    }
