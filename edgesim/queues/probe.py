"""Check of a message store, through any driver: sends and receives a message of maximum size.

It uses a temporary queue, which is removed afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from edgesim.clock import Clock
from edgesim.errors import PlatformError, RunError
from edgesim.model import Diagnosis
from edgesim.queues.driver import QueueDriver
from edgesim.queues.producer import MESSAGE_BYTES_MAX, METADATA_BYTES, Queue

TIDY_SECONDS = 5.0
_CURE = "see the log and the disk of the server"


async def probe(driver: QueueDriver, clock: Clock, where: str) -> AsyncIterator[Diagnosis]:
    """Check that a message can be sent, leased and acknowledged; report leftovers."""
    name = f"edgesim-doctor-{clock.hex_id()[:12]}"
    found = []
    try:
        found.append(await _round_trip(driver, name, clock, where))
    except (RunError, PlatformError) as error:
        found.append(Diagnosis("queues", "problem", error.problem, error.cure or _CURE))
    finally:
        found += await _tidy(driver, name)
    for finding in found:
        yield finding


async def _round_trip(driver: QueueDriver, name: str, clock: Clock, where: str) -> Diagnosis:
    queue, body = Queue(name, driver, clock), b"x" * (MESSAGE_BYTES_MAX - METADATA_BYTES)
    await queue.send(body, "text")
    leased = await driver.lease(name, 1, clock.now(), clock.now() + 60)
    await driver.ack(name, [message.lease_id for message in leased])
    if [message.body for message in leased] == [body]:
        return Diagnosis("queues", "ok", f"{where}: a message went there and came back")
    return Diagnosis("queues", "problem", f"{where}: a message that was taken is not there", _CURE)


async def _tidy(driver: QueueDriver, name: str) -> list[Diagnosis]:
    said = "it did not answer"
    with anyio.move_on_after(TIDY_SECONDS, shield=True):
        try:
            await driver.drop(name)
        except RunError as error:
            said = error.problem
        else:
            return []
    return [Diagnosis("queues", "warning", f"{name} may be left behind: {said}", "remove it there")]
