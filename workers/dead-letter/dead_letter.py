"""The dead-letter Worker: a row of insert_failures for each message, and the message stays.

An acked message is gone, and a queue has one consumer; so a message is kept in ``ingest-dlq``
itself by asking for its redelivery as late as the platform allows (24 h).  ``edgesim queue redrive
ingest-dlq --to ingest`` takes it back to where it came from at any time before.

A redelivery writes no second row.  A deduplication token (the message's id) did that too, but a
redriven message keeps its id, so its second failure was never recorded; now the statement itself
looks whether there is a row.
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
