"""Cron schedules of scheduled handlers.

The clock may be virtual: nothing here assumes that it runs at real speed.  A minute is never run
twice, and minutes missed while the machine slept are not run later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.config.cron import parse_cron

LOOK_SECONDS = 60.0
"""Interval in seconds between checks of the clock, to notice that it was set."""
LATE_MAX = timedelta(minutes=1)
"""A minute that was due longer ago is skipped as missed."""

log = structlog.get_logger()

Run = Callable[[int], Awaitable[str | None]]
"""Run the handler for a minute (Unix ms); returns the outcome, None if another node runs it."""


class Schedule:
    """Schedule of one cron expression of one Worker."""

    def __init__(self, worker: str, expression: str, clock: Clock) -> None:
        self.worker = worker
        self.expression = expression
        self._cron = parse_cron(expression)
        self._clock = clock

    async def run(self, run: Run) -> None:
        """Call ``run`` at each minute that matches; a slow run does not delay the next."""
        last = self._clock.datetime()
        async with anyio.create_task_group() as runs:
            while True:
                now = self._clock.datetime()
                due = self._cron.next_after(max(last, now - LATE_MAX))
                if due is None:
                    return  # no date matches, such as 30 February
                if due <= now:
                    last = due
                    runs.start_soon(self._run_once, run, due)
                else:
                    await anyio.sleep(min((due - now).total_seconds(), LOOK_SECONDS))

    async def _run_once(self, run: Run, due: datetime) -> None:
        outcome = await run(round(due.timestamp() * 1000))
        if outcome not in {"ok", None}:
            log.error(
                "scheduled handler failed",
                worker=self.worker,
                cron=self.expression,
                outcome=outcome,
            )
