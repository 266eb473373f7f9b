"""Event loop of one invocation: asyncio's, with the platform's clock and without threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from edgesim.isolates.guest.serve import CpuLimitExceeded


class IsolateLoop(asyncio.BaseEventLoop):
    """Base of the event loops of the levels ``process`` and ``warm``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steady = 0.0
        self.lost_error: BaseException | None = None
        self._clock_resolution = 1e-6
        self._exception_handler = drop_unawaited

    def time(self) -> float:
        """Return the platform's steady clock (Unix seconds) as of its last message."""
        return self.steady

    def set_time(self, now: float, steady: float) -> None:
        """Set both clocks.  Neither steps back."""
        self.now = max(self.now, now)
        self.steady = max(self.steady, steady)

    def call_at(  # type: ignore[override]  # the types of the arguments are not checked here
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Like asyncio's; ValueError for NaN, which would break the order of the other timers."""
        if math.isnan(when):
            raise ValueError("Invalid delay: NaN (not a number)")
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # a plain future, as Pyodide's loop returns
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call the function here and now, as Pyodide's loop does: there are no threads."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 (the future has it)
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        raise RuntimeError("threads cannot wake an isolate's event loop")


def drop_unawaited(loop: Any, context: dict[str, Any]) -> None:
    """Drop the exception of a task that is never awaited, as workerd does.

    Exception: CPU time or memory may be exhausted while the loop is between two steps of a task.
    asyncio would drop that error together with the task, so it is kept in ``loop.lost_error``.
    """
    error = context.get("exception")
    if "handle" in context and isinstance(error, CpuLimitExceeded | MemoryError):
        loop.lost_error = error


def sleep_seconds(seconds: float) -> float:
    """Return the valid argument of ``time.sleep``; else ValueError or OverflowError, as there."""
    if not seconds >= 0:
        raise ValueError("sleep length must be non-negative")
    if math.isinf(seconds):
        raise OverflowError("timestamp out of range for platform time_t")
    return float(seconds)
