"""Dead-lettering: disposal of messages after their last delivery."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from edgesim.model import Message
from edgesim.queues.producer import Queue

log = structlog.get_logger()


class DeadLetters:
    """The dead-letter queue of ``queue``, if it has one; shared by push and pull consumers.

    ``dead``: messages moved there.  ``lost``: messages deleted because there is none.
    """

    def __init__(self, queue: Queue, name: str | None, dead_letter: Queue | None) -> None:
        if name != (dead_letter and dead_letter.name):
            raise ValueError(f"dead_letter is not the queue {name!r}")
        self.dead = 0
        self.lost = 0
        self._queue = queue
        self._dead_letter = dead_letter

    async def bury(self, messages: Sequence[Message]) -> None:
        """Move messages without further deliveries to the dead-letter queue, or delete them."""
        leases = [message.lease_id for message in messages]
        details = {
            "queue": self._queue.name,
            "messages": len(messages),
            "ids": [message.id for message in messages],
        }
        if self._dead_letter is None:
            self.lost += await self._queue.ack(leases)
            log.error("queue messages lost: no retries left, no dead-letter queue", **details)
        else:
            self.dead += await self._queue.move(leases, self._dead_letter)
            log.warning(
                "queue messages moved to the dead-letter queue",
                dead_letter_queue=self._dead_letter.name,
                **details,
            )
