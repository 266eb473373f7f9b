"""Send the records of a request to the stream."""

from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """A JSON array of records; 503 if they were not accepted."""

    async def fetch(self, request):
        try:
            await self.env.PLAYS.send(await request.json())
        except Exception as error:
            print(f"not sent: {error}")
            return Response("not sent", status=503)
        return Response("OK")
