"""The receiver: POST / takes an array of plays and sends them to the stream.

The stream checks them: a play that does not fit its schema is accepted and dropped there.
"""

import json

from rpc import call

from workers import Response, WorkerEntrypoint

PLAYS_MAX = 500


class Default(WorkerEntrypoint):
    """Answers 202 once the plays are durable."""

    async def fetch(self, request):
        if request.method != "POST":
            return Response("POST an array of plays", status=405, headers={"allow": "POST"})
        try:
            plays = json.loads(await request.text())
        except ValueError as error:
            return Response(f"not JSON: {error}", status=400)
        if not isinstance(plays, list) or not all(isinstance(play, dict) for play in plays):
            return Response("not an array of objects", status=400)
        if len(plays) > PLAYS_MAX:
            return Response(f"more than {PLAYS_MAX} plays", status=413)
        await call(self.env.PLAYS, "send", plays)
        return Response("accepted", status=202)
