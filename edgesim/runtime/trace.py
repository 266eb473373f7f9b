"""Trace of one invocation, in the form that a Tail Worker receives.

Facts: workerd's tracer.c++ and trace.c++.  One budget of 256 KB is shared by the request's URL,
headers and cf, the logs and the exceptions.  An entry that does not fit is dropped whole and
replaced by one warning, and the trace is marked truncated; logs and exceptions overflow separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgesim.isolates.protocol.wire import Done, Failure
from edgesim.model import HttpRequest, TraceException, TraceItem, TraceLog
from edgesim.runtime.redaction import redact_headers, redact_url

BUDGET_BYTES = 256 * 1024
LOG_BYTES = 80
"""Budget of a log beside its message as JSON (the size of workerd's record on 64-bit machines)."""
EXCEPTION_BYTES = 88
"""Budget of an exception beside its name, message and stack (workerd's record)."""
_LOGS_OVERFLOW = "Log size limit exceeded: More than 256KB of data (across console.log statements, exception, request metadata and headers) was logged during a single request. Subsequent data for this request will not be recorded in logs, appear when tailing this Worker's logs, or in Tail Workers."  # noqa: E501 (the platform's text)
_EXCEPTIONS_OVERFLOW = "Trace resource limit exceeded; subsequent exceptions not recorded."
_EVENT_OVERFLOW = "Trace resource limit exceeded; could not capture event info."


class Trace:
    """Record of a running invocation; times are Unix milliseconds."""

    def __init__(
        self,
        script_name: str,
        event: dict[str, Any],
        started_ms: float,
        *,
        entrypoint: str | None = None,
        version: str | None = None,
    ) -> None:
        self.event = event
        self.started_ms = started_ms
        self.logs: list[TraceLog] = []
        self.exceptions: list[TraceException] = []
        self.truncated = False
        self._script_name = script_name
        self._entrypoint = entrypoint
        self._version = version
        self._logs_full = False
        self._exceptions_full = False
        self._left = BUDGET_BYTES
        request = event.get("request")
        if request is not None and not self._take(_request_bytes(request)):
            self.event = {"request": {"method": request["method"], "url": "", "headers": {}}}
            self.logs.append(TraceLog(started_ms, "warn", [_EVENT_OVERFLOW]))

    def log(self, level: str, message: list[Any], now_ms: float) -> None:
        """Record a console call, if the budget allows."""
        if self._logs_full:
            return
        if not self._take(LOG_BYTES + len(msgspec.json.encode(message))):
            self._logs_full = True
            level, message = "warn", [_LOGS_OVERFLOW]
        self.logs.append(TraceLog(now_ms, level, message))

    def exception(self, failure: Failure, now_ms: float) -> None:
        """Record an uncaught exception, if the budget allows."""
        if self._exceptions_full:
            return
        texts = (failure.name, failure.message, failure.stack or "")
        if not self._take(EXCEPTION_BYTES + sum(len(text.encode()) for text in texts)):
            self._exceptions_full = True
            failure = Failure("Error", _EXCEPTIONS_OVERFLOW)
        self.exceptions.append(TraceException(now_ms, failure.name, failure.message, failure.stack))

    def finish(self, done: Done, now_ms: float, wall_ms: float) -> TraceItem:
        """Return the TraceItem of the finished invocation."""
        for failure in done.exceptions:
            self.exception(failure, now_ms)
        diagnostics = [
            {"timestamp": seconds * 1000, "channel": channel, "message": message}
            for channel, message, seconds in done.diagnostics
            if self._take(LOG_BYTES + len(channel.encode()) + len(msgspec.json.encode(message)))
        ]
        return TraceItem(
            script_name=self._script_name,
            event=self.event,
            event_timestamp=self.started_ms,
            outcome=done.outcome,
            cpu_time=round(done.cpu_ms, 3),
            wall_time=round(wall_ms, 3),
            logs=self.logs,
            exceptions=self.exceptions,
            diagnostics_channel_events=diagnostics,
            truncated=self.truncated,
            entrypoint=self._entrypoint,
            script_version=None if self._version is None else {"id": self._version},
        )

    def _take(self, size: int) -> bool:
        """Deduct ``size`` bytes from the budget; return False, deducting nothing, if too large."""
        if size > self._left:
            self.truncated = True
            return False
        self._left -= size
        return True


def fetch_event(request: HttpRequest) -> dict[str, Any]:
    """Return the unredacted ``event`` of a fetch trace; ``response`` is added later."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return {
        "request": {
            "url": request.url,
            "method": request.method,
            "headers": headers,
            "cf": request.cf,
        }
    }


def delivered(items: Sequence[TraceItem]) -> list[TraceItem]:
    """Return the traces for a tail handler: redacted, times in whole milliseconds.

    ``unredacted`` in a request is the value that its ``getUnredacted()`` returns.
    """
    return [
        msgspec.structs.replace(
            item,
            event=_shown(item.event),
            cpu_time=int(item.cpu_time),
            wall_time=int(item.wall_time),
        )
        for item in items
    ]


def _shown(event: dict[str, Any] | None) -> dict[str, Any] | None:
    if event is None or "request" not in event:
        return event
    request = event["request"]
    shown = request | {
        "url": redact_url(request["url"]),
        "headers": redact_headers(request["headers"]),
    }
    return event | {"request": shown | {"unredacted": request}}


def _request_bytes(request: dict[str, Any]) -> int:
    headers = request["headers"]
    texts = len(request["url"].encode()) + sum(map(len, headers)) + sum(map(len, headers.values()))
    return texts + (len(msgspec.json.encode(request["cf"])) if request["cf"] else 0)


def shown(item: TraceItem) -> TraceItem:
    """The trace as ``wrangler tail`` shows it: secrets in headers and URLs are redacted."""
    (safe,) = delivered([item])
    request = (safe.event or {}).get("request")
    if request is None:
        return safe
    request = {name: value for name, value in request.items() if name != "unredacted"}
    return msgspec.structs.replace(safe, event={**(safe.event or {}), "request": request})
