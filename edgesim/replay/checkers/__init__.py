"""What must hold when a replay is over, whatever went wrong on the way.

Each checker reads the history (what really happened) and the stores (what is there now), and says
what does not fit.  They know nothing of faults, nor faults of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from edgesim.replay.checkers import backlog, inserts, messages, notifications, records, traces
from edgesim.replay.world import World


class Violation(msgspec.Struct, frozen=True):
    """What is not as it must be."""

    checker: str
    problem: str


Checker = Callable[[World], Awaitable[list[str]]]

CHECKERS: dict[str, Checker] = {
    "no accepted record lost, none twice": records.check,
    "every object notified": notifications.check,
    "every message acked or dead": messages.check,
    "every object inserted once": inserts.check,
    "a trace for each invocation": traces.check,
    "backlog empty after calm": backlog.check,
}


async def check(world: World, chosen: Mapping[str, Checker]) -> list[Violation]:
    """Everything that the chosen ones find."""
    return [
        Violation(name, problem)
        for name, checker in chosen.items()
        for problem in await checker(world)
    ]
