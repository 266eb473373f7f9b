"""The insert Worker: each notified object is one bulk insert, streamed from R2 to ClickHouse.

The gzip bytes go through as they are and never enter this Worker.  The insert's deduplication
token is the object's own identity, so a repeated delivery, a requeue, or a crash between insert
and ack changes nothing.
"""

import json
import random

from tables import TABLES, backoff, failure_url, insert_url

from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Consumes R2 event notifications of the buckets in TABLES."""

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            try:
                await self._insert(batch.queue, message)
            except Exception as error:
                delay = backoff(
                    message.attempts,
                    float(self.env.BACKOFF_BASE_SECONDS),
                    float(self.env.BACKOFF_CAP_SECONDS),
                    random.random(),
                )
                print(f"insert failed, attempt {message.attempts}, again in {delay} s: {error}")
                message.retry(delaySeconds=delay)
            else:
                message.ack()

    async def _insert(self, queue, message):
        bucket = message.body["bucket"]
        key = message.body["object"]["key"]
        if bucket not in TABLES:
            raise ValueError(f"no table for objects of bucket {bucket!r}")
        binding, statement = TABLES[bucket]
        found = await getattr(self.env, binding).get(key)
        if found is None:
            await self._record_gone(queue, message, bucket, key)
            return
        answer = await self.env.CLICKHOUSE.fetch(
            insert_url(statement, f"{bucket}/{key}@{found.etag}"),
            method="POST",
            headers={"content-encoding": "gzip"} if key.endswith(".gz") else {},
            body=found.body,
        )
        await _check(answer, f"{bucket}/{key}")

    async def _record_gone(self, queue, message, bucket, key):
        """An object that is no more cannot be inserted however often it is tried."""
        row = {
            "queue": queue,
            "message_id": message.id,
            "bucket": bucket,
            "object": key,
            "attempts": message.attempts,
            "error": "the object is gone",
        }
        answer = await self.env.CLICKHOUSE.fetch(failure_url(), method="POST", body=json.dumps(row))
        await _check(answer, "insert_failures")


async def _check(answer, what):
    if not answer.ok:
        text = (await answer.text()).strip()
        raise RuntimeError(f"{what}: ClickHouse answered {answer.status}: {text[:500]}")
