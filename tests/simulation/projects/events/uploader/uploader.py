"""Store an object in parts, as a careful client does: retry a failed call, then abort."""

from rpc import call

from workers import Response, WorkerEntrypoint

TRIES = 3


class Default(WorkerEntrypoint):
    """``{"key": name, "parts": [sizes]}``; 200 once the object is stored and recorded."""

    async def fetch(self, request):
        wanted = await request.json()
        key, sizes = wanted["key"], wanted["parts"]
        if not await self._store(key, sizes):
            return Response("not stored", status=503)
        await call(self.env.STORED, "send", [{"key": key, "size": sum(sizes)}])
        return Response("OK")

    async def _store(self, key, sizes):
        bucket = self.env.ARCHIVE
        upload = await _insist(bucket.createMultipartUpload, key)
        if upload is None:
            return False
        parts = []
        for number, size in enumerate(sizes, 1):
            part = await _insist(upload.uploadPart, number, b"x" * size)
            if part is None:
                await _insist(upload.abort)
                return False
            parts.append(part)
        if await _insist(upload.complete, parts) is not None:
            return True
        # A reply may be lost, and a completed upload cannot be completed again.
        return await _insist(bucket.head, key) is not None

    async def queue(self, batch, env=None, ctx=None):
        """Acknowledge objects of even size; the others end in the dead-letter queue."""
        for message in batch.messages:
            if message.body["object"]["size"] % 2:
                message.retry()
            else:
                message.ack()


async def _insist(act, *arguments):
    """Return the call's result, or None if it fails ``TRIES`` times."""
    for _ in range(TRIES):
        try:
            return await act(*arguments)
        except Exception as error:
            print(f"failed: {error}")
    return None
