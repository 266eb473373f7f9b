"""The receiver: validates, logs ``PIPE_ME <json>``, answers.  No outgoing request on the hot path.

What is wrong is logged as ``PIPE_ERR <json>`` with the raw payload and who sent it.  What would
not fit the trace's log budget goes to the large-payload Worker behind the response.
"""

import json
import time

from event import InvalidError, read_events, to_line

from workers import Response, WorkerEntrypoint

RAW_CHARS_MAX = 8192
LINE_OVERHEAD_BYTES = 16
HEAD_BYTES_MAX = (16 + 128) * 1024
"""What the platform allows a URL and a request's headers."""


class Default(WorkerEntrypoint):
    """POST / takes events, GET /health answers, nothing else does."""

    async def fetch(self, request):
        path = request.url.split("?", 1)[0].split("/", 3)
        path = "/" + (path[3] if len(path) > 3 else "")
        if path == "/health":
            if request.method in ("GET", "HEAD"):
                return Response("OK")
            return _refuse(405, "method_not_allowed", "ask GET /health", {"allow": "GET"})
        if path != "/":
            return _refuse(404, "not_found", "events go to POST /")
        if request.method != "POST":
            return _refuse(405, "method_not_allowed", "events go to POST /", {"allow": "POST"})
        return await self._receive(request)

    async def _receive(self, request):
        limit = int(self.env.BODY_BYTES_MAX)
        body = await request.bytes()
        if len(body) > limit:
            detail = f"{len(body)} bytes; at most {limit}"
            _report(request, body, "payload_too_large", detail)
            return _refuse(413, "payload_too_large", detail)
        try:
            events = read_events(body, int(time.time() * 1000))
        except InvalidError as invalid:
            _report(request, body, invalid.error, invalid.detail)
            return _refuse(400, invalid.error, invalid.detail)
        lines = [to_line(event) for event in events]
        if _fits_the_log(request, lines, int(self.env.LOG_BYTES_MAX)):
            for line in lines:
                print("PIPE_ME", line)
        else:
            self.ctx.waitUntil(self._hand_over("[" + ",".join(lines) + "]"))
        return Response("OK")

    async def _hand_over(self, body):
        answer = await self.env.LARGE_PAYLOAD.fetch(
            "http://large-payload/",
            method="POST",
            headers={"content-type": "application/json"},
            body=body,
        )
        if not answer.ok:
            raise RuntimeError(f"large-payload answered {answer.status}: {await answer.text()}")


def _fits_the_log(request, lines, budget):
    """Whether the trace has room for the lines beside the request's URL and headers."""
    size = sum(map(_log_bytes, lines))
    # On the platform reading the headers costs more than all the rest, so only where it matters.
    if size > budget - HEAD_BYTES_MAX:
        size += len(request.url)
        size += sum(len(name) + len(value) for name, value in request.headers.items())
    return size <= budget


def _log_bytes(line):
    """What a line takes of the trace: kept as JSON, its quotes and backslashes count twice."""
    return LINE_OVERHEAD_BYTES + len(line) + line.count('"') + line.count("\\")


def _refuse(status, error, detail, headers=None):
    return Response.json({"error": error, "detail": detail}, status=status, headers=headers)


def _report(request, body, reason, detail):
    """One PIPE_ERR line: the mirrored chain takes it from here."""
    record = {
        "received_at": int(time.time() * 1000),
        "worker": "receiver",
        "reason": reason,
        "detail": detail,
        "raw": body[:RAW_CHARS_MAX].decode("utf-8", "replace"),
        "ip": request.headers.get("CF-Connecting-IP") or "",
        "user_agent": (request.headers.get("User-Agent") or "")[:512],
        "country": request.headers.get("CF-IPCountry") or "",
    }
    print("PIPE_ERR", json.dumps(record, separators=(",", ":")))
