"""The dead-letter Worker: writes a row of insert_failures per message, and keeps the message.

An acked message is deleted, and a queue has one consumer; so each message is kept in ``ingest-dlq``
by a retry with the longest delay that the platform allows (24 h).  ``edgesim queue redrive
ingest-dlq --to ingest`` moves it back to its queue at any time before that.

A redelivery writes no second row: the statement itself checks for an existing row.  Deduplication
by token (the message's id) was dropped: a redriven message keeps its id, so its second failure was
never recorded.
"""

import asyncio

from failures import KEEP_SECONDS, again_in, failure, statement

from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    """Consumes the dead-letter queue."""

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            try:
                await self._record(batch.queue, message)
            except Exception as error:
                delay = again_in(message.attempts, float(self.env.RETRY_BASE_SECONDS))
                print(f"failure not recorded, again in {delay} s: {error!r}")
                message.retry(delaySeconds=delay)
            else:
                message.retry(delaySeconds=KEEP_SECONDS)

    async def _record(self, queue, message):
        sql = statement(failure(queue, message), message.attempts)
        async with asyncio.timeout(float(self.env.INSERT_TIMEOUT_SECONDS)):
            answer = await self.env.CLICKHOUSE.fetch("http://clickhouse/", method="POST", body=sql)
            text = (await answer.text()).strip()
        if not answer.ok:
            raise RuntimeError(f"ClickHouse answered {answer.status}: {text[:500]}")
