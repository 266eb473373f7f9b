"""A pull consumer: a client requests messages, leases them, and settles them by their leases.

Source: the platform's pull API (https://developers.cloudflare.com/queues/configuration/pull-consumers/).
A pull returns at once with the visible messages.  A message whose lease expires is visible again;
after ``max_retries`` + 1 deliveries it moves to the dead-letter queue, when it is released or when
the next pull finds it.  An expired lease may still be acked until the message is leased again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from edgesim.config.queues import (
    BATCH_SIZE_MAX,
    DELAY_SECONDS_MAX,
    VISIBILITY_MS_MAX,
    PullConfig,
)
from edgesim.errors import PlatformError
from edgesim.model import Message, Retry
from edgesim.queues.dead_letters import DeadLetters
from edgesim.queues.producer import Queue, is_delay


class Settled(msgspec.Struct, frozen=True):
    """Result of an ack call; ``warnings``, by lease id, concern ids that are not leases."""

    acks: int
    retries: int
    warnings: dict[str, str]


class PullConsumer:
    """The pull consumer of a queue; counters like those of Consumer."""

    def __init__(
        self, queue: Queue, settings: PullConfig, dead_letter: Queue | None = None
    ) -> None:
        self.queue = queue
        self.settings = settings
        self.delivered = 0
        self.retried = 0
        self._dead_letters = DeadLetters(queue, settings.dead_letter_queue, dead_letter)

    @property
    def dead(self) -> int:
        return self._dead_letters.dead

    @property
    def lost(self) -> int:
        return self._dead_letters.lost

    async def pull(
        self, batch_size: int | None = None, visibility_timeout_ms: int | None = None
    ) -> list[Message]:
        """Lease up to ``batch_size`` visible messages; PlatformError for invalid limits.

        Pass their ``lease_id`` to ``settle``.
        """
        settings = self.settings
        size = _checked("batch_size", batch_size, settings.max_batch_size, (1, BATCH_SIZE_MAX))
        visibility_ms = _checked(
            "visibility_timeout_ms",
            visibility_timeout_ms,
            settings.visibility_timeout_ms,
            (0, VISIBILITY_MS_MAX),
        )
        pulled: list[Message] = []
        while True:
            leased = await self.queue.lease(size - len(pulled), visibility_ms / 1000)
            pulled += [_lent(m) for m in leased if m.attempts <= settings.max_retries + 1]
            # The last lease of these expired: no client released them, so none was moved then.
            dead = [m for m in leased if m.attempts > settings.max_retries + 1]
            if dead:
                await self._dead_letters.bury(dead)
            # Leases of 0 ms have already expired: another lease would return the same messages.
            if not dead or len(pulled) == size or visibility_ms == 0:
                return pulled

    async def settle(self, acks: Sequence[str], retries: Sequence[Retry]) -> Settled:
        """End leases: acked messages are removed, retried ones redelivered (``id`` is the lease's).

        PlatformError for an invalid delay; nothing is settled then.
        """
        for retry in retries:
            if retry.delay_seconds is not None and not is_delay(retry.delay_seconds):
                raise PlatformError(
                    f"retry delay of {retry.delay_seconds} seconds is not within 0 and "
                    f"{DELAY_SECONDS_MAX} (10203)"
                )
        warnings: dict[str, str] = {}
        done = [message for each in acks if (message := _returned(each, warnings))]
        acked = await self.queue.ack([message.lease_id for message in done]) if done else 0
        self.delivered += acked
        retried = await self._retry(
            [
                (message, retry.delay_seconds)
                for retry in retries
                if (message := _returned(retry.id, warnings))
            ]
        )
        return Settled(acked, retried, warnings)

    async def _retry(self, retries: Sequence[tuple[Message, float | None]]) -> int:
        """Release messages with these delays, or dead-letter those without retries; their number.

        Grouped by delay, because a store flushes each call and a request may name thousands.
        """
        dead: list[Message] = []
        later: dict[float, list[str]] = {}
        for message, delay in retries:
            if message.attempts > self.settings.max_retries:
                dead.append(message)
            else:
                seconds = self.settings.retry_delay if delay is None else delay
                later.setdefault(seconds, []).append(message.lease_id)
        before = self.dead + self.lost
        if dead:
            await self._dead_letters.bury(dead)
        with_depth_margin = self.dead + self.lost - before
        released = 0
        for seconds, leases in later.items():
            released += await self.queue.release(leases, seconds)
        self.retried += released
        return with_depth_margin + released


def _checked(name: str, value: Any, default: int, limits: tuple[int, int]) -> int:
    if value is None:
        return default
    least, most = limits
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise PlatformError(f"{name} must be a whole number from {least} to {most}")
    return value


def _lent(message: Message) -> Message:
    """The message under a lease id that also encodes its attempts and id for the settle call."""
    token = msgspec.json.encode((message.attempts, message.id, message.lease_id))
    return replace(message, lease_id=base64.urlsafe_b64encode(token).decode())


def _returned(lease_id: str, warnings: dict[str, str]) -> Message | None:
    """Decode a lease id; None, with a warning, for an id that was never issued."""
    try:
        token = base64.b64decode(lease_id.encode(), altchars=b"-_", validate=True)
        attempts, message_id, lease = msgspec.json.decode(token, type=tuple[int, str, str])
    except (binascii.Error, UnicodeEncodeError, msgspec.DecodeError):
        warnings[lease_id] = "not a lease id"
        return None
    return Message(message_id, b"", "bytes", 0, attempts, lease)
