"""The trace of one invocation, as a Tail Worker will see it.

Facts: workerd's trace.c++.  One budget of 256 KB is shared by the request's URL and headers, the
logs and the exceptions; what overflows is dropped whole, with one warning, and the trace is marked
truncated.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgesim.isolates.wire import Done, Failure
from edgesim.model import HttpRequest, TraceException, TraceItem, TraceLog

BUDGET_BYTES = 256 * 1024
_SECRET_WORDS = ("auth", "jwt", "key", "secret", "token")
_ID_RUN = re.compile(r"[A-Za-z0-9+\-_]+")
_OVERFLOW = "Log size limit exceeded: More than 256KB of data (across console.log statements, exception, request metadata and headers) was logged during a single request. Subsequent data for this request will not be recorded in logs, appear when tailing this Worker's logs, or in Tail Workers."  # noqa: E501 (the platform's text)


class Trace:
    """What is written down while an invocation runs."""

    def __init__(self, script_name: str, event: dict[str, Any], started_ms: float) -> None:
        self.event = event
        self.started_ms = started_ms
        self.logs: list[TraceLog] = []
        self.exceptions: list[TraceException] = []
        self.truncated = False
        self._script_name = script_name
        self._left = BUDGET_BYTES - len(msgspec.json.encode(event))

    def log(self, level: str, message: list[Any], now_ms: float) -> None:
        """Record a console call, if the budget allows."""
        if self.truncated:
            return
        size = sum(
            len(part) if isinstance(part, str) else len(msgspec.json.encode(part))
            for part in message
        )
        if size > self._left:
            self.truncated = True
            self.logs.append(TraceLog(now_ms, "warn", [_OVERFLOW]))
            return
        self._left -= size
        self.logs.append(TraceLog(now_ms, level, message))

    def exception(self, failure: Failure, now_ms: float) -> None:
        """Record an uncaught exception, if the budget allows."""
        size = len(failure.name) + len(failure.message) + len(failure.stack or "")
        if size > self._left:
            self.truncated = True
            message = "Trace resource limit exceeded; subsequent exceptions not recorded."
            self.exceptions.append(TraceException(now_ms, "Error", message))
            return
        self._left -= size
        self.exceptions.append(TraceException(now_ms, failure.name, failure.message, failure.stack))

    def finish(self, done: Done, now_ms: float, wall_ms: float) -> TraceItem:
        """The TraceItem of the finished invocation."""
        for failure in done.exceptions:
            self.exception(failure, now_ms)
        return TraceItem(
            script_name=self._script_name,
            event=self.event,
            event_timestamp=self.started_ms,
            outcome=done.outcome,
            cpu_time=round(done.cpu_ms, 3),
            wall_time=round(wall_ms, 3),
            logs=self.logs,
            exceptions=self.exceptions,
            truncated=self.truncated,
        )


def fetch_event(request: HttpRequest) -> dict[str, Any]:
    """The ``event`` of a fetch trace; ``response`` is added when there is one."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        lower = name.lower()
        shown = "REDACTED" if _is_secret(lower) else value
        headers[lower] = f"{headers[lower]}, {shown}" if lower in headers else shown
    return {
        "request": {
            "url": redact_url(request.url),
            "method": request.method,
            "headers": headers,
            "cf": request.cf,
        }
    }


def redact_url(url: str) -> str:
    """The URL with what looks like an id or a card number replaced by ``REDACTED``."""
    return _ID_RUN.sub(lambda run: "REDACTED" if _looks_secret(run[0]) else run[0], url)


def _is_secret(lower: str) -> bool:
    return lower in {"cookie", "set-cookie"} or any(word in lower for word in _SECRET_WORDS)


def _looks_secret(run: str) -> bool:
    plain = run.translate(_SEPARATORS)
    if len(plain) >= 32 and all(char in "0123456789abcdefABCDEF" for char in plain):
        return True
    if plain.isdigit() and 13 <= len(plain) <= 19 and _luhn(plain):
        return True
    counts = (
        sum(char.isupper() for char in run),
        sum(char.islower() for char in run),
        sum(char.isdigit() for char in run),
    )
    return len(run) >= 21 and min(counts) >= 2


_SEPARATORS = str.maketrans("", "", "+-_")


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0
