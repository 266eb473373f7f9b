"""The receiver: validates events, logs them as ``PIPE_ME <json>`` and responds.

The hot path makes no outgoing request.  An invalid payload is logged as ``PIPE_ERR <json>``
with the raw body and its client.  Events that exceed the trace's log budget are sent to the
large-payload Worker after the response.
"""

import json
import time

from cors import answer_headers, depends_on_origin, preflight_headers
from event import TOO_LARGE, InvalidError, excerpt, read_events, to_line, unpack

from workers import Response, WorkerEntrypoint

RAW_CHARS_MAX = 8192
CLIENT_CHARS_MAX = 512
LINE_OVERHEAD_BYTES = 96
"""Trace bytes of a log line beyond its JSON: the log record and the PIPE_ME mark."""
HEAD_BYTES_MAX = (16 + 128) * 1024
"""Platform limits of a URL (16 KiB) and of a request's headers (128 KiB), together."""


class Default(WorkerEntrypoint):
    """POST / ingests, GET /health reports liveness, OPTIONS is CORS preflight; else 404 or 405."""

    async def fetch(self, request):
        origins = self.env.ALLOWED_ORIGINS
        origin = _header(request, "origin") if depends_on_origin(origins) else ""
        headers = answer_headers(origins, origin)
        method, path = request.method, _path(request.url)
        if method == "POST" and path == "/":
            return await self._receive(request, headers)
        if path not in ("/", "/health"):
            return _refuse(404, "not_found", "events go to POST /", headers)
        if method == "OPTIONS":
            return Response(None, status=204, headers=preflight_headers(headers))
        if path == "/":
            allow = headers | {"allow": "OPTIONS, POST"}
            return _refuse(405, "method_not_allowed", "events go to POST /", allow)
        if method in ("GET", "HEAD"):
            return Response("OK", headers=headers)
        allow = headers | {"allow": "GET, HEAD, OPTIONS"}
        return _refuse(405, "method_not_allowed", "ask GET /health", allow)

    async def _receive(self, request, headers):
        limit = int(self.env.BODY_BYTES_MAX)
        body = b""
        try:
            _check_length(request, limit)
            body = await request.bytes()
            _check_size(len(body), limit)
            body = unpack(body, limit)
            events = read_events(body, int(time.time() * 1000))
            lines = [to_line(event) for event in events]
            fits = _fits_the_log(request, lines, int(self.env.LOG_BYTES_MAX))
            if not fits:
                # An event's encoded form may be longer than the received one (1e15), and must not
                # exceed the limit of a Pipeline.
                _check_size(max(map(len, lines)), limit)
        except InvalidError as invalid:
            _report(request, body, invalid.error, invalid.detail)
            status = 413 if invalid.error == TOO_LARGE else 400
            return _refuse(status, invalid.error, invalid.detail, headers)
        if fits:
            for line in lines:
                print("PIPE_ME", line)
        else:
            self.ctx.waitUntil(self._hand_over("[" + ",".join(lines) + "]"))
        return Response("OK", headers=headers)

    async def _hand_over(self, body):
        answer = await self.env.LARGE_PAYLOAD.fetch(
            "http://large-payload/",
            method="POST",
            headers={"content-type": "application/json"},
            body=body,
        )
        if not answer.ok:
            raise RuntimeError(f"large-payload answered {answer.status}: {await answer.text()}")


def _path(url):
    parts = url.split("?", 1)[0].split("/", 3)
    return "/" + (parts[3] if len(parts) > 3 else "")


def _header(request, name):
    """One header, "" if it is missing.

    On the platform ``request.headers`` copies all headers, which costs more than the rest of a
    request; the underlying JavaScript object returns a single one.
    """
    return getattr(request, "js_object", request).headers.get(name) or ""


def _check_length(request, limit):
    """Refuse a body by its content-length, before it is read into memory."""
    length = _header(request, "content-length")
    if length.isdecimal() and len(length) < 20:
        _check_size(int(length), limit)


def _check_size(size, limit):
    if size > limit:
        raise InvalidError(TOO_LARGE, f"{size} bytes; at most {limit}")


def _fits_the_log(request, lines, budget):
    """True if the lines, the request's URL and its headers fit the budget (bytes)."""
    size = sum(map(_log_bytes, lines))
    if size > budget - HEAD_BYTES_MAX:  # smaller lines fit with any headers
        size += len(request.url)
        size += sum(len(name) + len(value) for name, value in request.headers.items())
    return size <= budget


def _log_bytes(line):
    """Trace bytes of a line: it is stored as JSON, so quotes and backslashes count twice."""
    return LINE_OVERHEAD_BYTES + len(line) + line.count('"') + line.count("\\")


def _refuse(status, error, detail, headers):
    return Response.json({"error": error, "detail": detail}, status=status, headers=headers)


def _report(request, body, reason, detail):
    """Log one PIPE_ERR line, which the Tail Worker sends to the errors Pipeline."""
    record = {
        "received_at": int(time.time() * 1000),
        "worker": "receiver",
        "reason": reason,
        "detail": detail,
        "raw": excerpt(body, RAW_CHARS_MAX).decode("utf-8", "replace"),
        "ip": _header(request, "cf-connecting-ip")[:CLIENT_CHARS_MAX],
        "user_agent": _header(request, "user-agent")[:CLIENT_CHARS_MAX],
        "country": _header(request, "cf-ipcountry")[:CLIENT_CHARS_MAX],
    }
    print("PIPE_ERR", json.dumps(record, separators=(",", ":")))
