"""Limits of one invocation, and the platform's error messages for them.

Facts: Cloudflare's pages on Workers limits and errors; the messages are the platform's if known.
"""

from __future__ import annotations

from typing import Any

import msgspec

KERNEL_GUARDS = ("Landlock", "seccomp")
"""Kernel features that guard an isolate; an audit hook replaces those that the kernel lacks."""
DEPTH_MARGIN = 64
"""Levels of nesting that a frame, a trace or a log line may add around a value."""
LOG_BYTES_MAX = 256 * 1024
"""Budget of a trace; log lines beyond it are not sent."""
_LOG_ENTRY_BYTES = 80
"""Bytes that each log entry counts in addition to its text, as in a trace."""
WAIT_UNTIL_SECONDS = 30.0
EVENT_SECONDS = 15 * 60.0
"""Maximum wall time of a queue, tail, scheduled or RPC invocation."""
CANCEL_SECONDS = 1.0
"""Maximum time that cancelled work may take to end."""

CPU_EXCEEDED = "Python Worker exceeded CPU time limit"
MEMORY_EXCEEDED = "Worker exceeded memory limit."
WALL_EXCEEDED = "Worker exceeded wall time limit."
LATE = (
    "waitUntil() tasks did not complete within the allowed time after invocation end and have been "
    "cancelled."
)
HUNG = (
    "The Workers runtime canceled this request because it detected that your Worker's code had "
    "hung and would never generate a response."
)


def log_bytes(message: list[Any]) -> int:
    """Return the minimum of a trace's budget that a console call uses; ValueError if not JSON."""
    size = _LOG_ENTRY_BYTES
    for part in message:
        size += len(part) if isinstance(part, str) else json_bytes(part)
    return size


def json_bytes(value: Any) -> int:
    """Return a value's size as JSON in bytes; ValueError if not JSON, or nested too deeply."""
    try:
        return len(msgspec.json.encode(with_depth_margin(value))) - 2 * DEPTH_MARGIN
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error


def with_depth_margin(value: Any) -> Any:
    """Return the value nested in DEPTH_MARGIN lists.

    If this can be encoded, the value can be encoded inside any message too, despite the encoder's
    depth limit.
    """
    for _ in range(DEPTH_MARGIN):
        value = [value]
    return value
