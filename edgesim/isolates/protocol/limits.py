"""The limits of one invocation: the numbers, and the words in which the platform tells of them.

Facts: Cloudflare's pages on Workers limits and errors; the texts are its own where one is known.
"""

from __future__ import annotations

from typing import Any

import msgspec

KERNEL_GUARDS = ("Landlock", "seccomp")
"""Kernel features that guard an isolate; an audit hook replaces those that the kernel lacks."""
DEPTH_MARGIN = 64
LOG_BYTES_MAX = 256 * 1024
"""The budget of a trace; what is beyond it need not leave the isolate."""
_LOG_ENTRY_BYTES = 80
"""Bytes that each log entry counts in addition to its text, as in a trace."""
WAIT_UNTIL_SECONDS = 30.0
EVENT_SECONDS = 15 * 60.0
"""Wall time of a queue, tail, scheduled or RPC invocation."""
CANCEL_SECONDS = 1.0
"""Seconds that cancelled work may take to end."""

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
    """Least bytes that a console call uses of a trace's budget; ValueError if not JSON."""
    size = _LOG_ENTRY_BYTES
    for part in message:
        size += len(part) if isinstance(part, str) else json_bytes(part)
    return size


def json_bytes(value: Any) -> int:
    """The size of a value as JSON; ValueError where it has no such form or is nested too deeply."""
    try:
        return len(msgspec.json.encode(buried(value))) - 2 * DEPTH_MARGIN
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error


def buried(value: Any) -> Any:
    """The value within as many lists as what carries it on may put around it.

    What can be encoded so can be encoded everywhere else too, however deep in the stack.
    """
    for _ in range(DEPTH_MARGIN):
        value = [value]
    return value
