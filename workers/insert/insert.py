"""The insert Worker: each notified object is one bulk insert, streamed from R2 to ClickHouse.

The gzip bytes pass unchanged from R2 to ClickHouse, without a copy in this Worker.  An insert is
idempotent per object (see tables.py, and ledger.py for old servers), so a redelivery, a requeue, or
a crash between insert and ack changes nothing.
"""

import json
import random

import damaged
import ledger
import tables
from database import Database, DatabaseError, UnreachableError
from retries import backoff, dead_letter, failure

from workers import WorkerEntrypoint

WAYS = {"token": tables.insert, "ledger": ledger.insert}


class HopelessError(Exception):
    """A failure that no retry can change."""


class Default(WorkerEntrypoint):
    """Consumes R2 event notifications of the buckets in TABLES."""

    async def queue(self, batch, env=None, ctx=None):
        self.database = Database(self.env.CLICKHOUSE, float(self.env.INSERT_TIMEOUT_SECONDS))
        unreachable = None
        for message in batch.messages:
            try:
                if unreachable:  # do not wait for a timeout per message
                    raise unreachable
                await self._insert(batch.queue, message)
            except Exception as error:
                if isinstance(error, UnreachableError):
                    unreachable = error
                await self._failed(batch.queue, message, error)
            else:
                message.ack()

    async def _insert(self, queue, message):
        bucket, key = _object_of(message.body)
        objects = getattr(self.env, tables.TABLES[bucket].binding)
        found = await objects.get(key)
        if found is None or found.size == 0:
            # No retry would help: there is nothing to insert.
            why = "the object is gone" if found is None else "the object is empty"
            row = json.dumps(failure(queue, message, bucket, key, why))
            await self.database.run("INSERT INTO insert_failures FORMAT JSONEachRow", row)
            return
        unread = [found.body]

        async def opened(*, whole=False):
            """The content of this version of the object: a stream, or bytes if ``whole``."""
            if unread and not whole:
                return unread.pop()
            again = await objects.get(key, onlyIf={"etagMatches": found.etag})
            return bytes(await again.arrayBuffer()) if whole else again.body

        source = f"{bucket}/{key}@{found.etag}"
        insert = WAYS[self.env.DEDUPLICATION]
        try:
            await insert(self.database, bucket, source, opened, packed=key.endswith(".gz"))
        except DatabaseError as error:
            if not error.not_unpacked:
                raise
            content = await opened(whole=True)
            await damaged.insert(insert, self.database, bucket, source, content, error)

    async def _failed(self, queue, message, error):
        """Retry the message later, or send it to the dead-letter queue with the error."""
        hopeless = isinstance(error, HopelessError)
        if not hopeless and message.attempts < int(self.env.ATTEMPTS_MAX):
            print(f"insert failed, attempt {message.attempts}: {error}")
            self._retry(message)
            return
        print(f"insert given up after attempt {message.attempts}: {error}")
        try:
            await self.env.DEAD_LETTERS.send(dead_letter(queue, message, str(error)))
        except Exception as second:
            # After its last retry the platform moves it there itself, but without the error.
            print(f"dead letter not sent: {second}")
            self._retry(message)
        else:
            message.ack()

    def _retry(self, message):
        base, cap = self.env.BACKOFF_BASE_SECONDS, self.env.BACKOFF_CAP_SECONDS
        delay = backoff(message.attempts, float(base), float(cap), random.random())
        message.retry(delaySeconds=delay)


def _object_of(body):
    """Bucket and key of a notification; HopelessError for another body or an unknown bucket."""
    try:
        bucket, key = body["bucket"], body["object"]["key"]
    except (KeyError, TypeError) as error:
        raise HopelessError(f"not a notification: {body!r:.200}") from error
    if bucket not in tables.TABLES:
        raise HopelessError(f"no table for objects of bucket {bucket!r}")
    return bucket, key
