"""The insert Worker: each file of a sink is one INSERT ... FORMAT Parquet into the sink's table.

The deduplication token is the object's key: a redelivered notification inserts nothing again.
"""

from urllib.parse import urlencode

from workers import WorkerEntrypoint

TABLES = ("good", "suspicious")


class Default(WorkerEntrypoint):
    """Consumes the notifications of the bucket `plays`."""

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            try:
                await self._insert(message.body["object"]["key"])
            except Exception as error:  # noqa: BLE001 (a retry is right for every failure)
                print(f"insert failed, attempt {message.attempts}: {error}")
                message.retry(delaySeconds=min(10 * message.attempts, 300))
            else:
                message.ack()

    async def _insert(self, key):
        table = key.partition("/")[0]
        found = await self.env.PLAYS.get(key) if table in TABLES else None
        if found is None:
            print(f"nothing to insert: {key}")
            return
        query = {
            "query": f"INSERT INTO {table} FORMAT Parquet",
            "insert_deduplication_token": key,
        }
        url = "http://clickhouse/?" + urlencode(query)
        answer = await self.env.CLICKHOUSE.fetch(url, method="POST", body=found.body)
        if not answer.ok:
            raise RuntimeError(await answer.text())
