"""Send the records of a request to both streams."""

from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """A JSON array of records; always 200, since a client cannot repeat half of a request."""

    async def fetch(self, request):
        records = await request.json()
        for stream in (self.env.TYPED, self.env.RAW):
            try:
                await stream.send(records)
            except Exception as error:
                print(f"not sent: {error}")
        return Response("OK")
