"""Search of queues: messages that contain a text, or that name an object that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio.lowlevel

from edgesim.observation.sighting import Needle, Sighting, cut, iso
from edgesim.queues.producer import Queue

MESSAGES_MAX = 1000
"""Messages of a queue that are read, oldest first."""


async def in_queue(
    queue: Queue, needle: Needle, keys: Sequence[str], dead_letters_of: Sequence[str]
) -> AsyncIterator[Sighting]:
    """Messages of a queue; ``keys`` are those of objects that contain the text.

    ``dead_letters_of``: the queues whose dead letters it takes.
    """
    objects = [Needle(key) for key in keys]
    for message in await queue.peek(MESSAGES_MAX):
        await anyio.lowlevel.checkpoint()
        named = [each.text for each in objects if each.is_in_bytes(message.body)]
        if not named and not needle.is_in_bytes(message.body):
            continue
        detail = {"id": message.id, "attempts": message.attempts}
        if named:
            detail["about"] = ", ".join(named)
        if dead_letters_of:
            detail["dead_letters_of"] = ", ".join(dead_letters_of)
        detail["body"] = cut(message.body.decode("utf-8", "replace"))
        yield Sighting("queue", queue.name, iso(message.timestamp_ms), detail)
    depth = await queue.depth()
    if depth.messages > MESSAGES_MAX:
        detail = {"messages": depth.messages - MESSAGES_MAX, "reason": "newer than those read"}
        yield Sighting("not searched", f"queue {queue.name}", detail=detail)
