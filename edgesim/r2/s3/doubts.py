"""In-doubt writes: changes with an unknown outcome on the server, after a crash or a lost reply.

A server may make a change long after the client gave the request up: it held the request while it
could not write, or it was frozen.  So absence proves nothing.  A put that is absent after a short
settling time no longer blocks the outbox, but it stays in doubt for a day: it is polled ever more
rarely, and any read of that version of the object resolves it at once.  Its notification is lost
only if the object never appears.  (Tried and rejected: to treat a put as not made after one
second.  A Pipeline then found its object, wrote no other, and no notification was sent.)

A delete that was not made is given up after the settling time.  Its success cannot be
distinguished from a later change of the same object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec
import structlog

from edgesim.model import R2Object
from edgesim.r2.outbox import Intent, Outbox

SETTLED_SECONDS = 1.0
"""Time within which a server that was frozen usually makes the changes it has received."""
KEPT_SECONDS = 86_400.0

log = structlog.get_logger("edgesim.r2")

IsThere = Callable[[Intent], Awaitable[bool]]
"""Returns True if the server has the version of the object that the intent names."""


class _Absence(msgspec.Struct):
    """An absent change: time of the first check, time of the next one (event loop seconds)."""

    since: float
    next_look: float


class Doubts:
    """The in-doubt writes of an outbox."""

    def __init__(self, outbox: Outbox, is_there: IsThere) -> None:
        self._outbox = outbox
        self._is_there = is_there
        self._absent: dict[Intent, _Absence] = {}

    def __len__(self) -> int:
        return len(self._absent)

    def fresh(self) -> list[Intent]:
        """Changes within the settling time, which the server may be about to make."""
        now = anyio.current_time()
        return [
            intent for intent, each in self._absent.items() if now < each.since + SETTLED_SECONDS
        ]

    async def look(self) -> None:
        """Check each change that is due: often at first, then ever more rarely."""
        undecided = self._outbox.undecided()
        for intent in self._absent.keys() - set(undecided):
            del self._absent[intent]
        for intent in undecided:
            known = self._absent.get(intent)
            if known is None or anyio.current_time() >= known.next_look:
                there = await self._is_there(intent)
                if there != intent.deletes:
                    await self._decide(intent, happened=True)
                else:
                    await self._miss(intent)

    async def seen(self, bucket: str, found: R2Object) -> None:
        """Resolve the in-doubt put of an object version that was just read."""
        intent = Intent(bucket, found.key, found.version)
        if intent in self._absent:
            await self._decide(intent, happened=True)

    async def _miss(self, intent: Intent) -> None:
        now = anyio.current_time()
        known = self._absent.setdefault(intent, _Absence(now, now))
        age = now - known.since
        if age >= (SETTLED_SECONDS if intent.deletes else KEPT_SECONDS):
            await self._decide(intent, happened=False)
        elif age >= SETTLED_SECONDS:
            known.next_look = now + age

    async def _decide(self, intent: Intent, *, happened: bool) -> None:
        self._absent.pop(intent, None)
        await self._outbox.decide([intent], happened=happened)
        log.info("resolved an in-doubt change", key=intent.key, happened=happened)
