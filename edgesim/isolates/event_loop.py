"""The event loop of one invocation: asyncio's, by the platform's clock, without threads."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from edgesim.isolates.inside import CpuLimitExceeded


class IsolateLoop(asyncio.BaseEventLoop):
    """What the levels ``process`` and ``warm`` have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steady = 0.0
        self.unheard: BaseException | None = None
        self._clock_resolution = 1e-6
        self._exception_handler = unheard

    def time(self) -> float:
        """The platform's steady clock (Unix seconds) as of its last word."""
        return self.steady

    def tell_time(self, now: float, steady: float) -> None:
        """Set both clocks.  Neither steps back."""
        self.now = max(self.now, now)
        self.steady = max(self.steady, steady)

    def call_at(  # type: ignore[override]  # the types of the arguments are not looked at here
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; NaN would never come, and spoil the order of the others."""
        if math.isnan(when):
            raise ValueError("Invalid delay: NaN (not a number)")
        return super().call_at(when, callback, *args, context=context)

    def _write_to_self(self) -> None:
        raise RuntimeError("threads cannot wake an isolate's event loop")


def unheard(loop: Any, context: dict[str, Any]) -> None:
    """Drop the exception of a task that is never awaited, as workerd does.

    But the end of CPU time or of memory may find the loop between two steps of a task: asyncio
    drops it then, and the task with it.
    """
    error = context.get("exception")
    if "handle" in context and isinstance(error, CpuLimitExceeded | MemoryError):
        loop.unheard = error


def sleep_seconds(seconds: float) -> float:
    """The argument of ``time.sleep``; ValueError or OverflowError as there."""
    if not seconds >= 0:
        raise ValueError("sleep length must be non-negative")
    if math.isinf(seconds):
        raise OverflowError("timestamp out of range for platform time_t")
    return float(seconds)
