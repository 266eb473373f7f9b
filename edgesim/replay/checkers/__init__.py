"""Invariants that must hold after a replay, whatever faults occurred.

Each checker compares the history (operations that really happened) with the stores (their current
content) and returns violations. Checkers and fault injection are independent of each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from edgesim.replay.checkers import backlog, inserts, messages, notifications, records, rows, traces
from edgesim.replay.world import World


class Violation(msgspec.Struct, frozen=True):
    """A violated invariant: the checker's name and the problem."""

    checker: str
    problem: str


Checker = Callable[[World], Awaitable[list[str]]]

CHECKERS: dict[str, Checker] = {
    "no accepted record lost, none twice": records.check,
    "every row of a stream in its sinks once": rows.check,
    "every object notified": notifications.check,
    "every message acked or dead": messages.check,
    "every object inserted once": inserts.check,
    "a trace for each invocation": traces.check,
    "backlog empty after calm": backlog.check,
}


async def check(world: World, chosen: Mapping[str, Checker]) -> list[Violation]:
    """Run the chosen checkers and return all violations."""
    return [
        Violation(name, problem)
        for name, checker in chosen.items()
        for problem in await checker(world)
    ]
