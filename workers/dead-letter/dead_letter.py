"""The dead-letter Worker: a row of insert_failures for each message, and the message stays.

An acked message is gone, and a queue has one consumer; so a message is kept in ``ingest-dlq``
itself by asking for its redelivery as late as the platform allows (24 h).  Each redelivery repeats
the same insert, which ClickHouse drops by its token.  ``edgesim queue redrive ingest-dlq --to
ingest`` takes it back to where it came from at any time before.
"""

import json
from urllib.parse import urlencode

from workers import WorkerEntrypoint

KEEP_SECONDS = 86_400
RETRY_SECONDS = 60


class Default(WorkerEntrypoint):
    """Consumes the dead-letter queue."""

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            try:
                await self._record(batch.queue, message)
            except Exception as error:
                print(f"failure not recorded, again in {RETRY_SECONDS} s: {error}")
                message.retry(delaySeconds=RETRY_SECONDS)
            else:
                message.retry(delaySeconds=KEEP_SECONDS)

    async def _record(self, queue, message):
        parameters = {
            "query": "INSERT INTO insert_failures FORMAT JSONEachRow",
            "insert_deduplication_token": f"{queue}/{message.id}",
        }
        answer = await self.env.CLICKHOUSE.fetch(
            "http://clickhouse/?" + urlencode(parameters),
            method="POST",
            body=json.dumps(failure(queue, message)),
        )
        if not answer.ok:
            text = (await answer.text()).strip()
            raise RuntimeError(f"ClickHouse answered {answer.status}: {text[:500]}")


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
