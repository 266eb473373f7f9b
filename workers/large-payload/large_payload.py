"""The large-payload Worker: sends validated events that are too large for the receiver's log."""

import json

from rpc import call

from workers import Response, WorkerEntrypoint

SEND_BYTES_MAX = 4_000_000


class Default(WorkerEntrypoint):
    """POST takes a JSON array of event objects; 200 once the Pipeline has accepted them."""

    async def fetch(self, request):
        if request.method != "POST":
            return Response("events come by POST\n", status=405, headers={"allow": "POST"})
        try:
            events = json.loads(await request.text())
        except ValueError as error:
            return Response(f"not JSON: {error}\n", status=400)
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            return Response("not a JSON array of objects\n", status=400)
        for chunk in split(events):
            await call(self.env.PIPELINE, "send", chunk)
        return Response("OK")


def split(events, limit=SEND_BYTES_MAX):
    """Split events into lists of at most ``limit`` bytes of JSON; a larger event gets its own."""
    chunks, size = [], limit + 1
    for event in events:
        event_size = len(json.dumps(event, separators=(",", ":")))
        if size + event_size > limit:
            chunks.append([])
            size = 0
        chunks[-1].append(event)
        size += event_size
    return chunks
